//! From an HTTP request with a token to a session.

use std::time::Instant;

use adit_policy::{ActorId, SiteId};
use adit_protocol::{MAX_MESSAGE, MAX_MESSAGE_TO_PORTAL};
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};

use super::{Caller, client, gateway, relay};
use crate::api::{Failure, Remote, authenticate};
use crate::portal::SharedPortal;
use crate::server::ConnectionSlot;
use crate::store::{Token, TokenKind};

/// Sessions that one portal carries; newcomers are asked to come back later.
const MAX_SESSIONS: usize = 50_000;

/// Bytes that may wait in a socket's own buffer before writing fails.
const MAX_WRITE_BUFFER: usize = 2 * MAX_MESSAGE;

/// Bytes that are read at once. Most sessions only ever say a few hundred, and there are many.
const READ_BUFFER: usize = 2 * 1024;

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// The three endpoints.
pub(crate) fn router() -> Router<SharedPortal> {
    Router::new()
        .route("/v1/client", get(client_endpoint))
        .route("/v1/gateway", get(gateway_endpoint))
        .route("/v1/relay", get(relay_endpoint))
}

async fn client_endpoint(
    State(portal): State<SharedPortal>,
    remote: Remote,
    Extension(slot): Extension<ConnectionSlot>,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Result<Response, Failure> {
    let (token, caller) = admit(&portal, &remote, &headers, TokenKind::Client).await?;
    let actor =
        ActorId::from_uuid(token.actor_id.ok_or_else(|| Failure::internal("a client token without actor"))?);
    let actor = portal.store.actor(actor).await?;
    if !actor.enabled {
        return Err(Failure::forbidden("actor_disabled", "The actor is disabled"));
    }
    accept(upgrade, slot, move |socket| client::serve(portal, socket, caller, actor))
}

async fn gateway_endpoint(
    State(portal): State<SharedPortal>,
    remote: Remote,
    Extension(slot): Extension<ConnectionSlot>,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Result<Response, Failure> {
    let (token, caller) = admit(&portal, &remote, &headers, TokenKind::Gateway).await?;
    let site =
        SiteId::from_uuid(token.site_id.ok_or_else(|| Failure::internal("a gateway token without site"))?);
    let site = portal.store.site(site).await?;
    accept(upgrade, slot, move |socket| gateway::serve(portal, socket, caller, site))
}

async fn relay_endpoint(
    State(portal): State<SharedPortal>,
    remote: Remote,
    Extension(slot): Extension<ConnectionSlot>,
    headers: HeaderMap,
    upgrade: Upgrade,
) -> Result<Response, Failure> {
    let (_, caller) = admit(&portal, &remote, &headers, TokenKind::Relay).await?;
    accept(upgrade, slot, move |socket| relay::serve(portal, socket, caller))
}

/// Who it is, and whether there is room.
async fn admit(
    portal: &SharedPortal,
    remote: &Remote,
    headers: &HeaderMap,
    kind: TokenKind,
) -> Result<(Token, Caller), Failure> {
    let now = Instant::now();
    portal.limit.address(now, remote.0.ip()).map_err(Failure::too_many)?;
    let token = authenticate(portal, headers, kind).await?;
    portal.limit.token(now, token.token_id()).map_err(Failure::too_many)?;
    if portal.hub.session_count() >= MAX_SESSIONS {
        return Err(Failure::unavailable("The portal carries as many sessions as it can"));
    }
    let caller =
        Caller { token: token.token_id(), expires_ms: token.expires_ms, address: remote.0.ip().to_string() };
    Ok((token, caller))
}

fn accept<F>(
    upgrade: Upgrade,
    slot: ConnectionSlot,
    serve: impl FnOnce(WebSocket) -> F + Send + 'static,
) -> Result<Response, Failure>
where
    F: Future<Output = ()> + Send + 'static,
{
    let upgrade = upgrade.map_err(|rejection| Failure::bad_request(&rejection.to_string()))?;
    Ok(upgrade
        .max_message_size(MAX_MESSAGE_TO_PORTAL)
        .max_frame_size(MAX_MESSAGE_TO_PORTAL)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .on_failed_upgrade(|error| tracing::debug!(%error, "a WebSocket upgrade failed"))
        .on_upgrade(move |socket| async move {
            serve(socket).await;
            drop(slot);
        }))
}
