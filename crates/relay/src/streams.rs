//! Clients on TCP and TLS connections, for networks that let no UDP out.
//!
//! They speak TURN as over UDP, message after message ([`adit_turn::framing`]), and peers are still reached over UDP. A shard owns the
//! connections that the kernel gave it; they share its loop and its machine.
//!
//! Everything is bounded: connections in all and per address ([`admission`]), the time without an allocation, what a client may send before
//! it has one, and what waits to be written to it ([`connection`]): data that finds no room is dropped, as a UDP socket would; an answer
//! that finds none ends the connection. Nobody but its own client notices a slow connection.
//!
//! Deliberately absent: DTLS, SCTP, the PROXY protocol, and TLS for anything but TURN on the same port.

mod admission;
mod connection;
mod listener;
mod tally;

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use adit_turn::Family;
use adit_turn::server::{Client, StreamId};
use rustls::{ServerConfig, ServerConnection};
use slab::Slab;

use crate::shard::{Token, Watch};
use connection::Connection;

pub(crate) use admission::{Admission, Limits};
pub(crate) use listener::{Listener, Opened, open_listeners};
pub(crate) use tally::{End, Refusal, Tally};

/// Connections accepted in one go.
const ACCEPTS: usize = 16;
/// Steps of TLS handshakes in one turn of the loop: each costs as much as hundreds of datagrams.
const HANDSHAKE_STEPS: usize = 4;
/// Bytes read at a time.
const READ: usize = 65_536;

/// Whether a connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Security {
    /// TCP.
    Plain,
    /// TLS over TCP.
    Tls,
}

/// What happens to a message that finds no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Importance {
    /// It is dropped. This many bytes of it are a peer's.
    Data(usize),
    /// The connection ends.
    Control,
}

/// The connections of a shard.
#[derive(Debug)]
pub(crate) struct Streams {
    watch: Rc<Watch>,
    listeners: Vec<Listener>,
    admission: Admission,
    /// For new TLS connections.
    certificate: Option<Arc<ServerConfig>>,
    connections: Slab<Connection>,
    /// Those that have something to write.
    unwritten: Vec<StreamId>,
    /// Those that are over, and the machine does not know yet. Until it does, their numbers are not used again.
    ended: Vec<StreamId>,
    handshake_steps: usize,
    scratch: Box<[u8]>,
    tally: Tally,
}

impl Streams {
    /// Starts accepting.
    ///
    /// # Errors
    ///
    /// When the listeners cannot be watched.
    pub(crate) fn new(
        watch: Rc<Watch>,
        listeners: Vec<Listener>,
        admission: Admission,
        certificate: Option<Arc<ServerConfig>>,
    ) -> std::io::Result<Self> {
        for listener in &listeners {
            watch.add(listener, Token::StreamListener(listener.family, listener.security))?;
        }
        let scratch = vec![0; if listeners.is_empty() { 0 } else { READ }].into_boxed_slice();
        Ok(Self {
            watch,
            listeners,
            admission,
            certificate,
            connections: Slab::new(),
            unwritten: Vec::new(),
            ended: Vec::new(),
            handshake_steps: HANDSHAKE_STEPS,
            scratch,
            tally: Tally::default(),
        })
    }

    /// True if there is no connection.
    pub(crate) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// How many connections there are, plain and encrypted.
    pub(crate) fn open(&self) -> [usize; 2] {
        let encrypted =
            self.connections.iter().filter(|(_, connection)| connection.security() == Security::Tls).count();
        [self.connections.len() - encrypted, encrypted]
    }

    /// What was counted since the start.
    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Takes no new connections from now on.
    pub(crate) fn close_listeners(&mut self) {
        self.listeners.clear();
    }

    /// Replaces the certificate for new connections.
    pub(crate) fn set_certificate(&mut self, config: Arc<ServerConfig>) {
        self.certificate = Some(config);
    }

    /// Notes whether a connection's client has an allocation: with one it may send large messages, and stay.
    pub(crate) fn set_allocated(&mut self, now: Instant, id: StreamId, allocated: bool) {
        if let Some(connection) = self.connections.get_mut(id.0 as usize) {
            connection.set_allocated(now, allocated);
        }
    }

    /// Accepts what waits at a listener.
    pub(crate) fn accept(&mut self, now: Instant, family: Family, security: Security) {
        for _ in 0..ACCEPTS {
            let listener = self
                .listeners
                .iter_mut()
                .find(|listener| (listener.family, listener.security) == (family, security));
            let Some(accepted) = listener.and_then(Listener::accept) else { return };
            self.tally.accepted[security as usize] += 1;
            if let Err(refusal) = self.admit(now, accepted, security) {
                self.tally.refused[refusal as usize] += 1;
            }
        }
    }

