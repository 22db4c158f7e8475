//! Delivers what was committed, and forgets what has expired.
//!
//! One task reads the outbox in commit order and hands each event to the hub. It is woken by
//! every change and looks once a second besides, so that nothing depends on a wake-up. After a
//! restart it finds what was committed but never pushed; nobody is connected then, and whoever
//! connects gets the complete state, so replaying is cheap and repeats are harmless.

use std::collections::BTreeMap;
use std::time::Duration;

use adit_policy::AuthorizationId;
use adit_protocol::client::{self, AuthorizationFailed, FailureReason};
use adit_protocol::{PortalToClient, PortalToGateway, gateway};

use crate::authorize::OFFLINE_PATIENCE;
use crate::clock::{self, Evenness};
use crate::portal::{Portal, SharedPortal};
use crate::store::{By, Event, Lease, Revoke, StoreError, latest_end};

/// How long an event waits at most if its wake-up was lost.
const POLL: Duration = Duration::from_secs(1);

/// The longest sleep of the task that deletes expired leases: a clock that was set is noticed within this time.
const LONGEST_SLEEP: Duration = Duration::from_secs(5);

/// How often old entries of the audit log are looked for.
const RETENTION_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Delivers events until the task is aborted.
pub(crate) async fn run(portal: SharedPortal) {
    loop {
        match deliver_all(&portal).await {
            Ok(()) => {
                if tokio::time::timeout(POLL, portal.store.committed()).await.is_ok() {
                    portal.hub.note_activity();
                }
            }
            Err(error) => {
                tracing::error!(%error, "cannot deliver events");
                tokio::time::sleep(POLL).await;
            }
        }
    }
}

/// Delivers everything that is committed now.
pub(crate) async fn deliver_all(portal: &Portal) -> Result<(), StoreError> {
    loop {
        let events = portal.store.undelivered().await?;
        if events.is_empty() {
            return Ok(());
        }
        let leases = leases(portal, &events).await?;
        for (seq, event) in events {
            match event {
                Some(event) => deliver(portal, seq, &event, &leases).await?,
                None => tracing::error!(seq, "an event cannot be read and is skipped"),
            }
            portal.store.mark_delivered(seq);
        }
    }
}

/// The leases that a batch of events introduces, by their ids, read at once. One that is revoked meanwhile is introduced
/// all the same: its revocation follows.
async fn leases(
    portal: &Portal,
    events: &[(i64, Option<Event>)],
) -> Result<BTreeMap<AuthorizationId, Lease>, StoreError> {
    let introduced = |(_, event): &(i64, Option<Event>)| match event {
        Some(Event::AuthorizationCreated { id, .. }) => Some(*id),
        _ => None,
    };
    let ids: Vec<AuthorizationId> = events.iter().filter_map(introduced).collect();
    let leases = portal.store.leases(&ids, clock::now_ms()).await?;
    Ok(leases.into_iter().map(|lease| (lease.id, lease)).collect())
}

