//! `adit-portal bootstrap`: from an empty directory to a portal that can be served.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use adit_policy::{ActorId, TokenId};
use anyhow::{Context as _, Result, bail, ensure};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Serialize;
use url::Url;

use crate::certificate;
use crate::credential::{self, Secrets};
use crate::data_dir::DataDir;
use crate::store::{
    Actor, ActorKind, By, Change, Database, NewAccount, NewToken, Role, Sealer, SignInSetting, Store,
    TokenKind,
};
use crate::{clock, web};

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
    /// Where tunnels and names get their addresses.
    pub ranges: Ranges,
    /// Replaces the owner's API token of an existing portal; does nothing else.
    pub rotate_admin_token: bool,
}

/// Ranges that somebody chose instead of the usual ones.
#[derive(Debug, Clone, Default)]
pub struct Ranges {
    /// Addresses of devices; otherwise `100.64.0.0/11`.
    pub ipv4: Option<Ipv4Net>,
    /// Addresses that stand for names; otherwise `100.96.0.0/11`.
    pub ipv4_proxy: Option<Ipv4Net>,
    /// Addresses of devices; otherwise a /107 of a random unique local network.
    pub ipv6: Option<Ipv6Net>,
    /// Addresses that stand for names; otherwise the /107 beside it.
    pub ipv6_proxy: Option<Ipv6Net>,
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
    /// Where the owner chooses password and authenticator: once, within an hour. Absent when only
    /// the owner's token was replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub welcome_url: Option<String>,
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
        url: public_url(&options.url),
        admin_token: outcome.admin_token,
        relay_token: outcome.relay_token,
        welcome_url: outcome.welcome_path.map(|path| public_url(&options.url) + &path),
        ca_file: ca.exists().then(|| std::path::absolute(&ca).unwrap_or(ca)),
        data_dir: std::path::absolute(&options.data_dir).unwrap_or_else(|_| options.data_dir.clone()),
    })
}

/// Makes a portal unless there is one; what it made.
///
/// # Errors
///
/// When the directory cannot be written.
pub async fn bootstrap_if_absent(options: &Options) -> Result<Option<Outcome>> {
    let directory = DataDir::new(options.data_dir.clone());
    let database = options.database.clone().unwrap_or_else(|| directory.default_database());
    if database.may_exist() && is_bootstrapped(&database).await? {
        return Ok(None);
    }
    bootstrap(options).await.map(Some)
}

/// What was put into the database.
struct Made {
    admin_token: String,
    relay_token: Option<String>,
    welcome_path: Option<String>,
}

fn public_url(url: &Url) -> String {
    url.as_str().trim_end_matches('/').to_owned()
}

/// A link with which somebody chooses password and authenticator.
#[derive(Debug, Clone, Serialize)]
pub struct AdminLink {
    /// Open it in a browser, once, within an hour.
    pub url: String,
    /// Whose it is.
    pub name: String,
}

/// Makes a new link for the person called `name`; the ones before are worth nothing. What
/// they sign in with stays as it is until the link is used. `url` is how the portal is reached
/// if that is not what bootstrap was told.
///
/// # Errors
///
/// When there is no portal, or no such person.
pub async fn admin_link(
    data_dir: PathBuf,
    database: Option<Database>,
    name: &str,
    url: Option<Url>,
) -> Result<AdminLink> {
    let directory = DataDir::new(data_dir);
    let database = database.unwrap_or_else(|| directory.default_database());
    if !database.may_exist() || !is_bootstrapped(&database).await? {
        bail!("{database} holds no portal; run `adit-portal bootstrap` first");
    }
    let secrets = directory.secrets()?;
    let store = open(&database, false).await?;
    let actor = store.person_named(name).await?.with_context(|| format!("nobody is called `{name}`"))?;
    if !actor.enabled {
        bail!("`{name}` is disabled");
    }
    let stored = store.sign_in_setting().await?.public_url;
    let base = url.as_ref().map(public_url).or(stored).context("say with --url how the portal is reached")?;
    let mut change = store.change(&By::system()).await?;
    let path = add_link(&mut change, &secrets, &actor).await?;
    change.commit().await?;
    store.close().await;
    Ok(AdminLink { url: base + &path, name: actor.name })
}

