//! Getting a token for a device: the asking side of [`adit_protocol::sign_in`].
//!
//! [`SignInClient`] sends forms to the portal over the same sockets and with the same trust as
//! the control session, one connection for each. [`CodeGrant`] holds the secrets of a sign-in
//! in a browser, [`Polling`] says when to ask again; both are pure.
//!
//! What the portal answers is shown to people and opened in a browser, so nothing of it is
//! taken as it is: lengths are bounded, control characters refused, addresses parsed and
//! written anew, and only web pages opened.
//!
//! Deliberately absent: redirects (the portal is who it is), cookies, proxies.

mod code_grant;
mod http;
mod polling;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use adit_protocol::sign_in::{
    AUTHORIZE_PATH, AuthorizeQuery, CLIENT_ID, DEVICE_PATH, DeviceCode, DeviceRequest, GRANT_CODE,
    GRANT_DEVICE_CODE, IssuedToken, SignInError, SignInFailure, TOKEN_PATH, TokenRequest,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

pub use self::code_grant::CodeGrant;
pub use self::polling::Polling;
use crate::ConfigError;
use crate::dial::Dial;
use crate::origin::Origin;

/// The longest token or device code that is taken.
const LONGEST_SECRET: usize = 4096;

/// The longest address that is shown or opened.
const LONGEST_ADDRESS: usize = 2048;

/// The longest user code that is shown.
const LONGEST_USER_CODE: usize = 32;

/// The longest sentence of the portal that is shown.
const LONGEST_SENTENCE: usize = 200;

/// The longest life of a device code that is believed.
const LONGEST_LIFE: u64 = 3600;

/// Where to sign in.
pub struct SignInConfig {
    /// The portal's address: `wss://host[:port]` or `https://…`, which mean the same.
    pub url: Url,
    /// Certificates (PEM) to trust instead of the public ones.
    pub ca: Option<Vec<u8>>,
    /// Whether a connection without TLS is allowed.
    pub allow_plain: bool,
    /// Name and version of the program.
    pub user_agent: String,
    /// Opens TCP connections.
    pub dial: Arc<dyn Dial>,
}

impl fmt::Debug for SignInConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignInConfig").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

/// Why there is no answer, or no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The portal was not reached or cannot answer now: trying again may help.
    #[error("{0}")]
    Unreachable(String),
    /// The portal was asked, and its answer did not come: it may have done what it was asked for.
    #[error("{0}")]
    Lost(String),
    /// The portal says no, or not yet.
    #[error("{}", .description.as_deref().unwrap_or_else(|| sentence(*.error)))]
    Refused {
        /// For programs.
        error: SignInError,
        /// What the portal says to people, made harmless.
        description: Option<String>,
    },
    /// What came back is no answer of a portal.
    #[error("the portal answered what cannot be understood: {0}")]
    Malformed(String),
}

const fn sentence(error: SignInError) -> &'static str {
    match error {
        SignInError::AuthorizationPending => "nobody has decided yet",
        SignInError::SlowDown => "the portal is asked too often",
        SignInError::AccessDenied => "the sign-in was denied",
        SignInError::ExpiredToken => "nobody approved the sign-in in time",
        SignInError::InvalidGrant => "the portal does not accept the code of this sign-in",
        SignInError::InvalidClient => "the portal does not know this program",
        SignInError::UnsupportedGrantType => "the portal does not support this way to sign in",
        SignInError::InvalidRequest => "the portal does not understand this program",
    }
}

/// Asks a portal for tokens.
pub struct SignInClient {
    origin: Origin,
    base: Url,
    user_agent: String,
}

impl fmt::Debug for SignInClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignInClient").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

impl SignInClient {
    /// A client of the portal that `config` names.
    ///
    /// # Errors
    ///
    /// See [`ConfigError`].
    pub fn new(config: SignInConfig) -> Result<Self, ConfigError> {
        let origin = Origin::new(&config.url, config.ca.as_deref(), config.allow_plain, config.dial)?;
        let base = web_address(&config.url).ok_or_else(|| ConfigError::Url(config.url.to_string()))?;
        Ok(Self { origin, base, user_agent: config.user_agent })
    }

    /// The page that a browser on this machine opens.
    pub fn authorize_url(&self, grant: &CodeGrant, redirect_uri: &str, device_name: &str) -> Url {
        let query: AuthorizeQuery = grant.query(redirect_uri, device_name);
        let mut url = self.at(AUTHORIZE_PATH);
        // Seven strings can always be written as a query.
        url.set_query(serde_urlencoded::to_string(&query).ok().as_deref());
        url
    }

