//! Between the sockets and the machine: every datagram in, every command out.
//!
//! Everything runs on one thread. Each socket has a task that waits for it to become readable, takes the machine for one batch, and lets
//! go; so there is neither lock nor queue between a datagram's arrival and its departure.

use std::cell::RefCell;
use std::io;
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use adit_turn::Family;
use adit_turn::server::{Client, Command, Counters, Event, Forward, RelayPort, Server, TAILROOM};
use tokio::sync::Notify;

use crate::egress::{Egress, Sent};
use crate::sockets::Sockets;
use crate::udp::{ReceiveBatch, UdpSocket};

/// The relay at work; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Forwarder(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    state: RefCell<State>,
    /// Rung when the next deadline has come nearer.
    deadline_moved: Notify,
}

#[derive(Debug)]
struct State {
    server: Server,
    sockets: Sockets,
    egress: Egress,
    batch: ReceiveBatch,
    deadline: Option<Instant>,
}

/// A moment's figures.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    pub(crate) allocations: usize,
    pub(crate) channels: usize,
    pub(crate) permissions: usize,
    pub(crate) open_ports: usize,
    pub(crate) counters: Counters,
    pub(crate) sent: Sent,
}

impl Forwarder {
    /// Starts reading the listeners. Must be called on the thread of a `LocalSet`.
    pub(crate) fn start(server: Server, sockets: Sockets) -> Self {
        let listeners = [Family::V4, Family::V6].map(|family| sockets.listener(family));
        let state =
            State { server, sockets, egress: Egress::default(), batch: ReceiveBatch::new(), deadline: None };
        let shared = Rc::new(Shared { state: RefCell::new(state), deadline_moved: Notify::new() });
        for listener in listeners.into_iter().flatten() {
            tokio::task::spawn_local(read_listener(Rc::downgrade(&shared), listener));
        }
        Self(shared)
    }

    /// Does what has become due, and waits until something is; never returns.
    pub(crate) async fn keep_time(&self) -> std::convert::Infallible {
        loop {
            let deadline = self.0.with(|state, now| {
                state.server.handle_timeout(now);
                state.server.poll_timeout().map(|(at, _)| at)
            });
            let due = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.0.deadline_moved.notified() => {}
            }
        }
    }

    /// Corrects the time of day.
    pub(crate) fn set_unix_time(&self, unix_now: Duration) {
        self.0.with(|state, now| state.server.set_unix_time(now, unix_now));
    }

    /// Refuses new allocations from now on.
    pub(crate) fn drain(&self) {
        self.0.with(|state, _| state.server.drain());
    }

    /// How many allocations there are.
    pub(crate) fn allocations(&self) -> usize {
        self.0.state.borrow().server.allocations()
    }

    /// The figures of this moment.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let state = self.0.state.borrow();
        Snapshot {
            allocations: state.server.allocations(),
            channels: state.server.channels(),
            permissions: state.server.permissions(),
            open_ports: state.sockets.open_ports(),
            counters: state.server.counters().clone(),
            sent: state.egress.sent(),
        }
    }
}

impl Shared {
    /// Hands an input to the machine, then drains its outputs.
    fn with<T>(self: &Rc<Self>, act: impl FnOnce(&mut State, Instant) -> T) -> T {
        let mut state = self.state.borrow_mut();
        let now = Instant::now();
        let result = act(&mut state, now);
        state.drain(now, &Rc::downgrade(self));
        let deadline = state.server.poll_timeout().map(|(at, _)| at);
        let was = std::mem::replace(&mut state.deadline, deadline);
        if deadline.is_some_and(|at| was.is_none_or(|was| at < was)) {
            self.deadline_moved.notify_one();
        }
        result
    }
}