async fn deliver(
    portal: &Portal,
    seq: i64,
    event: &Event,
    leases: &BTreeMap<AuthorizationId, Lease>,
) -> Result<(), StoreError> {
    let hub = &portal.hub;
    match event {
        // Without a lease it was revoked meanwhile: its own event follows.
        Event::AuthorizationCreated { id, request_id } => {
            if let Some(lease) = leases.get(id) {
                introduce(portal, seq, lease, *request_id).await?;
            }
        }
        Event::AuthorizationRevoked { id, client, gateway, resource } => {
            let (id, client, gateway, resource) = (*id, *client, *gateway, *resource);
            // The gateway first: it is the one that enforces.
            let revoked = gateway::AuthorizationRevoked { id, client, resource };
            hub.tell_gateway(gateway, Some(seq), PortalToGateway::AuthorizationRevoked(revoked));
            let revoked = client::AuthorizationRevoked { id, resource, gateway };
            hub.tell_client(client, Some(seq), PortalToClient::AuthorizationRevoked(revoked));
        }
        Event::VisibilityChanged { actors } => hub.visibility_changed(seq, actors),
        Event::ResourceChanged { id } => {
            let gateways = portal.store.gateways_for(*id, clock::now_ms()).await?;
            match portal.store.resource(*id).await {
                Ok(resource) => gateways.into_iter().for_each(|gateway| {
                    let message = PortalToGateway::ResourceChanged(resource.clone());
                    hub.tell_gateway(gateway, Some(seq), message);
                }),
                Err(StoreError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Event::SettingsChanged => {
            portal.set_account(portal.store.account().await?);
            hub.restart_clients();
        }
        Event::FlowLogChanged { from_gateways, from_clients } => {
            hub.flow_log_changed(seq, *from_gateways, *from_clients);
        }
        Event::TokenRevoked { id } => hub.end_token(*id),
        Event::TokenRenewed { id } => hub.token_renewed(seq, *id),
        Event::DeviceDeleted { id } => hub.end_device(*id),
    }
    metrics::counter!("adit_portal_events_total").increment(1);
    Ok(())
}

async fn introduce(portal: &Portal, seq: i64, lease: &Lease, request_id: u64) -> Result<(), StoreError> {
    let (to_client, to_gateway) =
        portal.introduction(lease, request_id).map_err(|error| StoreError::Invalid(error.to_string()))?;
    let (client, resource) = (to_gateway.client.id, lease.resource.id);
    if portal.hub.introduce(seq, to_client, to_gateway) || !portal.hub.is_here(client) {
        return Ok(());
    }
    // The gateway left between choice and introduction. Its lease would only mislead. The node
    // of the client, which waits for an answer, takes it back.
    let mut change = portal.store.change(&By::system()).await?;
    change.revoke(Revoke::One(lease.id)).await?;
    change.commit().await?;
    let failed = AuthorizationFailed {
        request_id,
        resource,
        reason: FailureReason::Offline,
        retry_after_ms: Some(OFFLINE_PATIENCE),
    };
    portal.hub.tell_client(client, Some(seq), PortalToClient::AuthorizationFailed(failed));
    Ok(())
}

/// Deletes leases when their time is over, until the task is aborted.
///
/// Peers need no message, unless the clock was set: each has the lease's end on a timer of its own.
pub(crate) async fn expire(portal: SharedPortal) {
    loop {
        let sleep = match portal.store.lease_ends().await {
            Ok(Some((next_ms, _))) => clock::until(next_ms).min(LONGEST_SLEEP),
            Ok(None) => LONGEST_SLEEP,
            Err(error) => {
                tracing::error!(%error, "cannot look for expired leases");
                LONGEST_SLEEP
            }
        };
        // Leases that are granted meanwhile are at least this long.
        tokio::time::sleep(sleep.max(POLL)).await;
        if let Err(error) = delete_expired(&portal).await {
            tracing::error!(%error, "cannot delete expired leases");
        }
    }
}

pub(crate) async fn delete_expired(portal: &Portal) -> Result<(), StoreError> {
    let now_ms = clock::now_ms();
    let is_any = |(next_ms, last_ms)| next_ms <= now_ms || last_ms > latest_end(now_ms);
    if !portal.store.lease_ends().await?.is_some_and(is_any) {
        return Ok(());
    }
    let mut change = portal.store.change(&By::system()).await?;
    let deleted = change.delete_expired().await?;
    change.commit().await?;
    metrics::counter!("adit_portal_leases_expired_total").increment(deleted as u64);
    Ok(())
}

/// Forgets entries of the audit log that are older than `keep`, until the task is aborted.
pub(crate) async fn forget_audit(portal: SharedPortal, keep: Duration, mut clock: Evenness) {
    let keep_ms = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
    loop {
        let now_ms = clock::now_ms();
        if clock.holds(tokio::time::Instant::now(), now_ms)
            && let Err(error) = forget_audit_before(&portal, now_ms.saturating_sub(keep_ms)).await
        {
            tracing::error!(%error, "cannot forget old entries of the audit log");
        }
        tokio::time::sleep(RETENTION_INTERVAL).await;
    }
}

async fn forget_audit_before(portal: &Portal, before_ms: i64) -> Result<(), StoreError> {
    let mut change = portal.store.change(&By::system()).await?;
    if change.forget_audit(before_ms).await? > 0 {
        change.commit().await?;
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use adit_policy::{ActorId, ClientId, Conditions, GatewayId, GroupId, ResourceAddress, SiteId, TokenId};
    use adit_protocol::client::RequestAuthorization;
    use adit_protocol::{EncodedKey, Hello, IceCredentials};
    use uuid::Uuid;

    use super::*;
    use crate::authorize::{Requester, Waiting, authorize};
    use crate::connect_limit::ConnectLimit;
    use crate::credential::Secrets;
    use crate::hub::{Attendee, Hub, Push, Receiver};
    use crate::nodes::Node;
    use crate::store::{
        ActorKind, Change, ConnectionIce, Database, Device, DeviceHello, NewAccount, NewAuthorization,
        NewEpoch, NewToken, ResourceSpec, Role, Store, TokenKind, on_both_databases,
    };

    fn account() -> NewAccount {
        NewAccount {
            name: "default".to_owned(),
            ipv4_range: "100.64.0.0/11".parse().unwrap(),
            ipv6_range: "fd00::/107".parse().unwrap(),
            ipv4_proxy_range: "100.96.0.0/11".parse().unwrap(),
            ipv6_proxy_range: "fd00::20:0/107".parse().unwrap(),
            dns_upstreams: Vec::new(),
            search_domains: Vec::new(),
        }
    }

    fn secrets() -> Secrets {
        Secrets::new(&[1; 32], &[2; 32])
    }

    async fn token(
        change: &mut Change,
        kind: TokenKind,
        actor: Option<ActorId>,
        site: Option<SiteId>,
    ) -> NewToken {
        let minted = secrets().mint(kind).unwrap();
        let (id, hash) = (minted.id, minted.hash);
        let token = NewToken { id, kind, name: "t".to_owned(), hash, actor, site, expires_ms: None };
        change.create_token(&token).await.unwrap();
        token
    }

    pub(crate) async fn device(change: &mut Change, device: Device, key: u8, token: TokenId) -> Uuid {
        let hello = Hello {
            revision: 1,
            device_id: Uuid::from_u128(u128::from(key)),
            name: "device".to_owned(),
            public_key: EncodedKey([key; 32]),
            version: "1.0.0".to_owned(),
            capabilities: Vec::new(),
        };
        let address = String::new();
        let signed_in = DeviceHello { device, hello: &hello, token, address, capacity: 1 << 21 };
        change.sign_in(&signed_in).await.unwrap().id
    }

    fn ice() -> ConnectionIce {
        let credentials = || IceCredentials { ufrag: "ufrag".to_owned(), password: "password".to_owned() };
        ConnectionIce { client: credentials(), gateway: credentials() }
    }

    /// A database with one lease; nothing was ever pushed.
    pub(crate) async fn with_lease(database: &Database) -> (ClientId, GatewayId, AuthorizationId) {
        let store = Store::open(database, true).await.unwrap();
        let mut change = store.change(&By::system()).await.unwrap();
        change.create_account(&account()).await.unwrap();
        let group = GroupId::from_uuid(change.create_group("everyone", true).await.unwrap().id);
        let actor =
            ActorId::from_uuid(change.create_actor(ActorKind::User, "ana", Role::None).await.unwrap().id);
        let site = change.create_site("office").await.unwrap().id;
        let address = ResourceAddress::Internet;
        let spec = ResourceSpec { name: "all".to_owned(), address, site, filters: Vec::new() };
        let resource = change.create_resource(&spec).await.unwrap();
        let policy = change.create_policy(group, resource, &Conditions::default()).await.unwrap();
        let client_token = token(&mut change, TokenKind::Client, Some(actor), None).await;
        let gateway_token = token(&mut change, TokenKind::Gateway, None, Some(site)).await;
        let client =
            ClientId::from_uuid(device(&mut change, Device::Client(actor), 1, client_token.id).await);
        let gateway =
            GatewayId::from_uuid(device(&mut change, Device::Gateway(site), 2, gateway_token.id).await);
        change.begin_epochs(&[NewEpoch { client, gateway, ice: ice() }]).await.unwrap();
        let expires_ms = clock::now_ms() + 60_000;
        let token = client_token.id;
        let lease = NewAuthorization { client, gateway, resource, policy, token, request_id: 1, expires_ms };
        let id = change.authorize(&[lease]).await.unwrap()[0];
        change.commit().await.unwrap();
        store.close().await;
        (client, gateway, id)
    }

    pub(crate) async fn portal(database: &Database) -> Portal {
        let store = Store::open(database, false).await.unwrap();
        let account = std::sync::RwLock::new(Arc::new(store.account().await.unwrap()));
        let limit = ConnectLimit::new(Instant::now());
        Portal {
            store,
            hub: Hub::default(),
            requests: Waiting::default(),
            node: Node::new(),
            secrets: secrets(),
            account,
            limit,
            sign_in: crate::web::SignIn::new(),
            authority: None,
        }
    }

    /// The crash between commit and push: the next process finds and delivers the events.
    async fn what_was_committed_is_delivered_by_the_next_process(database: Database) {
        let (_, gateway, id) = with_lease(&database).await;
        let dying = portal(&database).await;
        let mut change = dying.store.change(&By::system()).await.unwrap();
        change.revoke_authorization(id).await.unwrap();
        change.commit().await.unwrap();
        dying.store.close().await;

        let next = portal(&database).await;
        let who = Attendee {
            token: adit_policy::TokenId::from_uuid(Uuid::nil()),
            key: EncodedKey([2; 32]),
            address: String::new(),
        };
        let site = next.store.sites(crate::store::Page::FIRST).await.unwrap()[0].id;
        let mut line = next.hub.join_gateway(gateway, site, semver::Version::new(1, 0, 0), who);
        deliver_all(&next).await.unwrap();
        match line.queue.try_recv().unwrap() {
            Push::Message { message, .. } => match *message {
                PortalToGateway::AuthorizationRevoked(revoked) => assert_eq!(revoked.id, id),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
        assert!(line.queue.try_recv().is_err(), "the lease itself is not introduced any more");
        // Delivered once, and gone with the next change, or when every node has delivered it.
        deliver_all(&next).await.unwrap();
        assert!(line.queue.try_recv().is_err());
        next.store.change(&By::system()).await.unwrap().commit().await.unwrap();
        if next.store.is_shared() {
            let node = Uuid::from_u128(1);
            next.store.register_node(node).await.unwrap();
            next.store.sweep_nodes().await.unwrap();
            let kept: Vec<_> = portal(&database).await.store.undelivered().await.unwrap();
            assert!(!kept.is_empty(), "a node has not delivered it yet");
            assert!(next.store.renew_node(node).await.unwrap());
            next.store.sweep_nodes().await.unwrap();
        }
        next.store.close().await;
        let last = portal(&database).await;
        assert_eq!(last.store.undelivered().await.unwrap(), []);
    }

    async fn a_change_that_is_not_committed_never_happened(database: Database) {
        let (_, _, id) = with_lease(&database).await;
        let portal = portal(&database).await;
        deliver_all(&portal).await.unwrap();
        let mut change = portal.store.change(&By::system()).await.unwrap();
        change.revoke_authorization(id).await.unwrap();
        drop(change);
        assert_eq!(portal.store.undelivered().await.unwrap(), []);
        assert!(!portal.store.leases(&[id], clock::now_ms()).await.unwrap().is_empty());
    }

    /// A request by a client, through a gateway that is here as long as the line.
    pub(crate) async fn request(
        portal: &Portal,
        client: ClientId,
        gateway: GatewayId,
    ) -> (Requester, RequestAuthorization, Receiver<PortalToGateway>) {
        let tokens = portal.store.tokens(crate::store::Page::FIRST).await.unwrap();
        let token = |kind: &str| tokens.iter().find(|token| token.kind == kind).unwrap();
        let site = SiteId::from_uuid(token("gateway").site_id.unwrap());
        let actor = ActorId::from_uuid(token("client").actor_id.unwrap());
        let attendee =
            Attendee { token: token("gateway").token_id(), key: EncodedKey([2; 32]), address: String::new() };
        let line = portal.hub.join_gateway(gateway, site, semver::Version::new(1, 0, 0), attendee);
        let who = Requester {
            client,
            actor,
            token: token("client").token_id(),
            session_expires_ms: None,
            session_began_ms: 0,
        };
        let visible = portal.store.visible_resources(actor, client, clock::now_ms()).await.unwrap();
        let request = RequestAuthorization {
            request_id: 2,
            resource: visible.resources[0].id,
            connected_gateways: Vec::new(),
            avoid_gateways: Vec::new(),
            prefer_gateway: None,
        };
        (who, request, line)
    }

    /// The sessions of a revoked token last until the revocation is delivered.
    async fn answers_after_revoking(revoked: Option<TokenKind>, database: Database) {
        let (client, gateway, _) = with_lease(&database).await;
        let portal = portal(&database).await;
        let (who, request, _line) = request(&portal, client, gateway).await;
        if let Some(kind) = revoked {
            let tokens = portal.store.tokens(crate::store::Page::FIRST).await.unwrap();
            let token = tokens.iter().find(|token| token.kind == kind.name()).unwrap();
            let mut change = portal.store.change(&By::system()).await.unwrap();
            change.revoke_token(token.token_id()).await.unwrap();
            change.commit().await.unwrap();
        }
        let answer = authorize(&Arc::new(portal), who, request).await;
        assert_eq!(answer.is_ok(), revoked.is_none(), "{revoked:?}: {answer:?}");
    }

    async fn a_lease_whose_gateway_has_left_is_taken_back(database: Database) {
        let (client, _, id) = with_lease(&database).await;
        let portal = portal(&database).await;
        let who = Attendee {
            token: adit_policy::TokenId::from_uuid(Uuid::nil()),
            key: EncodedKey([1; 32]),
            address: String::new(),
        };
        let mut line = portal.hub.join_client(client, ActorId::from_uuid(Uuid::nil()), who);
        deliver_all(&portal).await.unwrap();
        match line.queue.try_recv().unwrap() {
            Push::Message { message, .. } => match *message {
                PortalToClient::AuthorizationFailed(failed) => {
                    assert_eq!((failed.request_id, failed.reason), (1, FailureReason::Offline));
                }
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
        assert!(portal.store.leases(&[id], clock::now_ms()).await.unwrap().is_empty());
    }

    async fn expired_leases_are_forgotten_and_live_ones_are_not(database: Database) {
        let (_, _, id) = with_lease(&database).await;
        let portal = portal(&database).await;
        delete_expired(&portal).await.unwrap();
        let (ends, _) = portal.store.lease_ends().await.unwrap().unwrap();
        assert!(!portal.store.leases(&[id], ends - 1).await.unwrap().is_empty());
        assert!(portal.store.leases(&[id], ends).await.unwrap().is_empty(), "at its end a lease is over");
    }

    async fn old_entries_of_the_audit_log_are_forgotten_and_that_is_noted(database: Database) {
        with_lease(&database).await;
        let portal = portal(&database).await;
        let all = portal.store.audit(crate::store::Page::FIRST).await.unwrap();
        let newest = all[0].at_ms;
        forget_audit_before(&portal, newest).await.unwrap();
        assert_eq!(portal.store.audit(crate::store::Page::FIRST).await.unwrap().len(), all.len());
        forget_audit_before(&portal, newest + 1).await.unwrap();
        let left = portal.store.audit(crate::store::Page::FIRST).await.unwrap();
        assert_eq!((left.len(), left[0].action.as_str()), (1, "audit.forget"));
        assert!(left[0].detail.contains(&format!("\"entries\":{}", all.len())), "{}", left[0].detail);
    }

    async fn a_client_with_a_good_token_is_granted(database: Database) {
        answers_after_revoking(None, database).await;
    }

    async fn nothing_is_granted_to_a_revoked_client(database: Database) {
        answers_after_revoking(Some(TokenKind::Client), database).await;
    }

    async fn nothing_is_granted_through_a_revoked_gateway(database: Database) {
        answers_after_revoking(Some(TokenKind::Gateway), database).await;
    }

    on_both_databases! {
        old_entries_of_the_audit_log_are_forgotten_and_that_is_noted,
        what_was_committed_is_delivered_by_the_next_process,
        a_change_that_is_not_committed_never_happened,
        a_lease_whose_gateway_has_left_is_taken_back,
        expired_leases_are_forgotten_and_live_ones_are_not,
        a_client_with_a_good_token_is_granted,
        nothing_is_granted_to_a_revoked_client,
        nothing_is_granted_through_a_revoked_gateway,
    }
}
