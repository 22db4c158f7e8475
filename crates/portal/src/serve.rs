//! `adit-portal serve`: a running portal and its orderly end.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use adit_protocol::problem::MEDIA_TYPE;
use adit_telemetry::{HealthServer, MetricsHandle, Readiness};
use anyhow::{Context as _, Result, bail};
use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use ipnet::IpNet;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::acme;
use crate::api::{self, Failure, Remote};
use crate::authorize::Waiting;
use crate::connect_limit::ConnectLimit;
use crate::data_dir::DataDir;
use crate::hub::Hub;
use crate::nodes::{self, Node};
use crate::portal::{Portal, SharedPortal};
use crate::server::{Server, Tls};
use crate::store::{Database, Page, Sealer, Store};
use crate::{certificate, clock, dispatcher, flow_log, scim, session, ui, web};

/// An API request is answered within this time.
const REQUEST_TIME: Duration = Duration::from_secs(30);

/// How long sessions and requests have to finish when the portal stops.
const CLOSING_TIME: Duration = Duration::from_secs(5);

/// How long a successor waits for the portal before it.
const TAKE_OVER_TIME: Duration = Duration::from_secs(60);

/// How often it looks.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

/// Connections that wait to be accepted: a whole company may come back at once.
const BACKLOG: u32 = 4096;

/// How often readiness looks at the database.
const READINESS_INTERVAL: Duration = Duration::from_secs(5);

/// How the portal is served.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The database, if it is not the SQLite file in the data directory.
    pub database: Option<Database>,
    /// Where peers and administrators connect to.
    pub listen: Vec<SocketAddr>,
    /// How connections are secured.
    pub security: Security,
    /// Where health and metrics are served.
    pub health: Option<SocketAddr>,
    /// How long entries of the audit log are kept; for ever when absent.
    pub keep_audit: Option<Duration>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub behind_proxy: Vec<IpNet>,
    /// Requests a second that one token may make of the API, in the long run.
    pub api_rate: u32,
    /// Take the place of the portal that listens on the same addresses and is about to stop.
    pub take_over: bool,
}

/// Requests a second that one token may make of the API unless said otherwise.
pub const API_RATE: u32 = 100;

