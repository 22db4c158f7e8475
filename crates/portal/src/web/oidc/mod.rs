//! Signing in with an OpenID Connect provider (OpenID Connect Core 1.0, 3.1; RFC 6749; RFC 7636).
//!
//! `GET /sign-in/with/NAME` sends the browser to the provider and leaves it a sealed cookie (`pending`): whoever comes back to
//! `…/callback` must be the same browser, with the `state` of that cookie. The code is exchanged with the PKCE verifier
//! (`exchange`), the ID token is verified (`token`), and `store::Identity` says who it is here. The session is one like any
//! other ([`super::session::begin_at`]).
//!
//! Deliberately absent: implicit and hybrid flows, refresh tokens (a session is not prolonged by the provider), logout at the
//! provider, encrypted ID tokens. No token of a provider is stored or logged.

mod exchange;
mod pending;
mod person;
mod remote;
mod token;
mod trouble;

use std::time::Instant;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::get;
use serde::Deserialize;
use url::Url;

pub(crate) use exchange::seal as seal_secret;
pub(super) use remote::Remotes;

use super::page::Refusal;
use super::{origin, session};
use crate::api::Remote;
use crate::clock;
use crate::portal::{Portal, SharedPortal};
use crate::store::{Actor, AuthProvider, By, Page, StoreError};
use pending::Pending;
use trouble::Trouble;

/// How old an authentication may be that was asked for anew, in milliseconds; clocks differ.
const FRESH_MS: i64 = 5 * 60 * 1000;

pub(super) fn router() -> Router<SharedPortal> {
    Router::new()
        .route("/sign-in/with/{provider}", get(start))
        .route("/sign-in/with/{provider}/callback", get(finish))
}

/// How a page offers a provider.
#[derive(Debug)]
pub(super) struct Offer {
    /// What it is called.
    pub(super) name: String,
    /// Where the sign-in begins.
    pub(super) path: String,
}

/// The providers that somebody may sign in with.
pub(super) async fn offers(portal: &Portal, next: &str, again: bool) -> Result<Vec<Offer>, Refusal> {
    let providers = portal.store.auth_providers(Page::FIRST).await?;
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("next", next);
    if again {
        query.append_pair("again", "1");
    }
    let query = query.finish();
    let enabled = providers.into_iter().filter(|provider| provider.enabled);
    Ok(enabled
        .map(|provider| Offer {
            path: format!("/sign-in/with/{}?{query}", provider.name),
            name: provider.name,
        })
        .collect())
}

#[derive(Debug, Deserialize)]
struct Going {
    next: Option<String>,
    /// The provider is to authenticate the person anew, whatever session they have there.
    again: Option<String>,
}

/// What a provider sends back through the browser (RFC 6749, 4.1.2; RFC 9207).
#[derive(Deserialize)]
struct Answer {
    state: Option<String>,
    code: Option<String>,
    iss: Option<String>,
    error: Option<String>,
}

async fn enabled(portal: &Portal, name: &str) -> Result<AuthProvider, Refusal> {
    let all = portal.store.auth_providers(Page::FIRST).await?;
    all.into_iter().find(|provider| provider.enabled && provider.name == name).ok_or_else(|| {
        Refusal::not_found("Nobody signs in like that", "There is no such provider, or it is disabled.")
    })
}

/// Where the provider sends the browser back to, by the portal's own address: whatever `Host` says does not count.
pub(crate) fn redirect_uri(public_url: &str, provider: &str) -> String {
    format!("{}/sign-in/with/{provider}/callback", public_url.trim_end_matches('/'))
}

async fn our_redirect_uri(portal: &Portal, provider: &AuthProvider) -> Result<String, Refusal> {
    let setting = portal.store.sign_in_setting().await?;
    let public = setting.public_url.ok_or_else(|| {
        Refusal::unavailable(
            "The portal does not know its own address: set it with bootstrap or the settings.",
        )
    })?;
    Ok(redirect_uri(&public, &provider.name))
}

/// `GET /sign-in/with/{provider}`
async fn start(
    State(portal): State<SharedPortal>,
    Path(name): Path<String>,
    remote: Remote,
    Query(going): Query<Going>,
) -> Result<Response, Refusal> {
    let provider = enabled(&portal, &name).await?;
    let redirect_uri = our_redirect_uri(&portal, &provider).await?;
    let address = remote.0.ip().to_string();
    let known = match portal.sign_in.remotes.known(&provider).await {
        Ok(known) => known,
        Err(trouble) => return Err(refuse(&portal, &provider, &address, trouble).await),
    };
    let next = origin::local_path(going.next.as_deref());
    let pending = Pending::new(provider.id, next, going.again.is_some(), clock::now_ms())?;
    let mut url = known.authorization_endpoint.clone();
    url.query_pairs_mut()
        .append_pair("response_type", "code")
        .append_pair("client_id", &provider.client_id)
        .append_pair("redirect_uri", &redirect_uri)
        .append_pair("scope", &provider.scopes)
        .append_pair("state", &pending.state)
        .append_pair("nonce", &pending.nonce)
        .append_pair("code_challenge", &pending.challenge())
        .append_pair("code_challenge_method", "S256");
    if pending.again {
        url.query_pairs_mut().append_pair("prompt", "login").append_pair("max_age", "0");
    }
    let mut response = Redirect::to(url.as_str()).into_response();
    pending.leave(&portal.secrets, &mut response)?;
    Ok(response)
}

