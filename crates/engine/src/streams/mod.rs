//! Byte streams to relays, for networks that let no UDP out.
//!
//! The machine says which streams it wants (`StreamTarget`). The control thread makes them ([`Keeper`]); from then on
//! whoever has something to send writes to them, and the first worker reads, beside its sockets:
//!
//! ```text
//!  control thread ── connects, hands over ──┐
//!        │ messages, never dropped          ▼
//!        └──────────────► [bounded queue] ─► TCP or TLS ─► worker 0: messages like datagrams
//!  workers ─ trains, dropped when full ─┘
//! ```
//!
//! A worker's trains of a turn are gathered and written in one call. What does not fit the queue is dropped, as a full
//! socket buffer drops datagrams: the tunnel's own traffic notices and slows down, and what waits stays short. Messages
//! of the control thread are few and always fit, or the stream leads nowhere and is given up.
//!
//! Deliberately absent: when to connect, where, and when to try again (`peering`), and proxies (HTTP CONNECT).

mod connect;
mod connection;
mod outbox;
#[cfg(test)]
mod tests;
mod tls;

use std::io;
use std::sync::{Arc, PoisonError, RwLock};

use adit_dataplane::StreamId;
use metrics::{counter, gauge};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

pub(crate) use connect::Keeper;
pub(crate) use connection::Connection;
pub(crate) use tls::{client_config as relay_tls_config, refusal as tls_refusal};

/// News that the control thread may be behind; a stream has two in its life.
const NEWS_QUEUE: usize = 256;

/// Streams that one turn deals with.
const READY: usize = 8;

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// It can be written to.
    Opened(StreamId),
    /// It could not be made, or is gone.
    Closed(StreamId),
}

/// All streams that are open, for every thread.
#[derive(Debug)]
pub(crate) struct Streams {
    open: RwLock<Vec<Arc<Connection>>>,
    /// Watches them; itself watched by one worker.
    epoll: Epoll,
    news: mpsc::Sender<News>,
}

impl Streams {
    /// No streams yet; what becomes of them arrives at the returned receiver.
    ///
    /// # Errors
    ///
    /// When the operating system has no descriptor left.
    pub(crate) fn new() -> io::Result<(Arc<Self>, mpsc::Receiver<News>)> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let (news, receiver) = mpsc::channel(NEWS_QUEUE);
        Ok((Arc::new(Self { open: RwLock::default(), epoll, news }), receiver))
    }

    /// Becomes readable when [`ready`](Self::ready) has something.
    pub(crate) const fn epoll(&self) -> &Epoll {
        &self.epoll
    }

    /// Streams that can be read or written.
    pub(crate) fn ready(&self) -> impl Iterator<Item = Arc<Connection>> + '_ {
        let mut events = [EpollEvent::empty(); READY];
        let count = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        let id = |event: &EpollEvent| u32::try_from(event.data()).ok().map(StreamId);
        events.into_iter().take(count).filter_map(move |event| self.find(id(&event)?))
    }

    /// Queues what a worker sealed, cut into messages of `segment` bytes; [`flush`](Self::flush) after the last. What does
    /// not fit, or has no stream any more, is dropped and counted.
    pub(crate) fn queue(&self, id: StreamId, contents: &[u8], segment: usize) {
        let dropped = match self.find(id) {
            Some(connection) => connection.queue(contents, segment),
            None => contents.len().div_ceil(segment.max(1)),
        };
        if dropped > 0 {
            counter!("adit_stream_send_dropped_total").increment(dropped as u64);
        }
    }

    /// Writes what was queued, as far as the kernel takes it.
    pub(crate) fn flush(&self) {
        for connection in self.all() {
            self.settle(&connection, connection.flush(&self.epoll));
        }
    }

    /// Writes what is queued for one stream.
    ///
    /// # Errors
    ///
    /// When the stream has ended; see [`settle`](Self::settle).
    pub(crate) fn write(&self, connection: &Connection) -> io::Result<()> {
        connection.flush(&self.epoll)
    }

    /// Writes a message of the control thread.
    pub(crate) fn send(&self, id: StreamId, message: &[u8]) {
        if let Some(connection) = self.find(id) {
            self.settle(&connection, connection.send(message, &self.epoll));
        }
    }

    /// Gives up a stream that does not work.
    pub(crate) fn settle(&self, connection: &Connection, result: io::Result<()>) {
        let Err(error) = result else { return };
        if self.remove(connection.id()).is_some() {
            tracing::info!(relay = %connection.remote(), %error, "a stream to a relay ended");
            self.tell(News::Closed(connection.id()));
        }
    }

    /// Whether the kernel has sent everything that it was given.
    pub(crate) fn are_flushed(&self) -> bool {
        self.all().iter().all(|connection| connection.is_flushed())
    }

    /// Takes a stream over.
    ///
    /// # Errors
    ///
    /// When the operating system cannot watch it.
    fn insert(&self, connection: Connection) -> io::Result<()> {
        let connection = Arc::new(connection);
        let event = EpollEvent::new(EpollFlags::EPOLLIN, connection.id().0.into());
        self.epoll.add(connection.socket(), event)?;
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.push(connection);
        gauge!("adit_streams_open").set(open.len() as f64);
        Ok(())
    }

    /// Ends a stream; what is queued still leaves, if the kernel takes it at once.
    fn close(&self, id: StreamId) {
        if let Some(connection) = self.remove(id) {
            connection.close(&self.epoll);
        }
    }

    fn remove(&self, id: StreamId) -> Option<Arc<Connection>> {
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let index = open.iter().position(|connection| connection.id() == id)?;
        let connection = open.swap_remove(index);
        gauge!("adit_streams_open").set(open.len() as f64);
        // Another thread may hold it for a moment longer.
        let _ = self.epoll.delete(connection.socket());
        Some(connection)
    }

    fn find(&self, id: StreamId) -> Option<Arc<Connection>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.iter().find(|connection| connection.id() == id).cloned()
    }

    fn all(&self) -> Vec<Arc<Connection>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn tell(&self, news: News) {
        // Nobody listens any more while the program ends.
        if let Err(TrySendError::Full(news)) = self.news.try_send(news) {
            // The machine finds out by itself, as nothing is answered any more.
            tracing::warn!(?news, "the control thread is too far behind to hear of a stream");
        }
    }
}
