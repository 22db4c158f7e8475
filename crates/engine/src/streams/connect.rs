//! Making streams: TCP to whichever address answers first, TLS, then they are everybody's.

use std::sync::Arc;
use std::time::Duration;

use adit_control_client::connect_first;
use adit_dataplane::StreamId;
use adit_tunnel::StreamTarget;
use anyhow::Context as _;
use rustls::ClientConfig;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::connection::Connection;
use super::{News, Streams, tls};
use crate::dial::MarkedDial;

/// How long one attempt may take, TLS included.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);

/// Keeps the streams that the machine wants.
#[derive(Debug)]
pub(crate) struct Keeper {
    streams: Arc<Streams>,
    dial: MarkedDial,
    /// Whom to believe without a fingerprint.
    trusted: Arc<ClientConfig>,
    /// What was wanted last, and the attempt to have it.
    wanted: Vec<(StreamId, AbortHandle)>,
}

impl Keeper {
    pub(crate) const fn new(streams: Arc<Streams>, dial: MarkedDial, trusted: Arc<ClientConfig>) -> Self {
        Self { streams, dial, trusted, wanted: Vec::new() }
    }

    /// Makes what is new and closes what is no longer wanted. Needs a runtime.
    pub(crate) fn want(&mut self, targets: &[StreamTarget]) {
        for (id, attempt) in std::mem::take(&mut self.wanted) {
            if targets.iter().any(|target| target.id.0 == id.0) {
                self.wanted.push((id, attempt));
            } else {
                attempt.abort();
                self.streams.close(id);
            }
        }
        for target in targets {
            let id = StreamId(target.id.0);
            if !self.wanted.iter().any(|(other, _)| *other == id) {
                let attempt = self.attempt(id, target.clone());
                self.wanted.push((id, tokio::spawn(attempt).abort_handle()));
            }
        }
    }

    fn attempt(&self, id: StreamId, target: StreamTarget) -> impl Future<Output = ()> + use<> {
        let (streams, dial, trusted) = (Arc::clone(&self.streams), self.dial, Arc::clone(&self.trusted));
        async move {
            let made = tokio::time::timeout(CONNECT_LIMIT, connect(id, dial, &trusted, &target)).await;
            let made = made.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer")));
            let (over_tls, addresses) = (target.tls.is_some(), &target.addresses);
            match made.and_then(|connection| Ok(streams.insert(connection)?)) {
                Ok(()) => {
                    tracing::info!(?addresses, over_tls, "a stream to a relay is open");
                    streams.tell(News::Opened(id));
                }
                Err(error) => {
                    report(&error, &target);
                    streams.tell(News::Closed(id));
                }
            }
        }
    }
}

/// A relay that cannot be reached is usual where streams are tried; one with a wrong certificate is not.
fn report(error: &anyhow::Error, target: &StreamTarget) {
    let (over_tls, addresses) = (target.tls.is_some(), &target.addresses);
    match tls::refusal(error) {
        Some(reason) => tracing::warn!(?addresses, reason, "the certificate of a relay was refused"),
        None => {
            let error = format!("{error:#}");
            tracing::info!(?addresses, over_tls, error, "cannot make a stream to a relay");
        }
    }
}

pub(super) async fn connect(
    id: StreamId,
    dial: MarkedDial,
    trusted: &Arc<ClientConfig>,
    target: &StreamTarget,
) -> anyhow::Result<Connection> {
    let tcp = connect_first(&dial, target.addresses.clone()).await.context("TCP")?;
    let (tcp, tls) = match &target.tls {
        None => (tcp, None),
        Some(relay) => {
            let (config, name) = tls::client_config(trusted, relay).context("TLS")?;
            let stream = TlsConnector::from(config).connect(name, tcp).await.context("TLS")?;
            let (tcp, tls) = stream.into_inner();
            (tcp, Some(tls))
        }
    };
    Connection::new(id, tcp.into_std()?, tls).context("TCP")
}
