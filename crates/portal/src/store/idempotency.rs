//! Answers to requests that carry an idempotency key, so that a repeated request is answered and not done again.
//!
//! A row is taken before the work and completed after it. What is answered may hold a new token's text: it comes here
//! encrypted. Rows live for a day; backups and moves leave them out.

use adit_policy::TokenId;
use sqlx::FromRow;

use super::{By, Store, StoreError, sql};

/// How long an answer is remembered: a day, in milliseconds.
const MEMORY: i64 = 24 * 60 * 60 * 1000;

/// After this time nobody works on a request any more, in milliseconds: the node that did was stopped.
const LONGEST_WORK: i64 = 120_000;

/// Answers that are remembered for one token.
const MOST: i64 = 1000;

/// A request that carries a key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keyed<'a> {
    /// Whose request it is.
    pub(crate) token: TokenId,
    /// The key.
    pub(crate) key: &'a str,
    /// SHA-256 of everything that makes the request what it is.
    pub(crate) digest: &'a [u8],
}

/// What to do with a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is new: do it, then [`Store::remember`] or [`Store::forget`] it.
    New,
    /// The same request was answered so: status and sealed body.
    Answered(i64, String),
    /// The same request is being worked on.
    Busy,
    /// The key belongs to another request.
    Different,
    /// Too many requests are remembered for the token.
    Full,
}

#[derive(FromRow)]
struct Row {
    digest: Vec<u8>,
    status: Option<i64>,
    answer: Option<String>,
    created_ms: i64,
}

impl Store {
    /// Takes a key, or says what is known of it.
    pub(crate) async fn claim(&self, request: Keyed<'_>) -> Result<Claim, StoreError> {
        let mut change = self.change(&By::system()).await?;
        let at = change.at_ms();
        sql::query("DELETE FROM idempotency WHERE created_ms < $1")
            .bind(at - MEMORY)
            .execute(change.sql())
            .await?;
        let row: Option<Row> = sql::query_as(
            "SELECT digest, status, answer, created_ms FROM idempotency WHERE token_id = $1 AND key = $2",
        )
        .bind(request.token.as_uuid())
        .bind(request.key)
        .fetch_optional(change.sql())
        .await?;
        let claim = match row {
            Some(row) if row.digest != request.digest => Claim::Different,
            Some(Row { status: Some(status), answer: Some(answer), .. }) => Claim::Answered(status, answer),
            Some(row) if row.created_ms > at - LONGEST_WORK => Claim::Busy,
            Some(_) => Claim::New,
            None => Claim::New,
        };
        if claim != Claim::New {
            return Ok(claim);
        }
        let known: i64 = sql::query_scalar("SELECT count(*) FROM idempotency WHERE token_id = $1")
            .bind(request.token.as_uuid())
            .fetch_one(change.sql())
            .await?;
        if known >= MOST {
            return Ok(Claim::Full);
        }
        sql::query(
            "INSERT INTO idempotency (token_id, key, digest, created_ms) VALUES ($1, $2, $3, $4)
             ON CONFLICT (token_id, key) DO UPDATE SET created_ms = $4",
        )
        .bind(request.token.as_uuid())
        .bind(request.key)
        .bind(request.digest)
        .bind(at)
        .execute(change.sql())
        .await?;
        change.commit().await?;
        Ok(Claim::New)
    }

    /// Keeps the answer to a request that [`Store::claim`] called new.
    pub(crate) async fn remember(
        &self,
        request: Keyed<'_>,
        status: u16,
        answer: String,
    ) -> Result<(), StoreError> {
        sql::query("UPDATE idempotency SET status = $1, answer = $2 WHERE token_id = $3 AND key = $4")
            .bind(i64::from(status))
            .bind(answer)
            .bind(request.token.as_uuid())
            .bind(request.key)
            .execute(&self.writer)
            .await?;
        Ok(())
    }

    /// Gives a key back whose request was not done.
    pub(crate) async fn forget(&self, request: Keyed<'_>) -> Result<(), StoreError> {
        sql::query("DELETE FROM idempotency WHERE token_id = $1 AND key = $2")
            .bind(request.token.as_uuid())
            .bind(request.key)
            .execute(&self.writer)
            .await?;
        Ok(())
    }
}
