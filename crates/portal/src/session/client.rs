//! The session of a client.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use adit_policy::{ActorId, ClientId, Resource, ResourceId};
use adit_protocol::client::{
    AuthorizationFailed, ConnectionClosed, DisconnectReason, Init, RequestAuthorization, ResourceRemoved,
    SignIn,
};
use adit_protocol::flow::Flows;
use adit_protocol::gateway::ClientGone;
use adit_protocol::{CandidateUpdate, ClientToPortal, PortalToClient, PortalToGateway};
use axum::extract::ws::WebSocket;
use tokio::time::Instant;

use super::link::{Ended, Link, Step};
use super::{Admitted, Caller, Pace, admit, attendee, note_end, renewal, still_valid, turn_away};
use crate::authorize::{Denied, Requester, authorize};
use crate::clock::{self, Deadline};
use crate::flow_log::Intake;
use crate::hub::{GivenRelays, Push, Receiver};
use crate::portal::{Portal, SharedPortal};
use crate::store::{Actor, Device, FlowClient, Reporter};

struct ClientSession<'a> {
    portal: &'a SharedPortal,
    link: &'a mut Link,
    caller: &'a Caller,
    device: &'a Admitted,
    actor: &'a Actor,
    began_ms: i64,
    /// The sign-in, as the client was told of it.
    sign_in: SignIn,
    /// When the token ends.
    expires_ms: Option<i64>,
    /// Events up to here are part of what the client knows.
    seq: i64,
    /// What the client was told of each resource: a fingerprint, since thousands of sessions
    /// would otherwise each hold the same resources.
    visible: BTreeMap<ResourceId, u64>,
    /// When time alone may have changed what is visible.
    look_again: Option<Deadline>,
    relays: GivenRelays,
    requests: Pace,
    relay_requests: Pace,
    /// Of what costs the store or other peers something and gets no answer.
    notices: Pace,
    flows: Intake,
}

/// Serves one client from hello to the end.
pub(super) async fn serve(portal: SharedPortal, socket: WebSocket, caller: Caller, actor: Actor) {
    let mut link = Link::new(socket, caller.expires_ms);
    let began_ms = clock::now_ms();
    let actor_id = ActorId::from_uuid(actor.id);
    let hello = match link.hello::<ClientToPortal>().await {
        Ok(ClientToPortal::Hello(hello)) => hello,
        Ok(_) => return Box::pin(turn_away::<PortalToClient>(link, "client", &Ended::NoHello)).await,
        Err(ended) => return Box::pin(turn_away::<PortalToClient>(link, "client", &ended)).await,
    };
    // What is done rarely is boxed, here and below: a session is as large as the largest thing
    // that it ever does, and nearly all of the time it waits.
    let device = match Box::pin(admit(&portal, &caller, Device::Client(actor_id), &hello)).await {
        Ok(device) => device,
        Err(ended) => return Box::pin(turn_away::<PortalToClient>(link, "client", &ended)).await,
    };
    let id = ClientId::from_uuid(device.id);
    let mut hub = portal.hub.join_client(id, actor_id, attendee(&caller, &hello));
    tracing::info!(client = %id, "client connected");
    tracing::debug!(client = %id, name = device.name, actor = actor.name, address = caller.address, "who it is");
    let mut session = ClientSession {
        portal: &portal,
        link: &mut link,
        caller: &caller,
        device: &device,
        actor: &actor,
        began_ms,
        sign_in: SignIn { authenticated_at_ms: None, expires_at_ms: None, is_too_old: false },
        expires_ms: caller.expires_ms,
        seq: 0,
        visible: BTreeMap::new(),
        look_again: None,
        relays: GivenRelays::new(device.id, caller.expires_ms),
        requests: Pace::new(Instant::now(), 50.0, 200.0),
        relay_requests: Pace::new(Instant::now(), 0.2, 5.0),
        notices: Pace::new(Instant::now(), 20.0, 500.0),
        flows: Intake::default(),
    };
    let ended = match session.run(&mut hub).await {
        Err(ended) => ended,
        Ok(never) => match never {},
    };
    let seq = session.seq;
    Box::pin(link.flush(&mut hub, seq, &ended)).await;
    if portal.hub.leave_client(id, hub.session) {
        Box::pin(gone(&portal, id)).await;
    }
    note_end("client", &id, &ended);
    Box::pin(link.close::<PortalToClient>(&ended)).await;
}