    /// Asks for a device code.
    ///
    /// # Errors
    ///
    /// See [`ExchangeError`].
    pub async fn device_code(&self, device_name: &str) -> Result<DeviceCode, ExchangeError> {
        let request = DeviceRequest { client_id: CLIENT_ID.to_owned(), device_name: device_name.to_owned() };
        check_device_code(self.ask(DEVICE_PATH, &request).await?, self.origin.is_plain())
    }

    /// Waits until somebody approved `code`, and returns the token.
    ///
    /// # Errors
    ///
    /// See [`ExchangeError`]; the end of the code is [`SignInError::ExpiredToken`].
    pub async fn redeem_device_code(
        &self,
        code: &DeviceCode,
        renews: Option<String>,
    ) -> Result<IssuedToken, ExchangeError> {
        let request = TokenRequest {
            grant_type: GRANT_DEVICE_CODE.to_owned(),
            client_id: CLIENT_ID.to_owned(),
            device_code: Some(code.device_code.clone()),
            renews,
            ..TokenRequest::default()
        };
        self.redeem(&request, Polling::for_device_code(Instant::now(), code)).await
    }

    /// Exchanges the `code` that came back through the browser for a token.
    ///
    /// # Errors
    ///
    /// See [`ExchangeError`].
    pub async fn redeem_code(
        &self,
        grant: &CodeGrant,
        code: String,
        redirect_uri: String,
        renews: Option<String>,
    ) -> Result<IssuedToken, ExchangeError> {
        let request = TokenRequest {
            grant_type: GRANT_CODE.to_owned(),
            client_id: CLIENT_ID.to_owned(),
            code: Some(code),
            redirect_uri: Some(redirect_uri),
            code_verifier: Some(grant.verifier().to_owned()),
            renews,
            ..TokenRequest::default()
        };
        self.redeem(&request, Polling::for_code(Instant::now())).await
    }

    async fn redeem(
        &self,
        request: &TokenRequest,
        mut polling: Polling,
    ) -> Result<IssuedToken, ExchangeError> {
        loop {
            tokio::time::sleep_until(polling.next().into()).await;
            match self.ask(TOKEN_PATH, request).await {
                Ok(token) => return check_token(token),
                Err(error) => {
                    if let ExchangeError::Unreachable(reason) | ExchangeError::Lost(reason) = &error {
                        tracing::info!(reason, "asking the portal for the token failed");
                    }
                    polling.handle_failure(Instant::now(), error)?;
                }
            }
        }
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str, form: &impl Serialize) -> Result<T, ExchangeError> {
        let form = serde_urlencoded::to_string(form)
            .map_err(|error| ExchangeError::Malformed(format!("our own request: {error}")))?;
        let answer = http::post(&self.origin, &self.at(path), &self.user_agent, form).await?;
        if answer.status.is_success() {
            return serde_json::from_slice(&answer.body).map_err(|_| {
                ExchangeError::Malformed(format!("{} with a body of another kind", answer.status))
            });
        }
        Err(refusal(&answer))
    }

    fn at(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url
    }
}

/// The same address for a browser.
fn web_address(url: &Url) -> Option<Url> {
    let mut base = url.clone();
    let scheme = match url.scheme() {
        "wss" | "https" => "https",
        _ => "http",
    };
    base.set_scheme(scheme).ok()?;
    base.set_query(None);
    base.set_fragment(None);
    Some(base)
}

fn refusal(answer: &http::Answer) -> ExchangeError {
    // Balancers and portals that are overloaded or starting.
    if answer.status.is_server_error() || answer.status.as_u16() == 429 {
        return ExchangeError::Unreachable(format!("the portal answered {}", answer.status));
    }
    match serde_json::from_slice::<SignInFailure>(&answer.body) {
        Ok(failure) => ExchangeError::Refused {
            error: failure.error,
            description: failure.error_description.as_deref().and_then(harmless),
        },
        Err(_) if answer.status.as_u16() == 404 => {
            ExchangeError::Malformed("404, so it is no portal, or one too old to sign devices in".to_owned())
        }
        Err(_) => ExchangeError::Malformed(answer.status.to_string()),
    }
}

/// A sentence of somebody else as one line without control characters, bounded; nothing if nothing is left.
pub fn harmless(text: &str) -> Option<String> {
    let plain: String = text.chars().filter(|letter| !letter.is_control()).take(LONGEST_SENTENCE).collect();
    let plain = plain.trim();
    (!plain.is_empty()).then(|| plain.to_owned())
}

fn check_secret(secret: &str, what: &str) -> Result<(), ExchangeError> {
    let is_good =
        (1..=LONGEST_SECRET).contains(&secret.len()) && secret.bytes().all(|b| b.is_ascii_graphic());
    if is_good { Ok(()) } else { Err(ExchangeError::Malformed(format!("{what} that is none"))) }
}

