//! The sign-in of people whom the portal itself knows: name, password, and a code of the authenticator (or a
//! recovery code), all at once, so that no answer says which of them was wrong.

use std::net::IpAddr;
use std::time::Instant;

use askama::Template;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use serde::Deserialize;

use super::page::{Refusal, page};
use super::session;
use super::totp::TotpSecret;
use super::{oidc, origin, password};
use crate::api::Remote;
use crate::clock;
use crate::credential::Secrets;
use crate::portal::{Portal, SharedPortal};
use crate::store::{Actor, By, LocalCredential};

/// What a session says about who authenticated its actor.
pub(crate) const LOCAL: &str = "local";

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage<'a> {
    offers: &'a [oidc::Offer],
    next: &'a str,
    name: &'a str,
    error: Option<&'a str>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Going {
    next: Option<String>,
    /// Whoever is signed in signs in anew.
    again: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct SignInForm {
    name: String,
    password: String,
    code: String,
    next: Option<String>,
}

/// `GET /sign-in`
pub(super) async fn form(
    State(portal): State<SharedPortal>,
    remote: Remote,
    headers: HeaderMap,
    Query(going): Query<Going>,
) -> Result<Response, Refusal> {
    let next = origin::local_path(going.next.as_deref());
    if going.again.is_none() && session::signed(&portal, &headers, remote.0.ip().to_string()).await?.is_some()
    {
        return Ok(Redirect::to(next).into_response());
    }
    let offers = oidc::offers(&portal, next, going.again.is_some()).await?;
    Ok(page(StatusCode::OK, &SignInPage { offers: &offers, next, name: "", error: None }))
}

/// `POST /sign-in`
pub(super) async fn submit(
    State(portal): State<SharedPortal>,
    remote: Remote,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refusal> {
    session::check_origin(&portal, &headers).await?;
    let form: SignInForm = session::read_form(request, &portal).await?;
    let address = remote.0.ip();
    let Some(actor) = authenticate(&portal, &form, address).await? else {
        let error = Some("Name, password or code is wrong.");
        let next = origin::local_path(form.next.as_deref());
        let name = form.name.get(..100).unwrap_or(&form.name);
        let offers = oidc::offers(&portal, next, false).await?;
        return Ok(page(StatusCode::UNAUTHORIZED, &SignInPage { offers: &offers, next, name, error }));
    };
    let mut response = Redirect::to(origin::local_path(form.next.as_deref())).into_response();
    let from = (&headers, &*address.to_string());
    session::begin(&portal, &actor, LOCAL, from, &mut response).await?;
    Ok(response)
}

/// Who it is, if name, password and code belong together. Failures are counted and audited.
async fn authenticate(portal: &Portal, form: &SignInForm, address: IpAddr) -> Result<Option<Actor>, Refusal> {
    let name = form.name.trim();
    let guessed_at = portal.secrets.tag("sign-in name", &[name.to_lowercase().as_bytes()]);
    let limit = &portal.sign_in.limit;
    limit.allows(Instant::now(), &guessed_at, address).map_err(|wait| {
        metrics::counter!("adit_portal_sign_ins_total", "answer" => "too_many").increment(1);
        Refusal::too_many(wait)
    })?;
    // Counted before the work is done, so that tries at the same time count too.
    limit.failed(Instant::now(), &guessed_at, address);
    let found = portal.store.local_credential(name).await?;
    let stored = found.as_ref().map(|(_, credential)| credential.password_hash.clone());
    let typed = form.password.get(..password::LONGEST).unwrap_or(&form.password).to_owned();
    let is_right = portal.sign_in.passwords.verify(typed, stored).await?;
    if let Some((actor, credential)) = &found
        && is_right
        && take_code(portal, actor, credential, &form.code, address).await?
    {
        limit.succeeded(&guessed_at);
        metrics::counter!("adit_portal_sign_ins_total", "answer" => "signed_in").increment(1);
        return Ok(found.map(|(actor, _)| actor));
    }
    metrics::counter!("adit_portal_sign_ins_total", "answer" => "refused").increment(1);
    note_failure(portal, found.as_ref().map(|(actor, _)| actor), address).await?;
    Ok(None)
}

/// Uses a code up, whichever kind it is.
async fn take_code(
    portal: &Portal,
    actor: &Actor,
    credential: &LocalCredential,
    code: &str,
    address: IpAddr,
) -> Result<bool, Refusal> {
    let by = By { who: actor.name.clone(), address: address.to_string() };
    let id = adit_policy::ActorId::from_uuid(actor.id);
    let secret = open_totp(&portal.secrets, actor, &credential.totp_sealed)
        .ok_or_else(|| Refusal::internal("an authenticator's secret was sealed under other keys"))?;
    let mut change = portal.store.change(&by).await?;
    let is_taken = match secret.step_of(code, clock::now_ms()) {
        Some(step) => change.take_totp_step(id, step).await?,
        None => change.take_recovery_code(id, &recovery_hash(&portal.secrets, actor, code)).await?,
    };
    if is_taken {
        change.commit().await?;
    }
    Ok(is_taken)
}

/// What was typed as a name may be a password: only names that exist are written down.
async fn note_failure(portal: &Portal, actor: Option<&Actor>, address: IpAddr) -> Result<(), Refusal> {
    let who = actor.map_or("unknown", |actor| &actor.name);
    let by = By { who: who.to_owned(), address: address.to_string() };
    let mut change = portal.store.change(&by).await?;
    let subject = ("actor", actor.map(|actor| actor.id));
    change.audit("sign_in.refused", subject, serde_json::json!({ "provider": LOCAL })).await?;
    change.commit().await?;
    Ok(())
}

/// Seals an authenticator's secret for one actor.
pub(super) fn seal_totp(secrets: &Secrets, actor: &Actor, secret: &TotpSecret) -> Result<String, Refusal> {
    Ok(secrets.seal(&format!("totp {} {}", actor.id, secret.base32()))?)
}

fn open_totp(secrets: &Secrets, actor: &Actor, sealed: &str) -> Option<TotpSecret> {
    TotpSecret::parse(secrets.open(sealed)?.strip_prefix(&format!("totp {} ", actor.id))?)
}

/// Under which a recovery code is stored; how it was typed does not matter.
pub(super) fn recovery_hash(secrets: &Secrets, actor: &Actor, code: &str) -> [u8; 32] {
    let code: String = code.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    secrets.tag("recovery code", &[actor.id.as_bytes(), code.to_ascii_uppercase().as_bytes()])
}
