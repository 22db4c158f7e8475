//! The byte stream below a WebSocket, shared so that it survives a refused handshake.
//!
//! The WebSocket library returns only that part of a refusal's body that came together with
//! the headers, but the body holds the code that says whether the refusal is final. So the
//! stream is handed over as a [`Lent`] handle, and after a refusal the rest is read here.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use adit_protocol::problem::Problem;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// The largest problem document that is read.
const MAX_PROBLEM: usize = 16 * 1024;

/// How long the rest of a refusal may take.
const PROBLEM_LIMIT: Duration = Duration::from_secs(2);

/// A byte stream, encrypted or not.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A handle on a stream; one task at a time uses it, so its lock is never contended.
pub(crate) struct Lent(Arc<Mutex<Box<dyn Stream>>>);

impl Lent {
    pub(crate) fn new(stream: impl Stream + 'static) -> Self {
        Self(Arc::new(Mutex::new(Box::new(stream))))
    }

    /// A second handle, to have the stream back when the first one is gone.
    pub(crate) fn again(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    fn lock(&self) -> MutexGuard<'_, Box<dyn Stream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The problem document of which `body` is the beginning, reading what is missing.
    pub(crate) async fn read_problem(mut self, mut body: Vec<u8>) -> Option<Problem> {
        let reading = async {
            loop {
                if let Some(problem) = parse(&body) {
                    return Some(problem);
                }
                let mut chunk = [0; 2048];
                let count = self.read(&mut chunk).await.ok()?;
                if count == 0 || body.len() > MAX_PROBLEM {
                    return None;
                }
                body.extend_from_slice(&chunk[..count]);
            }
        };
        tokio::time::timeout(PROBLEM_LIMIT, reading).await.ok().flatten()
    }
}

/// The first JSON object; a chunked body has a length before it and a zero after it.
fn parse(body: &[u8]) -> Option<Problem> {
    let start = body.iter().position(|&byte| byte == b'{')?;
    serde_json::Deserializer::from_slice(&body[start..]).into_iter().next()?.ok()
}

impl AsyncRead for Lent {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut **self.lock()).poll_read(context, buffer)
    }
}

impl AsyncWrite for Lent {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut **self.lock()).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self.lock()).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self.lock()).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"code":"revoked_token","title":"no","status":401}"#;

    #[tokio::test]
    async fn a_body_that_comes_late_is_read() {
        let rest: &[u8] = &BODY.as_bytes()[9..];
        let stream = tokio::io::join(rest, tokio::io::sink());
        let problem = Lent::new(stream).read_problem(BODY.as_bytes()[..9].to_vec()).await;
        assert_eq!(problem.map(|problem| problem.code).as_deref(), Some("revoked_token"));
    }

    #[tokio::test]
    async fn a_chunked_body_is_read() {
        let chunked = format!("32\r\n{BODY}\r\n0\r\n\r\n").into_bytes();
        let stream = tokio::io::join(tokio::io::empty(), tokio::io::sink());
        assert!(Lent::new(stream).read_problem(chunked).await.is_some_and(|problem| problem.is_final()));
    }

    #[tokio::test]
    async fn an_endless_body_is_given_up() {
        let stream = tokio::io::join(tokio::io::repeat(b'x'), tokio::io::sink());
        assert_eq!(Lent::new(stream).read_problem(Vec::new()).await, None);
    }
}
