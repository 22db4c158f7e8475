//! The session with the portal: who we are, what time it is, when we leave.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_control_client::{Config, ConfigError, Event, FatalReason, Session, SystemDial};
use adit_protocol::client::Empty;
use adit_protocol::relay::{RelayHello, SecretRotated};
use adit_protocol::{PortalToRelay, REVISION, RelayTls, RelayToPortal};
use anyhow::{Context as _, bail};
use url::Url;

use crate::certificate::Certificate;
use crate::identity::Identity;
use crate::settings::{Place, PortalSettings};

/// Where relays dial in.
const ENDPOINT: &str = "v1/relay";
/// How long the last words may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// What the portal's session means for the relay.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The portal knows us and hands us out; its clock says this (since the Unix epoch).
    Accepted { unix_now: Duration },
    /// The token is dead.
    Refused(FatalReason),
}

/// The session.
#[derive(Debug)]
pub(crate) struct Portal {
    session: Session<PortalToRelay, RelayToPortal>,
    identity: Identity,
    state_dir: PathBuf,
    /// What the relay says of itself whenever it connects.
    hello: Arc<Mutex<RelayHello>>,
}

/// Checks where the portal is and how to get in.
///
/// # Errors
///
/// When the address is none of a portal, or is not encrypted without permission.
pub(crate) fn session_config(
    portal: &Url,
    token: String,
    ca: Option<Vec<u8>>,
    allow_plain: bool,
) -> anyhow::Result<Config> {
    Ok(Config {
        url: endpoint(portal)?,
        token,
        ca,
        allow_plain,
        user_agent: format!("adit-relay/{} ({})", env!("CARGO_PKG_VERSION"), std::env::consts::OS),
        dial: Arc::new(SystemDial),
    })
}

impl Portal {
    /// Starts the session. Needs a runtime.
    ///
    /// # Errors
    ///
    /// When the settings cannot work; everything that may pass is tried again instead.
    pub(crate) fn start(
        settings: PortalSettings,
        place: &Place,
        identity: Identity,
        certificate: Option<&Certificate>,
    ) -> anyhow::Result<Self> {
        let hello = hello(settings.name, place, &identity, certificate)?;
        let hello = Arc::new(Mutex::new(hello));
        let said = Arc::clone(&hello);
        let say = move || RelayToPortal::Hello(said.lock().unwrap_or_else(PoisonError::into_inner).clone());
        let session = adit_control_client::start(settings.session, say)?;
        Ok(Self { session, identity, state_dir: settings.state_dir, hello })
    }

    /// Makes a new secret and keeps the one before; the portal does not know yet.
    ///
    /// # Errors
    ///
    /// When it cannot be written down.
    pub(crate) fn rotate_secret(&mut self) -> anyhow::Result<String> {
        self.identity = Identity::load(&self.state_dir, true)?;
        self.hello.lock().unwrap_or_else(PoisonError::into_inner).secret.clone_from(&self.identity.secret);
        Ok(self.identity.secret.clone())
    }

    /// Tells the portal the secret. Without a session it hears it when there is one again.
    pub(crate) fn announce_secret(&self) {
        let secret = self.identity.secret.clone();
        self.session.send(RelayToPortal::SecretRotated(SecretRotated { secret }));
    }

    /// The next thing that matters; `None` when the session is over. Safe to drop while it waits.
    pub(crate) async fn next(&mut self) -> Option<News> {
        loop {
            match self.session.next_event().await? {
                Event::Message(PortalToRelay::Init(init)) => {
                    tracing::info!(relay = %init.relay, "the portal hands this relay out");
                    return Some(News::Accepted { unix_now: Duration::from_millis(init.portal_time_ms) });
                }
                Event::Message(PortalToRelay::Disconnect(disconnect)) => {
                    tracing::info!(reason = ?disconnect.reason, "the portal ends the session");
                }
                Event::Connected => tracing::debug!("connected to the portal"),
                Event::Disconnected { reason, retry_in } => {
                    // No warning: relaying goes on, and the session comes back by itself.
                    tracing::info!(
                        reason,
                        retry_in_ms = retry_in.as_millis() as u64,
                        "no connection to the portal"
                    );
                }
                Event::Fatal { reason } => return Some(News::Refused(reason)),
            }
        }
    }

    /// Tells the portal to hand this relay out no more.
    pub(crate) fn announce_draining(&self) {
        self.session.send(RelayToPortal::Draining(Empty {}));
    }

    /// Says the last words and ends the session.
    pub(crate) async fn close(self) {
        self.session.close(CLOSE_LIMIT).await;
    }
}

/// What the relay says of itself.
fn hello(
    name: String,
    place: &Place,
    identity: &Identity,
    certificate: Option<&Certificate>,
) -> anyhow::Result<RelayHello> {
    let tls = place.tls.as_ref().zip(certificate).map(|(tls, certificate)| RelayTls {
        port: tls.port,
        server_name: certificate.server_name.clone(),
        certificate_sha256: certificate.sha256.clone(),
    });
    if let Some(tls) = tls.as_ref().filter(|tls| !tls.is_sound()) {
        bail!("clients cannot verify the name {:?}: give another --tls-name", tls.server_name);
    }
    Ok(RelayHello {
        revision: REVISION,
        device_id: identity.device_id,
        name,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ipv4: place.public_v4(),
        ipv6: place.public_v6(),
        port: place.port,
        tcp_port: place.tcp_port,
        tls,
        secret: identity.secret.clone(),
    })
}

/// From the portal's base address to the relays' endpoint.
fn endpoint(base: &Url) -> anyhow::Result<Url> {
    let scheme = match base.scheme() {
        "https" | "wss" => "wss",
        "http" | "ws" => "ws",
        _ => return Err(ConfigError::Url(base.to_string())).context("--portal"),
    };
    let mut url = base.clone();
    url.set_scheme(scheme).map_err(|()| ConfigError::Url(base.to_string())).context("--portal")?;
    url.set_query(None);
    url.set_fragment(None);
    let path = format!("{}/{ENDPOINT}", base.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_endpoint_follows_the_portals_address() {
        let of = |base: &str| endpoint(&Url::parse(base).expect("URL")).map(String::from).ok();
        assert_eq!(of("wss://portal.example:8443").as_deref(), Some("wss://portal.example:8443/v1/relay"));
        assert_eq!(
            of("https://[2001:db8::1]/adit/?x#y").as_deref(),
            Some("wss://[2001:db8::1]/adit/v1/relay")
        );
        assert_eq!(of("http://localhost:1").as_deref(), Some("ws://localhost:1/v1/relay"));
        assert_eq!(of("ftp://portal.example"), None);
    }
}