impl State {
    /// Takes a batch from a listener.
    fn receive_from_clients(&mut self, now: Instant, listener: &UdpSocket) -> io::Result<()> {
        listener.receive(&mut self.batch)?;
        self.batch.take(|client, buffer, payload| {
            let datagram = &buffer[payload];
            if let Some(Forward { source, destination, range }) =
                self.server.handle_client(now, Client::udp(client), datagram)
            {
                self.egress.push(&self.sockets, source, destination, &datagram[range]);
            }
        });
        Ok(())
    }

    /// Takes a batch from a lent port.
    fn receive_from_peers(&mut self, now: Instant, port: RelayPort, socket: &UdpSocket) -> io::Result<()> {
        socket.receive(&mut self.batch)?;
        self.batch.take(|peer, buffer, payload| {
            // The header is written over the datagram before, which has left; the padding would be written over the one behind, which
            // has not.
            let behind = payload.end..payload.end + TAILROOM;
            let mut kept = [0; TAILROOM];
            kept.copy_from_slice(&buffer[behind.clone()]);
            if let Some(Forward { source, destination, range }) =
                self.server.handle_peer(now, port, peer, buffer, payload)
            {
                self.egress.push(&self.sockets, source, destination, &buffer[range]);
            }
            buffer[behind].copy_from_slice(&kept);
        });
        Ok(())
    }

    /// Carries out what the machine wants, and sends what has gathered.
    fn drain(&mut self, now: Instant, shared: &Weak<Shared>) {
        while let Some(command) = self.server.poll_command() {
            match command {
                Command::Send { source, destination, payload } => {
                    self.egress.push(&self.sockets, source, destination, &payload);
                }
                Command::BindPort { port } => {
                    let bound = self.open_port(port, shared);
                    self.server.handle_port_bound(now, port, bound);
                }
                Command::ReleasePort { port } => {
                    self.egress.flush(&self.sockets); // what was received for it still leaves
                    self.sockets.close(port);
                }
                Command::AddRoute { .. } | Command::RemoveRoute { .. } => {} // not asked for
            }
        }
        self.egress.flush(&self.sockets);
        while let Some(event) = self.server.poll_event() {
            log(&event);
        }
    }

    fn open_port(&mut self, port: RelayPort, shared: &Weak<Shared>) -> bool {
        match self.sockets.open_port(port) {
            Ok(socket) => {
                let task = tokio::task::spawn_local(read_port(shared.clone(), port, Rc::clone(&socket)));
                self.sockets.keep(port, socket, task.abort_handle());
                true
            }
            Err(error) => {
                tracing::debug!(error = format!("{error:#}"), port = port.number, "cannot lend a port");
                false
            }
        }
    }
}

async fn read_listener(shared: Weak<Shared>, listener: Rc<UdpSocket>) {
    let outcome = read(&listener, || {
        let shared = shared.upgrade()?;
        Some(shared.with(|state, now| state.receive_from_clients(now, &listener)))
    });
    if let Err(error) = outcome.await {
        tracing::error!(%error, "a listener is broken");
    }
}

async fn read_port(shared: Weak<Shared>, port: RelayPort, socket: Rc<UdpSocket>) {
    let outcome = read(&socket, || {
        let shared = shared.upgrade()?;
        Some(shared.with(|state, now| state.receive_from_peers(now, port, &socket)))
    });
    if let Err(error) = outcome.await {
        tracing::warn!(%error, port = port.number, "a lent port is broken");
    }
}

/// Calls `receive` whenever the socket is readable, until it returns `None` or fails.
async fn read(socket: &UdpSocket, receive: impl Fn() -> Option<io::Result<()>>) -> io::Result<()> {
    loop {
        socket.readable().await?;
        let Some(received) = receive() else { return Ok(()) };
        received?;
    }
}

fn log(event: &Event) {
    match event {
        Event::AllocationCreated { client, ports } => {
            let ports: Vec<u16> = ports.iter().map(|port| port.number).collect();
            tracing::debug!(%client, ?ports, "allocation created");
        }
        Event::AllocationEnded { client, reason } => {
            tracing::debug!(%client, ?reason, "allocation ended");
        }
    }
}
