//! The audit log: who changed what, from what to what, and when.
//!
//! An entry is written inside the change that it tells of. It has a number without gaps and a
//! seal (see [`seal`]): with the database alone nobody can change, remove, insert or
//! reorder entries without it showing. Triggers of the database refuse updates, and deletions
//! other than those of [`Change::forget_audit`], against mistakes rather than against
//! attackers.
//!
//! Deliberately absent: protection of the end of the log. Whoever can write to the database can
//! cut off the newest entries; that shows only to somebody who has noted a later seal, which is why
//! `adit-portal doctor` prints the last one and the portal logs it now and then.

pub(crate) mod seal;
mod verify;

use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use uuid::Uuid;

pub(crate) use verify::Verified;

use super::{Change, Page, Store, StoreError, sql};

/// The action of the entry that notes what was forgotten.
const FORGET: &str = "audit.forget";

/// One entry.
#[derive(Debug, Clone, Serialize, FromRow, utoipa::ToSchema)]
pub(crate) struct AuditRow {
    /// Names it.
    pub(crate) id: Uuid,
    /// Its number in the log of its account, without gaps.
    pub(crate) seq: i64,
    /// When.
    pub(crate) at_ms: i64,
    /// Who.
    pub(crate) who: String,
    /// From where.
    pub(crate) address: String,
    /// What, as `noun.verb`.
    pub(crate) action: String,
    /// To what kind of thing.
    pub(crate) subject_kind: String,
    /// To which thing.
    pub(crate) subject_id: Option<Uuid>,
    /// What it was before; absent for what is new.
    #[serde(serialize_with = "as_optional_json", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub(crate) before: Option<String>,
    /// What it is now; absent for what is gone.
    #[serde(serialize_with = "as_optional_json", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    pub(crate) after: Option<String>,
    /// Further facts.
    #[serde(serialize_with = "as_json")]
    #[schema(value_type = Object)]
    pub(crate) detail: String,
    #[serde(skip)]
    seal: Option<Vec<u8>>,
}

/// The stored text is JSON already.
fn as_json<S: serde::Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serde_json::from_str::<serde_json::Value>(text).unwrap_or_default().serialize(serializer)
}

fn as_optional_json<S: serde::Serializer>(text: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    as_json(text.as_deref().unwrap_or("null"), serializer)
}

/// Which entries are asked for; what is absent restricts nothing.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct AuditFilter {
    /// By whom: the exact name.
    pub(crate) who: Option<String>,
    /// The action, or the part of it before the dot.
    pub(crate) action: Option<String>,
    /// About which thing.
    pub(crate) subject: Option<Uuid>,
    /// Not before this time, in Unix milliseconds.
    pub(crate) since_ms: Option<i64>,
    /// Before this time, in Unix milliseconds.
    pub(crate) until_ms: Option<i64>,
}

impl Store {
    /// Entries, newest first by their numbers, whatever the clock has done; `after` names the last entry of the page
    /// before.
    pub(crate) async fn audit(&self, page: Page) -> Result<Vec<AuditRow>, StoreError> {
        self.audit_of(page, &AuditFilter::default()).await
    }

    /// The same of entries that a filter lets through.
    pub(crate) async fn audit_of(
        &self,
        page: Page,
        filter: &AuditFilter,
    ) -> Result<Vec<AuditRow>, StoreError> {
        let noun = filter.action.as_ref().filter(|action| !action.contains('.'));
        let action = filter.action.as_ref().filter(|action| action.contains('.'));
        Ok(sql::query_as(
            "SELECT * FROM audit WHERE account_id = $1
             AND ($2 IS NULL OR seq < (SELECT seq FROM audit WHERE account_id = $1 AND id = $2))
             AND ($3 IS NULL OR who = $3) AND ($4 IS NULL OR action = $4)
             AND ($5 IS NULL OR substr(action, 1, length($5)) = $5)
             AND ($6 IS NULL OR subject_id = $6)
             AND at_ms >= $7 AND at_ms < $8 ORDER BY seq DESC LIMIT $9",
        )
        .bind(self.account.as_uuid())
        .bind(page.after)
        .bind(filter.who.clone())
        .bind(action.cloned())
        .bind(noun.map(|noun| format!("{noun}.")))
        .bind(filter.subject)
        .bind(filter.since_ms.unwrap_or(i64::MIN))
        .bind(filter.until_ms.unwrap_or(i64::MAX))
        .bind(page.limit())
        .fetch_all(&self.reader)
        .await?)
    }

    /// The seal of an entry, in hex.
    pub(crate) async fn audit_seal(&self, seq: i64) -> Result<Option<String>, StoreError> {
        let seal: Option<Option<Vec<u8>>> =
            sql::query_scalar("SELECT seal FROM audit WHERE account_id = $1 AND seq = $2")
                .bind(self.account.as_uuid())
                .bind(seq)
                .fetch_optional(&self.reader)
                .await?;
        Ok(seal.flatten().map(|seal| seal::hex(&seal)))
    }

    /// How peers reach the portal, as bootstrap was told; unknown once that entry is forgotten.
    pub(crate) async fn declared_url(&self) -> Result<Option<String>, StoreError> {
        let text = "SELECT detail FROM audit WHERE account_id = $1 AND action = 'account.create' LIMIT 1";
        let detail: Option<String> =
            sql::query_scalar(text).bind(self.account.as_uuid()).fetch_optional(&self.reader).await?;
        let detail: serde_json::Value =
            detail.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Ok(detail["url"].as_str().map(str::to_owned))
    }

