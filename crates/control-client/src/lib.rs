//! The authenticated, reconnecting control session with the portal.
//!
//! [`start`] spawns a task that keeps one WebSocket over TLS to the portal open: it
//! connects, says hello, and reports what happens as [`Event`]s. When the connection is
//! lost it comes back by itself, with jittered, growing pauses, and honours `Retry-After`.
//! Only a 401 whose problem code says that the credentials are dead ends the session, and a
//! `disconnect` message with such a reason.
//!
//! What is sent while there is no connection waits in a bounded outbox; when that is full
//! the oldest message goes, and is counted. The state machines that speak through a session
//! resynchronise after every hello, so a lost message costs time, not correctness.
//!
//! Whoever has no token yet gets one over HTTPS, from the same portal: [`sign_in`].
//!
//! Deliberately absent: what the messages mean (`protocol`, `tunnel`).

#![forbid(unsafe_code)]

mod backoff;
mod connect;
mod dial;
mod origin;
mod outbox;
mod run;
pub mod sign_in;
mod stream;
mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use adit_protocol::Message;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use url::Url;

pub use dial::{Dial, SystemDial, connect_first};
pub use outbox::Outbox;
pub use tls::{Presented, RootsError, checked_config, client_config, read_authority};

/// Events that wait for their reader; the session stops reading the network when it is full.
const EVENT_QUEUE: usize = 256;

/// Where the portal is and how to prove who we are.
pub struct Config {
    /// The endpoint: `wss://host:port/v1/client` or the like; `ws://` needs `allow_plain`.
    pub url: Url,
    /// The bearer token.
    pub token: String,
    /// Certificates (PEM) to trust instead of the public ones.
    pub ca: Option<Vec<u8>>,
    /// Whether a connection without TLS is allowed.
    pub allow_plain: bool,
    /// Name and version of the program.
    pub user_agent: String,
    /// Opens TCP connections; lets a client keep them out of its own tunnel.
    pub dial: Arc<dyn Dial>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

/// Why a session could not even be started. The caller's fault.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The URL is not `wss://` (or `ws://` where that is allowed) with a host.
    #[error("`{0}` is no portal address: wss://HOST[:PORT] is expected")]
    Url(String),
    /// `ws://` without permission.
    #[error("`{0}` is not encrypted; --insecure-plain-portal allows that")]
    Plain(String),
    /// The CA file cannot be used.
    #[error(transparent)]
    Roots(#[from] RootsError),
    /// The token cannot be sent in a header.
    #[error("the token contains characters that no token has")]
    Token,
}

/// What happens in a session.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<Incoming> {
    /// The portal accepted us and got our hello.
    Connected,
    /// The portal said something.
    Message(Incoming),
    /// There is no connection now; the next attempt comes by itself.
    Disconnected {
        /// Why, for people.
        reason: String,
        /// When the next attempt is made.
        retry_in: Duration,
    },
    /// The credentials are dead; the session is over.
    Fatal {
        /// Why.
        reason: FatalReason,
    },
}

/// Why a session is over for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FatalReason {
    /// The portal does not know the token.
    #[error("the portal does not know this token")]
    InvalidToken,
    /// The token has expired.
    #[error("the token has expired")]
    ExpiredToken,
    /// The token was revoked, or the session ended.
    #[error("the token was revoked")]
    RevokedToken,
}

/// A session with the portal; dropping it ends the session without a word.
#[derive(Debug)]
pub struct Session<Incoming, Outgoing> {
    events: mpsc::Receiver<Event<Incoming>>,
    outbox: Outbox<Outgoing>,
    stop: Option<oneshot::Sender<Duration>>,
    network_changed: Arc<Notify>,
    task: JoinHandle<()>,
}

/// Starts a session. `hello` makes the first message of each connection.
///
/// Must be called inside a tokio runtime.
///
/// # Errors
///
/// See [`ConfigError`]. Everything that may pass (no network, no portal) is an [`Event`] instead.
pub fn start<Incoming, Outgoing>(
    config: Config,
    hello: impl Fn() -> Outgoing + Send + 'static,
) -> Result<Session<Incoming, Outgoing>, ConfigError>
where
    Incoming: Message + Disconnecting + Send + 'static,
    Outgoing: Message + PartialEq + Send + Sync + 'static,
{
    let endpoint = connect::Endpoint::new(config)?;
    let (events_in, events) = mpsc::channel(EVENT_QUEUE);
    let (stop, stopped) = oneshot::channel();
    let outbox = Outbox::new();
    let network_changed = Arc::new(Notify::new());
    let owner =
        run::Owner { events: events_in, stop: stopped, network_changed: Arc::clone(&network_changed) };
    let task = tokio::spawn(run::run(endpoint, Box::new(hello), owner, outbox.clone()));
    Ok(Session { events, outbox, stop: Some(stop), network_changed, task })
}

/// Messages of the portal that may announce the end of the session.
pub trait Disconnecting {
    /// The reason, when this message announces the end.
    fn disconnect_reason(&self) -> Option<adit_protocol::client::DisconnectReason>;
}

macro_rules! disconnecting {
    ($($message:ty),+) => {
        $(impl Disconnecting for $message {
            fn disconnect_reason(&self) -> Option<adit_protocol::client::DisconnectReason> {
                if let Self::Disconnect(disconnect) = self { Some(disconnect.reason) } else { None }
            }
        })+
    };
}

disconnecting!(adit_protocol::PortalToClient, adit_protocol::PortalToGateway, adit_protocol::PortalToRelay);

impl<Incoming, Outgoing> Session<Incoming, Outgoing> {
    /// Queues `message`; never waits. A waiting message that says the same is replaced.
    pub fn send(&self, message: Outgoing)
    where
        Outgoing: PartialEq,
    {
        self.outbox.push(message);
    }

    /// Says that the machine's addresses or routes changed: a pause between attempts ends, and
    /// a connection must prove within seconds that it still works.
    pub fn network_changed(&self) {
        self.network_changed.notify_one();
    }

    /// A handle that only sends.
    pub fn outbox(&self) -> Outbox<Outgoing> {
        self.outbox.clone()
    }

    /// The next event; `None` when the session is over. Safe to drop while it waits.
    pub async fn next_event(&mut self) -> Option<Event<Incoming>> {
        self.events.recv().await
    }

    /// Sends what the outbox holds, closes the connection, and returns at the latest after `limit`.
    pub async fn close(mut self, limit: Duration) {
        if let Some(stop) = self.stop.take() {
            // A session that is over has no receiver.
            let _ = stop.send(limit);
        }
        self.events.close();
        // The task bounds itself; the pause covers a task that is stuck in a name look-up.
        let _ = tokio::time::timeout(limit + Duration::from_millis(100), &mut self.task).await;
    }
}

impl<Incoming, Outgoing> Drop for Session<Incoming, Outgoing> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
