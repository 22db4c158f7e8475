//! The secrets of one sign-in in a browser: verifier and state.

use std::fmt;

use adit_protocol::sign_in::{AuthorizeQuery, CHALLENGE_METHOD, CLIENT_ID};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Verifier (RFC 7636, section 4.1) and state (RFC 6749, section 10.12) of one sign-in.
pub struct CodeGrant {
    verifier: String,
    state: String,
}

impl fmt::Debug for CodeGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeGrant").finish_non_exhaustive()
    }
}

impl CodeGrant {
    /// Makes both of `random` bytes, which must be nobody's else and used once.
    pub fn new(random: &[u8; 64]) -> Self {
        let (verifier, state) = random.split_at(32);
        Self { verifier: URL_SAFE_NO_PAD.encode(verifier), state: URL_SAFE_NO_PAD.encode(state) }
    }

    /// What the portal compares the challenge with.
    pub(super) fn verifier(&self) -> &str {
        &self.verifier
    }

    /// The SHA-256 of the verifier (RFC 7636, section 4.2).
    fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, self.verifier.as_bytes()))
    }

    /// What comes back unchanged through the browser.
    pub fn state(&self) -> &str {
        &self.state
    }

    /// Whether `given` is the state of this sign-in, in a time that does not tell how much of it is.
    pub fn is_state(&self, given: &str) -> bool {
        verify_slices_are_equal(self.state.as_bytes(), given.as_bytes()).is_ok()
    }

    /// What the browser brings to the portal.
    pub(super) fn query(&self, redirect_uri: &str, device_name: &str) -> AuthorizeQuery {
        AuthorizeQuery {
            response_type: "code".to_owned(),
            client_id: CLIENT_ID.to_owned(),
            redirect_uri: redirect_uri.to_owned(),
            code_challenge: self.challenge(),
            code_challenge_method: CHALLENGE_METHOD.to_owned(),
            state: self.state.clone(),
            device_name: device_name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7636, appendix B.
    #[test]
    fn the_challenge_is_that_of_the_standard() {
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned();
        let grant = CodeGrant { verifier, state: String::new() };
        assert_eq!(grant.challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn verifier_and_state_are_independent_and_only_the_state_is_told() {
        let mut random = [7; 64];
        random[63] = 8;
        let grant = CodeGrant::new(&random);
        assert_eq!((grant.verifier.len(), grant.state.len()), (43, 43), "RFC 7636: 43 to 128");
        assert_ne!(grant.verifier, grant.state);
        let query = grant.query("http://127.0.0.1:1/callback", "laptop");
        assert_eq!(query.state, grant.state);
        assert_ne!(query.code_challenge, grant.verifier);
        assert!(!format!("{grant:?}").contains(&grant.verifier));
    }

    #[test]
    fn only_the_whole_state_is_the_state() {
        let grant = CodeGrant::new(&[1; 64]);
        let state = grant.state().to_owned();
        assert!(grant.is_state(&state));
        for other in ["", &state[1..], &format!("{state}x"), &state.to_lowercase()] {
            assert!(!grant.is_state(other), "{other}");
        }
    }
}
