//! Signing devices in: the pages on which somebody approves, and the two endpoints that devices
//! ask. The contract with devices is [`adit_protocol::sign_in`].
//!
//! Everything rests on a session of the browser ([`super::session`]), whoever authenticated its
//! actor. An approval needs one that is no older than ten minutes, because the token takes over
//! when the actor proved who they are. The pages say which device asks and from where: a code
//! that somebody else sent (RFC 8628, section 5.4) must look wrong to whoever is asked to type it.
//!
//! `page` is the page for user codes, `authorize` the one for a browser on the device itself,
//! `exchange` answers devices, `redirect` and `user_code` read what strangers say.
//!
//! Deliberately absent: rows for a loopback sign-in that nobody has approved. Its parameters
//! travel through the form, where only the person could change them who approves.

mod authorize;
mod exchange;
mod page;
mod redirect;
mod user_code;

use axum::Router;
use axum::routing::{get, post};

use super::page::Refusal;
use super::session::Signed;
use crate::clock;
use crate::portal::SharedPortal;
use crate::store::ActorKind;

/// Older sessions sign in again before they approve.
const FRESH_MS: i64 = 10 * 60 * 1000;

/// The pages and endpoints.
pub(super) fn router() -> Router<SharedPortal> {
    Router::new()
        .route("/device", get(page::form).post(page::find))
        .route("/device/decide", post(page::decide))
        .route("/device/authorize", get(authorize::ask).post(authorize::decide))
        .route("/v1/sign-in/device", post(exchange::device))
        .route("/v1/sign-in/token", post(exchange::token))
}

/// Whether somebody may approve devices now; otherwise they sign in again and come back to `here`.
fn may_approve(signed: &Signed, here: &str) -> Result<(), Refusal> {
    if signed.actor.kind != ActorKind::User.name() {
        return Err(Refusal::forbidden("Service accounts sign in with a token, not in a browser."));
    }
    let age_ms = clock::now_ms() - signed.session.authenticated_ms;
    if !(-clock::TOLERANCE_MS..FRESH_MS).contains(&age_ms) {
        return Err(Refusal::to_sign_in_again(here));
    }
    Ok(())
}
