//! One attempt: TCP, TLS, WebSocket, each within its time.

use std::time::Duration;

use adit_protocol::problem::Problem;
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::{HeaderValue, Request, Response, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self};
use url::Url;

use crate::dial::Dialer;
use crate::stream::Lent;
use crate::{Config, ConfigError, FatalReason, tls};

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
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    request: Request<()>,
    dialer: Dialer,
}

impl Endpoint {
    pub(crate) fn new(config: Config) -> Result<Self, ConfigError> {
        let invalid = || ConfigError::Url(config.url.to_string());
        let host = config.url.host_str().ok_or_else(invalid)?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = config.url.port_or_known_default().ok_or_else(invalid)?;
        let tls = match config.url.scheme() {
            "wss" => {
                let name = ServerName::try_from(host.clone()).map_err(|_| invalid())?;
                Some((TlsConnector::from(tls::client_config(config.ca.as_deref())?), name))
            }
            "ws" if config.allow_plain => None,
            "ws" => return Err(ConfigError::Plain(config.url.to_string())),
            _ => return Err(invalid()),
        };
        let request = request(&config.url, &config.token, &config.user_agent)?;
        let dialer = Dialer::new(config.dial);
        Ok(Self { host, port, tls, request, dialer })
    }

    /// Makes one attempt.
    pub(crate) async fn connect(&self) -> Result<Socket, AttemptError> {
        tokio::time::timeout(CONNECT_LIMIT, self.attempt()).await.unwrap_or_else(|_| {
            let reason = format!("no answer from {} in {} s", self.host, CONNECT_LIMIT.as_secs());
            Err(AttemptError::Retry { reason, after: None })
        })
    }

    async fn attempt(&self) -> Result<Socket, AttemptError> {
        let retry = |what: &str, error: &dyn std::fmt::Display| AttemptError::Retry {
            reason: format!("{what} {}:{}: {error}", self.host, self.port),
            after: None,
        };
        let tcp = self
            .dialer
            .connect(&self.host, self.port)
            .await
            .map_err(|error| retry("cannot connect to", &error))?;
        let stream = match &self.tls {
            None => Lent::new(tcp),
            Some((connector, name)) => Lent::new(
                connector.connect(name.clone(), tcp).await.map_err(|error| retry("TLS with", &error))?,
            ),
        };
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
            Err(error) => Err(retry("WebSocket with", &error)),
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
