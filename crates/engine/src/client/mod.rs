//! A client, running: the machine, its threads, the interface and the system's resolver.
//!
//! [`ClientEngine::start`] makes one thread (and the workers') and returns at once; what
//! happens shows in a [`Snapshot`] that always holds the whole state. [`ClientEngine::stop`]
//! says goodbye to every gateway and takes back everything that was changed on the host.

mod collisions;
mod lookup;
mod run;
mod snapshot;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use adit_platform::dns_control::DnsControl;
use adit_protocol::peer::GoodbyeReason;
use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot, watch};

pub use adit_tunnel::{ConnectionStatus, PathStatus, RelayTransport, ResourceState, ResourceStatus};

pub use self::collisions::{Collision, CollisionKind};
pub use self::lookup::{Route, named, route};
pub use self::snapshot::{InterfaceState, NamesState, PingFailure, PingResult, PortalState, Snapshot};
use crate::offloads::Offloads;
use crate::{DohServer, Identity, PortalConfig};

/// Commands that wait for the control thread.
const COMMAND_QUEUE: usize = 64;

/// The longest that stopping takes before the thread is left to itself.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// What a client needs to run.
pub struct ClientConfig {
    /// Where the portal is.
    pub portal: PortalConfig,
    /// What the device is known by.
    pub identity: Identity,
    /// The name of the tunnel interface.
    pub interface: String,
    /// The UDP port for tunnels; 0 takes any free one.
    pub port: u16,
    /// Which of the kernel's offloads to use.
    pub offloads: Offloads,
    /// Threads that move packets.
    pub workers: NonZeroUsize,
    /// Where changes of the host are written down, so that they can be taken back after a crash.
    pub state_dir: PathBuf,
    /// Bytes on disk for reports of flows that the portal has not stored yet; 0 reports none.
    pub flow_spool: u64,
    /// Whom to ask for names that belong to no resource, instead of the servers that the network names.
    pub doh: Option<DohServer>,
    /// How the system's resolver is set.
    pub dns: Box<dyn DnsControl>,
    /// Which of the host's tunnels this is.
    pub place: Place,
}

/// Which of several tunnels of a host one is, each with a profile of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its number, below [`PROFILES`](adit_platform::network::PROFILES).
    pub number: u8,
    /// Where all of them say which names are theirs.
    pub delegations: PathBuf,
}

impl std::fmt::Debug for ClientConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientConfig")
            .field("portal", &self.portal)
            .field("identity", &self.identity)
            .field("interface", &self.interface)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Command {
    Ping { resource: String, reply: oneshot::Sender<Result<PingResult, PingFailure>> },
    Recheck,
    Stop { reason: GoodbyeReason },
}

/// A client that runs in threads of its own.
#[derive(Debug)]
pub struct ClientEngine {
    snapshot: watch::Receiver<Snapshot>,
    commands: mpsc::Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

impl ClientEngine {
    /// Starts a client; errors that need the operating system show in the snapshot.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub fn start(config: ClientConfig) -> anyhow::Result<Self> {
        let (publisher, snapshot) = watch::channel(Snapshot::default());
        let (commands, command_queue) = mpsc::channel(COMMAND_QUEUE);
        let thread = std::thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || run::run(config, command_queue, &publisher))
            .context("cannot start the control thread")?;
        Ok(Self { snapshot, commands, thread: Some(thread) })
    }

    /// The state, now and whenever it changes.
    pub fn snapshot(&self) -> watch::Receiver<Snapshot> {
        self.snapshot.clone()
    }

    /// A handle for calls that outlives borrows of the engine.
    pub fn pinger(&self) -> Pinger {
        Pinger { commands: self.commands.clone() }
    }

    /// Looks at once whether portal and gateways can still be reached, instead of waiting for timeouts: after the
    /// machine has slept, for instance.
    pub fn recheck(&self) {
        // A queue that is full, or nobody's any more, is answered by what stands in it or by the snapshot.
        let _ = self.commands.try_send(Command::Recheck);
    }

    /// Says goodbye, takes everything back and waits until it is done.
    ///
    /// Safe to drop while it waits: called again, it waits on.
    pub async fn stop(&mut self, reason: GoodbyeReason) {
        let mut snapshot = self.snapshot.clone();
        let stopped = async {
            // A thread that is gone has stopped already.
            let _ = self.commands.send(Command::Stop { reason }).await;
            // The thread lets go of its end last.
            while snapshot.changed().await.is_ok() {}
        };
        if tokio::time::timeout(STOP_LIMIT, stopped).await.is_err() {
            tracing::error!("the client did not stop in {} s", STOP_LIMIT.as_secs());
            return;
        }
        if let Some(thread) = self.thread.take() {
            // A panic in the thread has been logged by the panic hook.
            let _ = thread.join();
        }
    }
}

/// Asks for access to resources.
#[derive(Debug, Clone)]
pub struct Pinger {
    commands: mpsc::Sender<Command>,
}

impl Pinger {
    /// Connects to the gateway of `resource` (its name, id, address or a host name that it
    /// covers) and says how it is reached.
    ///
    /// # Errors
    ///
    /// See [`PingFailure`].
    pub async fn ping(&self, resource: String) -> Result<PingResult, PingFailure> {
        let (reply, result) = oneshot::channel();
        let command = Command::Ping { resource, reply };
        self.commands.send(command).await.map_err(|_| PingFailure::Stopped)?;
        result.await.map_err(|_| PingFailure::Stopped)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that needs some time to stop.
    fn engine(stopping: Duration) -> ClientEngine {
        let (publisher, snapshot) = watch::channel(Snapshot::default());
        let (commands, mut queue) = mpsc::channel(COMMAND_QUEUE);
        let thread = std::thread::spawn(move || {
            while !matches!(queue.blocking_recv(), Some(Command::Stop { .. }) | None) {}
            publisher.send_modify(|_| ());
            std::thread::sleep(stopping);
        });
        ClientEngine { snapshot, commands, thread: Some(thread) }
    }

    #[tokio::test]
    async fn whoever_stops_waiting_can_wait_again() {
        let mut engine = engine(Duration::from_millis(300));
        let impatient = engine.stop(GoodbyeReason::SignedOut);
        assert!(tokio::time::timeout(Duration::from_millis(20), impatient).await.is_err());
        let thread = engine.thread.as_ref().expect("not joined yet");
        assert!(!thread.is_finished());
        engine.stop(GoodbyeReason::ShuttingDown).await;
        assert!(engine.thread.is_none(), "it has ended");
        engine.stop(GoodbyeReason::ShuttingDown).await;
    }
}
