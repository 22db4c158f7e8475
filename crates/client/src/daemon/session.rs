//! The session: signs in and out, connects and disconnects, one thing at a time.

mod login;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use adit_client_ipc::{ErrorCode, LoginEnd, Reason, Request, RequestError, Response, Setting, Token};
use adit_engine::client::{ClientConfig, ClientEngine, PingFailure, Place, PortalState, Snapshot};
use adit_engine::{DohServer, Identity, Offloads, PortalConfig};
use adit_platform::dns_control::DnsControl;
use adit_platform::network::{Bypass, LinuxNetwork, NetworkControl as _};
use adit_platform::secrets::{FileSecrets, SecretError, SecretStore as _};
use adit_protocol::peer::GoodbyeReason;
use adit_telemetry::LevelHandle;
use anyhow::Context as _;
use tokio::sync::{mpsc, watch};
use url::Url;

use super::netcheck;
use super::server::{Call, View, refuse};
use super::sign_in::SignIn;
use super::view::{self, Constants};

/// The name under which the token is kept.
const TOKEN: &str = "token";

/// Kept while the user wants to be disconnected.
const DISCONNECTED: &str = "disconnected";

/// How long signing out may wait for a portal that it has no connection to yet.
const SIGN_OUT_PATIENCE: Duration = Duration::from_secs(5);

/// How often the end of the session is looked at.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);

/// Where the answer to a request goes.
pub(super) type Reply = tokio::sync::oneshot::Sender<Result<Response, RequestError>>;

/// What the daemon was told at its start.
pub(super) struct Config {
    pub(super) portal: Url,
    pub(super) ca: Option<Vec<u8>>,
    pub(super) allow_plain: bool,
    pub(super) name: Option<String>,
    pub(super) interface: String,
    pub(super) port: u16,
    pub(super) offloads: Offloads,
    pub(super) workers: NonZeroUsize,
    /// Whom to ask over HTTPS for other names.
    pub(super) doh: Option<DohServer>,
    /// Bytes for reports of flows.
    pub(super) flow_spool: u64,
    pub(super) state_dir: PathBuf,
    /// Beside which other daemons it runs.
    pub(super) place: Place,
    /// As they are shown.
    pub(super) settings: Vec<Setting>,
    pub(super) dns: Box<dyn Fn() -> Box<dyn DnsControl>>,
}

/// Owns the engine and the token.
pub(super) struct Session {
    config: Config,
    secrets: FileSecrets,
    constants: Constants,
    publisher: watch::Sender<View>,
    level: LevelHandle,
    engine: Option<ClientEngine>,
    /// Kept beside the engine, since it remembers what was shown already.
    snapshots: Option<watch::Receiver<Snapshot>>,
    sign_in: Option<SignIn>,
    logins: u64,
    last_login: Option<LoginEnd>,
    was_expiring: bool,
}

impl Session {
    pub(super) fn new(
        config: Config,
        secrets: FileSecrets,
        constants: Constants,
        publisher: watch::Sender<View>,
        level: LevelHandle,
    ) -> Self {
        Self {
            config,
            secrets,
            constants,
            publisher,
            level,
            engine: None,
            snapshots: None,
            sign_in: None,
            logins: 0,
            last_login: None,
            was_expiring: false,
        }
    }

