//! A client of the portal's own JSON API.

use std::path::PathBuf;
use std::time::Duration;

use adit_protocol::problem::Problem;
use clap::Args;
use reqwest::{Certificate, Client, Method, StatusCode};
use serde_json::Value;
use url::Url;
use uuid::Uuid;

/// One request takes no longer.
const REQUEST_TIME: Duration = Duration::from_secs(35);

/// All lines of an export are there within this time.
const EXPORT_TIME: Duration = Duration::from_secs(60 * 60);

/// How to reach the portal.
#[derive(Debug, Clone, Args)]
pub(super) struct Connection {
    /// The portal: https://HOST:PORT
    #[arg(
        long,
        env = "ADIT_PORTAL_URL",
        global = true,
        help_heading = "Portal",
        default_value = "https://localhost"
    )]
    url: Url,
    /// An administrator's API token
    #[arg(
        long,
        env = "ADIT_ADMIN_TOKEN",
        global = true,
        help_heading = "Portal",
        hide_env_values = true,
        default_value = ""
    )]
    token: String,
    /// Trust this CA (PEM) instead of the system's
    #[arg(long, env = "ADIT_CA", global = true, help_heading = "Portal", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum AdminError {
    /// Before anything was sent.
    #[error("{0}")]
    Usage(String),
    /// The portal could not be reached.
    #[error("cannot reach the portal at {url}: {reason}")]
    Unreachable {
        /// Where it was expected.
        url: String,
        /// What is in the way.
        reason: String,
    },
    /// The portal refused.
    #[error("{}{}", .0.title, .0.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default())]
    Refused(Problem),
    /// The answer was not what this version expects.
    #[error("the portal's answer cannot be read: {0}")]
    Answer(String),
}

impl AdminError {
    /// See the head of [`super`].
    pub(super) const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Unreachable { .. } => 3,
            Self::Refused(problem) => match problem.status {
                401 => 4,
                403 => 6,
                _ => 1,
            },
            Self::Answer(_) => 1,
        }
    }
}

/// A connection to the API.
#[derive(Debug)]
pub(super) struct ApiClient {
    http: Client,
    url: Url,
    token: String,
}

impl ApiClient {
    /// Prepares requests; nothing is sent yet.
    pub(super) fn new(connection: &Connection) -> Result<Self, AdminError> {
        if connection.token.is_empty() {
            return Err(AdminError::Usage("give an API token with --token or ADIT_ADMIN_TOKEN".to_owned()));
        }
        let mut builder = Client::builder().timeout(REQUEST_TIME).no_proxy();
        if let Some(path) = &connection.ca {
            let wrong = |error: &dyn std::fmt::Display| {
                AdminError::Usage(format!("cannot use the CA {}: {error}", path.display()))
            };
            let pem = std::fs::read(path).map_err(|error| wrong(&error))?;
            let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(&error))?;
            builder = builder.tls_certs_only(certificates);
        }
        let http = builder.build().map_err(|error| AdminError::Usage(root_cause(&error)))?;
        Ok(Self { http, url: connection.url.clone(), token: connection.token.clone() })
    }

    /// One request below `/api/v1/`; an empty answer is `null`.
    pub(super) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, AdminError> {
        let url = self
            .url
            .join(&format!("/api/v1/{path}"))
            .map_err(|error| AdminError::Usage(error.to_string()))?;
        let mut request = self.http.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let unreachable = |error: reqwest::Error| AdminError::Unreachable {
            url: self.url.to_string(),
            reason: root_cause(&error),
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let text = response.text().await.map_err(unreachable)?;
        if status.is_success() {
            return if text.is_empty() { Ok(Value::Null) } else { read(&text) };
        }
        Err(AdminError::Refused(problem(status, &text)))
    }

    /// The lines of an answer, one by one, as long as `take` wants more.
    pub(super) async fn lines(
        &self,
        path: &str,
        mut take: impl FnMut(&str) -> Result<bool, AdminError>,
    ) -> Result<(), AdminError> {
        let url = self.url.join(&format!("/api/v1/{path}"));
        let url = url.map_err(|error| AdminError::Usage(error.to_string()))?;
        let unreachable = |error: reqwest::Error| AdminError::Unreachable {
            url: self.url.to_string(),
            reason: root_cause(&error),
        };
        let request = self.http.get(url).bearer_auth(&self.token).timeout(EXPORT_TIME);
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if !status.is_success() {
            return Err(AdminError::Refused(problem(status, &response.text().await.map_err(unreachable)?)));
        }
        let mut rest = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            rest.extend_from_slice(&chunk);
            while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = rest.drain(..=end).collect();
                if !take(String::from_utf8_lossy(&line[..end]).as_ref())? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// All items of a list, page by page.
    pub(super) async fn list(&self, path: &str) -> Result<Vec<Value>, AdminError> {
        let mut items = Vec::new();
        let mut after = String::new();
        loop {
            let separator = if path.contains('?') { '&' } else { '?' };
            let page = self.call(Method::GET, &format!("{path}{separator}limit=500{after}"), None).await?;
            items.extend(page["items"].as_array().cloned().unwrap_or_default());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(items),
            }
        }
    }

    /// The id of the thing that is called `text`, or whose id it is.
    pub(super) async fn find(&self, list: &str, text: &str) -> Result<Uuid, AdminError> {
        if let Ok(id) = text.parse() {
            return Ok(id);
        }
        let matching: Vec<Uuid> = self
            .list(list)
            .await?
            .iter()
            .filter(|item| item["name"].as_str() == Some(text))
            .filter_map(|item| item["id"].as_str()?.parse().ok())
            .collect();
        match matching.as_slice() {
            [id] => Ok(*id),
            [] => Err(AdminError::Usage(format!("there is none called `{text}` among the {list}"))),
            _ => Err(AdminError::Usage(format!("several {list} are called `{text}`; give the id"))),
        }
    }
}

fn read(text: &str) -> Result<Value, AdminError> {
    serde_json::from_str(text).map_err(|error| AdminError::Answer(error.to_string()))
}

fn problem(status: StatusCode, text: &str) -> Problem {
    serde_json::from_str(text).unwrap_or_else(|_| Problem {
        code: "unknown".to_owned(),
        title: format!("The portal answered {status}"),
        status: status.as_u16(),
        detail: None,
    })
}

/// The last error of a chain names what really happened.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
