//! The approval in a browser on the device itself: authorization code with PKCE (RFC 6749,
//! section 4.1; RFC 7636), sent back to a port of the same machine.
//!
//! The browser is not redirected after the form, which `form-action` would forbid, but gets a
//! page that goes on by itself and has a link besides.
//!
//! Deliberately absent: redirects with an error. What is wrong with a request is said on a page,
//! because the only program that makes such requests is our own; only a refusal by the user is
//! sent back (`access_denied`).

use adit_protocol::sign_in::{AuthorizeQuery, CHALLENGE_METHOD, CLIENT_ID};
use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use url::Url;
use uuid::Uuid;

use super::super::page::{Refusal, page};
use super::super::session::{Signed, SignedForm};
use super::page::ApprovalPage;
use super::{may_approve, redirect};
use crate::clock;
use crate::credential;
use crate::portal::SharedPortal;
use crate::presentable::device_name;
use crate::store::NewAuthorizationCode;

/// The longest state.
const LONGEST_STATE: usize = 256;

#[derive(Template)]
#[template(path = "return.html")]
struct ReturnPage<'a> {
    address: &'a str,
    is_approved: bool,
}

/// A decision, with everything that was asked.
#[derive(Deserialize)]
pub(super) struct Decided {
    #[serde(flatten)]
    asked: AuthorizeQuery,
    decision: String,
}

/// Reads a request: where its answer goes. What is wrong with it is never sent there.
fn check(asked: &AuthorizeQuery) -> Result<Url, Refusal> {
    let wrong = |what: &str| Err(Refusal::bad_request(what));
    let Some(url) = redirect::loopback(&asked.redirect_uri) else {
        return wrong("`redirect_uri` must be http://127.0.0.1:PORT/… or http://[::1]:PORT/…");
    };
    let is_challenge =
        URL_SAFE_NO_PAD.decode(&asked.code_challenge).is_ok_and(|challenge| challenge.len() == 32);
    if asked.client_id != CLIENT_ID {
        wrong("`client_id` names no program that this portal knows")
    } else if asked.response_type != "code" {
        wrong("`response_type` must be `code`")
    } else if asked.code_challenge_method != CHALLENGE_METHOD || !is_challenge {
        wrong("a `code_challenge` with the method S256 is needed")
    } else if asked.state.is_empty() || asked.state.len() > LONGEST_STATE {
        wrong("`state` must have 1 to 256 bytes")
    } else {
        Ok(url)
    }
}

/// Everything that was asked, for an address or a form.
fn fields(asked: &AuthorizeQuery) -> [(&'static str, &str); 7] {
    [
        ("response_type", &asked.response_type),
        ("client_id", &asked.client_id),
        ("redirect_uri", &asked.redirect_uri),
        ("code_challenge", &asked.code_challenge),
        ("code_challenge_method", &asked.code_challenge_method),
        ("state", &asked.state),
        ("device_name", &asked.device_name),
    ]
}

/// The address of this page again, for whoever has to sign in first.
fn here(asked: &AuthorizeQuery) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields(asked)).finish();
    format!("/device/authorize?{query}")
}

/// `GET /device/authorize`
pub(super) async fn ask(
    signed: Signed,
    query: Result<Query<AuthorizeQuery>, QueryRejection>,
) -> Result<Response, Refusal> {
    let Query(mut asked) = query.map_err(|rejection| Refusal::bad_request(&rejection.body_text()))?;
    check(&asked)?;
    asked.device_name = device_name(&asked.device_name);
    may_approve(&signed, &here(&asked))?;
    let template = ApprovalPage {
        csrf: &signed.csrf,
        action: "/device/authorize",
        fields: fields(&asked).to_vec(),
        device_name: &asked.device_name,
        from: &signed.address,
        is_from_here: true,
        actor: &signed.actor.name,
        since: clock::rfc3339(signed.session.authenticated_ms),
        code: None,
    };
    Ok(page(StatusCode::OK, &template))
}

/// `POST /device/authorize`
pub(super) async fn decide(
    State(portal): State<SharedPortal>,
    SignedForm(signed, decided): SignedForm<Decided>,
) -> Result<Response, Refusal> {
    let asked = decided.asked;
    let url = check(&asked)?;
    may_approve(&signed, &here(&asked))?;
    let is_approved = decided.decision == "approve";
    let address = if is_approved {
        let code = approve(&portal, &signed, &asked).await?;
        redirect::with_answer(url, ("code", &code), &asked.state)
    } else {
        let mut change = portal.store.change(&signed.by()).await?;
        let detail = serde_json::json!({ "device": device_name(&asked.device_name), "kind": "loopback" });
        change.audit("device_sign_in.deny", ("actor", Some(signed.actor.id)), detail).await?;
        change.commit().await?;
        redirect::with_answer(url, ("error", "access_denied"), &asked.state)
    };
    Ok(page(StatusCode::OK, &ReturnPage { address: &address, is_approved }))
}

/// Makes a code that can be exchanged for a token.
async fn approve(portal: &SharedPortal, signed: &Signed, asked: &AuthorizeQuery) -> Result<String, Refusal> {
    let id = Uuid::now_v7();
    let secret = URL_SAFE_NO_PAD.encode(credential::random_bytes()?);
    let new = NewAuthorizationCode {
        id,
        code_hash: super::exchange::code_hash(&portal.secrets, id, &secret),
        challenge: &asked.code_challenge,
        redirect_uri: &asked.redirect_uri,
        device_name: &device_name(&asked.device_name),
    };
    let mut change = portal.store.change(&signed.by()).await?;
    change.approve_authorization_code(&new, &signed.session).await?;
    change.commit().await?;
    Ok(format!("{}.{secret}", id.simple()))
}
