//! One form, one answer, one connection, within its time and its size.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use url::Url;

use super::ExchangeError;
use crate::origin::Origin;
use crate::stream::Stream;

/// How long one exchange may take, from the look-up of the name to the last byte.
const EXCHANGE_LIMIT: Duration = Duration::from_secs(15);

/// The largest answer.
const LARGEST_ANSWER: usize = 64 * 1024;

/// The largest header of an answer.
const LARGEST_HEADER: usize = 16 * 1024;

/// What came back.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// Posts `form` to `url`, which is at `origin`.
pub(super) async fn post(
    origin: &Origin,
    url: &Url,
    user_agent: &str,
    form: String,
) -> Result<Answer, ExchangeError> {
    let request = request(url, user_agent, form)
        .map_err(|error| ExchangeError::Malformed(format!("our own request: {error}")))?;
    let deadline = Instant::now() + EXCHANGE_LIMIT;
    let silent = || format!("no answer from {} in {} s", origin.host(), EXCHANGE_LIMIT.as_secs());
    let stream = tokio::time::timeout_at(deadline, origin.open())
        .await
        .map_err(|_| ExchangeError::Unreachable(silent()))?
        .map_err(ExchangeError::Unreachable)?;
    tokio::time::timeout_at(deadline, exchange(origin, stream, request))
        .await
        .unwrap_or_else(|_| Err(ExchangeError::Lost(silent())))
}

fn request(url: &Url, user_agent: &str, form: String) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
    let host = match url.port() {
        Some(port) => format!("{}:{port}", url.host_str().unwrap_or_default()),
        None => url.host_str().unwrap_or_default().to_owned(),
    };
    Request::builder()
        .method(Method::POST)
        .uri(url.path())
        .header(HOST, host)
        .header(USER_AGENT, user_agent)
        .header(ACCEPT, HeaderValue::from_static("application/json"))
        .header(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"))
        .body(Full::new(Bytes::from(form)))
}

async fn exchange(
    origin: &Origin,
    stream: Box<dyn Stream>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, ExchangeError> {
    let lost = |error: hyper::Error| ExchangeError::Lost(origin.failure("HTTP with", &error));
    let mut builder = http1::Builder::new();
    builder.max_buf_size(LARGEST_HEADER);
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(lost)?;
    let _driver = Driver(tokio::spawn(async move {
        // What goes wrong shows at the sender.
        let _ = connection.await;
    }));
    let response = sender.send_request(request).await.map_err(|error| {
        if error.is_parse() {
            return ExchangeError::Malformed("it is no web server".to_owned());
        }
        lost(error)
    })?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LARGEST_ANSWER).collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            return ExchangeError::Malformed(format!("more than {LARGEST_ANSWER} bytes"));
        }
        ExchangeError::Lost(origin.failure("HTTP with", &error))
    })?;
    Ok(Answer { status, body: body.to_bytes() })
}

/// Moves the bytes of a connection until the exchange is over.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}
