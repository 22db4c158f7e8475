//! Relays that said hello once. Their secrets are never stored.

use adit_policy::{RelayId, TokenId};
use adit_protocol::relay::RelayHello;
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Change, Page, Store, StoreError, sql};

/// A relay as it is stored.
#[derive(Debug, Clone, Serialize, FromRow, utoipa::ToSchema)]
pub(crate) struct RelayRow {
    /// Names it.
    pub(crate) id: Uuid,
    /// Shown to people.
    pub(crate) name: String,
    /// The program's version.
    pub(crate) version: String,
    /// Where clients reach it.
    pub(crate) ipv4: Option<String>,
    /// Where clients reach it.
    pub(crate) ipv6: Option<String>,
    /// The port of its UDP listeners.
    pub(crate) port: i64,
    /// The port of its TCP listeners.
    pub(crate) tcp_port: Option<i64>,
    /// The port of its TLS listeners.
    pub(crate) tls_port: Option<i64>,
    /// When it was first seen.
    pub(crate) created_ms: i64,
    /// When it last signed in.
    pub(crate) last_seen_ms: i64,
}

impl Store {
    /// Relays in the order of their first sign-in.
    pub(crate) async fn relays(&self, page: Page) -> Result<Vec<RelayRow>, StoreError> {
        Ok(sql::query_as("SELECT * FROM relay WHERE account_id = $1 AND id > $2 ORDER BY id LIMIT $3")
            .bind(self.account.as_uuid())
            .bind(page.after())
            .bind(page.limit())
            .fetch_all(&self.reader)
            .await?)
    }
}

impl Change {
    /// Signs a relay in: makes it or brings it up to date.
    pub(crate) async fn sign_in_relay(
        &mut self,
        hello: &RelayHello,
        token: TokenId,
    ) -> Result<RelayId, StoreError> {
        let (account, at) = (self.account(), self.at_ms());
        let id: Uuid = sql::query_scalar(
            "INSERT INTO relay (id, account_id, external_id, token_id, name, version, ipv4, ipv6, port,
                                tcp_port, tls_port, created_ms, last_seen_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
             ON CONFLICT (account_id, external_id) DO UPDATE SET
                 token_id = excluded.token_id, name = excluded.name, version = excluded.version,
                 ipv4 = excluded.ipv4, ipv6 = excluded.ipv6, port = excluded.port,
                 tcp_port = excluded.tcp_port, tls_port = excluded.tls_port,
                 last_seen_ms = excluded.last_seen_ms
             RETURNING id",
        )
        .bind(Uuid::now_v7())
        .bind(account.as_uuid())
        .bind(hello.device_id)
        .bind(token.as_uuid())
        .bind(&hello.name)
        .bind(&hello.version)
        .bind(hello.ipv4.map(|ip| ip.to_string()))
        .bind(hello.ipv6.map(|ip| ip.to_string()))
        .bind(i64::from(hello.port))
        .bind(hello.tcp_port.map(i64::from))
        .bind(hello.tls.as_ref().map(|tls| i64::from(tls.port)))
        .bind(at)
        .bind(at)
        .fetch_one(self.sql())
        .await?;
        self.touch_token(token).await?;
        let detail = serde_json::json!({ "name": hello.name, "version": hello.version });
        self.audit("relay.sign_in", ("relay", Some(id)), detail).await?;
        Ok(RelayId::from_uuid(id))
    }
}
