//! `adit-portal bootstrap`: from an empty directory to a portal that can be served.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use adit_policy::{ActorId, TokenId};
use anyhow::{Context as _, Result, bail};
use ipnet::{Ipv4Net, Ipv6Net};
use serde::Serialize;
use url::Url;

use crate::certificate;
use crate::credential::{self, Secrets};
use crate::data_dir::DataDir;
use crate::store::{ActorKind, By, Database, NewAccount, NewToken, Role, Sealer, Store, TokenKind};

/// The name of the actor whom the first API token belongs to, and of the token itself.
const OWNER: &str = "owner";

/// Tunnel addresses: half of the range that RFC 6598 reserves for carriers.
const IPV4_RANGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 11);

/// Proxy addresses of DNS resources: the other part of the same range.
const IPV4_PROXY_RANGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 96, 0, 0), 11);

/// What bootstrap is asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The database, if it is not the SQLite file in the data directory.
    pub database: Option<Database>,
    /// How peers and administrators reach the portal.
    pub url: Url,
    /// Further host names and addresses for the certificate.
    pub extra_names: Vec<String>,
    /// A certificate chain and its key to use instead of making our own.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Upstream resolvers for clients; empty means each system's own.
    pub dns_upstreams: Vec<SocketAddr>,
    /// Search domains for clients.
    pub search_domains: Vec<String>,
    /// Replaces the owner's API token of an existing portal; does nothing else.
    pub rotate_admin_token: bool,
}

/// What bootstrap made.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// How peers and administrators reach the portal.
    pub url: String,
    /// The owner's API token, shown once.
    pub admin_token: String,
    /// For relays, shown once; absent when only the owner's token was replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relay_token: Option<String>,
    /// The CA that peers must trust; absent when a certificate was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Where everything is kept.
    pub data_dir: PathBuf,
}

/// Makes a portal, or replaces the owner's token of one.
///
/// # Errors
///
/// When the directory holds a portal already (unless only the token is to be replaced), or
/// cannot be written.
pub async fn bootstrap(options: &Options) -> Result<Outcome> {
    let directory = DataDir::new(options.data_dir.clone());
    let database = options.database.clone().unwrap_or_else(|| directory.default_database());
    let exists = database.may_exist() && is_bootstrapped(&database).await?;
    let outcome = if options.rotate_admin_token {
        if !exists {
            bail!("{database} holds no portal whose token could be replaced");
        }
        rotate(&directory, &database).await?
    } else {
        if exists {
            bail!("{database} holds a portal already; use --rotate-admin-token if its API token is lost");
        }
        create(&directory, &database, options).await?
    };
    let ca = directory.tls("ca.pem");
    Ok(Outcome {
        url: options.url.as_str().trim_end_matches('/').to_owned(),
        admin_token: outcome.0,
        relay_token: outcome.1,
        ca_file: ca.exists().then(|| std::path::absolute(&ca).unwrap_or(ca)),
        data_dir: std::path::absolute(&options.data_dir).unwrap_or_else(|_| options.data_dir.clone()),
    })
}

/// An attempt that failed half-way leaves a database without account; it may be repeated.
async fn is_bootstrapped(database: &Database) -> Result<bool> {
    let store = open(database, false).await?;
    let exists = !store.account_id().as_uuid().is_nil();
    store.close().await;
    Ok(exists)
}

async fn open(database: &Database, create: bool) -> Result<Store> {
    Store::open(database, create).await.with_context(|| format!("cannot open the database {database}"))
}

