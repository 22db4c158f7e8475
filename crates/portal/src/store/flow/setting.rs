//! How long flows are kept, where they are sent, and how far that has come.

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::ToSchema;

use super::super::{Change, Event, Store, StoreError, sql};
use super::Reporter;

/// Days that flows are kept unless said otherwise.
const KEEP_DAYS: i64 = 30;

/// Flows that are kept unless said otherwise.
const MAX_ROWS: i64 = 1_000_000;

/// Milliseconds of a day.
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Flows that are forgotten in one change.
const FORGET_TOGETHER: i64 = 2000;

/// Reads a [`FlowSetting`].
const SELECT_SETTING: &str =
    "SELECT keep_days, max_rows, from_clients FROM flow_setting WHERE account_id = $1";

/// How the flow log is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, FromRow, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FlowSetting {
    /// Days after its last report that a flow is forgotten, at most 3,650; 0 keeps no flow log.
    #[schema(minimum = 0, maximum = 3650)]
    pub(crate) keep_days: i64,
    /// The most flows that are kept, 1,000 to 100,000,000; beyond it the oldest are forgotten.
    #[schema(minimum = 1000, maximum = 100_000_000)]
    pub(crate) max_rows: i64,
    /// Whether clients report their flows too, which makes about twice as many.
    #[serde(default = "from_clients")]
    pub(crate) from_clients: bool,
}

/// Both ends report unless said otherwise.
const fn from_clients() -> bool {
    true
}

impl FlowSetting {
    /// Whether gateways report.
    pub(crate) const fn is_from_gateways(self) -> bool {
        self.keep_days > 0
    }

    /// Whether clients report.
    pub(crate) const fn is_from_clients(self) -> bool {
        self.keep_days > 0 && self.from_clients
    }

    /// Whether what this one reports is kept.
    pub(crate) const fn is_kept(self, reporter: &Reporter) -> bool {
        match reporter {
            Reporter::Gateway { .. } => self.is_from_gateways(),
            Reporter::Client(_) => self.is_from_clients(),
        }
    }
}

impl Default for FlowSetting {
    fn default() -> Self {
        Self { keep_days: KEEP_DAYS, max_rows: MAX_ROWS, from_clients: from_clients() }
    }
}

impl FlowSetting {
    /// Refuses what cannot be kept.
    pub(crate) fn checked(self) -> Result<Self, StoreError> {
        if (0..=3650).contains(&self.keep_days) && (1000..=100_000_000).contains(&self.max_rows) {
            return Ok(self);
        }
        let text = "flows are kept for 0 to 3,650 days, and 1,000 to 100,000,000 of them";
        Err(StoreError::Invalid(text.to_owned()))
    }
}

/// What is behind it is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FlowHorizon {
    /// Flows that were reported last before this time.
    before_ms: i64,
    /// Flows whose last reports have numbers up to this.
    last_seq: i64,
}

/// Where flows are sent besides.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub(crate) struct FlowSink {
    /// The address; nowhere when absent.
    pub(crate) sink_url: Option<String>,
    /// The value of the `Authorization` header, sealed.
    pub(crate) sink_sealed: Option<String>,
    /// The number of the last report that was taken there.
    pub(crate) sink_seq: i64,
    /// When something was taken there last.
    pub(crate) sink_at_ms: Option<i64>,
    /// Why the last attempt failed, if it did.
    pub(crate) sink_error: Option<String>,
}

impl Store {
    /// How the flow log is kept.
    pub(crate) async fn flow_setting(&self) -> Result<FlowSetting, StoreError> {
        let setting =
            sql::query_as(SELECT_SETTING).bind(self.account.as_uuid()).fetch_optional(&self.reader).await?;
        Ok(setting.unwrap_or_default())
    }

    /// What is to be forgotten at `now_ms`, if there is anything; without a time nothing is too old. Many rows are counted
    /// here, so that the change that forgets need not do it while others wait.
    pub(crate) async fn flow_horizon(
        &self,
        setting: FlowSetting,
        now_ms: Option<i64>,
    ) -> Result<Option<FlowHorizon>, StoreError> {
        let before_ms = match now_ms {
            _ if setting.keep_days == 0 => i64::MAX,
            Some(now_ms) => now_ms.saturating_sub(setting.keep_days.saturating_mul(DAY_MS)),
            None => i64::MIN,
        };
        let account = self.account.as_uuid();
        let text = "SELECT at_ms FROM flow_log WHERE account_id = $1 ORDER BY at_ms LIMIT 1";
        let oldest: Option<i64> = sql::query_scalar(text).bind(account).fetch_optional(&self.reader).await?;
        let text = "SELECT seq FROM flow_log WHERE account_id = $1 ORDER BY seq DESC LIMIT 1 OFFSET $2";
        let beyond: Option<i64> =
            sql::query_scalar(text).bind(account).bind(setting.max_rows).fetch_optional(&self.reader).await?;
        let is_any = oldest.is_some_and(|at_ms| at_ms < before_ms) || beyond.is_some();
        Ok(is_any.then_some(FlowHorizon { before_ms, last_seq: beyond.unwrap_or(0) }))
    }