    /// Connects again if an earlier run was connected.
    pub(super) fn resume(&mut self) {
        match self.resumable() {
            Ok(Some(token)) => {
                if let Err(error) = self.connect(&token) {
                    tracing::error!(error = error.message, "cannot connect");
                }
            }
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "cannot read what the last run left"),
        }
        self.show();
    }

    fn resumable(&self) -> Result<Option<Token>, SecretError> {
        if self.secrets.read(DISCONNECTED)?.is_some() { Ok(None) } else { self.token() }
    }

    /// Does what front ends ask for and shows what the engine does.
    ///
    /// After each of `wakes`, when the machine has slept, the engine looks at once whom it can still reach.
    pub(super) async fn serve(&mut self, mut calls: mpsc::Receiver<Call>, mut wakes: mpsc::Receiver<()>) {
        let mut expiry = tokio::time::interval(EXPIRY_INTERVAL);
        loop {
            tokio::select! {
                call = calls.recv() => match call {
                    Some(Call { request, reply }) => self.handle(request, reply).await,
                    None => return,
                },
                () = changed(self.snapshots.as_mut()) => {}
                Some(()) = wakes.recv() => {
                    if let Some(engine) = &self.engine {
                        engine.recheck();
                    }
                }
                news = login::news(self.sign_in.as_mut()) => self.take_news(news).await,
                _ = expiry.tick() => {}
            }
            self.show();
        }
    }

    /// Takes away what a killed daemon left to keep traffic from going past its tunnel, if no engine did.
    pub(super) async fn open_network(&self) {
        if self.engine.is_some() {
            return;
        }
        let mut network =
            LinuxNetwork::new(&self.config.state_dir, Some(Bypass::of_profile(self.config.place.number)));
        if let Err(error) = network.clear().await {
            tracing::error!(%error, "cannot remove routes and rules");
        }
    }

    /// Says goodbye to everybody and stops.
    pub(super) async fn shut_down(&mut self) {
        self.snapshots = None;
        // The engine stays ours until it has stopped: a signal may end this wait and begin the next.
        if let Some(engine) = &mut self.engine {
            engine.stop(GoodbyeReason::ShuttingDown).await;
        }
        self.engine = None;
    }

    async fn handle(&mut self, request: Request, reply: Reply) {
        let outcome = match request {
            Request::Up { token } => self.up(token).await,
            Request::Login { device_code } => return self.log_in(device_code, reply),
            Request::CancelLogin {} => {
                self.cancel_login("the sign-in was given up");
                Ok(Response::Done)
            }
            Request::Down {} => self.down().await,
            Request::Logout {} => self.log_out().await,
            Request::SetLogLevel { level } => self
                .level
                .set(&level)
                .map(|()| Response::Done)
                .map_err(|error| refuse(ErrorCode::Invalid, &error.to_string())),
            Request::LogLevel {} => Ok(Response::LogLevel(self.level.get())),
            Request::Settings {} => Ok(Response::Settings(self.config.settings.clone())),
            Request::DnsStatus {} => self.dns_status(),
            Request::Route { destination } => self.route(&destination),
            Request::Ping { resource } => return self.ping(resource, reply),
            Request::Netcheck {} => return self.check_network(reply),
            Request::Status {} | Request::Resources {} | Request::Subscribe {} => {
                Err(refuse(ErrorCode::Invalid, "this is answered without the session"))
            }
        };
        // The front end may have gone away.
        let _ = reply.send(outcome);
    }

    async fn up(&mut self, token: Option<Token>) -> Result<Response, RequestError> {
        let token = match token {
            Some(token) => {
                self.cancel_login("somebody signed in with a token");
                self.secrets.write(TOKEN, token.0.as_bytes()).map_err(internal)?;
                self.shut_down().await;
                token
            }
            None => self
                .token()
                .map_err(internal)?
                .ok_or_else(|| refuse(ErrorCode::SignedOut, "nobody is signed in: `adit login` signs in"))?,
        };
        self.go_online(&token).await?;
        self.show();
        Ok(Response::Done)
    }

    /// Connects, unless it is connected already.
    async fn go_online(&mut self, token: &Token) -> Result<(), RequestError> {
        self.secrets.remove(DISCONNECTED).map_err(internal)?;
        let is_blocked = self.engine.as_ref().is_some_and(|engine| {
            let snapshot = engine.snapshot().borrow().clone();
            self.constants.running(&snapshot).status.state == adit_client_ipc::State::Blocked
        });
        if is_blocked {
            self.shut_down().await;
        }
        if self.engine.is_none() {
            self.connect(token)?;
        }
        Ok(())
    }

    async fn down(&mut self) -> Result<Response, RequestError> {
        self.cancel_login("somebody disconnected");
        self.secrets.write(DISCONNECTED, b"by request\n").map_err(internal)?;
        self.shut_down().await;
        self.open_network().await;
        self.show();
        Ok(Response::Done)
    }

    async fn log_out(&mut self) -> Result<Response, RequestError> {
        self.cancel_login("somebody signed out");
        let Some(token) = self.token().map_err(internal)? else {
            return Err(refuse(ErrorCode::SignedOut, "nobody is signed in"));
        };
        if self.engine.is_none() {
            self.connect(&token)?;
        }
        // From here on nobody is signed in, whatever interrupts the rest.
        self.secrets.remove(TOKEN).map_err(internal)?;
        self.snapshots = None;
        if let Some(engine) = &mut self.engine {
            // The server is told over a connection; without one it learns nothing, and the
            // session ends by its own expiry.
            let mut snapshot = engine.snapshot();
            let connected = snapshot.wait_for(|snapshot| {
                !matches!(snapshot.portal, PortalState::Connecting | PortalState::Lost { .. })
            });
            if tokio::time::timeout(SIGN_OUT_PATIENCE, connected).await.is_err() {
                tracing::warn!("signed out without the portal, which cannot be reached");
            }
            engine.stop(GoodbyeReason::SignedOut).await;
        }
        self.engine = None;
        self.open_network().await;
        self.secrets.remove(DISCONNECTED).map_err(internal)?;
        self.show();
        Ok(Response::Done)
    }

    fn dns_status(&self) -> Result<Response, RequestError> {
        let report = self.engine.as_ref().and_then(|engine| view::dns(&engine.snapshot().borrow()));
        let report =
            report.ok_or_else(|| refuse(ErrorCode::NotConnected, "not connected: `adit up` connects"))?;
        Ok(Response::DnsStatus(Box::new(report)))
    }

    fn route(&self, destination: &str) -> Result<Response, RequestError> {
        let engine = self.engine.as_ref();
        let engine =
            engine.ok_or_else(|| refuse(ErrorCode::NotConnected, "not connected: `adit up` connects"))?;
        Ok(Response::Route(Box::new(view::route(&engine.snapshot().borrow(), destination))))
    }

    /// Answers when everything has been tried, while the session goes on.
    fn check_network(&self, reply: Reply) {
        let relays = self.engine.as_ref().map(|engine| engine.snapshot().borrow().relays.clone());
        let check = netcheck::check(self.portal(String::new()), relays.unwrap_or_default());
        tokio::spawn(async move {
            let outcome = match check.await {
                Ok(report) => Ok(Response::Netcheck(Box::new(report))),
                Err(error) => Err(refuse(ErrorCode::Internal, &format!("{error:#}"))),
            };
            // The front end may have gone away.
            let _ = reply.send(outcome);
        });
    }

    fn portal(&self, token: String) -> PortalConfig {
        PortalConfig {
            url: self.config.portal.clone(),
            token,
            ca: self.config.ca.clone(),
            allow_plain: self.config.allow_plain,
        }
    }

    /// Answers when the path is known, while the session goes on.
    fn ping(&self, resource: String, reply: Reply) {
        let Some(engine) = &self.engine else {
            // The front end may have gone away.
            return drop(
                reply.send(Err(refuse(ErrorCode::NotConnected, "not connected: `adit up` connects"))),
            );
        };
        let pinger = engine.pinger();
        tokio::spawn(async move {
            let outcome = match pinger.ping(resource).await {
                Ok(result) => Ok(Response::Ping(view::ping(&result))),
                Err(failure) => Err(refuse(code_of(failure), &failure.to_string())),
            };
            // The front end may have gone away.
            let _ = reply.send(outcome);
        });
    }

    fn token(&self) -> Result<Option<Token>, SecretError> {
        let kept = self.secrets.read(TOKEN)?;
        Ok(kept.and_then(|bytes| String::from_utf8(bytes).ok()).map(Token))
    }

    fn connect(&mut self, token: &Token) -> Result<(), RequestError> {
        let engine =
            self.start_engine(token).map_err(|error| refuse(ErrorCode::Internal, &format!("{error:#}")))?;
        self.snapshots = Some(engine.snapshot());
        self.engine = Some(engine);
        Ok(())
    }

    fn start_engine(&self, token: &Token) -> anyhow::Result<ClientEngine> {
        let identity = Identity::load(&self.secrets, self.config.name.clone())
            .context("cannot keep the device's identity")?;
        ClientEngine::start(ClientConfig {
            portal: self.portal(token.0.clone()),
            identity,
            interface: self.config.interface.clone(),
            port: self.config.port,
            offloads: self.config.offloads,
            workers: self.config.workers,
            flow_spool: self.config.flow_spool,
            doh: self.config.doh.clone(),
            state_dir: self.config.state_dir.clone(),
            place: self.config.place.clone(),
            dns: (self.config.dns)(),
        })
    }

    /// Publishes the state, if it changed.
    fn show(&mut self) {
        let mut view = match &self.engine {
            Some(engine) => self.constants.running(&engine.snapshot().borrow()),
            None => self.constants.idle(self.idle_reason()),
        };
        if let Some(sign_in) = &self.sign_in {
            view.wait_for_browser(sign_in.prompt());
        }
        view.last_login.clone_from(&self.last_login);
        if view.status.is_expiring && !self.was_expiring {
            tracing::info!("the session ends soon: `adit login` renews it");
        }
        self.was_expiring = view.status.is_expiring;
        self.publisher.send_if_modified(|shown| {
            let is_new = *shown != view;
            if is_new {
                *shown = view;
            }
            is_new
        });
    }

    fn idle_reason(&self) -> Reason {
        if self.token().ok().flatten().is_some() { Reason::Disconnected } else { Reason::NoToken }
    }
}

/// Completes when the engine shows something new; never without an engine.
async fn changed(snapshots: Option<&mut watch::Receiver<Snapshot>>) {
    let Some(snapshots) = snapshots else { return std::future::pending().await };
    if snapshots.changed().await.is_err() {
        // The engine's thread ended; its last words have been shown.
        std::future::pending::<()>().await;
    }
}

fn internal(error: SecretError) -> RequestError {
    refuse(ErrorCode::Internal, &error.to_string())
}

const fn code_of(failure: PingFailure) -> ErrorCode {
    match failure {
        PingFailure::UnknownResource => ErrorCode::NotFound,
        PingFailure::Forbidden => ErrorCode::Denied,
        PingFailure::Offline | PingFailure::Stopped => ErrorCode::NotConnected,
        PingFailure::Timeout => ErrorCode::Timeout,
    }
}
