//! Delivers what was committed, and forgets what has expired.
//!
//! One task reads the outbox in commit order and hands each event to the hub. It is woken by
//! every change and looks once a second besides, so that nothing depends on a wake-up. After a
//! restart it finds what was committed but never pushed; nobody is connected then, and whoever
//! connects gets the complete state, so replaying is cheap and repeats are harmless.

use std::time::Duration;

use adit_policy::AuthorizationId;
use adit_protocol::client::{self, AuthorizationFailed, FailureReason};
use adit_protocol::{PortalToClient, PortalToGateway, gateway};

use crate::authorize::OFFLINE_PATIENCE;
use crate::clock;
use crate::portal::{Portal, SharedPortal};
use crate::store::{By, Event, Revoke, StoreError};

/// How long an event waits at most if its wake-up was lost.
const POLL: Duration = Duration::from_secs(1);

/// The longest sleep of the task that deletes expired leases.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// Delivers events until the task is aborted.
pub(crate) async fn run(portal: SharedPortal) {
    loop {
        match deliver_all(&portal).await {
            Ok(()) => {
                let _ = tokio::time::timeout(POLL, portal.store.committed()).await;
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
        for (seq, event) in events {
            match event {
                Some(event) => deliver(portal, seq, &event).await?,
                None => tracing::error!(seq, "an event cannot be read and is skipped"),
            }
            portal.store.mark_delivered(seq);
        }
    }
}

async fn deliver(portal: &Portal, seq: i64, event: &Event) -> Result<(), StoreError> {
    let hub = &portal.hub;
    match event {
        Event::AuthorizationCreated { id, request_id } => introduce(portal, seq, *id, *request_id).await?,
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
        Event::TokenRevoked { id } => hub.end_token(*id),
        Event::DeviceDeleted { id } => hub.end_device(*id),
    }
    metrics::counter!("adit_portal_events_total").increment(1);
    Ok(())
}

async fn introduce(
    portal: &Portal,
    seq: i64,
    id: AuthorizationId,
    request_id: u64,
) -> Result<(), StoreError> {
    // Revoked meanwhile: its own event follows.
    let Some(lease) = portal.store.lease(id, clock::now_ms()).await? else { return Ok(()) };
    let (to_client, to_gateway) =
        portal.introduction(&lease, request_id).map_err(|error| StoreError::Invalid(error.to_string()))?;
    let (client, resource) = (to_gateway.client.id, lease.resource.id);
    if portal.hub.introduce(seq, to_client, to_gateway) || !portal.hub.is_online(client.as_uuid()) {
        return Ok(());
    }
    // The gateway left between choice and introduction. Its lease would only mislead.
    let mut change = portal.store.change(&By::system()).await?;
    change.revoke(Revoke::One(id)).await?;
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
/// Peers need no message: each has the lease's end on a timer of its own.
pub(crate) async fn expire(portal: SharedPortal) {
    loop {
        let sleep = match portal.store.next_expiry().await {
            Ok(Some(at_ms)) => clock::until(at_ms).min(LONGEST_SLEEP),
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

async fn delete_expired(portal: &Portal) -> Result<(), StoreError> {
    if portal.store.next_expiry().await?.is_none_or(|at_ms| at_ms > clock::now_ms()) {
        return Ok(());
    }
    let mut change = portal.store.change(&By::system()).await?;
    let deleted = change.delete_expired().await?;
    change.commit().await?;
    metrics::counter!("adit_portal_leases_expired_total").increment(deleted);
    Ok(())
}