/// How connections are secured.
#[derive(Debug, Clone)]
pub enum Security {
    /// With the certificate that bootstrap made.
    Bootstrapped,
    /// With this chain and key (PEM).
    Files {
        /// The certificate chain, server first.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// With a certificate that the portal gets from an ACME authority, and the bootstrapped one until then.
    Acme(acme::Options),
    /// Not at all: for tests, and behind a proxy on the same machine.
    Plain,
}

/// A portal that runs.
#[derive(Debug)]
pub struct Running {
    portal: SharedPortal,
    closing: watch::Sender<bool>,
    addresses: Vec<SocketAddr>,
    health: Option<SocketAddr>,
    listeners: JoinSet<()>,
    background: JoinSet<()>,
    readiness: Readiness,
    /// Held as long as the portal runs.
    _database: Option<File>,
}

/// Starts a portal; it serves when this returns.
///
/// # Errors
///
/// When the data directory was not bootstrapped, an address is taken, or the certificate
/// cannot be used.
pub async fn start(options: &Options, metrics: Option<MetricsHandle>) -> Result<Running> {
    expect_portal(options)?;
    let tls = match &options.security {
        Security::Plain => None,
        Security::Files { certificate, key } => Some(Tls::load(certificate.clone(), key.clone())?),
        Security::Bootstrapped => {
            let directory = DataDir::new(options.data_dir.clone());
            Some(Tls::load(directory.tls("server.pem"), directory.tls("server.key"))?)
        }
        Security::Acme(_) => {
            let file = |name| DataDir::new(options.data_dir.clone()).tls(name);
            Some(Tls::load_preferring(file(acme::FILE), file("server.pem"), file("server.key"))?)
        }
    };
    let mut bound = Vec::new();
    for address in &options.listen {
        bound.push(listen(*address, options.take_over)?);
    }
    // Whoever connects from here on waits for the one before to be done.
    let database = lock(&database_of(options), options.take_over).await?;
    let portal = open(options).await?;
    // Before anybody connects: this node, so that no event is forgotten that its sessions need,
    // and what was committed and never pushed.
    let node = nodes::join(&portal).await.context("cannot join the other nodes")?;
    dispatcher::delete_expired(&portal).await.context("cannot forget what has expired")?;
    dispatcher::deliver_all(&portal).await.context("cannot replay the outbox")?;
    let (closing, closed) = watch::channel(false);
    let server = Server::new(router(&portal), tls.clone(), &options.behind_proxy, closed);
    let mut listeners = JoinSet::new();
    let mut addresses = Vec::new();
    for listener in bound {
        addresses.push(listener.local_addr()?);
        listeners.spawn(server.clone().run(listener));
    }
    let mut background = JoinSet::new();
    if let Some(tls) = tls {
        if let Security::Acme(acme) = &options.security {
            let directory = DataDir::new(options.data_dir.clone());
            background.spawn(acme::run(acme.clone(), directory, tls.clone()));
        }
        background.spawn(tls.watch());
    }
    background.spawn(dispatcher::run(Arc::clone(&portal)));
    background.spawn(dispatcher::expire(Arc::clone(&portal)));
    let newest = portal.store.audit(Page::NEWEST).await?.first().map(|row| row.at_ms);
    let clock = clock::Evenness::new(tokio::time::Instant::now(), clock::now_ms(), newest);
    if let Some(keep) = options.keep_audit {
        background.spawn(dispatcher::forget_audit(Arc::clone(&portal), keep, clock));
    }
    background.spawn(flow_log::forget(Arc::clone(&portal), clock));
    background.spawn(flow_log::send(Arc::clone(&portal)));
    if let Some(node) = node {
        background.spawn(node.run());
    }
    let readiness = Readiness::new();
    readiness.set(true);
    background.spawn(watch_database(Arc::clone(&portal), readiness.clone()));
    let mut health = None;
    if let Some(address) = options.health {
        let server = HealthServer::bind(address, readiness.clone(), metrics).await?;
        health = Some(server.local_addr()?);
        background.spawn(server.run());
    }
    tracing::info!(?addresses, "portal is ready");
    Ok(Running { portal, closing, addresses, health, listeners, background, readiness, _database: database })
}

fn database_of(options: &Options) -> Database {
    let default = || DataDir::new(options.data_dir.clone()).default_database();
    options.database.clone().unwrap_or_else(default)
}

fn socket(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    Ok(socket)
}

fn expect_portal(options: &Options) -> Result<()> {
    if !database_of(options).may_exist() {
        bail!("{} holds no portal; run `adit-portal bootstrap` first", options.data_dir.display());
    }
    Ok(())
}

/// The lock of a file; a successor waits until the portal before it has let go.
async fn lock(database: &Database, take_over: bool) -> Result<Option<File>> {
    let deadline = Instant::now() + TAKE_OVER_TIME;
    loop {
        match database.lock() {
            Err(_) if take_over && Instant::now() < deadline => tokio::time::sleep(LOCK_INTERVAL).await,
            locked => return Ok(locked?),
        }
    }
}

async fn open(options: &Options) -> Result<SharedPortal> {
    let directory = DataDir::new(options.data_dir.clone());
    let database = database_of(options);
    let store = Store::open(&database, false)
        .await
        .with_context(|| format!("cannot open the database {database}"))?;
    if store.account_id().as_uuid().is_nil() {
        bail!("{database} holds no account; run `adit-portal bootstrap` first");
    }
    let account = store.account().await?;
    let secrets = directory.secrets()?;
    if !store.bind_secrets(&secrets.digest()?).await? {
        bail!(
            "the files in {} belong to another installation than {database}; copy `secrets` from the first node or the backup",
            options.data_dir.join("secrets").display()
        );
    }
    store.seal_audit(Sealer::new(&secrets.audit_key()?));
    let limit = ConnectLimit::with_api_rate(Instant::now(), options.api_rate);
    let hub = Hub::new(store.is_shared());
    let account = RwLock::new(Arc::new(account));
    let is_own = matches!(options.security, Security::Bootstrapped);
    let authority = is_own.then(|| certificate::authority_digest(&directory)).flatten();
    Ok(Arc::new(Portal {
        store,
        hub,
        requests: Waiting::default(),
        node: Node::new(),
        secrets,
        account,
        limit,
        sign_in: web::SignIn::new(),
        authority,
    }))
}

/// Listens on an address that a successor may share.
fn listen(address: SocketAddr, take_over: bool) -> Result<TcpListener> {
    let listen = || {
        if !take_over && address.port() != 0 {
            // Sharing must be asked for; otherwise an address that is taken is a mistake.
            let alone = socket(address)?;
            alone.bind(address)?;
        }
        let shared = socket(address)?;
        #[cfg(unix)]
        shared.set_reuseport(true)?;
        shared.bind(address)?;
        shared.listen(BACKLOG)
    };
    listen().with_context(|| format!("cannot listen on {address}"))
}

fn router(portal: &SharedPortal) -> Router {
    let api = api::router(portal)
        .layer(DefaultBodyLimit::max(api::MAX_BODY))
        .layer(middleware::from_fn(limit_time))
        .layer(middleware::from_fn_with_state(Arc::clone(portal), limit_rate));
    let scim = scim::router()
        .layer(middleware::from_fn(limit_time))
        .layer(middleware::from_fn_with_state(Arc::clone(portal), limit_rate));
    Router::new()
        .merge(api)
        .merge(scim)
        .merge(session::router())
        .merge(ui::router())
        .merge(web::router().layer(middleware::from_fn(limit_time)))
        .route("/healthz", axum::routing::get(|| async { "ok\n" }))
        .fallback(|| async { Failure::not_found("page") })
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(set_headers))
        .with_state(Arc::clone(portal))
}

