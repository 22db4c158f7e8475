//! Accounts: the tenant that everything else belongs to. One by default.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use adit_policy::AccountId;
use adit_protocol::Interface;
use ipnet::{Ipv4Net, Ipv6Net};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Change, Event, Store, StoreError, sql};

/// What a new account is made of.
#[derive(Debug, Clone)]
pub(crate) struct NewAccount {
    /// Shown to people.
    pub(crate) name: String,
    /// Tunnel addresses.
    pub(crate) ipv4_range: Ipv4Net,
    /// Tunnel addresses.
    pub(crate) ipv6_range: Ipv6Net,
    /// Proxy addresses of DNS resources.
    pub(crate) ipv4_proxy_range: Ipv4Net,
    /// Proxy addresses of DNS resources.
    pub(crate) ipv6_proxy_range: Ipv6Net,
    /// Upstream resolvers for names that are no resources.
    pub(crate) dns_upstreams: Vec<SocketAddr>,
    /// Search domains for the system's resolver.
    pub(crate) search_domains: Vec<String>,
}

/// An account.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    /// Its settings.
    pub(crate) settings: NewAccount,
}

#[derive(FromRow)]
struct Row {
    name: String,
    ipv4_range: String,
    ipv6_range: String,
    ipv4_proxy_range: String,
    ipv6_proxy_range: String,
    dns_upstreams: String,
    search_domains: String,
}

impl Account {
    /// The tunnel addresses of the device with `index`.
    ///
    /// Both families take the same index, so one unique column makes both unique.
    pub(crate) fn tunnel_addresses(&self, index: u32) -> (Ipv4Addr, Ipv6Addr) {
        let v4 = u32::from(self.settings.ipv4_range.network()).wrapping_add(index);
        let v6 = u128::from(self.settings.ipv6_range.network()).wrapping_add(u128::from(index));
        (Ipv4Addr::from(v4), Ipv6Addr::from(v6))
    }

    /// How many indices there are; the first and the last are not given out.
    pub(crate) fn tunnel_capacity(&self) -> u32 {
        let v4 = 32 - u32::from(self.settings.ipv4_range.prefix_len());
        let v6 = 128 - u32::from(self.settings.ipv6_range.prefix_len());
        1_u32 << v4.min(v6).min(31)
    }

    /// How the device with `index` configures its tunnel interface.
    pub(crate) fn interface(&self, index: u32) -> Interface {
        let (ipv4, ipv6) = self.tunnel_addresses(index);
        let settings = &self.settings;
        Interface {
            ipv4,
            ipv6,
            ipv4_range: settings.ipv4_range,
            ipv6_range: settings.ipv6_range,
            ipv4_proxy_range: settings.ipv4_proxy_range,
            ipv6_proxy_range: settings.ipv6_proxy_range,
            dns_upstreams: settings.dns_upstreams.clone(),
            search_domains: settings.search_domains.clone(),
        }
    }
}

pub(super) async fn first(pool: &sql::Pool) -> Result<Option<AccountId>, StoreError> {
    let id: Option<Uuid> =
        sql::query_scalar("SELECT id FROM account ORDER BY id LIMIT 1").fetch_optional(pool).await?;
    Ok(id.map(AccountId::from_uuid))
}

fn corrupt(error: impl std::fmt::Display) -> StoreError {
    StoreError::Invalid(format!("the account's stored settings are damaged: {error}"))
}

impl Store {
    /// The account that this portal serves.
    pub(crate) async fn account(&self) -> Result<Account, StoreError> {
        let row: Row = sql::query_as("SELECT * FROM account WHERE id = $1")
            .bind(self.account.as_uuid())
            .fetch_optional(&self.reader)
            .await?
            .ok_or(StoreError::NotFound("account"))?;
        Ok(Account {
            settings: NewAccount {
                name: row.name,
                ipv4_range: row.ipv4_range.parse().map_err(corrupt)?,
                ipv6_range: row.ipv6_range.parse().map_err(corrupt)?,
                ipv4_proxy_range: row.ipv4_proxy_range.parse().map_err(corrupt)?,
                ipv6_proxy_range: row.ipv6_proxy_range.parse().map_err(corrupt)?,
                dns_upstreams: serde_json::from_str(&row.dns_upstreams).map_err(corrupt)?,
                search_domains: serde_json::from_str(&row.search_domains).map_err(corrupt)?,
            },
        })
    }
}

impl Store {
    /// The digest of the secret files that the database is bound to.
    pub(crate) async fn secrets_digest(&self) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(sql::query_scalar("SELECT secrets_digest FROM account WHERE id = $1")
            .bind(self.account.as_uuid())
            .fetch_one(&self.reader)
            .await?)
    }

    /// Binds the database to the secret files with this digest, the first ones it is served with.
    /// `false` when it is bound to others.
    pub(crate) async fn bind_secrets(&self, digest: &[u8; 32]) -> Result<bool, StoreError> {
        sql::query("UPDATE account SET secrets_digest = $1 WHERE id = $2 AND secrets_digest IS NULL")
            .bind(digest.as_slice())
            .bind(self.account.as_uuid())
            .execute(&self.writer)
            .await?;
        let bound: Option<Vec<u8>> = sql::query_scalar("SELECT secrets_digest FROM account WHERE id = $1")
            .bind(self.account.as_uuid())
            .fetch_one(&self.writer)
            .await?;
        Ok(bound.as_deref() == Some(digest.as_slice()))
    }
}

impl Change {
    /// Creates the account; everything that follows in this change belongs to it.
    pub(crate) async fn create_account(&mut self, new: &NewAccount) -> Result<AccountId, StoreError> {
        let id = Uuid::now_v7();
        let at = self.at_ms();
        sql::query(
            "INSERT INTO account (id, name, ipv4_range, ipv6_range, ipv4_proxy_range, ipv6_proxy_range,
                                  dns_upstreams, search_domains, created_ms)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(id)
        .bind(&new.name)
        .bind(new.ipv4_range.to_string())
        .bind(new.ipv6_range.to_string())
        .bind(new.ipv4_proxy_range.to_string())
        .bind(new.ipv6_proxy_range.to_string())
        .bind(serde_json::to_string(&new.dns_upstreams).map_err(corrupt)?)
        .bind(serde_json::to_string(&new.search_domains).map_err(corrupt)?)
        .bind(at)
        .execute(self.sql())
        .await?;
        self.set_account(AccountId::from_uuid(id));
        Ok(AccountId::from_uuid(id))
    }
}

impl Change {
    /// Gives clients other resolvers and search domains.
    pub(crate) async fn set_dns(
        &mut self,
        upstreams: &[SocketAddr],
        search_domains: &[String],
    ) -> Result<(), StoreError> {
        let account = self.account();
        sql::query("UPDATE account SET dns_upstreams = $1, search_domains = $2 WHERE id = $3")
            .bind(serde_json::to_string(upstreams).map_err(corrupt)?)
            .bind(serde_json::to_string(search_domains).map_err(corrupt)?)
            .bind(account.as_uuid())
            .execute(self.sql())
            .await?;
        self.tell(&Event::SettingsChanged)?;
        let detail = serde_json::json!({ "dns_upstreams": upstreams, "search_domains": search_domains });
        self.audit("settings.update", ("account", Some(account.as_uuid())), detail).await
    }
}