/// `GET /sign-in/with/{provider}/callback`
async fn finish(
    State(portal): State<SharedPortal>,
    Path(name): Path<String>,
    remote: Remote,
    headers: HeaderMap,
    Query(answer): Query<Answer>,
) -> Result<Response, Refusal> {
    let provider = enabled(&portal, &name).await?;
    let address = remote.0.ip();
    // Only the address is held to account: no two answers have the same state.
    let state = answer.state.as_deref().unwrap_or_default();
    let guessed_at = portal.secrets.tag("sign-in state", &[state.as_bytes()]);
    let limit = &portal.sign_in.answers;
    limit.allows(Instant::now(), &guessed_at, address).map_err(Refusal::too_many)?;
    let address_text = address.to_string();
    let mut response = match signed_in(&portal, &provider, (&headers, &address_text), answer).await {
        Ok((actor, next, authenticated_ms)) => {
            let mut response = Redirect::to(origin::local_path(Some(&next))).into_response();
            let from = (&headers, &*address_text);
            session::begin_at(&portal, &actor, &provider.name, authenticated_ms, from, &mut response).await?;
            metrics::counter!("adit_portal_sign_ins_total", "answer" => "signed_in").increment(1);
            response
        }
        Err(Ended::Refused(refusal)) => return Err(refusal),
        Err(Ended::Trouble(trouble)) => {
            if !trouble.is_providers_fault() {
                limit.failed(Instant::now(), &guessed_at, address);
            }
            refuse(&portal, &provider, &address_text, trouble).await.into_response()
        }
    };
    pending::take_away(&mut response);
    Ok(response)
}

/// Why nobody is signed in.
enum Ended {
    Trouble(Trouble),
    Refused(Refusal),
}

impl From<Trouble> for Ended {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Self {
        Self::Refused(error.into())
    }
}

/// Who it is, where they go on to, and when they proved who they are.
async fn signed_in(
    portal: &Portal,
    provider: &AuthProvider,
    (headers, address): (&HeaderMap, &str),
    answer: Answer,
) -> Result<(Actor, String, i64), Ended> {
    let now_ms = clock::now_ms();
    let pending = Pending::of_browser(&portal.secrets, headers, now_ms).ok_or(Trouble::NotUnderWay)?;
    let state = answer.state.as_deref().unwrap_or_default();
    if pending.provider != provider.id || !pending.has_state(state) {
        return Err(Trouble::NotUnderWay.into());
    }
    let known = portal.sign_in.remotes.known(provider).await?;
    // Before anything else of the answer is believed: another provider may have sent it (RFC 9207, 2.4).
    match &answer.iss {
        Some(issuer) if *issuer != provider.issuer => return Err(Trouble::OtherIssuer.into()),
        None if known.says_issuer => return Err(Trouble::OtherIssuer.into()),
        Some(_) | None => {}
    }
    if let Some(error) = &answer.error {
        return Err(Trouble::declined(error).into());
    }
    let code = answer.code.filter(|code| !code.is_empty() && code.len() <= 4096).ok_or(Trouble::NoCode)?;
    let secret = exchange::secret(&portal.secrets, provider)?;
    let redirect_uri = our_redirect_uri(portal, provider).await?;
    let tokens =
        exchange::exchange(&known, provider, secret.as_deref(), &pending, &code, &redirect_uri).await?;
    let expected = token::Expected { provider, secret: secret.as_deref(), nonce: &pending.nonce, now_ms };
    let claims = match token::verify(&tokens.id_token, &known.keys, &expected) {
        Err(Trouble::Signature) => {
            let keys = portal.sign_in.remotes.newer_keys(provider, &known).await?;
            token::verify(&tokens.id_token, &keys, &expected)?
        }
        verified => verified?,
    };
    let authenticated_ms = authenticated_ms(&pending, claims.authenticated_ms(), now_ms)?;
    let claims = exchange::with_user_info(&known, provider, claims, &tokens.access_token).await?;
    let identity = person::identity(provider, &claims)?;
    let by = By { who: format!("provider: {}", provider.name), address: address.to_owned() };
    let mut change = portal.store.change(&by).await?;
    let actor = change.sign_in_identity(provider.id, &identity).await?.ok_or(Trouble::Unknown)?;
    change.commit().await?;
    Ok((actor, pending.next, authenticated_ms))
}

/// When the person proved who they are; now, if the provider does not say.
fn authenticated_ms(pending: &Pending, said: Option<i64>, now_ms: i64) -> Result<i64, Trouble> {
    if pending.again && said.is_none_or(|at_ms| at_ms < pending.created_ms - FRESH_MS) {
        return Err(Trouble::NotAnew);
    }
    Ok(said.unwrap_or(now_ms).min(now_ms))
}

/// Notes what went wrong, and makes a page of it.
async fn refuse(portal: &Portal, provider: &AuthProvider, address: &str, trouble: Trouble) -> Refusal {
    metrics::counter!("adit_portal_sign_ins_total", "answer" => "refused").increment(1);
    tracing::info!(provider = provider.name, %trouble, "nobody was signed in");
    let noted = async {
        let by = By { who: "unknown".to_owned(), address: address.to_owned() };
        let mut change = portal.store.change(&by).await?;
        let detail = serde_json::json!({ "provider": provider.name, "reason": trouble.to_string() });
        change.audit("sign_in.refused", ("provider", Some(provider.id)), detail).await?;
        change.commit().await
    };
    match noted.await {
        Ok(()) => trouble.page(&provider.name),
        Err(error) => error.into(),
    }
}

/// An address of a provider that may be asked: `https`, or `http` on this very machine.
pub(crate) fn is_acceptable(url: &Url) -> bool {
    let is_here = match url.host() {
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        Some(url::Host::Domain(_)) | None => false,
    };
    url.username().is_empty()
        && url.password().is_none()
        && (url.scheme() == "https" && url.has_host() || url.scheme() == "http" && is_here)
}
