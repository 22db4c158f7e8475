//! The HTTP server: listeners, TLS, limits, and an orderly end.
//!
//! Each connection is one task that holds one permit of a bounded number. Handshakes, request
//! heads and requests have time limits, heads and bodies size limits, so that an idle or slow
//! stranger holds little and not for long. WebSockets leave these limits behind when they are
//! upgraded and live under the limits of `session`.

mod proxy;
mod tls;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub(crate) use tls::{Tls, acceptor};

use crate::acme;
use crate::api::Remote;

/// Connections served at the same time, upgraded ones included.
const MAX_CONNECTIONS: usize = 60_000;

/// A TLS handshake takes no longer.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// A request's head arrives within this time, also on a connection that is kept alive.
const HEAD_TIME: Duration = Duration::from_secs(15);

/// A request's head is no longer than this.
const MAX_HEAD: usize = 32 * 1024;

/// Headers that one request may have.
const MAX_HEADERS: usize = 64;

/// A pause after the system refused a connection, so that being out of file descriptors does
/// not become a busy loop.
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// What a listener needs to serve its connections.
#[derive(Clone)]
pub(crate) struct Server {
    router: Router,
    tls: Option<Tls>,
    /// Whose word on where a request comes from is believed.
    proxies: Arc<[IpNet]>,
    slots: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
}

impl Server {
    /// Serves `router`, over TLS when an acceptor is given, until `closing` becomes true.
    pub(crate) fn new(
        router: Router,
        tls: Option<Tls>,
        proxies: &[IpNet],
        closing: watch::Receiver<bool>,
    ) -> Self {
        Self {
            router,
            tls,
            proxies: proxies.into(),
            slots: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            closing,
        }
    }

    /// Accepts connections until the server closes.
    pub(crate) async fn run(self, listener: TcpListener) {
        let mut closing = self.closing.clone();
        loop {
            let accepted = tokio::select! {
                () = closed(&mut closing) => return,
                accepted = listener.accept() => accepted,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "a connection was not accepted");
                    tokio::time::sleep(REFUSED_PAUSE).await;
                    continue;
                }
            };
            let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
                metrics::counter!("adit_portal_connections_refused_total", "reason" => "full").increment(1);
                continue;
            };
            tokio::spawn(self.clone().connection(stream, address, slot));
        }
    }

    async fn connection(self, stream: TcpStream, address: SocketAddr, slot: OwnedSemaphorePermit) {
        // Control messages are small and urgent.
        let _ = stream.set_nodelay(true);
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        match self.tls.as_ref().map(Tls::acceptor) {
            None => self.http(stream, address, slot).await,
            Some(tls) => match tokio::time::timeout(HANDSHAKE_TIME, tls.accept(stream)).await {
                // An authority that looked has seen what it wanted.
                Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(acme::PROTOCOL) => {}
                Ok(Ok(stream)) => self.http(stream, address, slot).await,
                Ok(Err(error)) => {
                    metrics::counter!("adit_portal_connections_refused_total", "reason" => "tls")
                        .increment(1);
                    tracing::debug!(%error, %address, "TLS handshake failed");
                }
                Err(_) => {
                    metrics::counter!("adit_portal_connections_refused_total", "reason" => "tls_timeout")
                        .increment(1);
                }
            },
        }
    }

    async fn http<S>(self, stream: S, address: SocketAddr, slot: OwnedSemaphorePermit)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Self { router, proxies, mut closing, .. } = self;
        // The permit travels with the requests, so that an upgraded connection keeps holding it.
        let slot = ConnectionSlot(Arc::new(slot));
        let router = TowerToHyperService::new(router);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let client = proxy::client(address.ip(), request.headers(), &proxies);
            request.extensions_mut().insert(Remote(SocketAddr::new(client, address.port())));
            request.extensions_mut().insert(slot.clone());
            router.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = closed(&mut closing) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = result {
            metrics::counter!("adit_portal_connections_failed_total").increment(1);
            tracing::debug!(%error, %address, "a connection failed");
        }
    }
}

/// Held by every request of a connection, and by the session that one of them became.
#[derive(Debug, Clone)]
pub(crate) struct ConnectionSlot(#[expect(dead_code, reason = "held, not read")] Arc<OwnedSemaphorePermit>);

/// Until the server closes, or whoever could close it is gone.
async fn closed(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}
