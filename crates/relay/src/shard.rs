//! One shard: a thread with its own machine, sockets and event loop.
//!
//! Between a datagram's arrival and its departure there is neither a lock nor a queue nor an allocation. Shards share nothing but the
//! port that they listen on ([`crate::steering`]) and what [`adit_turn::server`] shares between machines of one relay. The control thread
//! talks to them by [`Order`]s.
//!
//! A turn of the loop takes requests first, then one batch from each socket that is ready, then connections; so whoever floods the relay
//! gets no more of a turn than anybody else. Requests are looked for again in between when many sockets are ready.

mod forwarding;
mod handle;
mod token;

use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use adit_platform::udp::train::ReceiveBatch;
use adit_turn::server::{HEADROOM, Server, TAILROOM};
use anyhow::Context as _;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EventFd;

use crate::egress::Egress;
use crate::fast_path::FastPath;
use crate::sockets::{FAMILIES, Role, Sockets};
use crate::streams::Streams;
pub(crate) use handle::{Failures, Order, Parts, Shards, Snapshot};
pub(crate) use token::Token;

/// Slots filled in one call when datagrams come alone.
const SLOTS: usize = 32;
/// Slots filled in one call when they come in trains, which are long enough to pay for a call each and better worked on while they are
/// in the processor's cache.
const TRAIN_SLOTS: usize = 2;
/// Sockets that the kernel reports at a time.
const EVENTS: usize = 256;
/// So many sockets are served before requests are looked for again.
const BETWEEN_REQUESTS: usize = 32;
/// Batches of requests taken at a time.
const REQUEST_BATCHES: usize = 4;
/// How often connections are looked through for those whose time is over.
const SWEEP: Duration = Duration::from_secs(1);

/// Everything that a shard's thread owns.
#[derive(Debug)]
struct Shard {
    server: Server,
    sockets: Sockets,
    streams: Streams,
    fast_path: FastPath,
    egress: Egress,
    batch: ReceiveBatch,
    /// Slots to fill next time at listeners and at lent ports.
    slots: [usize; 2],
    watch: Rc<Watch>,
    orders: Receiver<Order>,
    wake: Arc<EventFd>,
    next_sweep: Instant,
    /// Answers that could not be sent.
    lost_answers: u64,
    /// Ports that could not be bound, so that another one was tried.
    unbound_ports: u64,
    is_stopping: bool,
}

/// The sockets that the kernel watches for us. It forgets a socket when that is closed.
#[derive(Debug)]
pub(crate) struct Watch(Epoll);