/// What the address of a new link ends with.
async fn add_link(change: &mut Change, secrets: &Secrets, actor: &Actor) -> Result<String> {
    let expires_ms = clock::now_ms() + web::LINK_LIFETIME_MS;
    let (path, link) = web::new_link(secrets, actor.id, expires_ms)?;
    change.create_welcome_link(&link).await?;
    Ok(path)
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

async fn create(directory: &DataDir, database: &Database, options: &Options) -> Result<Made> {
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
    let welcome_path = add_link(&mut change, &secrets, &owner).await?;
    let setting = SignInSetting { public_url: Some(public_url(&options.url)), ..SignInSetting::default() };
    change.set_sign_in_setting(&setting).await?;
    change.create_token(&admin.1).await?;
    change.create_token(&relay.1).await?;
    change
        .audit("account.create", ("account", None), serde_json::json!({ "url": options.url.as_str() }))
        .await?;
    change.commit().await?;
    store.close().await;
    Ok(Made { admin_token: admin.0, relay_token: Some(relay.0), welcome_path: Some(welcome_path) })
}

async fn rotate(directory: &DataDir, database: &Database) -> Result<Made> {
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
    Ok(Made { admin_token: text, relay_token: None, welcome_path: None })
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
    let (ipv4_range, ipv4_proxy_range, ipv6_range, ipv6_proxy_range) = options.ranges.complete()?;
    Ok(NewAccount {
        name: "default".to_owned(),
        ipv4_range,
        ipv6_range,
        ipv4_proxy_range,
        ipv6_proxy_range,
        dns_upstreams: options.dns_upstreams.clone(),
        search_domains: options.search_domains.clone(),
    })
}

/// The longest prefixes of a range: a few hundred devices, and names.
const LONGEST_IPV4: u8 = 24;
const LONGEST_IPV6: u8 = 120;

impl Ranges {
    /// What was chosen, and the usual ones for what was not.
    fn complete(&self) -> Result<(Ipv4Net, Ipv4Net, Ipv6Net, Ipv6Net)> {
        let (ula, ula_proxy) = random_ula()?;
        let (ipv4, ipv4_proxy) =
            (self.ipv4.unwrap_or(IPV4_RANGE), self.ipv4_proxy.unwrap_or(IPV4_PROXY_RANGE));
        let (ipv6, ipv6_proxy) = (self.ipv6.unwrap_or(ula), self.ipv6_proxy.unwrap_or(ula_proxy));
        for (a, b) in [(IpNet::from(ipv4), IpNet::from(ipv4_proxy)), (ipv6.into(), ipv6_proxy.into())] {
            ensure!(!a.contains(&b) && !b.contains(&a), "the ranges {a} and {b} overlap");
            let longest = if a.addr().is_ipv4() { LONGEST_IPV4 } else { LONGEST_IPV6 };
            for range in [a, b] {
                ensure!(range.prefix_len() <= longest, "{range} is too small: /{longest} at most");
                ensure!(range.prefix_len() >= 8, "{range} is too large: /8 at least");
                ensure!(range.trunc() == range, "{range} is no network: {} is", range.trunc());
            }
        }
        Ok((ipv4, ipv4_proxy, ipv6, ipv6_proxy))
    }
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
    fn ranges_that_were_chosen_must_be_apart_and_large_enough() {
        let usual = Ranges::default();
        let (ipv4, ipv4_proxy, ..) = usual.complete().unwrap();
        assert_eq!((ipv4, ipv4_proxy), (IPV4_RANGE, IPV4_PROXY_RANGE));
        let chosen = |ipv4: &str, ipv4_proxy: &str| Ranges {
            ipv4: Some(ipv4.parse().unwrap()),
            ipv4_proxy: Some(ipv4_proxy.parse().unwrap()),
            ..Ranges::default()
        };
        assert_eq!(chosen("10.200.0.0/16", "10.201.0.0/16").complete().unwrap().1.prefix_len(), 16);
        for (ipv4, ipv4_proxy) in [
            ("10.0.0.0/8", "10.201.0.0/16"),
            ("10.200.0.0/16", "10.200.0.0/16"),
            ("10.200.0.0/25", "10.201.0.0/16"),
            ("10.200.0.0/16", "0.0.0.0/1"),
            ("10.200.0.1/16", "10.201.0.0/16"),
        ] {
            assert!(chosen(ipv4, ipv4_proxy).complete().is_err(), "{ipv4} and {ipv4_proxy}");
        }
        let ipv6 = Some("fd00:1::/64".parse().unwrap());
        assert!(Ranges { ipv6, ipv6_proxy: ipv6, ..usual }.complete().is_err());
    }

    #[test]
    fn the_ranges_are_neighbours_of_the_same_size() {
        let (tunnel, proxy) = random_ula().unwrap();
        assert_eq!((tunnel.prefix_len(), proxy.prefix_len()), (107, 107));
        assert!(!tunnel.contains(&proxy) && tunnel.addr().segments()[0] >> 8 == 0xfd);
        assert_eq!(u128::from(proxy.network()) - u128::from(tunnel.network()), 1 << 21);
        assert_ne!(random_ula().unwrap().0, tunnel);
    }
}
