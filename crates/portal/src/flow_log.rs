//! The flow log's work besides requests: storing what gateways and clients report, forgetting, and sending it on.
//!
//! A batch is stored beside the session that it came by, which must not wait for a disk while a revocation is to be pushed;
//! the answer follows after the commit. One batch of a session is stored at a time. What comes meanwhile is dropped: a
//! reporter sends the next one after the answer, and a batch without an answer again.

mod sink;

use std::time::Duration;

use adit_policy::ClientId;
use adit_protocol::flow::{Flows, FlowsStored, MAX_FLOWS};
use adit_protocol::{PortalToClient, PortalToGateway};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::clock::{self, Evenness};
use crate::portal::SharedPortal;
use crate::store::{By, Reporter, StoreError};

pub(crate) use sink::{check_authorization, check_url, json_lines, run as send};

/// How often old flows are looked for.
const FORGET_INTERVAL: Duration = Duration::from_secs(60);

/// The pause between two changes that forget: others have their turn.
const FORGET_PAUSE: Duration = Duration::from_millis(50);

/// Takes in the reports of one session.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    storing: Option<JoinHandle<()>>,
}

impl Intake {
    /// Stores a batch, and tells the reporter; `false` for a batch that none of ours sends.
    pub(crate) fn take(&mut self, portal: &SharedPortal, reporter: Reporter, by: By, batch: Flows) -> bool {
        if batch.flows.len() > MAX_FLOWS {
            return false;
        }
        if self.storing.as_ref().is_some_and(|storing| !storing.is_finished()) {
            metrics::counter!("adit_portal_flow_batches_total", "outcome" => "too_soon").increment(1);
            return true;
        }
        let portal = SharedPortal::clone(portal);
        self.storing = Some(tokio::spawn(async move {
            if let Err(error) = store(&portal, &reporter, &by, &batch).await {
                metrics::counter!("adit_portal_flow_batches_total", "outcome" => "failed").increment(1);
                tracing::error!(%error, reporter = %reporter.id(), "reports of flows cannot be stored");
            }
        }));
        true
    }
}

async fn store(portal: &SharedPortal, reporter: &Reporter, by: &By, batch: &Flows) -> Result<(), StoreError> {
    // If the log was switched off meanwhile, what is still under way is taken off the reporter's hands.
    let stored = if portal.store.flow_setting().await?.is_kept(reporter) {
        let mut change = portal.store.change(by).await?;
        let stored = change.store_flows(reporter, batch).await?;
        change.commit().await?;
        stored
    } else {
        FlowsStored { spool: batch.spool, number: batch.flows.last().map_or(0, |last| last.number) }
    };
    metrics::counter!("adit_portal_flow_batches_total", "outcome" => "stored").increment(1);
    metrics::counter!("adit_portal_flow_reports_total").increment(batch.flows.len() as u64);
    portal.hub.note_activity();
    match reporter {
        Reporter::Gateway { id, .. } => {
            portal.hub.tell_gateway(*id, None, PortalToGateway::FlowsStored(stored));
        }
        Reporter::Client(client) => {
            let id = ClientId::from_uuid(client.client_id);
            portal.hub.tell_client(id, None, PortalToClient::FlowsStored(stored));
        }
    }
    Ok(())
}

/// Forgets flows that are too old or too many, until the task is aborted.
pub(crate) async fn forget(portal: SharedPortal, mut clock: Evenness) {
    loop {
        let now_ms = clock::now_ms();
        let is_even = clock.holds(Instant::now(), now_ms);
        match forget_some(&portal, is_even.then_some(now_ms)).await {
            Ok(0) => tokio::time::sleep(FORGET_INTERVAL).await,
            Ok(_) => tokio::time::sleep(FORGET_PAUSE).await,
            Err(error) => {
                tracing::error!(%error, "cannot forget old flows");
                tokio::time::sleep(FORGET_INTERVAL).await;
            }
        }
    }
}

/// Without a time by which their age can be told, only what is too many, or not to be kept at all.
async fn forget_some(portal: &SharedPortal, now_ms: Option<i64>) -> Result<u64, StoreError> {
    let setting = portal.store.flow_setting().await?;
    let Some(horizon) = portal.store.flow_horizon(setting, now_ms).await? else { return Ok(0) };
    let mut change = portal.store.change(&By::system()).await?;
    let forgotten = change.forget_flows(horizon).await?;
    if forgotten > 0 {
        change.commit().await?;
    }
    Ok(forgotten)
}
