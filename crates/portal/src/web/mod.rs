//! Signing in with a browser: sessions, the sign-in of people whom the portal itself knows, and what
//! protects every page of the portal.
//!
//! `session` holds the cookie and the extractors that pages take (`Signed`, `SignedForm`);
//! `oidc` the sign-in with a provider;
//! `sign_in` and `welcome` are the pages that whoever is not signed in yet sees, `account` the
//! first one after that; `device` signs devices in, resting on a session. Without any provider
//! people sign in with password and authenticator: the portal must be reachable for its
//! owner when everything else is down, and a company of five has no identity provider.
//!
//! Deliberately absent: script of any kind, so that the policy of what a page may load can be
//! as strict as there is; passwords without an authenticator.

mod account;
mod address;
mod device;
mod limit;
mod oidc;
mod origin;
mod page;
mod password;
mod session;
mod sign_in;
mod totp;
mod welcome;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};

pub(crate) use address::{browser_url, gateway_script, peer_url};
pub(crate) use oidc::{is_acceptable, redirect_uri, seal_secret};
pub(crate) use page::Refusal;
pub(crate) use session::{Signed, SignedForm};
#[cfg(test)]
pub(crate) use session::{begin, signed};
pub(crate) use sign_in::LOCAL;
pub(crate) use welcome::{LINK_LIFETIME_MS, make_link, new_link};

use crate::portal::SharedPortal;

/// The largest form.
const MAX_FORM: usize = 64 * 1024;

/// What pages may do in a browser: nothing that does not come from here.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

const STYLESHEET: &str = include_str!("../../assets/adit.css");

/// What signing in needs besides the database.
#[derive(Debug)]
pub(crate) struct SignIn {
    passwords: password::Passwords,
    limit: limit::SignInLimit,
    /// Guesses at the codes of devices.
    codes: limit::SignInLimit,
    remotes: oidc::Remotes,
    /// Answers of providers that nobody asked for, and forged ones.
    answers: limit::SignInLimit,
}

impl SignIn {
    /// Nobody has tried yet.
    pub(crate) fn new() -> Self {
        Self {
            passwords: password::Passwords::new(),
            limit: limit::SignInLimit::new(),
            codes: limit::SignInLimit::new(),
            remotes: oidc::Remotes::new(),
            answers: limit::SignInLimit::new(),
        }
    }
}

/// The pages.
pub(crate) fn router() -> Router<SharedPortal> {
    let pages = Router::new()
        .route("/sign-in", get(sign_in::form).post(sign_in::submit))
        .route("/sign-out", post(account::sign_out))
        .route("/", get(account::show))
        .route("/devices/{id}/end", post(account::end_device))
        .route("/sessions/{id}/end", post(account::end_session))
        .route("/welcome", get(welcome::form).post(welcome::submit))
        .merge(device::router())
        .merge(oidc::router());
    protect(pages.route("/assets/adit.css", get(stylesheet)))
}

/// Puts pages behind the limits and headers that all of them have.
fn protect(pages: Router<SharedPortal>) -> Router<SharedPortal> {
    pages.layer(DefaultBodyLimit::max(MAX_FORM)).layer(middleware::from_fn(set_headers))
}

async fn set_headers(request: Request, next: Next) -> Response {
    const HEADERS: [(HeaderName, &str); 5] = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

async fn stylesheet() -> Response {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLESHEET).into_response()
}
