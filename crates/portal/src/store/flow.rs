//! The flow log: which device reached what through which gateway, when, and how much it was.
//!
//! Gateways report, and clients too ([`Change::store_flows`]): the same traffic as it looks from both ends. What they say
//! of flows is theirs to say, what they say of others is not: device and gateway are believed only if they were introduced
//! to each other, a resource only if it is at the gateway's site. Names are written down as they are at that moment, because
//! the log outlives devices and people.
//!
//! The log is no part of the audit log: it is no change that an administrator made, it is forgotten by itself, and nothing
//! seals it.

mod report;
mod setting;

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use uuid::Uuid;

use super::search::Find;
use super::{Page, Store, StoreError, sql};

pub(crate) use report::{FlowClient, Reporter};
pub(crate) use setting::{FlowSetting, FlowSink};

/// A flow, as a gateway or a client reported it last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow, utoipa::ToSchema)]
pub(crate) struct FlowRow {
    /// Names the flow in this log; in the order of the first reports.
    pub(crate) id: Uuid,
    /// The number of its last report; larger than that of every report before.
    pub(crate) seq: i64,
    /// Who reports it: `gateway`, or `client`, which has no proof of what it says.
    pub(crate) reported_by: String,
    /// The gateway that it went through.
    pub(crate) gateway_id: Uuid,
    /// Its name.
    pub(crate) gateway_name: String,
    /// The device; absent if it was never introduced to that gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_id: Option<Uuid>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_name: Option<String>,
    /// Whose device it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) actor_id: Option<Uuid>,
    /// Their name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) actor_name: Option<String>,
    /// The resource; absent if it is not at the gateway's site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resource_id: Option<Uuid>,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resource_name: Option<String>,
    /// The authorization that let it pass, as the reporter says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) authorization_id: Option<Uuid>,
    /// IP protocol number: 6 is TCP, 17 is UDP.
    pub(crate) protocol: i64,
    /// The device's tunnel address.
    pub(crate) source: String,
    /// The device's port; 0 for protocols without ports.
    pub(crate) source_port: i64,
    /// Where it went, as the resource's network knows it; from a client the address that its application used.
    pub(crate) destination: String,
    /// The port there; 0 for protocols without ports.
    pub(crate) destination_port: i64,
    /// The name that was asked for, of a DNS resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// `direct` or `relayed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// When it opened, in Unix milliseconds.
    pub(crate) opened_ms: i64,
    /// When it was reported last, in Unix milliseconds.
    pub(crate) at_ms: i64,
    /// When it ended; absent as long as it is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) closed_ms: Option<i64>,
    /// Why it ended: `closed`, `idle`, `authorization_ended`, `connection_lost`, `evicted`, `replaced`, `shutting_down`,
    /// `gateway_lost`, `client_lost` or `other`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) end_reason: Option<String>,
    /// IP packets from the device.
    pub(crate) sent_packets: i64,
    /// Bytes of these, IP headers included.
    pub(crate) sent_bytes: i64,
    /// IP packets to the device.
    pub(crate) received_packets: i64,
    /// Bytes of these, IP headers included.
    pub(crate) received_bytes: i64,
}

/// Which flows are asked for; what is absent restricts nothing.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct FlowFilter {
    /// Of which person or service account.
    pub(crate) actor: Option<Uuid>,
    /// Of which device.
    pub(crate) device: Option<Uuid>,
    /// To which resource.
    pub(crate) resource: Option<Uuid>,
    /// Through which gateway.
    pub(crate) gateway: Option<Uuid>,
    /// As reported by `gateway` or `client`.
    pub(crate) reported_by: Option<String>,
    /// Open at this time or later, in Unix milliseconds.
    pub(crate) since_ms: Option<i64>,
    /// Opened before this time, in Unix milliseconds.
    pub(crate) until_ms: Option<i64>,
}

impl Store {
    /// Flows that a filter lets through, newest first; `after` names the last one of the page before.
    pub(crate) async fn flows(&self, page: Page, filter: &FlowFilter) -> Result<Vec<FlowRow>, StoreError> {
        Ok(sql::query_as(
            "SELECT * FROM flow_log WHERE account_id = $1 AND id < $2
             AND ($3 IS NULL OR actor_id = $3) AND ($4 IS NULL OR client_id = $4)
             AND ($5 IS NULL OR resource_id = $5) AND ($6 IS NULL OR gateway_id = $6)
             AND ($7 IS NULL OR reported_by = $7) AND at_ms >= $8 AND opened_ms < $9 ORDER BY id DESC LIMIT $10",
        )
        .bind(self.account.as_uuid())
        .bind(page.after.unwrap_or(Uuid::max()))
        .bind(filter.actor)
        .bind(filter.device)
        .bind(filter.resource)
        .bind(filter.gateway)
        .bind(filter.reported_by.clone())
        .bind(filter.since_ms.unwrap_or(i64::MIN))
        .bind(filter.until_ms.unwrap_or(i64::MAX))
        .bind(page.limit())
        .fetch_all(&self.reader)
        .await?)
    }

    /// Flows by the numbers of their last reports, those with larger numbers than `after`, the oldest report first.
    pub(crate) async fn flows_in_order(
        &self,
        after: i64,
        since_ms: i64,
        limit: i64,
    ) -> Result<Vec<FlowRow>, StoreError> {
        let text =
            "SELECT * FROM flow_log WHERE account_id = $1 AND seq > $2 AND at_ms >= $3 ORDER BY seq LIMIT $4";
        let query = sql::query_as(text).bind(self.account.as_uuid()).bind(after).bind(since_ms).bind(limit);
        Ok(query.fetch_all(&self.reader).await?)
    }

    /// Flows that hold the text, as gateways report them, newest first.
    pub(crate) async fn find_flows(&self, find: &Find) -> Result<Vec<FlowRow>, StoreError> {
        Ok(sql::query_as(
            "SELECT * FROM flow_log WHERE account_id = $1 AND id < $2 AND reported_by = 'gateway'
             AND (lower(actor_name) LIKE $3 ESCAPE '\\' OR lower(client_name) LIKE $3 ESCAPE '\\'
                  OR lower(resource_name) LIKE $3 ESCAPE '\\' OR lower(gateway_name) LIKE $3 ESCAPE '\\'
                  OR lower(name) LIKE $3 ESCAPE '\\' OR destination LIKE $3 ESCAPE '\\'
                  OR end_reason LIKE $3 ESCAPE '\\' OR $4)
             ORDER BY id DESC LIMIT $5",
        )
        .bind(self.account.as_uuid())
        .bind(find.after.unwrap_or(Uuid::max()))
        .bind(find.pattern())
        .bind(find.text.trim().is_empty())
        .bind(i64::from(find.limit))
        .fetch_all(&self.reader)
        .await?)
    }
}

#[cfg(test)]
mod tests;
