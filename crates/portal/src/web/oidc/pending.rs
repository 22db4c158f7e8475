//! A sign-in under way: a cookie that only the portal can make and read, and that only the browser has which began it.
//!
//! There is one for each browser, for ten minutes, and it is taken away with the first answer. So an answer is worth
//! nothing in another browser (nobody is signed in as somebody else by a link), nor a second time in this one; a code that
//! was seen elsewhere is worth nothing without the PKCE verifier in here.

use std::time::Duration;

use aws_lc_rs::digest;
use axum::http::HeaderMap;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;
use uuid::Uuid;

use crate::credential::{self, NoRandomness, Secrets};
use crate::web::session::{cookie, set_cookie};

const COOKIE: &str = "__Host-adit-sign-in";

/// How long a person may take at the provider.
const LONGEST: Duration = Duration::from_secs(600);

/// What else is sealed under the portal's key begins otherwise.
const PURPOSE: &str = "oidc sign-in ";

/// What is to be known when the browser comes back.
#[derive(Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) provider: Uuid,
    pub(super) state: String,
    pub(super) nonce: String,
    pub(super) verifier: String,
    pub(super) next: String,
    pub(super) again: bool,
    pub(super) created_ms: i64,
}

impl Pending {
    pub(super) fn new(provider: Uuid, next: &str, again: bool, now_ms: i64) -> Result<Self, NoRandomness> {
        let random = || Ok::<_, NoRandomness>(URL_SAFE_NO_PAD.encode(credential::random_bytes()?));
        let (state, nonce, verifier) = (random()?, random()?, random()?);
        Ok(Self { provider, state, nonce, verifier, next: next.to_owned(), again, created_ms: now_ms })
    }

    /// The challenge of the verifier (RFC 7636, 4.2).
    pub(super) fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, self.verifier.as_bytes()))
    }

    pub(super) fn has_state(&self, state: &str) -> bool {
        self.state.as_bytes().ct_eq(state.as_bytes()).into()
    }

    /// Leaves it with the browser.
    pub(super) fn leave(&self, secrets: &Secrets, response: &mut Response) -> Result<(), NoRandomness> {
        let text = serde_json::to_string(self).map_err(|_| NoRandomness)?;
        set_cookie(response, COOKIE, &secrets.seal(&format!("{PURPOSE}{text}"))?, Some(LONGEST));
        Ok(())
    }

    /// What was left with this browser, if that is not too long ago.
    pub(super) fn of_browser(secrets: &Secrets, headers: &HeaderMap, now_ms: i64) -> Option<Self> {
        let text = secrets.open(cookie(headers, COOKIE)?)?;
        let pending: Self = serde_json::from_str(text.strip_prefix(PURPOSE)?).ok()?;
        let age_ms = u64::try_from(now_ms - pending.created_ms).ok()?;
        (Duration::from_millis(age_ms) < LONGEST).then_some(pending)
    }
}

/// Takes it away again.
pub(super) fn take_away(response: &mut Response) {
    set_cookie(response, COOKIE, "", Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use axum::http::header;
    use axum::response::IntoResponse as _;

    use super::*;

    #[test]
    fn a_sign_in_is_known_to_its_browser_for_ten_minutes() {
        let secrets = Secrets::new(&[1; 32], &[2; 32]);
        let pending = Pending::new(Uuid::nil(), "/x", false, 1_000).unwrap();
        let mut response = ().into_response();
        pending.leave(&secrets, &mut response).unwrap();
        let set = response.headers()[header::SET_COOKIE].to_str().unwrap();
        let headers = |text: &str| HeaderMap::from_iter([(header::COOKIE, text.parse().unwrap())]);
        let held = headers(set.split(';').next().unwrap());
        let found = Pending::of_browser(&secrets, &held, 1_000 + 599_999).unwrap();
        assert!(found.has_state(&pending.state) && !found.has_state(&pending.nonce) && !found.has_state(""));
        for (secrets, headers, now_ms) in [
            (&secrets, &held, 1_000 + 600_000),
            (&secrets, &held, 0),
            (&Secrets::new(&[1; 32], &[3; 32]), &held, 1_000),
            (&secrets, &headers("__Host-adit-sign-in=AAAA"), 1_000),
        ] {
            assert!(Pending::of_browser(secrets, headers, now_ms).is_none());
        }
    }

    #[test]
    fn what_was_sealed_for_another_purpose_is_no_sign_in() {
        let secrets = Secrets::new(&[1; 32], &[2; 32]);
        let text = serde_json::to_string(&Pending::new(Uuid::nil(), "/", false, 0).unwrap()).unwrap();
        let cookie = format!("{COOKIE}={}", secrets.seal(&text).unwrap());
        let headers = HeaderMap::from_iter([(header::COOKIE, cookie.parse().unwrap())]);
        assert!(Pending::of_browser(&secrets, &headers, 0).is_none());
    }
}