    /// Where flows are sent.
    pub(crate) async fn flow_sink(&self) -> Result<Option<FlowSink>, StoreError> {
        let text = "SELECT sink_url, sink_sealed, sink_seq, sink_at_ms, sink_error
                    FROM flow_setting WHERE account_id = $1";
        Ok(sql::query_as(text).bind(self.account.as_uuid()).fetch_optional(&self.reader).await?)
    }
}

impl Change {
    async fn make_flow_setting(&mut self) -> Result<(), StoreError> {
        sql::query(
            "INSERT INTO flow_setting (account_id, last_seq, keep_days, max_rows, sink_seq)
             VALUES ($1, 0, $2, $3, 0) ON CONFLICT (account_id) DO NOTHING",
        )
        .bind(self.account().as_uuid())
        .bind(KEEP_DAYS)
        .bind(MAX_ROWS)
        .execute(self.sql())
        .await?;
        Ok(())
    }

    /// Takes so many numbers for reports; the one before the first comes back. Changes happen one after the other, so
    /// numbers are in the order of the commits.
    pub(super) async fn take_flow_numbers(&mut self, count: i64) -> Result<i64, StoreError> {
        self.make_flow_setting().await?;
        let text =
            "UPDATE flow_setting SET last_seq = last_seq + $2 WHERE account_id = $1 RETURNING last_seq";
        let last: i64 =
            sql::query_scalar(text).bind(self.account().as_uuid()).bind(count).fetch_one(self.sql()).await?;
        Ok(last - count)
    }

    /// Keeps the flow log in another way; who is to report, or not any more, is told.
    pub(crate) async fn set_flow_setting(&mut self, setting: FlowSetting) -> Result<(), StoreError> {
        let setting = setting.checked()?;
        self.make_flow_setting().await?;
        let before: FlowSetting =
            sql::query_as(SELECT_SETTING).bind(self.account().as_uuid()).fetch_one(self.sql()).await?;
        sql::query(
            "UPDATE flow_setting SET keep_days = $2, max_rows = $3, from_clients = $4 WHERE account_id = $1",
        )
        .bind(self.account().as_uuid())
        .bind(setting.keep_days)
        .bind(setting.max_rows)
        .bind(setting.from_clients)
        .execute(self.sql())
        .await?;
        let changed = |now: bool, before: bool| (now != before).then_some(now);
        let from_gateways = changed(setting.is_from_gateways(), before.is_from_gateways());
        let from_clients = changed(setting.is_from_clients(), before.is_from_clients());
        if from_gateways.is_some() || from_clients.is_some() {
            self.tell(&Event::FlowLogChanged { from_gateways, from_clients })?;
        }
        self.audit("flow_log.update", ("account", None), serde_json::json!(setting)).await
    }

    /// Sends flows from now on there, or nowhere any more. What was reported before stays here.
    pub(crate) async fn set_flow_sink(
        &mut self,
        url: Option<&str>,
        sealed: Option<String>,
    ) -> Result<(), StoreError> {
        self.make_flow_setting().await?;
        sql::query(
            "UPDATE flow_setting SET sink_url = $2, sink_sealed = $3, sink_error = NULL,
                    sink_seq = CASE WHEN sink_url IS NULL THEN last_seq ELSE sink_seq END
             WHERE account_id = $1",
        )
        .bind(self.account().as_uuid())
        .bind(url.map(str::to_owned))
        .bind(sealed.clone())
        .execute(self.sql())
        .await?;
        let detail = serde_json::json!({ "url": url, "has_authorization": sealed.is_some() });
        self.audit("flow_log.set_sink", ("account", None), detail).await
    }

    /// Everything up to `seq` was taken at the sink, or why it was not.
    pub(crate) async fn note_flow_sink(
        &mut self,
        seq: Option<i64>,
        error: Option<&str>,
    ) -> Result<(), StoreError> {
        let at_ms = self.at_ms();
        sql::query(
            "UPDATE flow_setting SET sink_seq = coalesce($2, sink_seq), sink_error = $3,
                    sink_at_ms = CASE WHEN $2 IS NULL THEN sink_at_ms ELSE $4 END
             WHERE account_id = $1",
        )
        .bind(self.account().as_uuid())
        .bind(seq)
        .bind(error.map(str::to_owned))
        .bind(at_ms)
        .execute(self.sql())
        .await?;
        Ok(())
    }

    /// Forgets some of the flows behind the horizon; how many, at most a bounded number.
    pub(crate) async fn forget_flows(&mut self, horizon: FlowHorizon) -> Result<u64, StoreError> {
        let account = self.account().as_uuid();
        let old = sql::query(
            "DELETE FROM flow_log WHERE id IN (
                 SELECT id FROM flow_log WHERE account_id = $1 AND at_ms < $2 ORDER BY at_ms LIMIT $3)",
        )
        .bind(account)
        .bind(horizon.before_ms)
        .bind(FORGET_TOGETHER)
        .execute(self.sql())
        .await?;
        if old > 0 {
            return Ok(old);
        }
        Ok(sql::query(
            "DELETE FROM flow_log WHERE id IN (
                 SELECT id FROM flow_log WHERE account_id = $1 AND seq <= $2 ORDER BY seq LIMIT $3)",
        )
        .bind(account)
        .bind(horizon.last_seq)
        .bind(FORGET_TOGETHER)
        .execute(self.sql())
        .await?)
    }
}