/// Tells two states of a resource apart. It is not a secret, and nobody gains by two that look alike:
/// who may choose a resource's name can also leave it as it is.
fn fingerprint(resource: &Resource) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(resource).unwrap_or_default().hash(&mut hasher);
    hasher.finish()
}

/// Tells the gateways that know a client that its session is lost: a hint.
async fn gone(portal: &Portal, id: ClientId) {
    match portal.store.gateways_of(id, clock::now_ms()).await {
        Ok(gateways) => gateways.into_iter().for_each(|gateway| {
            portal.hub.tell_gateway(gateway, None, PortalToGateway::ClientGone(ClientGone { client: id }));
        }),
        Err(error) => tracing::error!(%error, "cannot tell gateways of a lost client"),
    }
}

impl ClientSession<'_> {
    const fn id(&self) -> ClientId {
        ClientId::from_uuid(self.device.id)
    }

    const fn actor_id(&self) -> ActorId {
        ActorId::from_uuid(self.actor.id)
    }

    async fn run(&mut self, hub: &mut Receiver<PortalToClient>) -> Result<std::convert::Infallible, Ended> {
        Box::pin(still_valid(self.portal, self.caller)).await?;
        Box::pin(self.init()).await?;
        loop {
            let alarm = renewal(&self.relays).into_iter().chain(self.next_look()).min();
            match self.link.step::<ClientToPortal, _>(hub, alarm).await? {
                Step::Received(message) => Box::pin(self.received(message)).await?,
                Step::Push(push) => Box::pin(self.pushed(push)).await?,
                Step::Alarm => Box::pin(self.alarm()).await?,
            }
        }
    }

    fn next_look(&self) -> Option<Instant> {
        self.look_again.map(Deadline::instant)
    }

    async fn alarm(&mut self) -> Result<(), Ended> {
        self.update_relays().await?;
        if self.look_again.is_some_and(Deadline::has_passed) {
            self.look_again().await?;
        }
        Ok(())
    }

    async fn init(&mut self) -> Result<(), Ended> {
        let snapshot = self.portal.store.client_snapshot(self.id(), self.actor_id(), clock::now_ms()).await?;
        self.seq = snapshot.seq;
        let resources = snapshot.visible.resources;
        self.visible = resources.iter().map(|resource| (resource.id, fingerprint(resource))).collect();
        self.look_again = snapshot.visible.look_again_ms.map(Deadline::new);
        // After the snapshot: a renewal that is not a part of it is still to come as an event.
        self.sign_in = self.read_sign_in(snapshot.visible.is_too_old).await?;
        let init = Init {
            portal_time_ms: clock::wire_ms(clock::now_ms()),
            client: self.id(),
            actor_name: self.actor.name.clone(),
            interface: self.portal.account().interface(self.device.address_index),
            resources,
            relays: self.relays.again(&self.portal.hub).added,
            authorizations: snapshot.authorizations,
            session_expires_at_ms: self.sign_in.expires_at_ms,
            keeps_flows: self.portal.store.flow_setting().await?.is_from_clients(),
        };
        self.link.send(&PortalToClient::Init(init)).await?;
        self.link.send(&PortalToClient::SignIn(self.sign_in)).await
    }

    /// What the session rests on now; its end is taken over.
    async fn read_sign_in(&mut self, is_too_old: bool) -> Result<SignIn, Ended> {
        let token = self.portal.store.token(self.caller.token).await?;
        let token = token.filter(|token| token.revoked_ms.is_none());
        let token = token.ok_or(Ended::Disconnected(DisconnectReason::RevokedToken))?;
        if token.expires_ms != self.expires_ms {
            self.expires_ms = token.expires_ms;
            self.link.set_end(token.expires_ms);
            self.relays.set_session_end(token.expires_ms);
        }
        Ok(SignIn {
            authenticated_at_ms: token.authenticated_ms.map(clock::wire_ms),
            expires_at_ms: token.expires_ms.map(clock::wire_ms),
            is_too_old,
        })
    }

    /// Says what the session rests on, if that is not what the client knows.
    async fn tell_sign_in(&mut self, sign_in: SignIn) -> Result<(), Ended> {
        if sign_in == self.sign_in {
            return Ok(());
        }
        self.sign_in = sign_in;
        self.link.send(&PortalToClient::SignIn(sign_in)).await
    }

    /// Somebody has signed in again: what was granted goes on, and more may be to be had.
    async fn renewed(&mut self) -> Result<(), Ended> {
        let sign_in = self.read_sign_in(self.sign_in.is_too_old).await?;
        self.tell_sign_in(sign_in).await?;
        self.look_again().await?;
        self.update_relays().await
    }

    async fn pushed(&mut self, push: Push<PortalToClient>) -> Result<(), Ended> {
        match push {
            Push::Message { seq, message } if seq.is_none_or(|seq| seq > self.seq) => {
                self.link.send(&*message).await
            }
            Push::VisibilityChanged { seq } if seq > self.seq => self.look_again().await,
            Push::TokenRenewed { seq } if seq > self.seq => Box::pin(self.renewed()).await,
            Push::RelaysChanged => self.update_relays().await,
            Push::Message { .. }
            | Push::VisibilityChanged { .. }
            | Push::TokenRenewed { .. }
            | Push::Probe(_) => Ok(()),
        }
    }

    /// Compares what the client sees with what it should see, and says the difference;
    /// removals first, so that a resource can take another's place.
    async fn look_again(&mut self) -> Result<(), Ended> {
        let store = &self.portal.store;
        let visible = store.visible_resources(self.actor_id(), self.id(), clock::now_ms()).await?;
        self.look_again = visible.look_again_ms.map(Deadline::new);
        let is_too_old = visible.is_too_old;
        let resources = visible.resources;
        let now = resources.iter().map(|resource| (resource.id, fingerprint(resource))).collect();
        let before = std::mem::replace(&mut self.visible, now);
        for id in before.keys().filter(|id| !self.visible.contains_key(id)) {
            self.link.send(&PortalToClient::ResourceRemoved(ResourceRemoved { id: *id })).await?;
        }
        for resource in resources {
            if before.get(&resource.id) != self.visible.get(&resource.id) {
                self.link.send(&PortalToClient::ResourceChanged(resource)).await?;
            }
        }
        self.tell_sign_in(SignIn { is_too_old, ..self.sign_in }).await
    }

    async fn update_relays(&mut self) -> Result<(), Ended> {
        match self.relays.update(&self.portal.hub) {
            Some(change) => self.link.send(&PortalToClient::RelaysChanged(change)).await,
            None => Ok(()),
        }
    }

    async fn received(&mut self, message: ClientToPortal) -> Result<(), Ended> {
        match message {
            ClientToPortal::Hello(_) => Err(Ended::Misbehaved("hello was said already")),
            ClientToPortal::RequestAuthorization(request) => self.request(request).await,
            ClientToPortal::Candidates(_) | ClientToPortal::ConnectionClosed(_)
                if !self.notices.allows(Instant::now()) =>
            {
                // Forgetting one would leave a lease or a candidate behind; a new session says all again.
                Err(Ended::Misbehaved("too many messages"))
            }
            ClientToPortal::Candidates(update) => self.candidates(update).await,
            ClientToPortal::RequestRelays(_) => {
                if !self.relay_requests.allows(Instant::now()) {
                    return Ok(());
                }
                let all = self.relays.again(&self.portal.hub);
                self.link.send(&PortalToClient::RelaysChanged(all)).await
            }
            ClientToPortal::ConnectionClosed(closed) => self.connection_closed(closed).await,
            ClientToPortal::Flows(batch) => self.store_flows(batch),
            ClientToPortal::SignOut(_) => self.sign_out().await,
        }
    }

    fn reporter(&self) -> Reporter {
        Reporter::Client(FlowClient {
            client_id: self.device.id,
            client_name: self.device.name.clone(),
            actor_id: self.actor.id,
            actor_name: self.actor.name.clone(),
        })
    }

    fn store_flows(&mut self, batch: Flows) -> Result<(), Ended> {
        let reporter = self.reporter();
        match self.flows.take(self.portal, reporter, self.device.by(self.caller), batch) {
            true => Ok(()),
            false => Err(Ended::Misbehaved("too many reports of flows in one batch")),
        }
    }

    async fn request(&mut self, mut request: RequestAuthorization) -> Result<(), Ended> {
        request.connected_gateways.truncate(super::MAX_ENTRIES);
        request.avoid_gateways.truncate(super::MAX_ENTRIES);
        let (request_id, resource) = (request.request_id, request.resource);
        let who = Requester {
            client: self.id(),
            actor: self.actor_id(),
            token: self.caller.token,
            session_expires_ms: self.expires_ms,
            session_began_ms: self.began_ms,
        };
        let answer = if self.requests.allows(Instant::now()) {
            authorize(self.portal, who, request).await
        } else {
            Err(Denied::UNAVAILABLE)
        };
        let denied = match answer {
            Ok(id) => {
                tracing::info!(authorization = %id, client = %self.id(), %resource, "access granted");
                metrics::counter!("adit_portal_authorizations_total", "answer" => "granted").increment(1);
                return Ok(());
            }
            Err(denied) => denied,
        };
        metrics::counter!("adit_portal_authorizations_total", "answer" => "denied").increment(1);
        let failed = AuthorizationFailed {
            request_id,
            resource,
            reason: denied.reason,
            retry_after_ms: denied.retry_after_ms,
        };
        self.link.send(&PortalToClient::AuthorizationFailed(failed)).await
    }

    async fn candidates(&mut self, mut update: CandidateUpdate) -> Result<(), Ended> {
        update.added.truncate(super::MAX_ENTRIES);
        update.removed.truncate(super::MAX_ENTRIES);
        let peers = self.portal.store.gateways_of(self.id(), clock::now_ms()).await?;
        self.portal.hub.change_client_candidates(self.id(), &peers, &update);
        Ok(())
    }

    async fn connection_closed(&mut self, closed: ConnectionClosed) -> Result<(), Ended> {
        let mut change = self.portal.store.change(&self.device.by(self.caller)).await?;
        if change.close_connection(self.id(), closed.gateway, closed.epoch).await? {
            change.commit().await?;
        }
        Ok(())
    }

    /// Ends the session on the server. A person's token dies with it; a service account's is
    /// shared by machines and stays.
    async fn sign_out(&mut self) -> Result<(), Ended> {
        let token = (self.actor.kind == "user").then_some(self.caller.token);
        let mut change = self.portal.store.change(&self.device.by(self.caller)).await?;
        change.sign_out(self.id(), token).await?;
        // Nobody will report on them any more: whoever signs in next is another one.
        change.close_flows_of(&self.reporter()).await?;
        change.commit().await?;
        Err(Ended::Disconnected(DisconnectReason::RevokedToken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size of what a function returns.
    const fn size<A, B, C, D, R>(_: fn(A, B, C, D) -> R) -> usize {
        size_of::<R>()
    }

    /// There may be tens of thousands of them.
    #[test]
    fn a_session_that_waits_is_small() {
        let bytes = size(serve);
        assert!(bytes <= 4096, "{bytes} bytes");
    }
}
