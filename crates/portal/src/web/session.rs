//! Sessions of the browser: the cookie, who a request is from, and what protects its forms.
//!
//! The cookie is `__Host-adit=<id>.<secret>`; the database holds a keyed hash of the secret. A
//! session begins with a new id whenever somebody signs in. Every form and every htmx request
//! that changes something carries a value that is derived from the session (`csrf`, or the
//! header `X-CSRF-Token`), and must come from a page of the portal as well, see [`super::origin`].

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use super::origin;
use super::page::Refusal;
use super::sign_in::LOCAL;
use crate::api::Remote;
use crate::clock;
use crate::credential::{self, Secrets};
use crate::portal::Portal;
use crate::portal::SharedPortal;
use crate::store::{Actor, By, LONGEST_MS, StoreError, WebSession};

/// The prefix makes browsers insist on `Secure`, on `Path=/` and on this very host.
const COOKIE: &str = "__Host-adit";

/// How exactly it is noted when a session was last used.
const SEEN_MS: i64 = 60_000;

/// Characters of a user agent that are kept.
const LONGEST_AGENT: usize = 200;

/// Somebody who is signed in.
///
/// As an extractor it sends whoever is not signed in to `/sign-in` (or answers 401 when a
/// script asks), and refuses a request that changes something without a good `X-CSRF-Token`.
/// Forms without script use [`SignedForm`].
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    /// Who it is.
    pub(crate) actor: Actor,
    /// The session.
    pub(crate) session: WebSession,
    /// What forms carry as `csrf`.
    pub(crate) csrf: String,
    /// Where the request comes from.
    pub(crate) address: String,
}

impl Signed {
    /// Who makes a change, for the audit log.
    pub(crate) fn by(&self) -> By {
        By { who: self.actor.name.clone(), address: self.address.clone() }
    }

    /// Whether the administrator's pages are for them.
    pub(crate) const fn is_admin(&self) -> bool {
        self.actor.role.reads()
    }
}

/// A form of somebody who is signed in; its field `csrf` has been checked.
///
/// `T` ignores fields that it does not know: `csrf` is among them.
#[derive(Debug)]
pub(crate) struct SignedForm<T>(pub(crate) Signed, pub(crate) T);

impl FromRequestParts<SharedPortal> for Signed {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, portal: &SharedPortal) -> Result<Self, Refusal> {
        let signed = find(parts, portal).await?;
        if !origin::is_safe(&parts.method) {
            check_origin(portal, &parts.headers).await?;
            let sent = parts.headers.get("x-csrf-token").map_or(&[][..], HeaderValue::as_bytes);
            check_csrf(&signed, sent)?;
        }
        Ok(signed)
    }
}

impl<T: DeserializeOwned> FromRequest<SharedPortal> for SignedForm<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, portal: &SharedPortal) -> Result<Self, Refusal> {
        let (mut parts, body) = request.into_parts();
        let signed = find(&mut parts, portal).await?;
        check_origin(portal, &parts.headers).await?;
        let header = parts.headers.get("x-csrf-token").cloned();
        let bytes = Bytes::from_request(Request::from_parts(parts.clone(), body), portal)
            .await
            .map_err(|rejection| Refusal::bad_request(&rejection.body_text()))?;
        let field = || {
            let mut fields = url::form_urlencoded::parse(&bytes);
            fields.find(|(name, _)| name == "csrf").map(|(_, value)| value.into_owned().into_bytes())
        };
        let sent = header.map(|value| value.as_bytes().to_vec()).or_else(field).unwrap_or_default();
        check_csrf(&signed, &sent)?;
        let form = read_form(Request::from_parts(parts, bytes.into()), portal).await?;
        Ok(Self(signed, form))
    }
}

/// Reads a form; what cannot be read is the sender's mistake.
pub(super) async fn read_form<T: DeserializeOwned>(
    request: Request,
    portal: &SharedPortal,
) -> Result<T, Refusal> {
    match axum::Form::<T>::from_request(request, portal).await {
        Ok(axum::Form(form)) => Ok(form),
        Err(rejection) => Err(Refusal::bad_request(&rejection.body_text())),
    }
}

/// Refuses what does not come from a page of this portal.
pub(super) async fn check_origin(portal: &Portal, headers: &HeaderMap) -> Result<(), Refusal> {
    let setting = portal.store.sign_in_setting().await?;
    if origin::is_our_own(headers, setting.public_url.as_deref()) {
        return Ok(());
    }
    metrics::counter!("adit_portal_forged_requests_total", "reason" => "origin").increment(1);
    Err(Refusal::forged())
}

fn check_csrf(signed: &Signed, sent: &[u8]) -> Result<(), Refusal> {
    if bool::from(signed.csrf.as_bytes().ct_eq(sent)) {
        return Ok(());
    }
    metrics::counter!("adit_portal_forged_requests_total", "reason" => "csrf").increment(1);
    Err(Refusal::forged())
}

/// The session of a request.
pub(super) async fn find(parts: &mut Parts, portal: &SharedPortal) -> Result<Signed, Refusal> {
    let remote = Remote::from_request_parts(parts, portal).await.map_err(Refusal::from)?;
    let address = remote.0.ip().to_string();
    match signed(portal, &parts.headers, address).await? {
        Some(signed) => Ok(signed),
        None if is_script(&parts.headers) => Err(Refusal::signed_out()),
        None => {
            let here = parts.uri.path_and_query().map_or("/", |here| here.as_str());
            let next = if origin::is_safe(&parts.method) { here } else { "/" };
            Err(Refusal::to_sign_in(next))
        }
    }
}

