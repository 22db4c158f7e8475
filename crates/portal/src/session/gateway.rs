//! The session of a gateway.

use std::time::Duration;

use adit_policy::{GatewayId, Site};
use adit_protocol::client::GatewayGone;
use adit_protocol::gateway::{ConnectionClosed, GatewayAuthorization, Init};
use adit_protocol::{CandidateUpdate, GatewayToPortal, PortalToClient, PortalToGateway};
use axum::extract::ws::WebSocket;
use tokio::time::Instant;

use super::link::{Ended, Link, Step};
use super::{Admitted, Caller, Pace, admit, attendee, note_end, renewal, still_valid, turn_away};
use crate::clock;
use crate::flow_log::Intake;
use crate::hub::{GivenRelays, Push, Receiver};
use crate::portal::{Portal, SharedPortal};
use crate::store::{Device, Lease, Reporter};

struct GatewaySession<'a> {
    portal: &'a SharedPortal,
    link: &'a mut Link,
    caller: &'a Caller,
    device: &'a Admitted,
    site: &'a Site,
    /// Events up to here are part of what the gateway knows.
    seq: i64,
    relays: GivenRelays,
    relay_requests: Pace,
    flows: Intake,
}

/// Serves one gateway from hello to the end.
pub(super) async fn serve(portal: SharedPortal, socket: WebSocket, caller: Caller, site: Site) {
    let mut link = Link::new(socket, caller.expires_ms);
    let hello = match link.hello::<GatewayToPortal>().await {
        Ok(GatewayToPortal::Hello(hello)) => hello,
        Ok(_) => return turn_away::<PortalToGateway>(link, "gateway", &Ended::NoHello).await,
        Err(ended) => return turn_away::<PortalToGateway>(link, "gateway", &ended).await,
    };
    let device = match admit(&portal, &caller, Device::Gateway(site.id), &hello).await {
        Ok(device) => device,
        Err(ended) => return turn_away::<PortalToGateway>(link, "gateway", &ended).await,
    };
    let id = GatewayId::from_uuid(device.id);
    let mut hub = portal.hub.join_gateway(id, site.id, device.version.clone(), attendee(&caller, &hello));
    tracing::info!(gateway = %id, site = %site.id, "gateway connected");
    tracing::debug!(gateway = %id, name = device.name, site = site.name, address = caller.address, "who it is");
    let mut session = GatewaySession {
        portal: &portal,
        link: &mut link,
        caller: &caller,
        device: &device,
        site: &site,
        seq: 0,
        relays: GivenRelays::new(device.id, caller.expires_ms),
        relay_requests: Pace::new(Instant::now(), 0.2, 5.0),
        flows: Intake::default(),
    };
    let ended = match session.run(&mut hub).await {
        Err(ended) => ended,
        Ok(never) => match never {},
    };
    let seq = session.seq;
    link.flush(&mut hub, seq, &ended).await;
    if portal.hub.leave_gateway(id, hub.session) {
        gone(&portal, id).await;
    }
    note_end("gateway", &id, &ended);
    link.close::<PortalToGateway>(&ended).await;
}

/// Tells the clients that use a gateway that its session is lost: a hint.
async fn gone(portal: &Portal, id: GatewayId) {
    match portal.store.clients_of(id, clock::now_ms()).await {
        Ok(clients) => clients.into_iter().for_each(|client| {
            portal.hub.tell_client(client, None, PortalToClient::GatewayGone(GatewayGone { gateway: id }));
        }),
        Err(error) => tracing::error!(%error, "cannot tell clients of a lost gateway"),
    }
}

