//! How the portal is reached: from a base address to a session.

use std::fmt;
use std::sync::Arc;

use adit_control_client::sign_in::{SignInClient, SignInConfig};
use adit_control_client::{Config, ConfigError, Dial, RootsError};
use aws_lc_rs::digest;
use url::Url;

use crate::dial::MarkedDial;

/// Where the portal is and how to prove who we are.
#[derive(Clone)]
pub struct PortalConfig {
    /// The portal's address: `wss://host[:port]` (or `https://`, which means the same).
    pub url: Url,
    /// The bearer token.
    pub token: String,
    /// Certificates (PEM) to trust instead of the public ones.
    pub ca: Option<Vec<u8>>,
    /// Whether a connection without TLS is allowed.
    pub allow_plain: bool,
}

impl fmt::Debug for PortalConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PortalConfig").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

impl PortalConfig {
    /// Tells this token from others, and says nothing else of it: the beginning of its SHA-256, in hexadecimal.
    pub(crate) fn token_digest(&self) -> String {
        let digest = digest::digest(&digest::SHA256, self.token.as_bytes());
        digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The session configuration for `endpoint`, such as `v1/client`.
    ///
    /// # Errors
    ///
    /// When the address is none of a portal.
    pub(crate) fn session(
        &self,
        endpoint: &str,
        program: &str,
        dial: Arc<dyn Dial>,
    ) -> Result<Config, ConfigError> {
        Ok(Config {
            url: endpoint_url(&self.url, endpoint)?,
            token: self.token.clone(),
            ca: self.ca.clone(),
            allow_plain: self.allow_plain,
            user_agent: user_agent(program),
            dial,
        })
    }

    /// Where a device without a token gets one; `mark` keeps the sockets out of our own tunnel.
    ///
    /// # Errors
    ///
    /// When the address is none of a portal, or the CA none.
    pub fn sign_in(&self, program: &str, mark: Option<u32>) -> Result<SignInClient, ConfigError> {
        SignInClient::new(SignInConfig {
            url: self.url.clone(),
            ca: self.ca.clone(),
            allow_plain: self.allow_plain,
            user_agent: user_agent(program),
            dial: Arc::new(MarkedDial { mark }),
        })
    }

    /// Whom to believe that is named by the portal: whoever could be the portal.
    ///
    /// # Errors
    ///
    /// When the CA is none.
    pub(crate) fn trusted(&self) -> Result<Arc<rustls::ClientConfig>, RootsError> {
        adit_control_client::client_config(self.ca.as_deref())
    }
}

fn user_agent(program: &str) -> String {
    format!("{program}/{} ({})", env!("CARGO_PKG_VERSION"), std::env::consts::OS)
}

fn endpoint_url(base: &Url, endpoint: &str) -> Result<Url, ConfigError> {
    let scheme = match base.scheme() {
        "https" | "wss" => "wss",
        "http" | "ws" => "ws",
        _ => return Err(ConfigError::Url(base.to_string())),
    };
    // Cut off what is no scheme change for `url`: https and wss are both special schemes.
    let mut url = base.clone();
    url.set_scheme(scheme).map_err(|()| ConfigError::Url(base.to_string()))?;
    url.set_query(None);
    url.set_fragment(None);
    let path = format!("{}/{endpoint}", base.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_follows_the_base() {
        let of = |base: &str| endpoint_url(&Url::parse(base).unwrap(), "v1/client").map(String::from);
        assert_eq!(of("wss://portal.example:8443").unwrap(), "wss://portal.example:8443/v1/client");
        assert_eq!(of("https://[2001:db8::1]/adit/?x#y").unwrap(), "wss://[2001:db8::1]/adit/v1/client");
        assert_eq!(of("http://localhost:1").unwrap(), "ws://localhost:1/v1/client");
        assert!(of("ftp://portal.example").is_err());
    }
}