    /// Entries in the order of the log, after the number `after`.
    pub(crate) async fn audit_in_order(&self, after: i64, limit: i64) -> Result<Vec<AuditRow>, StoreError> {
        let text = "SELECT * FROM audit WHERE account_id = $1 AND seq > $2 ORDER BY seq LIMIT $3";
        let query = sql::query_as(text).bind(self.account.as_uuid()).bind(after).bind(limit);
        Ok(query.fetch_all(&self.reader).await?)
    }
}

impl Change {
    /// Writes an entry with facts that are neither before nor after: a sign-in, for example.
    pub(crate) async fn audit(
        &mut self,
        action: &str,
        subject: (&str, Option<Uuid>),
        detail: serde_json::Value,
    ) -> Result<(), StoreError> {
        self.append(action, subject, [None, None], detail).await
    }

    /// Writes an entry of what something was and what it is now; `null` where there is nothing.
    pub(crate) async fn audit_change(
        &mut self,
        action: &str,
        subject: (&str, Uuid),
        before: serde_json::Value,
        after: serde_json::Value,
    ) -> Result<(), StoreError> {
        let text = |value: serde_json::Value| (!value.is_null()).then(|| value.to_string());
        let states = [text(before), text(after)];
        self.append(action, (subject.0, Some(subject.1)), states, serde_json::json!({})).await
    }

    async fn append(
        &mut self,
        action: &str,
        subject: (&str, Option<Uuid>),
        [before, after]: [Option<String>; 2],
        detail: serde_json::Value,
    ) -> Result<(), StoreError> {
        let account = self.account().as_uuid();
        // Changes happen one after the other, so nobody else takes the same number.
        let last: Option<(i64, Option<Vec<u8>>)> =
            sql::query_as("SELECT seq, seal FROM audit WHERE account_id = $1 ORDER BY seq DESC LIMIT 1")
                .bind(account)
                .fetch_optional(self.sql())
                .await?;
        let (last, seal) = last.unwrap_or((0, None));
        let mut row = AuditRow {
            id: Uuid::now_v7(),
            seq: last + 1,
            at_ms: self.at_ms(),
            who: self.by().who.clone(),
            address: self.by().address.clone(),
            action: action.to_owned(),
            subject_kind: subject.0.to_owned(),
            subject_id: subject.1,
            before,
            after,
            detail: detail.to_string(),
            seal: None,
        };
        row.seal = self.sealer().map(|sealer| sealer.seal(seal.as_deref(), account, &row).to_vec());
        sql::query(
            "INSERT INTO audit (id, account_id, seq, at_ms, who, address, action, subject_kind,
                                subject_id, before, after, detail, seal)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        )
        .bind(row.id)
        .bind(account)
        .bind(row.seq)
        .bind(row.at_ms)
        .bind(row.who)
        .bind(row.address)
        .bind(row.action)
        .bind(row.subject_kind)
        .bind(row.subject_id)
        .bind(row.before)
        .bind(row.after)
        .bind(row.detail)
        .bind(row.seal)
        .execute(self.sql())
        .await?;
        Ok(())
    }

    /// Forgets entries from before `before_ms`, and notes in the log what the last of them was,
    /// so that the rest can still be verified.
    pub(crate) async fn forget_audit(&mut self, before_ms: i64) -> Result<u64, StoreError> {
        let account = self.account().as_uuid();
        // By number rather than by time: a clock that was set back must not make holes.
        let last: Option<(i64, Option<Vec<u8>>)> = sql::query_as(
            "SELECT seq, seal FROM audit WHERE account_id = $1 AND seq < coalesce(
                 (SELECT min(seq) FROM audit WHERE account_id = $1 AND at_ms >= $2),
                 9223372036854775807)
             ORDER BY seq DESC LIMIT 1",
        )
        .bind(account)
        .bind(before_ms)
        .fetch_optional(self.sql())
        .await?;
        let Some((last, seal)) = last else { return Ok(0) };
        let first: i64 = sql::query_scalar("SELECT min(seq) FROM audit WHERE account_id = $1")
            .bind(account)
            .fetch_one(self.sql())
            .await?;
        let seal = seal.map(|seal| seal::hex(&seal));
        let detail = serde_json::json!({
            "entries": last - first + 1, "before_ms": before_ms, "last_seq": last, "last_seal": seal,
        });
        // First the note, so that the log is never empty and numbers go on.
        self.audit(FORGET, ("audit", None), detail).await?;
        self.delete_audit(last + 1).await
    }

    async fn delete_audit(&mut self, before_seq: i64) -> Result<u64, StoreError> {
        let account = self.account().as_uuid();
        sql::query("INSERT INTO audit_retention (account_id, before_seq) VALUES ($1, $2)")
            .bind(account)
            .bind(before_seq)
            .execute(self.sql())
            .await?;
        let forgotten = sql::query("DELETE FROM audit WHERE account_id = $1 AND seq < $2")
            .bind(account)
            .bind(before_seq)
            .execute(self.sql())
            .await?;
        sql::query("DELETE FROM audit_retention WHERE account_id = $1")
            .bind(account)
            .execute(self.sql())
            .await?;
        Ok(forgotten)
    }
}

#[cfg(test)]
mod tests;
