//! Signing a device in: the HTTP side of the contract.
//!
//! Two grants of OAuth 2.0 (RFC 6749), both answered by [`TOKEN_PATH`]:
//!
//! * On a machine with a browser: authorization code with PKCE (RFC 7636, method S256) and a
//!   loopback redirect (RFC 8252, section 7.3). The browser opens [`AUTHORIZE_PATH`] with an
//!   [`AuthorizeQuery`] and comes back to `http://127.0.0.1:PORT/…` with `code` and `state`, or
//!   with `error` and `state`.
//! * Anywhere else: a device code (RFC 8628). The device asks [`DEVICE_PATH`], shows the user
//!   code, and polls.
//!
//! Requests are forms, answers JSON. Who is signed in already and signs in again sends the
//! present token along ([`TokenRequest::renews`]): if it is of the same actor and still good,
//! the same token is answered, with a new end and a new age, and whatever rests on it goes on.
//!
//! Deliberately absent: refresh tokens (a token is renewed by signing in), client secrets (a
//! program that everybody has can keep none), scopes (a device may do what its user may).

use serde::{Deserialize, Serialize};

/// Where a device begins a sign-in with a device code: `POST`, a [`DeviceRequest`].
pub const DEVICE_PATH: &str = "/v1/sign-in/device";

/// Where a device exchanges a code for a token: `POST`, a [`TokenRequest`].
pub const TOKEN_PATH: &str = "/v1/sign-in/token";

/// The page that the browser on the device's own machine opens, with an [`AuthorizeQuery`].
pub const AUTHORIZE_PATH: &str = "/device/authorize";

/// The page where a user code is typed.
pub const VERIFY_PATH: &str = "/device";

/// Names our own program to the portal, in every request.
pub const CLIENT_ID: &str = "adit";

/// `code_challenge_method`: the only one.
pub const CHALLENGE_METHOD: &str = "S256";

/// `grant_type` of an authorization code.
pub const GRANT_CODE: &str = "authorization_code";

/// `grant_type` of a device code (RFC 8628, section 3.4).
pub const GRANT_DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// The query of [`AUTHORIZE_PATH`] (RFC 6749, section 4.1.1; RFC 7636, section 4.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorizeQuery {
    /// `code`.
    pub response_type: String,
    /// [`CLIENT_ID`].
    pub client_id: String,
    /// `http://127.0.0.1:PORT/…` or `http://[::1]:PORT/…`.
    pub redirect_uri: String,
    /// The SHA-256 of the verifier, base64url without padding.
    pub code_challenge: String,
    /// [`CHALLENGE_METHOD`].
    pub code_challenge_method: String,
    /// Comes back unchanged.
    pub state: String,
    /// What the device calls itself; shown to whoever approves.
    #[serde(default)]
    pub device_name: String,
}

/// Asks for a device code (RFC 8628, section 3.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRequest {
    /// [`CLIENT_ID`].
    pub client_id: String,
    /// What the device calls itself; shown to whoever approves.
    #[serde(default)]
    pub device_name: String,
}

/// A device code (RFC 8628, section 3.2).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceCode {
    /// A secret of the device.
    pub device_code: String,
    /// What its user types, as `BCDF-GHJK`.
    pub user_code: String,
    /// Where it is typed.
    pub verification_uri: String,
    /// The same with the code in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification_uri_complete: Option<String>,
    /// Seconds until the codes end.
    pub expires_in: u64,
    /// Seconds between two questions, at least.
    #[serde(default = "default_interval")]
    pub interval: u64,
}

/// RFC 8628, section 3.2: "If no value is provided, clients MUST use 5 as the default."
const fn default_interval() -> u64 {
    5
}

/// Exchanges a code for a token (RFC 6749, section 4.1.3; RFC 8628, section 3.4).
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// [`GRANT_CODE`] or [`GRANT_DEVICE_CODE`].
    pub grant_type: String,
    /// [`CLIENT_ID`].
    pub client_id: String,
    /// The authorization code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The same as in the [`AuthorizeQuery`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redirect_uri: Option<String>,
    /// What the challenge was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_verifier: Option<String>,
    /// The device code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_code: Option<String>,
    /// The token that the device has, to be renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renews: Option<String>,
}

/// A token (RFC 6749, section 5.1).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedToken {
    /// What the device presents from now on.
    pub access_token: String,
    /// `Bearer`.
    pub token_type: String,
    /// Seconds until it ends; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<u64>,
    /// Who is signed in.
    #[serde(default)]
    pub actor_name: String,
}

/// Why there is no token (RFC 6749, section 5.2; RFC 8628, section 3.5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignInFailure {
    /// For programs.
    pub error: SignInError,
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_description: Option<String>,
}

/// The codes of [`SignInFailure`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignInError {
    /// Nobody has decided yet: ask again after the interval.
    AuthorizationPending,
    /// Asked too soon: the interval grows by five seconds.
    SlowDown,
    /// The user said no, or may not have (more) devices.
    AccessDenied,
    /// The device code has ended: begin again.
    ExpiredToken,
    /// The code is unknown, used, of somebody else, or its verifier is wrong.
    InvalidGrant,
    /// The program is unknown.
    InvalidClient,
    /// There is no such grant.
    UnsupportedGrantType,
    /// Something is missing or malformed.
    #[serde(other)]
    InvalidRequest,
}

/// Secrets are left out.
macro_rules! hide {
    ($($of:ident),*) => {$(
        impl std::fmt::Debug for $of {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($of)).finish_non_exhaustive()
            }
        }
    )*};
}

hide!(DeviceCode, TokenRequest, IssuedToken);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_standards_show_is_read() {
        let code: DeviceCode = serde_json::from_str(
            r#"{"device_code":"GmRh","user_code":"WDJB-MJHT","verification_uri":"https://x/device","expires_in":1800}"#,
        )
        .unwrap();
        assert_eq!((code.interval, code.expires_in), (5, 1800));
        let failure: SignInFailure = serde_json::from_str(r#"{"error":"authorization_pending"}"#).unwrap();
        assert_eq!(failure.error, SignInError::AuthorizationPending);
        let unknown: SignInFailure = serde_json::from_str(r#"{"error":"invalid_scope"}"#).unwrap();
        assert_eq!(unknown.error, SignInError::InvalidRequest);
    }

    #[test]
    fn secrets_are_not_shown() {
        let token = IssuedToken {
            access_token: "sesame".to_owned(),
            token_type: "Bearer".to_owned(),
            expires_in: None,
            actor_name: String::new(),
        };
        let request = TokenRequest { renews: Some("sesame".to_owned()), ..TokenRequest::default() };
        assert!(!format!("{token:?}{request:?}").contains("sesame"));
    }
}