/// Scripts cannot follow a redirect to a page that people read.
fn is_script(headers: &HeaderMap) -> bool {
    let accepts = |kind: &str| {
        headers
            .get(header::ACCEPT)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|all| all.contains(kind))
    };
    headers.contains_key("hx-request")
        || accepts("text/event-stream")
        || (accepts("application/json") && !accepts("text/html"))
}

/// Who is signed in by the cookie of a request, if anybody is.
pub(crate) async fn signed(
    portal: &Portal,
    headers: &HeaderMap,
    address: String,
) -> Result<Option<Signed>, StoreError> {
    let Some((id, secret)) = presented(headers) else { return Ok(None) };
    let Some(session) = portal.store.web_session(id).await? else { return Ok(None) };
    let hash = hash(&portal.secrets, id, &secret);
    let now_ms = clock::now_ms();
    if !bool::from(hash.as_slice().ct_eq(&session.hash)) || session.is_over(now_ms) {
        return Ok(None);
    }
    let actor = match portal.store.actor(session.actor()).await {
        Ok(actor) if actor.enabled => actor,
        Ok(_) | Err(StoreError::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    if now_ms - session.last_seen_ms >= SEEN_MS {
        let mut change = portal.store.change(&By::system()).await?;
        change.touch_web_session(id).await?;
        change.commit().await?;
    }
    let csrf = URL_SAFE_NO_PAD.encode(portal.secrets.tag("csrf", &[id.as_bytes(), &session.hash]));
    Ok(Some(Signed { actor, session, csrf, address }))
}

fn presented(headers: &HeaderMap) -> Option<(Uuid, String)> {
    let (id, secret) = cookie(headers, COOKIE)?.split_once('.')?;
    Some((Uuid::try_parse(id).ok()?, secret.to_owned()))
}

/// A cookie of a request. Twice the same name is an attempt to confuse, and is none.
pub(super) fn cookie<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let mut found = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == wanted)
        .map(|(_, value)| value);
    let only = found.next()?;
    found.next().is_none().then_some(only)
}

fn hash(secrets: &Secrets, id: Uuid, secret: &str) -> [u8; 32] {
    secrets.tag("web session", &[id.as_bytes(), secret.as_bytes()])
}

/// Begins a session for somebody who has just been authenticated by `provider`; the response
/// gets the cookie. The session that the request had before ends: nobody takes one over that a
/// stranger has planted.
pub(crate) async fn begin(
    portal: &Portal,
    actor: &Actor,
    provider: &str,
    (headers, address): (&HeaderMap, &str),
    response: &mut Response,
) -> Result<(), Refusal> {
    begin_at(portal, actor, provider, clock::now_ms(), (headers, address), response).await
}

/// As [`begin`], for somebody who proved at `authenticated_ms` who they are.
pub(super) async fn begin_at(
    portal: &Portal,
    actor: &Actor,
    provider: &str,
    authenticated_ms: i64,
    (headers, address): (&HeaderMap, &str),
    response: &mut Response,
) -> Result<(), Refusal> {
    let (id, at_ms) = (Uuid::now_v7(), clock::now_ms());
    let secret = URL_SAFE_NO_PAD.encode(credential::random_bytes()?);
    let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let session = WebSession {
        id,
        actor_id: actor.id,
        hash: hash(&portal.secrets, id, &secret).to_vec(),
        provider: provider.to_owned(),
        created_ms: at_ms,
        authenticated_ms,
        last_seen_ms: at_ms,
        expires_ms: at_ms + LONGEST_MS,
        address: address.to_owned(),
        user_agent: agent.chars().take(LONGEST_AGENT).collect(),
    };
    let before = signed(portal, headers, address.to_owned()).await?;
    let by = By { who: actor.name.clone(), address: address.to_owned() };
    let mut change = portal.store.change(&by).await?;
    if provider != LOCAL {
        // Else it could have been disabled since, and the session would outlive that.
        change.expect_enabled_provider(provider).await?;
    }
    if let Some(before) = before {
        match change.end_web_session(before.session.id).await {
            Ok(()) | Err(StoreError::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    change.begin_web_session(&session).await?;
    change.commit().await?;
    set_cookie(response, COOKIE, &format!("{}.{secret}", id.simple()), None);
    Ok(())
}

/// Ends a session; the response takes the cookie away.
pub(super) async fn end(portal: &Portal, signed: &Signed, response: &mut Response) -> Result<(), Refusal> {
    let mut change = portal.store.change(&signed.by()).await?;
    change.end_web_session(signed.session.id).await?;
    change.commit().await?;
    set_cookie(response, COOKIE, "", Some(Duration::ZERO));
    Ok(())
}

/// Gives the browser a cookie; until it is closed when no age is given.
pub(super) fn set_cookie(response: &mut Response, name: &str, value: &str, age: Option<Duration>) {
    let age = age.map(|age| format!("; Max-Age={}", age.as_secs())).unwrap_or_default();
    let text = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax{age}");
    match HeaderValue::from_str(&text) {
        Ok(value) => {
            response.headers_mut().append(header::SET_COOKIE, value);
        }
        Err(error) => *response = Refusal::internal(error).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_once_or_not_at_all() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("theme=dark; __Host-adit=a.b"));
        assert_eq!(cookie(&headers, COOKIE), Some("a.b"));
        assert_eq!(cookie(&headers, "adit"), None);
        headers.append(header::COOKIE, HeaderValue::from_static("__Host-adit=c.d"));
        assert_eq!(cookie(&headers, COOKIE), None);
    }

    #[test]
    fn scripts_are_told_apart_from_people() {
        let with = |name: &'static str, value: &'static str| {
            is_script(&HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))]))
        };
        assert!(with("hx-request", "true") && with("accept", "application/json"));
        assert!(with("accept", "text/event-stream"));
        assert!(!with("accept", "text/html,application/xhtml+xml,*/*;q=0.8"));
    }
}