fn check_token(token: IssuedToken) -> Result<IssuedToken, ExchangeError> {
    check_secret(&token.access_token, "a token")?;
    if !token.token_type.eq_ignore_ascii_case("bearer") {
        return Err(ExchangeError::Malformed("a token of an unknown type".to_owned()));
    }
    Ok(IssuedToken { actor_name: harmless(&token.actor_name).unwrap_or_default(), ..token })
}

fn check_device_code(mut code: DeviceCode, allow_plain: bool) -> Result<DeviceCode, ExchangeError> {
    check_secret(&code.device_code, "a device code")?;
    let is_good = (1..=LONGEST_USER_CODE).contains(&code.user_code.len())
        && code.user_code.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_good {
        return Err(ExchangeError::Malformed("a user code that nobody can type".to_owned()));
    }
    code.verification_uri = page(&code.verification_uri, allow_plain)?;
    code.verification_uri_complete =
        code.verification_uri_complete.map(|uri| page(&uri, allow_plain)).transpose()?;
    code.expires_in = code.expires_in.min(LONGEST_LIFE);
    Ok(code)
}

/// The address of a web page, and nothing else that a desktop would open.
fn page(address: &str, allow_plain: bool) -> Result<String, ExchangeError> {
    let url = Url::parse(address).ok().filter(|_| address.len() <= LONGEST_ADDRESS);
    let is_page = |url: &Url| url.scheme() == "https" || (allow_plain && url.scheme() == "http");
    url.filter(is_page)
        .map(String::from)
        .ok_or_else(|| ExchangeError::Malformed("an address that is no page to open".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code() -> DeviceCode {
        DeviceCode {
            device_code: "secret".to_owned(),
            user_code: "BCDF-GHJK".to_owned(),
            verification_uri: "https://portal.example/device".to_owned(),
            verification_uri_complete: Some("https://portal.example/device?code=BCDF-GHJK".to_owned()),
            expires_in: 600,
            interval: 5,
        }
    }

    #[test]
    fn what_a_portal_sends_to_the_terminal_and_the_browser_is_checked() {
        assert_eq!(check_device_code(code(), false), Ok(code()));
        let spoiled = [
            DeviceCode { user_code: "\u{1b}[2J".to_owned(), ..code() },
            DeviceCode { user_code: String::new(), ..code() },
            DeviceCode { device_code: "a b".to_owned(), ..code() },
            DeviceCode { verification_uri: "file:///etc/passwd".to_owned(), ..code() },
            DeviceCode { verification_uri: "http://portal.example/device".to_owned(), ..code() },
            DeviceCode { verification_uri_complete: Some("javascript:alert(1)".to_owned()), ..code() },
            DeviceCode { verification_uri: format!("https://x/{}", "y".repeat(5000)), ..code() },
        ];
        for code in spoiled {
            assert!(matches!(check_device_code(code, false), Err(ExchangeError::Malformed(_))));
        }
        let plain = DeviceCode { verification_uri: "http://127.0.0.1/device".to_owned(), ..code() };
        assert!(check_device_code(plain, true).is_ok());
        let eternal = DeviceCode { expires_in: u64::MAX, ..code() };
        assert_eq!(check_device_code(eternal, false).unwrap().expires_in, LONGEST_LIFE);
    }

    #[test]
    fn sentences_of_others_are_one_bounded_line() {
        assert_eq!(harmless("no\r\n\u{1b}[31mway").as_deref(), Some("no[31mway"));
        assert_eq!(harmless(&"x".repeat(9000)).unwrap().len(), LONGEST_SENTENCE);
        assert_eq!(harmless(" \n\t"), None);
    }

    #[test]
    fn tokens_that_no_header_could_carry_are_refused() {
        let token = |text: &str, kind: &str| IssuedToken {
            access_token: text.to_owned(),
            token_type: kind.to_owned(),
            expires_in: None,
            actor_name: "Maria\u{7}".to_owned(),
        };
        assert_eq!(check_token(token("adit_x", "bearer")).unwrap().actor_name, "Maria");
        for (text, kind) in [("", "Bearer"), ("a\nb", "Bearer"), (&*"x".repeat(5000), "Bearer"), ("x", "MAC")]
        {
            assert!(check_token(token(text, kind)).is_err());
        }
    }

    #[test]
    fn the_browser_gets_the_portals_own_address() {
        let at = |url: &str| web_address(&Url::parse(url).unwrap()).unwrap().to_string();
        assert_eq!(at("wss://portal.example:8443/prefix?x#y"), "https://portal.example:8443/prefix");
        assert_eq!(at("ws://127.0.0.1:80"), "http://127.0.0.1/");
        assert_eq!(at("https://portal.example"), "https://portal.example/");
    }
}