async fn create(
    directory: &DataDir,
    database: &Database,
    options: &Options,
) -> Result<(String, Option<String>)> {
    directory.create()?;
    directory.create_secrets()?;
    if !directory.tls("server.pem").exists() {
        match &options.certificate {
            Some((chain, key)) => certificate::copy(directory, chain, key)?,
            None => certificate::create(directory, &names(options)?)?,
        }
    }
    let secrets = directory.secrets()?;
    let account = new_account(options)?;
    let store = open(database, true).await?;
    if let Database::Sqlite(path) = database {
        restrict(path)?;
    }
    store.seal_audit(Sealer::new(&secrets.audit_key()?));
    let mut change = store.change(&By::system()).await?;
    change.create_account(&account).await?;
    change.create_group("Everyone", true).await?;
    let owner = change.create_actor(ActorKind::User, OWNER, Role::Owner).await?;
    let admin = new_token(&secrets, TokenKind::Api, OWNER, Some(ActorId::from_uuid(owner.id)))?;
    let relay = new_token(&secrets, TokenKind::Relay, "relay", None)?;
    change.create_token(&admin.1).await?;
    change.create_token(&relay.1).await?;
    change
        .audit("account.create", ("account", None), serde_json::json!({ "url": options.url.as_str() }))
        .await?;
    change.commit().await?;
    store.close().await;
    Ok((admin.0, Some(relay.0)))
}

async fn rotate(directory: &DataDir, database: &Database) -> Result<(String, Option<String>)> {
    let secrets = directory.secrets()?;
    let store = open(database, false).await?;
    store.seal_audit(Sealer::new(&secrets.audit_key()?));
    let owner = store.first_owner().await?;
    let mut change = store.change(&By::system()).await?;
    change.revoke_tokens_named(TokenKind::Api, OWNER).await?;
    let (text, token) = new_token(&secrets, TokenKind::Api, OWNER, Some(owner))?;
    change.create_token(&token).await?;
    change.commit().await?;
    store.close().await;
    Ok((text, None))
}

fn new_token(
    secrets: &Secrets,
    kind: TokenKind,
    name: &str,
    actor: Option<ActorId>,
) -> Result<(String, NewToken)> {
    let minted = secrets.mint(kind)?;
    let id: TokenId = minted.id;
    let hash = minted.hash;
    let token = NewToken { id, kind, name: name.to_owned(), hash, actor, site: None, expires_ms: None };
    Ok((minted.text, token))
}

fn names(options: &Options) -> Result<Vec<String>> {
    let host = options.url.host_str().context("the URL has no host")?;
    let mut names = vec![host.trim_matches(['[', ']']).to_owned()];
    names.extend(options.extra_names.iter().cloned());
    names.sort();
    names.dedup();
    Ok(names)
}

fn new_account(options: &Options) -> Result<NewAccount> {
    let (ipv6_range, ipv6_proxy_range) = random_ula()?;
    Ok(NewAccount {
        name: "default".to_owned(),
        ipv4_range: IPV4_RANGE,
        ipv6_range,
        ipv4_proxy_range: IPV4_PROXY_RANGE,
        ipv6_proxy_range,
        dns_upstreams: options.dns_upstreams.clone(),
        search_domains: options.search_domains.clone(),
    })
}

/// Two neighbouring /107 of a random unique local /48 (RFC 4193, 3.2): as many addresses as
/// the IPv4 ranges hold.
fn random_ula() -> Result<(Ipv6Net, Ipv6Net)> {
    let random = credential::random_bytes()?;
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&random[..5]);
    let first = Ipv6Addr::from(octets);
    let second = Ipv6Addr::from(u128::from(first) | 1 << 21);
    Ok((Ipv6Net::new(first, 107)?, Ipv6Net::new(second, 107)?))
}

#[cfg(unix)]
fn restrict(database: &std::path::Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(database, std::fs::Permissions::from_mode(0o600))
        .with_context(|| format!("cannot restrict {}", database.display()))
}

#[cfg(not(unix))]
fn restrict(_: &std::path::Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranges_are_neighbours_of_the_same_size() {
        let (tunnel, proxy) = random_ula().unwrap();
        assert_eq!((tunnel.prefix_len(), proxy.prefix_len()), (107, 107));
        assert!(!tunnel.contains(&proxy) && tunnel.addr().segments()[0] >> 8 == 0xfd);
        assert_eq!(u128::from(proxy.network()) - u128::from(tunnel.network()), 1 << 21);
        assert_ne!(random_ula().unwrap().0, tunnel);
    }
}