    fn admit(&mut self, now: Instant, accepted: Opened, security: Security) -> Result<(), Refusal> {
        let Opened { socket, address } = accepted;
        let permit = self.admission.admit(address.ip())?;
        let tls = match security {
            Security::Plain => None,
            Security::Tls => {
                let config = self.certificate.clone().ok_or(Refusal::NoCertificate)?;
                Some(Box::new(ServerConnection::new(config).map_err(|_| Refusal::NoCertificate)?))
            }
        };
        let entry = self.connections.vacant_entry();
        let id = StreamId(u32::try_from(entry.key()).map_err(|_| Refusal::System)?);
        self.watch.add(&socket, Token::Stream(id)).map_err(|_| Refusal::System)?;
        entry.insert(Connection::new(now, socket, address, tls, permit));
        Ok(())
    }

    /// Reads from a connection what has come and hands each message to `deliver`, which returns how many bytes of it were forwarded to a
    /// peer.
    pub(crate) fn serve(
        &mut self,
        id: StreamId,
        is_writable: bool,
        mut deliver: impl FnMut(Client, &[u8]) -> Option<usize>,
    ) {
        let Some(connection) = self.connections.get_mut(id.0 as usize) else { return };
        if connection.is_handshaking() {
            // It stays readable, so its turn comes.
            let Some(left) = self.handshake_steps.checked_sub(1) else { return };
            self.handshake_steps = left;
        }
        let client = Client::stream(id, connection.address());
        let forwarded = &mut self.tally.to_peers[connection.security() as usize];
        let read = connection.read(&mut self.scratch, |message| {
            if let Some(bytes) = deliver(client, message) {
                forwarded.0 += 1;
                forwarded.1 += bytes as u64;
            }
        });
        if is_writable || connection.wants_write() {
            self.unwritten.push(id);
        }
        if let Err(end) = read {
            self.end(id, end);
        }
    }

    /// Queues a message for a client; it leaves with [`flush`](Self::flush).
    pub(crate) fn send(&mut self, id: StreamId, message: &[u8], importance: Importance) {
        let Some(connection) = self.connections.get_mut(id.0 as usize) else { return };
        let was_empty = !connection.wants_write();
        let queued = connection.queue(message, importance == Importance::Control);
        let forwarded = &mut self.tally.to_clients[connection.security() as usize];
        match (queued, importance) {
            (true, Importance::Data(bytes)) => {
                forwarded.0 += 1;
                forwarded.1 += bytes as u64;
            }
            (true, Importance::Control) => {}
            (false, Importance::Data(_)) => self.tally.full += 1,
            (false, Importance::Control) => return self.end(id, End::Overrun),
        }
        if was_empty {
            self.unwritten.push(id);
        }
    }

    /// Writes what the connections take. Call it at the end of a turn.
    pub(crate) fn flush(&mut self) {
        self.handshake_steps = HANDSHAKE_STEPS;
        for id in std::mem::take(&mut self.unwritten) {
            let Some(connection) = self.connections.get_mut(id.0 as usize) else { continue };
            let watched = connection.write().and_then(|is_blocked| {
                let changed = connection.watch_writable(is_blocked);
                let set = |()| self.watch.set_writable(connection.socket(), Token::Stream(id), is_blocked);
                changed.map_or(Ok(()), set).map_err(|_| End::Broken)
            });
            if let Err(end) = watched {
                self.end(id, end);
            }
        }
    }

    /// Ends connections whose time is over.
    pub(crate) fn sweep(&mut self, now: Instant) {
        let limit = self.admission.limits().idle_timeout;
        let late = self
            .connections
            .iter()
            .filter_map(|(id, connection)| Some((StreamId(id as u32), connection.is_late(now, limit)?)));
        let late: Vec<(StreamId, End)> = late.collect();
        for (id, end) in late {
            self.end(id, end);
        }
    }

    /// Forgets a connection that has ended, and names its client.
    pub(crate) fn next_ended(&mut self) -> Option<(StreamId, SocketAddr)> {
        let id = self.ended.pop()?;
        let connection = self.connections.try_remove(id.0 as usize)?;
        Some((id, connection.address()))
    }

    fn end(&mut self, id: StreamId, end: End) {
        let Some(connection) = self.connections.get_mut(id.0 as usize) else { return };
        if connection.close() {
            tracing::debug!(client = %connection.address(), reason = end.name(), "connection ended");
            self.tally.ended[end as usize] += 1;
            self.ended.push(id);
        }
    }
}
