//! What the control thread has of the shards.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use adit_turn::server::{Counters, Server};
use anyhow::{Context as _, anyhow};
use nix::sys::eventfd::{EfdFlags, EventFd};
use rustls::ServerConfig;
use tokio::sync::{mpsc, oneshot};

use super::{Shard, Watch};
use crate::egress::Sent;
use crate::fast_path::FastPath;
use crate::sockets::{LentPorts, Listeners, Sockets};
use crate::streams::{self, Admission, Streams, Tally};

/// Orders that may wait for a shard. It looks at them each turn, so more means that it is stuck.
const ORDERS: usize = 64;
/// How long a shard may take to say how it is.
const REPORT_LIMIT: Duration = Duration::from_secs(2);

/// How long a shard may take to end: it has nothing left to do.
const STOP_LIMIT: Duration = Duration::from_secs(1);
const STOP_POLL: Duration = Duration::from_millis(1);

/// What a shard is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// The time of day, since the Unix epoch.
    SetUnixTime(Duration),
    /// No new allocations, no new connections.
    Drain,
    /// Credentials under this secret are good from now on, and under the one before.
    RotateSecret(String),
    /// For new TLS connections.
    SetCertificate(Arc<ServerConfig>),
    /// Say how you are.
    Report(oneshot::Sender<Snapshot>),
    /// End.
    Stop,
}

/// A moment's figures.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) allocations: usize,
    pub(crate) channels: usize,
    pub(crate) permissions: usize,
    pub(crate) open_ports: usize,
    pub(crate) counters: Counters,
    pub(crate) sent: Sent,
    /// Answers that could not be sent.
    pub(crate) lost_answers: u64,
    /// Ports that could not be bound, so that another one was tried.
    pub(crate) unbound_ports: u64,
    /// What the kernel has dropped before the relay saw it, at the listeners for data and for requests.
    pub(crate) unseen: [u64; 2],
    /// Open connections, plain and encrypted.
    pub(crate) connections: [usize; 2],
    pub(crate) streams: Tally,
}

impl Snapshot {
    /// The figures of all together.
    pub(crate) fn sum(all: &[Self]) -> Self {
        let mut sum = Self::default();
        all.iter().for_each(|one| sum.add(one));
        sum
    }

    fn add(&mut self, other: &Self) {
        self.allocations += other.allocations;
        self.channels += other.channels;
        self.permissions += other.permissions;
        self.open_ports += other.open_ports;
        self.counters.add(&other.counters);
        self.sent.add(other.sent);
        self.lost_answers += other.lost_answers;
        self.unbound_ports += other.unbound_ports;
        self.unseen = [0, 1].map(|index| self.unseen[index] + other.unseen[index]);
        self.connections = [0, 1].map(|index| self.connections[index] + other.connections[index]);
        self.streams.add(&other.streams);
    }
}

/// What a shard is made of.
pub(crate) struct Parts {
    pub(crate) server: Server,
    pub(crate) listeners: Listeners,
    pub(crate) lent: LentPorts,
    pub(crate) stream_listeners: Vec<streams::Listener>,
    pub(crate) admission: Admission,
    pub(crate) certificate: Option<Arc<ServerConfig>>,
    pub(crate) fast_path: FastPath,
}

/// All shards.
#[derive(Debug)]
pub(crate) struct Shards(Vec<Handle>);

/// Tells of shards that end without having been told to.
#[derive(Debug)]
pub(crate) struct Failures(mpsc::UnboundedReceiver<anyhow::Result<()>>);

#[derive(Debug)]
struct Handle {
    orders: SyncSender<Order>,
    wake: Arc<EventFd>,
    thread: JoinHandle<()>,
}

