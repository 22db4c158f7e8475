//! Sends flows on, as JSON Lines in the body of POST requests.
//!
//! Every report is sent at least once, in the order of their numbers; how far that has come is stored, and advances when
//! the sink answers with a status from 200 to 299. A flow that is reported again is sent again under its id. One node
//! sends; while another takes over, both may. What is forgotten before it could be sent is missing.

use std::time::Duration;

use rand::Rng as _;
use reqwest::{Client, StatusCode, header, redirect};
use tokio::time::Instant;
use url::{Host, Url};

use crate::api::Failure;
use crate::portal::SharedPortal;
use crate::store::{By, FlowRow, FlowSink, StoreError};

/// Reports in one request.
const TOGETHER: i64 = 500;

/// How often new reports are looked for.
const INTERVAL: Duration = Duration::from_secs(2);

/// The first pause after a failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(2);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// A request takes no longer.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// Characters of an error that are kept.
const LONGEST_ERROR: usize = 200;

/// An address that flows may be sent to.
pub(crate) fn check_url(text: &str) -> Result<Url, Failure> {
    let url: Url = text.parse().map_err(|_| Failure::invalid("the sink's address cannot be read"))?;
    let is_web = matches!(url.scheme(), "http" | "https") && url.host().is_some();
    if !is_web || !url.username().is_empty() || url.password().is_some() || text.len() > 2000 {
        return Err(Failure::invalid("a sink is http://HOST/… or https://HOST/… without a name or password"));
    }
    Ok(url)
}

/// A secret that may be sent to `url`.
pub(crate) fn check_authorization(url: &Url, value: &str) -> Result<(), Failure> {
    let is_local = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if url.scheme() != "https" && !is_local {
        return Err(Failure::invalid("a secret is sent over https only"));
    }
    if value.is_empty() || value.len() > 4096 || header::HeaderValue::from_str(value).is_err() {
        return Err(Failure::invalid("the secret is no value of an Authorization header"));
    }
    Ok(())
}

/// Sends what there is to send, until the task is aborted.
pub(crate) async fn run(portal: SharedPortal) {
    let client = Client::builder()
        .timeout(REQUEST_TIME)
        .redirect(redirect::Policy::none())
        .user_agent(concat!("adit-portal/", env!("CARGO_PKG_VERSION")))
        .build();
    let client = match client {
        Ok(client) => client,
        Err(error) => return tracing::error!(%error, "flows cannot be sent to a sink"),
    };
    let mut sender = Sender { portal, client, failed: None, pause: FIRST_PAUSE };
    loop {
        let pause = match sender.turn().await {
            Ok(true) => Duration::ZERO,
            Ok(false) => INTERVAL,
            Err(error) => {
                tracing::error!(%error, "flows cannot be read for the sink");
                LONGEST_PAUSE
            }
        };
        tokio::time::sleep(pause).await;
    }
}

struct Sender {
    portal: SharedPortal,
    client: Client,
    /// The address that does not take anything, and when it is tried again.
    failed: Option<(String, Instant)>,
    pause: Duration,
}

impl Sender {
    /// Sends one request, if it is time; whether there may be more.
    async fn turn(&mut self) -> Result<bool, StoreError> {
        let store = &self.portal.store;
        let Some(sink) = store.flow_sink().await? else { return Ok(false) };
        let Some(url) = sink.sink_url.clone() else { return Ok(false) };
        let waits = |(failed, until): &(String, Instant)| *failed == url && Instant::now() < *until;
        if self.failed.as_ref().is_some_and(waits) || !self.portal.node.is_first(store).await? {
            return Ok(false);
        }
        let rows = store.flows_in_order(sink.sink_seq, i64::MIN, TOGETHER).await?;
        let Some(last) = rows.last().map(|row| row.seq) else { return Ok(false) };
        let outcome = self.post(&url, &sink, &rows).await;
        match outcome {
            Ok(()) => {
                self.note(Some(last), None).await?;
                self.failed = None;
                self.pause = FIRST_PAUSE;
                metrics::counter!("adit_portal_flow_sink_requests_total", "outcome" => "taken").increment(1);
                Ok(rows.len() as i64 == TOGETHER)
            }
            Err(error) => {
                if sink.sink_error.as_ref() != Some(&error) {
                    tracing::warn!(error, "the sink of flows takes nothing");
                    self.note(None, Some(&error)).await?;
                }
                metrics::counter!("adit_portal_flow_sink_requests_total", "outcome" => "failed").increment(1);
                let jittered = self.pause.mul_f64(rand::rng().random_range(0.75..1.25));
                self.failed = Some((url, Instant::now() + jittered));
                self.pause = (self.pause * 2).min(LONGEST_PAUSE);
                Ok(false)
            }
        }
    }

    async fn note(&self, taken: Option<i64>, error: Option<&str>) -> Result<(), StoreError> {
        let mut change = self.portal.store.change(&By::system()).await?;
        change.note_flow_sink(taken, error).await?;
        change.commit().await
    }

    async fn post(&self, url: &str, sink: &FlowSink, rows: &[FlowRow]) -> Result<(), String> {
        let body = json_lines(rows).map_err(|error| error.to_string())?;
        let mut request = self.client.post(url).header(header::CONTENT_TYPE, "application/x-ndjson");
        if let Some(sealed) = &sink.sink_sealed {
            let secret = self.portal.secrets.open(sealed).ok_or("the secret was sealed by another portal")?;
            request = request.header(header::AUTHORIZATION, secret);
        }
        let answer = request.body(body).send().await.map_err(|error| shortened(&root_cause(&error)))?;
        let status: StatusCode = answer.status();
        if status.is_success() { Ok(()) } else { Err(format!("the sink answered {status}")) }
    }
}

/// Flows, one JSON object to a line.
pub(crate) fn json_lines(rows: &[FlowRow]) -> Result<String, serde_json::Error> {
    let mut text = String::new();
    for row in rows {
        text += &serde_json::to_string(row)?;
        text.push('\n');
    }
    Ok(text)
}

fn shortened(error: &str) -> String {
    error.chars().take(LONGEST_ERROR).collect()
}

/// What really happened; the rest of the chain repeats the address.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
