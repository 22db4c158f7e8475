//! The start page of whoever is signed in: who they are, on which devices and in which browsers
//! they are signed in, and how to end that.

use adit_policy::TokenId;
use askama::Template;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;
use uuid::Uuid;

use super::address::{client_command, peer_url};
use super::page::{Refusal, page};
use super::session::{self, Signed, SignedForm};
use crate::clock;
use crate::portal::SharedPortal;
use crate::store::DeviceSession;

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage<'a> {
    name: &'a str,
    is_admin: bool,
    csrf: &'a str,
    devices: Vec<DeviceLine>,
    /// What brings a further device here.
    command: &'a str,
    sessions: Vec<SessionLine>,
}

struct DeviceLine {
    token: Uuid,
    name: String,
    since: String,
    until: String,
    is_online: bool,
}

struct SessionLine {
    id: Uuid,
    began: String,
    address: String,
    user_agent: String,
    is_this: bool,
}

/// A form that says nothing but what was pressed.
#[derive(Debug, Deserialize)]
pub(super) struct Pressed {}

/// `GET /`
pub(super) async fn show(
    State(portal): State<SharedPortal>,
    headers: HeaderMap,
    signed: Signed,
) -> Result<Response, Refusal> {
    let sessions = portal.store.web_sessions_of(signed.session.actor()).await?;
    let sessions = sessions.into_iter().map(|session| SessionLine {
        id: session.id,
        began: clock::rfc3339(session.created_ms),
        address: session.address,
        user_agent: session.user_agent,
        is_this: session.id == signed.session.id,
    });
    let online = portal.hub.online();
    let devices = portal.store.device_sessions_of(signed.session.actor(), clock::now_ms()).await?;
    let devices = devices.into_iter().map(|DeviceSession { token, device_id }| DeviceLine {
        token: token.id,
        since: clock::rfc3339(token.authenticated_ms.unwrap_or(token.created_ms)),
        until: token.expires_ms.map_or_else(|| "never".to_owned(), clock::rfc3339),
        is_online: device_id.is_some_and(|id| online.contains(&id)),
        name: token.name,
    });
    let url = peer_url(&portal, &headers).await?;
    let mut settings = vec![("ADIT_PORTAL", url.as_str())];
    settings.extend(portal.authority.as_deref().map(|digest| ("ADIT_CA", digest)));
    let command = client_command(&settings) + " && adit login";
    let template = AccountPage {
        name: &signed.actor.name,
        is_admin: signed.is_admin(),
        csrf: &signed.csrf,
        devices: devices.collect(),
        command: &command,
        sessions: sessions.collect(),
    };
    Ok(page(StatusCode::OK, &template))
}

/// `POST /sessions/{id}/end`
pub(super) async fn end_session(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    SignedForm(signed, _): SignedForm<Pressed>,
) -> Result<Response, Refusal> {
    let session = portal.store.web_session(id).await?;
    if session.is_some_and(|session| session.actor_id != signed.actor.id) {
        return Err(Refusal::forbidden("This session is somebody else's."));
    }
    let mut change = portal.store.change(&signed.by()).await?;
    change.end_web_session(id).await?;
    change.commit().await?;
    Ok(Redirect::to("/").into_response())
}

/// `POST /devices/{id}/end`: the session of a device, by its token.
pub(super) async fn end_device(
    State(portal): State<SharedPortal>,
    Path(id): Path<TokenId>,
    SignedForm(signed, _): SignedForm<Pressed>,
) -> Result<Response, Refusal> {
    let token = portal.store.token(id).await?;
    let is_own =
        token.is_some_and(|token| token.actor_id == Some(signed.actor.id) && token.provider.is_some());
    if !is_own {
        return Err(Refusal::forbidden("This is no device of yours."));
    }
    let mut change = portal.store.change(&signed.by()).await?;
    change.revoke_token(id).await?;
    change.commit().await?;
    Ok(Redirect::to("/").into_response())
}

/// `POST /sign-out`
pub(super) async fn sign_out(
    State(portal): State<SharedPortal>,
    SignedForm(signed, _): SignedForm<Pressed>,
) -> Result<Response, Refusal> {
    let mut response = Redirect::to("/sign-in").into_response();
    session::end(&portal, &signed, &mut response).await?;
    Ok(response)
}