impl GatewaySession<'_> {
    const fn id(&self) -> GatewayId {
        GatewayId::from_uuid(self.device.id)
    }

    async fn run(&mut self, hub: &mut Receiver<PortalToGateway>) -> Result<std::convert::Infallible, Ended> {
        still_valid(self.portal, self.caller).await?;
        self.init().await?;
        loop {
            match self.link.step::<GatewayToPortal, _>(hub, renewal(&self.relays)).await? {
                Step::Received(message) => self.received(message).await?,
                Step::Push(Push::Message { seq, message }) => {
                    if seq.is_none_or(|seq| seq > self.seq) {
                        self.link.send(&*message).await?;
                    }
                }
                Step::Push(Push::RelaysChanged) | Step::Alarm => self.update_relays().await?,
                Step::Push(Push::VisibilityChanged { .. } | Push::TokenRenewed { .. } | Push::Probe(_)) => {}
            }
        }
    }

    async fn init(&mut self) -> Result<(), Ended> {
        let now_ms = clock::now_ms();
        let snapshot = self.portal.store.gateway_snapshot(self.id(), now_ms).await?;
        self.seq = snapshot.seq;
        let authorizations = snapshot
            .leases
            .iter()
            .map(|lease| self.authorization(lease))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| Ended::Failed(error.to_string()))?;
        let init = Init {
            portal_time_ms: clock::wire_ms(clock::now_ms()),
            gateway: self.id(),
            site: self.site.clone(),
            interface: self.portal.account().interface(self.device.address_index),
            relays: self.relays.again(&self.portal.hub).added,
            authorizations,
            keeps_flows: self.portal.store.flow_setting().await?.is_from_gateways(),
        };
        self.link.send(&PortalToGateway::Init(init)).await
    }

    fn authorization(&self, lease: &Lease) -> Result<GatewayAuthorization, crate::credential::NoRandomness> {
        let mut authorization = self.portal.gateway_authorization(lease)?;
        authorization.client.candidates = self.portal.hub.client_candidates(authorization.client.id);
        Ok(authorization)
    }

    async fn update_relays(&mut self) -> Result<(), Ended> {
        match self.relays.update(&self.portal.hub) {
            Some(change) => self.link.send(&PortalToGateway::RelaysChanged(change)).await,
            None => Ok(()),
        }
    }

    async fn received(&mut self, message: GatewayToPortal) -> Result<(), Ended> {
        match message {
            GatewayToPortal::Hello(_) => Err(Ended::Misbehaved("hello was said already")),
            GatewayToPortal::Candidates(update) => self.candidates(update).await,
            GatewayToPortal::RequestRelays(_) => {
                if !self.relay_requests.allows(Instant::now()) {
                    return Ok(());
                }
                let all = self.relays.again(&self.portal.hub);
                self.link.send(&PortalToGateway::RelaysChanged(all)).await
            }
            GatewayToPortal::Draining(draining) => {
                tracing::info!(gateway = %self.id(), retry_after_ms = ?draining.retry_after_ms, "gateway drains");
                let back_within = draining.retry_after_ms.map(Duration::from_millis);
                self.portal.hub.set_draining(self.id(), back_within);
                Ok(())
            }
            GatewayToPortal::ConnectionClosed(closed) => self.connection_closed(closed).await,
            GatewayToPortal::Flows(batch) => {
                let reporter = Reporter::Gateway { id: self.id(), name: self.device.name.clone() };
                match self.flows.take(self.portal, reporter, self.device.by(self.caller), batch) {
                    true => Ok(()),
                    false => Err(Ended::Misbehaved("too many reports of flows in one batch")),
                }
            }
        }
    }

    async fn candidates(&mut self, mut update: CandidateUpdate) -> Result<(), Ended> {
        update.added.truncate(super::MAX_ENTRIES);
        update.removed.truncate(super::MAX_ENTRIES);
        let peers = self.portal.store.clients_of(self.id(), clock::now_ms()).await?;
        self.portal.hub.change_gateway_candidates(self.id(), &peers, &update);
        Ok(())
    }

    async fn connection_closed(&mut self, closed: ConnectionClosed) -> Result<(), Ended> {
        let mut change = self.portal.store.change(&self.device.by(self.caller)).await?;
        if change.close_connection(closed.client, self.id(), closed.epoch).await? {
            change.commit().await?;
        }
        Ok(())
    }
}
