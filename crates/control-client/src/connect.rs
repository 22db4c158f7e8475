//! One attempt: TCP, TLS, WebSocket, each within its time.

use std::time::Duration;

use adit_protocol::problem::Problem;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Request, Response, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self};
use url::Url;

use crate::origin::Origin;
use crate::stream::Lent;
use crate::{Config, ConfigError, FatalReason};

/// How long one attempt may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);

/// A WebSocket to the portal.
pub(crate) type Socket = WebSocketStream<Lent>;

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) enum AttemptError {
    /// Trying again may help.
    Retry { reason: String, after: Option<Duration> },
    /// It will not.
    Fatal(FatalReason),
}

/// Where the portal is, checked and ready for attempts.
pub(crate) struct Endpoint {
    origin: Origin,
    request: Request<()>,
}

impl Endpoint {
    pub(crate) fn new(config: Config) -> Result<Self, ConfigError> {
        if !matches!(config.url.scheme(), "ws" | "wss") {
            return Err(ConfigError::Url(config.url.to_string()));
        }
        let origin = Origin::new(&config.url, config.ca.as_deref(), config.allow_plain, config.dial)?;
        let request = request(&config.url, &config.token, &config.user_agent)?;
        Ok(Self { origin, request })
    }

    /// Makes one attempt.
    pub(crate) async fn connect(&self) -> Result<Socket, AttemptError> {
        tokio::time::timeout(CONNECT_LIMIT, self.attempt()).await.unwrap_or_else(|_| {
            let reason = format!("no answer from {} in {} s", self.origin.host(), CONNECT_LIMIT.as_secs());
            Err(AttemptError::Retry { reason, after: None })
        })
    }

    async fn attempt(&self) -> Result<Socket, AttemptError> {
        let retry = |reason| AttemptError::Retry { reason, after: None };
        let stream = Lent::new(self.origin.open().await.map_err(retry)?);
        let lent = stream.again();
        let limits = WebSocketConfig::default()
            .max_message_size(Some(adit_protocol::MAX_MESSAGE))
            .max_frame_size(Some(adit_protocol::MAX_MESSAGE));
        let request = self.request.clone();
        match tokio_tungstenite::client_async_with_config(request, stream, Some(limits)).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(mut response)) => {
                let problem = lent.read_problem(response.body_mut().take().unwrap_or_default()).await;
                Err(refusal(&response, problem))
            }
            Err(error) => Err(retry(self.origin.failure("WebSocket with", &error))),
        }
    }
}

fn request(url: &Url, token: &str, user_agent: &str) -> Result<Request<()>, ConfigError> {
    let mut request = url.as_str().into_client_request().map_err(|_| ConfigError::Url(url.to_string()))?;
    let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ConfigError::Token)?;
    bearer.set_sensitive(true);
    let headers = request.headers_mut();
    headers.insert(header::AUTHORIZATION, bearer);
    if let Ok(agent) = HeaderValue::from_str(user_agent) {
        headers.insert(header::USER_AGENT, agent);
    }
    Ok(request)
}

/// What an HTTP answer other than 101 means.
fn refusal(response: &Response<Option<Vec<u8>>>, problem: Option<Problem>) -> AttemptError {
    if response.status() == StatusCode::UNAUTHORIZED
        && let Some(reason) = problem.as_ref().and_then(|problem| fatal_reason(&problem.code))
    {
        return AttemptError::Fatal(reason);
    }
    let after = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let title = problem.map_or_else(String::new, |problem| format!(": {}", problem.title));
    AttemptError::Retry { reason: format!("the portal answered {}{title}", response.status()), after }
}

fn fatal_reason(code: &str) -> Option<FatalReason> {
    match code {
        "invalid_token" => Some(FatalReason::InvalidToken),
        "expired_token" => Some(FatalReason::ExpiredToken),
        "revoked_token" => Some(FatalReason::RevokedToken),
        _ => None,
    }
}