impl Shards {
    /// Starts a thread for each.
    ///
    /// # Errors
    ///
    /// When the operating system refuses. Shards that were started end with the process.
    pub(crate) fn start(parts: Vec<Parts>) -> anyhow::Result<(Self, Failures)> {
        let (sender, ended) = mpsc::unbounded_channel();
        let start = |(index, parts)| Handle::start(index, parts, &sender);
        let handles = parts.into_iter().enumerate().map(start).collect::<anyhow::Result<_>>()?;
        Ok((Self(handles), Failures(ended)))
    }

    /// Tells each shard the same.
    pub(crate) fn tell(&self, order: impl Fn() -> Order) {
        self.0.iter().for_each(|handle| handle.tell(order()));
    }

    /// The figures of each; `None` when one does not answer.
    pub(crate) async fn report(&self) -> Option<Vec<Snapshot>> {
        let ask = |handle: &Handle| {
            let (sender, answer) = oneshot::channel();
            handle.tell(Order::Report(sender));
            answer
        };
        let answers: Vec<_> = self.0.iter().map(ask).collect();
        let all = async {
            let mut all = Vec::with_capacity(answers.len());
            for answer in answers {
                all.push(answer.await.ok()?);
            }
            Some(all)
        };
        tokio::time::timeout(REPORT_LIMIT, all).await.ok().flatten()
    }

    /// Ends all of them; blocks for a moment.
    pub(crate) fn stop(self) {
        self.tell(|| Order::Stop);
        let deadline = Instant::now() + STOP_LIMIT;
        while !self.0.iter().all(|handle| handle.thread.is_finished()) {
            if Instant::now() >= deadline {
                tracing::error!("a shard stands still, and ends with the process");
                return;
            }
            std::thread::sleep(STOP_POLL);
        }
    }
}

impl Failures {
    /// Waits until a shard ends, and says why; safe to drop while it waits.
    pub(crate) async fn next(&mut self) -> anyhow::Error {
        match self.0.recv().await {
            Some(Err(error)) => error,
            Some(Ok(())) | None => anyhow!("a shard ended unexpectedly"),
        }
    }
}

impl Handle {
    fn start(
        index: usize,
        parts: Parts,
        ended: &mpsc::UnboundedSender<anyhow::Result<()>>,
    ) -> anyhow::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let wake = Arc::new(EventFd::from_flags(flags).context("cannot make an event")?);
        let theirs = Arc::clone(&wake);
        let (orders, received) = sync_channel(ORDERS);
        let ended = LastWords(ended.clone());
        let run = move || {
            let outcome = assemble(parts, (received, theirs)).and_then(Shard::run);
            ended.say(outcome);
        };
        let thread = std::thread::Builder::new()
            .name(format!("shard-{index}"))
            .spawn(run)
            .context("cannot start a thread")?;
        Ok(Self { orders, wake, thread })
    }

    fn tell(&self, order: Order) {
        // A full queue belongs to a stuck shard, a closed one to a shard that has ended; both are noticed elsewhere.
        if self.orders.try_send(order).is_ok() {
            let _ = self.wake.write(1);
        }
    }
}

/// Reports the end of a thread, also when it panics.
struct LastWords(mpsc::UnboundedSender<anyhow::Result<()>>);

impl LastWords {
    fn say(&self, outcome: anyhow::Result<()>) {
        let _ = self.0.send(outcome);
    }
}

impl Drop for LastWords {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.say(Err(anyhow!("a shard has panicked")));
        }
    }
}

fn assemble(parts: Parts, orders: (std::sync::mpsc::Receiver<Order>, Arc<EventFd>)) -> anyhow::Result<Shard> {
    let watch = Rc::new(Watch::new().context("cannot watch sockets")?);
    let streams = Streams::new(Rc::clone(&watch), parts.stream_listeners, parts.admission, parts.certificate);
    let streams = streams.context("cannot watch for connections")?;
    let sockets = Sockets { listeners: parts.listeners, lent: parts.lent };
    Shard::new(parts.server, sockets, streams, parts.fast_path, watch, orders)
}
