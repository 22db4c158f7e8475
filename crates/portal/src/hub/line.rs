//! The line to one connected peer: a bounded queue, and an end that needs no room in it.

use std::time::Duration;

use adit_policy::TokenId;
use adit_protocol::EncodedKey;
use adit_protocol::client::DisconnectReason;
use tokio::sync::{mpsc, oneshot, watch};

/// Messages that wait for a slow peer; one more and the peer is sent away to resynchronise,
/// which costs less memory than remembering everything for it.
const QUEUE: usize = 1024;

/// How long a peer has to show that it is alive when another claims to be the same device.
const PROBE: Duration = Duration::from_secs(1);

/// Names one session of this process; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SessionId(pub(super) u64);

/// What the hub hands to a session.
#[derive(Debug)]
pub(crate) enum Push<M> {
    /// To be sent as it is; `seq` names the event that it tells of.
    Message {
        /// The event's place in the outbox; `None` for what is not stored.
        seq: Option<i64>,
        /// The message; boxed, because the queue of every peer has room for many from the start.
        message: Box<M>,
    },
    /// What the actor may see may have changed.
    VisibilityChanged {
        /// The event's place in the outbox.
        seq: i64,
    },
    /// The sign-in that the session rests on is a newer one.
    TokenRenewed {
        /// The event's place in the outbox.
        seq: i64,
    },
    /// Relays came or went.
    RelaysChanged,
    /// Somebody wants to know whether the peer is alive.
    Probe(oneshot::Sender<()>),
}

/// The hub's end of a line.
#[derive(Debug)]
pub(super) struct Line<M> {
    pub(super) session: SessionId,
    pub(super) token: TokenId,
    pub(super) key: EncodedKey,
    pub(super) address: String,
    queue: mpsc::Sender<Push<M>>,
    end: watch::Sender<Option<DisconnectReason>>,
}

/// The session's end of a line.
#[derive(Debug)]
pub(crate) struct Receiver<M> {
    /// Which session it is.
    pub(crate) session: SessionId,
    /// What to do, in order.
    pub(crate) queue: mpsc::Receiver<Push<M>>,
    /// Set once, when the session must end.
    pub(crate) end: watch::Receiver<Option<DisconnectReason>>,
}

impl<M> Line<M> {
    pub(super) fn new(
        session: SessionId,
        token: TokenId,
        key: EncodedKey,
        address: String,
    ) -> (Self, Receiver<M>) {
        let (queue, pushes) = mpsc::channel(QUEUE);
        let (end, ended) = watch::channel(None);
        (Self { session, token, key, address, queue, end }, Receiver { session, queue: pushes, end: ended })
    }

    pub(super) fn push(&self, push: Push<M>) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(push) {
            metrics::counter!("adit_portal_session_overflows_total").increment(1);
            self.end(DisconnectReason::Restart);
        }
    }

    pub(super) fn message(&self, seq: Option<i64>, message: M) {
        self.push(Push::Message { seq, message: Box::new(message) });
    }

    /// Ends the session; the first reason stands.
    pub(super) fn end(&self, reason: DisconnectReason) {
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert(reason);
            first
        });
    }

    /// A question to the peer whether it is alive.
    pub(super) fn probe(&self) -> Incumbent {
        let (answer, answered) = oneshot::channel();
        self.push(Push::Probe(answer));
        Incumbent { key: self.key, address: self.address.clone(), answered }
    }
}

/// A live session of a device that has just said hello once more.
#[derive(Debug)]
pub(crate) struct Incumbent {
    /// The key of the live session.
    pub(crate) key: EncodedKey,
    /// Where it connects from.
    pub(crate) address: String,
    answered: oneshot::Receiver<()>,
}

impl Incumbent {
    /// Whether it answers in time.
    pub(crate) async fn answers(self) -> bool {
        matches!(tokio::time::timeout(PROBE, self.answered).await, Ok(Ok(())))
    }
}