impl Watch {
    fn new() -> io::Result<Self> {
        Ok(Self(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Reports a socket as long as there is something to read, or to accept.
    pub(crate) fn add(&self, socket: impl AsFd, token: Token) -> io::Result<()> {
        Ok(self.0.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, token.pack()))?)
    }

    /// Reports a socket also, or no longer, when there is room to write.
    pub(crate) fn set_writable(&self, socket: impl AsFd, token: Token, writable: bool) -> io::Result<()> {
        let flags = if writable { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
        Ok(self.0.modify(socket, &mut EpollEvent::new(flags, token.pack()))?)
    }
}

impl Shard {
    fn new(
        server: Server,
        sockets: Sockets,
        streams: Streams,
        fast_path: FastPath,
        watch: Rc<Watch>,
        orders: (Receiver<Order>, Arc<EventFd>),
    ) -> anyhow::Result<Self> {
        let (orders, wake) = orders;
        watch.add(wake.as_ref(), Token::Orders).context("cannot watch for orders")?;
        for (family, role, listener) in sockets.listeners.all() {
            watch.add(listener, Token::Listener(family, role)).context("cannot watch a listener")?;
        }
        let batch = ReceiveBatch::new(SLOTS, HEADROOM, TAILROOM);
        let next_sweep = Instant::now() + SWEEP;
        Ok(Self {
            server,
            sockets,
            streams,
            fast_path,
            egress: Egress::new(),
            batch,
            slots: [SLOTS; 2],
            watch,
            orders,
            wake,
            next_sweep,
            lost_answers: 0,
            unbound_ports: 0,
            is_stopping: false,
        })
    }

    /// Serves until it is told to stop, or its watch breaks.
    fn run(mut self) -> anyhow::Result<()> {
        let mut events = [EpollEvent::empty(); EVENTS];
        while !self.is_stopping {
            let timeout = self.timeout(Instant::now());
            let count = match self.watch.0.wait(&mut events, timeout) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => 0,
                Err(error) => return Err(error).context("cannot wait for sockets"),
            };
            self.turn(Instant::now(), &events[..count]);
        }
        Ok(())
    }

    /// How long nothing will become due.
    fn timeout(&self, now: Instant) -> EpollTimeout {
        let deadline = self.server.poll_timeout().map(|(at, _)| at);
        let sweep = (!self.streams.is_empty()).then_some(self.next_sweep);
        let Some(at) = deadline.into_iter().chain(sweep).min() else { return EpollTimeout::NONE };
        // Rounded up, so that it is not woken too early again and again.
        let milliseconds = at.saturating_duration_since(now).as_micros().div_ceil(1000);
        EpollTimeout::from(milliseconds.min(60_000) as u16)
    }

    fn turn(&mut self, now: Instant, events: &[EpollEvent]) {
        let is_request =
            |event: &EpollEvent| matches!(Token::unpack(event.data()), Token::Listener(_, Role::Requests));
        let mut look = events.iter().any(is_request);
        for ready in events.chunks(BETWEEN_REQUESTS) {
            if std::mem::replace(&mut look, true) {
                self.serve_requests(now);
            }
            for event in ready {
                self.serve(now, Token::unpack(event.data()), event.events());
            }
        }
        let is_due = self.server.poll_timeout().is_some_and(|(at, _)| at <= now);
        if is_due {
            self.server.handle_timeout(now);
            self.carry_out(now);
        }
        if now >= self.next_sweep {
            self.next_sweep = now + SWEEP;
            self.streams.sweep(now);
        }
        self.settle_streams(now);
    }

    fn serve_requests(&mut self, now: Instant) {
        for family in FAMILIES {
            for _ in 0..REQUEST_BATCHES {
                if self.receive_from_clients(now, family, Role::Requests) < SLOTS {
                    break;
                }
            }
        }
    }

    fn serve(&mut self, now: Instant, token: Token, flags: EpollFlags) {
        match token {
            Token::Orders => self.obey(now),
            // Those were served already.
            Token::Listener(_, Role::Requests) => {}
            Token::Listener(family, Role::Data) => {
                self.receive_from_clients(now, family, Role::Data);
            }
            Token::Lent(port) => self.receive_from_peers(now, port),
            Token::StreamListener(family, security) => self.streams.accept(now, family, security),
            Token::Stream(id) => self.serve_stream(now, id, flags.contains(EpollFlags::EPOLLOUT)),
        }
    }

    fn obey(&mut self, now: Instant) {
        let _ = self.wake.read(); // it only rings
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::SetUnixTime(unix_now) => self.server.set_unix_time(now, unix_now),
                Order::Drain => {
                    self.server.drain();
                    self.streams.close_listeners();
                }
                Order::RotateSecret(secret) => self.server.rotate_secret(now, secret.into_bytes()),
                Order::SetCertificate(config) => self.streams.set_certificate(config),
                Order::Report(answer) => {
                    let _ = answer.send(self.snapshot()); // or nobody waits any more
                }
                Order::Stop => self.is_stopping = true,
            }
        }
    }
    fn snapshot(&self) -> Snapshot {
        Snapshot {
            allocations: self.server.allocations(),
            channels: self.server.channels(),
            permissions: self.server.permissions(),
            open_ports: self.sockets.lent.open_ports(),
            counters: self.server.counters().clone(),
            sent: self.egress.sent(),
            lost_answers: self.lost_answers,
            unbound_ports: self.unbound_ports,
            unseen: [Role::Data, Role::Requests].map(|role| self.sockets.listeners.dropped(role)),
            connections: self.streams.open(),
            streams: *self.streams.tally(),
        }
    }
}
