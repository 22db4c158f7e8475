//! A small HTTP server for supervisors and Prometheus: `/healthz`, `/readyz`, `/metrics`.
//!
//! It understands exactly `GET` and `HEAD` of those paths over HTTP/1.1 and closes the connection after each
//! answer. Request size, time and the number of connections are bounded, so that it can face an unfriendly
//! network; still, bind it to a private address.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::metrics::MetricsHandle;

/// A request head longer than this is refused.
const MAX_REQUEST: usize = 8 * 1024;

/// Time for reading a request and writing the answer.
const EXCHANGE: Duration = Duration::from_secs(5);

/// Connections served at the same time; further ones wait in the listen queue.
const MAX_CONNECTIONS: usize = 32;

/// Whether the program can do its work, and why not; shared between the program and the server.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<Result<(), String>>>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Err("not ready".to_owned()))))
    }
}

impl Readiness {
    /// Starts as not ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says whether `/readyz` answers 200 (ready) or 503.
    pub fn set(&self, ready: bool) {
        self.replace(if ready { Ok(()) } else { Err("not ready".to_owned()) });
    }

    /// Has `/readyz` answer 503 with this reason, one line.
    pub fn refuse(&self, reason: &str) {
        self.replace(Err(reason.to_owned()));
    }

    /// What was last set.
    #[must_use]
    pub fn get(&self) -> bool {
        self.state().is_ok()
    }

    /// Why the program is not ready; empty if it is.
    #[must_use]
    pub fn reason(&self) -> String {
        self.state().err().unwrap_or_default()
    }

    fn state(&self) -> Result<(), String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, state: Result<(), String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

/// A bound server, not yet running.
#[derive(Debug)]
pub struct HealthServer {
    listener: TcpListener,
    answers: Answers,
}

#[derive(Clone, Debug)]
struct Answers {
    readiness: Readiness,
    metrics: Option<MetricsHandle>,
}

impl HealthServer {
    /// Binds `address`; port 0 picks a free one.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub async fn bind(
        address: SocketAddr,
        readiness: Readiness,
        metrics: Option<MetricsHandle>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            std::io::Error::new(
                error.kind(),
                format!("cannot listen on {address} for health checks: {error}"),
            )
        })?;
        Ok(Self { listener, answers: Answers { readiness, metrics } })
    }

    /// The bound address.
    ///
    /// # Errors
    /// When the operating system cannot say.
    pub fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the future is dropped.
    pub async fn run(self) {
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "health check connection refused");
                    tokio::time::sleep(Duration::from_millis(100)).await; // out of file descriptors: do not spin
                    continue;
                }
            };
            let answers = self.answers.clone();
            tokio::spawn(async move {
                let _ = tokio::time::timeout(EXCHANGE, answers.serve(stream)).await;
                drop(slot);
            });
        }
    }
}

impl Answers {
    async fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let answer = match read_head(&mut stream).await? {
            None => answer(431, "Request Header Fields Too Large", "request too large\n", true),
            Some(head) => self.respond(&head),
        };
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    }

    fn respond(&self, head: &str) -> String {
        let mut words = head.lines().next().unwrap_or_default().split(' ');
        let (method, target, version) = (words.next(), words.next(), words.next());
        let (Some(method), Some(target), Some(version)) = (method, target, version) else {
            return answer(400, "Bad Request", "not HTTP\n", true);
        };
        if !version.starts_with("HTTP/1.") {
            return answer(505, "HTTP Version Not Supported", "HTTP/1.1 only\n", true);
        }
        let with_body = match method {
            "GET" => true,
            "HEAD" => false,
            _ => return answer(405, "Method Not Allowed", "GET only\n", true),
        };
        match target.split('?').next().unwrap_or_default() {
            "/healthz" => answer(200, "OK", "alive\n", with_body),
            "/readyz" => match self.readiness.state() {
                Ok(()) => answer(200, "OK", "ready\n", with_body),
                Err(reason) => answer(503, "Service Unavailable", &format!("{reason}\n"), with_body),
            },
            "/metrics" => match &self.metrics {
                Some(metrics) => answer(200, "OK", &metrics.render(), with_body),
                None => answer(404, "Not Found", "metrics are off\n", with_body),
            },
            _ => answer(404, "Not Found", "try /healthz, /readyz or /metrics\n", with_body),
        }
    }
}

/// Reads up to the empty line; `None` when the head is too large, an error when the peer stops early.
async fn read_head(stream: &mut TcpStream) -> std::io::Result<Option<String>> {
    let mut head = Vec::with_capacity(512);
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        if head.len() >= MAX_REQUEST {
            return Ok(None);
        }
        let mut chunk = [0; 1024];
        let count = stream.read(&mut chunk).await?;
        if count == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(&chunk[..count]);
    }
    Ok(Some(String::from_utf8_lossy(&head).into_owned()))
}

fn answer(status: u16, reason: &str, body: &str, with_body: bool) -> String {
    format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{}",
        body.len(),
        if with_body { body } else { "" }
    )
}