async fn method_not_allowed() -> Response {
    let body = r#"{"code":"method_not_allowed","title":"This cannot be done here","status":405}"#;
    (StatusCode::METHOD_NOT_ALLOWED, [(header::CONTENT_TYPE, MEDIA_TYPE)], body).into_response()
}

async fn limit_time(request: Request, next: Next) -> Response {
    match tokio::time::timeout(REQUEST_TIME, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Failure::unavailable("The portal did not answer in time").into_response(),
    }
}

/// Before anything is read: an address that asks too often is told when to come back.
async fn limit_rate(
    State(portal): State<SharedPortal>,
    remote: Remote,
    request: Request,
    next: Next,
) -> Response {
    match portal.limit.request_from(Instant::now(), remote.0.ip()) {
        Ok(()) => next.run(request).await,
        Err(wait) => Failure::too_many(wait).into_response(),
    }
}

/// Answers hold secrets now and then: nobody on the way may keep them, unless the answer says so itself.
async fn set_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(no_store);
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

async fn watch_database(portal: SharedPortal, readiness: Readiness) {
    loop {
        tokio::time::sleep(READINESS_INTERVAL).await;
        let answer = portal.store.ping().await;
        if let Err(error) = &answer {
            tracing::error!(%error, "the database does not answer");
        }
        readiness.set(answer.is_ok());
    }
}

impl Running {
    /// The portal itself.
    #[cfg(test)]
    pub(crate) fn portal(&self) -> SharedPortal {
        Arc::clone(&self.portal)
    }

    /// Where it listens; a port 0 that was asked for is replaced by the one that was given.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where health and metrics are served.
    #[must_use]
    pub const fn health_address(&self) -> Option<SocketAddr> {
        self.health
    }

    /// Stops: no new connections, every peer is told to come back later, what is committed is
    /// pushed, the database is closed.
    pub async fn stop(mut self) {
        self.readiness.set(false);
        let _ = self.closing.send(true);
        while self.listeners.join_next().await.is_some() {}
        self.portal.hub.close();
        let deadline = Instant::now() + CLOSING_TIME;
        while self.portal.hub.session_count() > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.background.shutdown().await;
        if let Err(error) = nodes::leave(&self.portal).await {
            tracing::warn!(%error, "the other nodes will miss this one for a while");
        }
        self.portal.store.close().await;
        tracing::info!("portal has stopped");
    }

    /// Stops at once, as a crash would: nothing is said, nothing is finished.
    pub async fn abort(mut self) {
        let _ = self.closing.send(true);
        self.listeners.shutdown().await;
        self.background.shutdown().await;
    }
}
