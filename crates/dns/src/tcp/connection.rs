//! One connection: frames in, frames out, and an end.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};

use super::PORT;

/// A connection without queries is closed after this time (RFC 7766, 6.2.3: a few seconds).
pub(super) const IDLE: Duration = Duration::from_secs(10);
/// A connection that does not come to an end by itself is reset.
const LINGER: Duration = Duration::from_secs(10);
/// An idle connection may be given up for a new one after this time.
const EVICTABLE: Duration = Duration::from_secs(1);
/// The stack resets a connection whose client acknowledges nothing for this long.
const UNACKNOWLEDGED: smoltcp::time::Duration = smoltcp::time::Duration::from_secs(15);
/// Queries of one connection under way; more wait in its buffers.
const MAXIMUM_PENDING: usize = 16;
/// Bytes of answers that wait for the client; no more queries are read meanwhile.
const MAXIMUM_OUTBOUND: usize = 64 << 10;
/// No real query comes near this size; a larger one ends the connection.
const LARGEST_QUERY: usize = 4096;
const SMALLEST_QUERY: usize = 12;
const RECEIVE_BUFFER: usize = 2 + LARGEST_QUERY;
const SEND_BUFFER: usize = 8192;

/// What is known of a connection beside its socket.
#[derive(Debug)]
pub(super) struct Connection {
    handle: SocketHandle,
    last_activity: Instant,
    next_query: u64,
    pending: BTreeSet<u64>,
    outbound: Vec<u8>,
    closing: bool,
}

/// A socket that accepts the next client.
pub(super) fn listening_socket() -> Option<Socket<'static>> {
    let buffer = |size| SocketBuffer::new(vec![0; size]);
    let mut socket = Socket::new(buffer(RECEIVE_BUFFER), buffer(SEND_BUFFER));
    socket.set_timeout(Some(UNACKNOWLEDGED));
    // Answers are small and wanted at once.
    socket.set_nagle_enabled(false);
    socket.listen(PORT).ok()?;
    Some(socket)
}

impl Connection {
    pub(super) const fn new(now: Instant, handle: SocketHandle) -> Self {
        Self {
            handle,
            last_activity: now,
            next_query: 0,
            pending: BTreeSet::new(),
            outbound: Vec::new(),
            closing: false,
        }
    }

    pub(super) const fn handle(&self) -> SocketHandle {
        self.handle
    }

    pub(super) const fn last_activity(&self) -> Instant {
        self.last_activity
    }

    pub(super) fn is_waiting(&self, sockets: &SocketSet<'_>) -> bool {
        sockets.get::<Socket<'_>>(self.handle).state() == State::Listen
    }

    pub(super) fn has_ended(&self, sockets: &SocketSet<'_>) -> bool {
        // In TIME-WAIT nothing can go wrong any more that a retransmitted FIN answered with a reset would not settle.
        matches!(sockets.get::<Socket<'_>>(self.handle).state(), State::Closed | State::TimeWait)
    }

    pub(super) fn is_evictable(&self, now: Instant) -> bool {
        self.pending.is_empty() && now.saturating_duration_since(self.last_activity) >= EVICTABLE
    }

    /// When [`serve`](Self::serve) has something to do without a packet.
    pub(super) fn deadline(&self, sockets: &SocketSet<'_>) -> Option<Instant> {
        (!self.is_waiting(sockets)).then(|| self.last_activity + self.patience())
    }

    /// How long nothing may happen. Queries under way end by themselves, long before their connection.
    fn patience(&self) -> Duration {
        match (self.closing, self.pending.is_empty()) {
            (true, _) => LINGER,
            (false, true) => IDLE,
            (false, false) => IDLE + LINGER,
        }
    }

    /// Frames the answer to a query that is under way; others are ignored.
    pub(super) fn answer(&mut self, now: Instant, query: u64, message: &[u8]) {
        let Ok(length) = u16::try_from(message.len()) else { return };
        if self.pending.remove(&query) {
            self.last_activity = now;
            self.outbound.extend_from_slice(&length.to_be_bytes());
            self.outbound.extend_from_slice(message);
        }
    }

    /// Moves data both ways and ends the connection when its time has come.
    pub(super) fn serve(
        &mut self,
        now: Instant,
        socket: &mut Socket<'_>,
        mut query: impl FnMut(u64, Vec<u8>),
    ) {
        if socket.state() == State::Listen {
            self.last_activity = now;
            return;
        }
        while let Some(frame) = self.next_frame(socket) {
            self.last_activity = now;
            self.pending.insert(self.next_query);
            query(self.next_query, frame);
            self.next_query += 1;
        }
        self.flush(now, socket);
        self.end(now, socket);
    }

    /// Takes a complete message out of the receive buffer; nonsense resets the connection.
    fn next_frame(&mut self, socket: &mut Socket<'_>) -> Option<Vec<u8>> {
        if self.pending.len() >= MAXIMUM_PENDING || self.outbound.len() >= MAXIMUM_OUTBOUND {
            return None;
        }
        let mut prefix = [0; 2];
        if socket.peek_slice(&mut prefix).ok()? < prefix.len() {
            return None;
        }
        let length = usize::from(u16::from_be_bytes(prefix));
        if !(SMALLEST_QUERY..=LARGEST_QUERY).contains(&length) {
            socket.abort();
            return None;
        }
        if socket.recv_queue() < prefix.len() + length {
            return None;
        }
        let mut frame = vec![0; prefix.len() + length];
        socket.recv_slice(&mut frame).ok()?;
        frame.drain(..prefix.len());
        Some(frame)
    }

    fn flush(&mut self, now: Instant, socket: &mut Socket<'_>) {
        if self.outbound.is_empty() {
            return;
        }
        if let Ok(sent @ 1..) = socket.send_slice(&self.outbound) {
            self.outbound.drain(..sent);
            self.last_activity = now;
        }
    }

    fn end(&mut self, now: Instant, socket: &mut Socket<'_>) {
        let is_late = now.saturating_duration_since(self.last_activity) >= self.patience();
        let is_done = self.pending.is_empty() && self.outbound.is_empty();
        let client_is_done = socket.state() == State::CloseWait && !socket.can_recv();
        if is_late && (self.closing || !is_done) {
            socket.abort();
        } else if !self.closing && is_done && (is_late || client_is_done) {
            socket.close();
            self.closing = true;
            self.last_activity = now;
        }
    }
}
