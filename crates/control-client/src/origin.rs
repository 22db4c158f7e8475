//! The portal as a place to connect to: checked once, opened as often as needed.

use std::sync::Arc;

use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;
use url::Url;

use crate::dial::{Dial, Dialer};
use crate::stream::Stream;
use crate::{ConfigError, tls};

/// Where the portal is, and whom to believe that it is the portal.
pub(crate) struct Origin {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    dialer: Dialer,
}

impl Origin {
    pub(crate) fn new(
        url: &Url,
        ca: Option<&[u8]>,
        allow_plain: bool,
        dial: Arc<dyn Dial>,
    ) -> Result<Self, ConfigError> {
        let invalid = || ConfigError::Url(url.to_string());
        let host = url.host_str().ok_or_else(invalid)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = url.port_or_known_default().ok_or_else(invalid)?;
        let tls = match url.scheme() {
            "wss" | "https" => {
                let name = ServerName::try_from(host.clone()).map_err(|_| invalid())?;
                Some((TlsConnector::from(tls::client_config(ca)?), name))
            }
            "ws" | "http" if allow_plain => None,
            "ws" | "http" => return Err(ConfigError::Plain(url.to_string())),
            _ => return Err(invalid()),
        };
        Ok(Self { host, port, tls, dialer: Dialer::new(dial) })
    }

    /// For messages to people.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Whether everybody on the way can read along.
    pub(crate) const fn is_plain(&self) -> bool {
        self.tls.is_none()
    }

    /// What is said when `what` failed.
    pub(crate) fn failure(&self, what: &str, error: &dyn std::fmt::Display) -> String {
        format!("{what} {}:{}: {error}", self.host, self.port)
    }

    /// Opens a connection; on failure one sentence for people.
    pub(crate) async fn open(&self) -> Result<Box<dyn Stream>, String> {
        let tcp = self.dialer.connect(&self.host, self.port).await;
        let tcp = tcp.map_err(|error| self.failure("cannot connect to", &error))?;
        match &self.tls {
            None => Ok(Box::new(tcp)),
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), tcp).await;
                Ok(Box::new(stream.map_err(|error| self.failure("TLS with", &error))?))
            }
        }
    }
}
