//! The page on which a user code is typed, and the approval of the device that it belongs to.

use std::net::IpAddr;
use std::time::Instant;

use askama::Template;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use super::super::page::{Refusal, page};
use super::super::session::{Signed, SignedForm};
use super::{may_approve, user_code};
use crate::api::Remote;
use crate::clock;
use crate::portal::{Portal, SharedPortal};
use crate::store::DeviceSignIn;

#[derive(Template)]
#[template(path = "device.html")]
struct CodePage<'a> {
    csrf: &'a str,
    code: &'a str,
    error: Option<&'a str>,
}

/// What is asked of whoever approves, in both flows.
#[derive(Template)]
#[template(path = "approve.html")]
pub(super) struct ApprovalPage<'a> {
    pub(super) csrf: &'a str,
    pub(super) action: &'a str,
    /// Hidden fields.
    pub(super) fields: Vec<(&'a str, &'a str)>,
    pub(super) device_name: &'a str,
    pub(super) from: &'a str,
    /// Whether the request comes from where the browser is.
    pub(super) is_from_here: bool,
    pub(super) actor: &'a str,
    pub(super) since: String,
    pub(super) code: Option<&'a str>,
}

#[derive(Template)]
#[template(path = "decided.html")]
struct DecidedPage<'a> {
    device_name: &'a str,
    is_approved: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Prefilled {
    code: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct TypedCode {
    code: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Decision {
    code: String,
    decision: String,
}

/// `GET /device`
pub(super) async fn form(signed: Signed, Query(prefilled): Query<Prefilled>) -> Result<Response, Refusal> {
    let code = prefilled.code.as_deref().and_then(user_code::typed).map(|code| user_code::shown(&code));
    may_approve(&signed, &here(code.as_deref()))?;
    let code = code.unwrap_or_default();
    Ok(page(StatusCode::OK, &CodePage { csrf: &signed.csrf, code: &code, error: None }))
}

fn here(code: Option<&str>) -> String {
    code.map_or_else(|| "/device".to_owned(), |code| format!("/device?code={code}"))
}

/// `POST /device`
pub(super) async fn find(
    State(portal): State<SharedPortal>,
    remote: Remote,
    SignedForm(signed, typed): SignedForm<TypedCode>,
) -> Result<Response, Refusal> {
    let code = user_code::typed(&typed.code);
    may_approve(&signed, &here(code.as_deref().map(user_code::shown).as_deref()))?;
    let Some((found, code)) = pending(&portal, &signed, remote.0.ip(), code).await? else {
        let error =
            Some("No device waits with this code. Is it typed as shown, and not older than ten minutes?");
        let code = typed.code.get(..32).unwrap_or_default();
        return Ok(page(StatusCode::NOT_FOUND, &CodePage { csrf: &signed.csrf, code, error }));
    };
    let shown = user_code::shown(&code);
    let template = ApprovalPage {
        csrf: &signed.csrf,
        action: "/device/decide",
        fields: vec![("code", &shown)],
        device_name: &found.device_name,
        from: &found.address,
        is_from_here: found.address == signed.address,
        actor: &signed.actor.name,
        since: clock::rfc3339(signed.session.authenticated_ms),
        code: Some(&shown),
    };
    Ok(page(StatusCode::OK, &template))
}

/// The device that waits with a code. Guesses are counted, by whoever guesses and from wherever.
async fn pending(
    portal: &Portal,
    signed: &Signed,
    address: IpAddr,
    code: Option<String>,
) -> Result<Option<(DeviceSignIn, String)>, Refusal> {
    let limit = &portal.sign_in.codes;
    let guesser = portal.secrets.tag("user code guesser", &[signed.actor.id.as_bytes()]);
    limit.allows(Instant::now(), &guesser, address).map_err(Refusal::too_many)?;
    let found = match &code {
        Some(code) => {
            let hash = portal.secrets.tag("user code", &[code.as_bytes()]);
            portal.store.pending_device(&hash, clock::now_ms()).await?
        }
        None => None,
    };
    if found.is_none() {
        limit.failed(Instant::now(), &guesser, address);
        metrics::counter!("adit_portal_user_codes_refused_total").increment(1);
    }
    Ok(found.zip(code))
}

/// `POST /device/decide`
pub(super) async fn decide(
    State(portal): State<SharedPortal>,
    remote: Remote,
    SignedForm(signed, decision): SignedForm<Decision>,
) -> Result<Response, Refusal> {
    let code = user_code::typed(&decision.code);
    may_approve(&signed, &here(code.as_deref().map(user_code::shown).as_deref()))?;
    let gone = || {
        let detail =
            "It was decided on already, or its code is older than ten minutes. Begin again on the device.";
        Refusal::not_found("The device does not wait any more", detail)
    };
    let (found, _) = pending(&portal, &signed, remote.0.ip(), code).await?.ok_or_else(gone)?;
    let is_approved = decision.decision == "approve";
    let mut change = portal.store.change(&signed.by()).await?;
    if !change.decide_device_code(found.id, &signed.session, is_approved).await? {
        return Err(gone());
    }
    change.commit().await?;
    Ok(page(StatusCode::OK, &DecidedPage { device_name: &found.device_name, is_approved }))
}
