//! Reading the whole log and recomputing every seal.

use serde::Serialize;

use super::seal::{self, Sealer};
use super::{AuditRow, FORGET};
use crate::store::{Store, StoreError, sql};

/// Entries that are read at a time.
const BATCH: i64 = 1000;

/// What the log looks like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Verified {
    /// Entries that were read.
    pub(crate) entries: u64,
    /// Of these, from before there were seals.
    pub(crate) unsealed: u64,
    /// Number of the last entry.
    pub(crate) last_seq: i64,
    /// Its seal in hex: note it elsewhere, and nobody can cut off the log before it unnoticed.
    pub(crate) last_seal: Option<String>,
    /// The first thing that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fault: Option<String>,
}

/// Where the reading has come to.
struct Reading<'a> {
    sealer: &'a Sealer,
    account: uuid::Uuid,
    seal: Option<Vec<u8>>,
    found: Verified,
}

impl Reading<'_> {
    /// Takes the next entry; `false` when something is wrong with it.
    fn take(&mut self, row: AuditRow) -> bool {
        if row.seq != self.found.last_seq + 1 {
            self.found.fault = Some(format!("entry {} is missing", self.found.last_seq + 1));
            return false;
        }
        if row.seal.is_none() && self.seal.is_none() {
            self.found.unsealed += 1;
        } else if !self.sealer.is_sealed(self.seal.as_deref(), self.account, &row) {
            self.found.fault = Some(format!("entry {} was changed, or the one before it", row.seq));
            return false;
        }
        self.found.entries += 1;
        self.found.last_seq = row.seq;
        self.found.last_seal = row.seal.as_deref().map(seal::hex);
        self.seal = row.seal;
        true
    }
}

impl Store {
    /// Reads the whole log. A fault is a part of the answer, not an error.
    pub(crate) async fn verify_audit(&self, sealer: &Sealer) -> Result<Verified, StoreError> {
        let (last_seq, seal) = self.forgotten().await?;
        let found = Verified { entries: 0, unsealed: 0, last_seq, last_seal: None, fault: None };
        let mut reading = Reading { sealer, account: self.account.as_uuid(), seal, found };
        loop {
            let rows = self.audit_in_order(reading.found.last_seq, BATCH).await?;
            if rows.is_empty() {
                return Ok(reading.found);
            }
            for row in rows {
                if !reading.take(row) {
                    return Ok(reading.found);
                }
            }
        }
    }

    /// The last entry that was forgotten, according to the newest note: its number and seal. The
    /// note itself is an entry, and verified like every other.
    async fn forgotten(&self) -> Result<(i64, Option<Vec<u8>>), StoreError> {
        let note: Option<String> = sql::query_scalar(
            "SELECT detail FROM audit WHERE account_id = $1 AND action = $2 ORDER BY seq DESC LIMIT 1",
        )
        .bind(self.account.as_uuid())
        .bind(FORGET)
        .fetch_optional(&self.reader)
        .await?;
        let note: serde_json::Value =
            note.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        // Without a note, and by notes from before there were numbers, nothing is missing.
        let last = note["last_seq"].as_i64().unwrap_or(0);
        Ok((last, note["last_seal"].as_str().and_then(seal::unhex)))
    }
}
