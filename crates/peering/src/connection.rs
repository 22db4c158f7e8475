//! One connection: an ICE agent and a WireGuard peer, from the introduction to the end.
//!
//! ```text
//! open ─► checking ──first path──► handshaking ──session──► connected ─► gone
//!            └────────── session by a copy of the initiation ──┘
//! ```
//!
//! Each phase is a file of its own: what it waits for, and when it gives up. What all phases
//! share (candidates, path selection, control messages) is in files beside them.

mod candidates;
mod checking;
mod closing;
mod connected;
mod control;
mod copies;
mod handshaking;
mod liveness;
mod mtu;
mod selection;

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_wireguard::{Device, PeerId, PublicKey, Session};

use crate::Role;
use crate::address::{LocalAddresses, Pair};
use crate::ice::{Ice, IceEvent};
use crate::outputs::Outputs;
use crate::paths::{Class, Paths};
use crate::relays::{RelayKey, Relays, ToRelay};
use crate::reset::ResetIssuer;
use crate::transactions::{Asker, Transaction, Transactions};
use crate::{
    CloseReason, ConnectionId, Counters, Introduction, Path, PathInfo, PathKind, RelayTransport, Transmit,
};
use checking::Checking;
use connected::Connected;
use copies::Copies;
use handshaking::Handshaking;

/// Everything around a connection that it may act on.
pub(crate) struct Context<'a> {
    pub(crate) now: Instant,
    pub(crate) role: Role,
    pub(crate) locals: &'a LocalAddresses,
    pub(crate) relays: &'a mut Relays,
    pub(crate) device: &'a mut Device,
    pub(crate) transactions: &'a mut Transactions,
    pub(crate) resets: Option<&'a ResetIssuer>,
    pub(crate) out: &'a mut Outputs,
    pub(crate) counters: &'a mut Counters,
}

impl Context<'_> {
    /// Sends a datagram over a pair, through a relay if the pair starts at one.
    pub(crate) fn send(&mut self, pair: Pair, datagram: Vec<u8>) {
        let transmit = if self.locals.contains(pair.local) {
            let (source, destination) = (pair.local, pair.remote);
            Some(Transmit { source, destination, stream: None, payload: datagram })
        } else {
            let wrapped = self.relays.wrap(self.now, pair, &datagram);
            // What the relay was asked before must leave before, see `Relay::wrap`.
            self.flush_relays();
            wrapped.map(|transmit| from_any(self.locals, transmit))
        };
        if !transmit.is_some_and(|transmit| self.out.transmit(transmit)) {
            self.counters.unsendable += 1;
        }
    }

    /// Moves the relays' own datagrams to the outputs.
    pub(crate) fn flush_relays(&mut self) {
        while let Some(transmit) = self.relays.poll_transmit() {
            self.out.transmit(from_any(self.locals, transmit));
        }
    }
}

/// A datagram to a relay: the kernel picks the source address.
pub(crate) fn from_any(locals: &LocalAddresses, ToRelay { stream, transmit }: ToRelay) -> Transmit {
    let source = locals.any(crate::address::family(transmit.destination));
    Transmit { source, destination: transmit.destination, stream, payload: transmit.payload }
}

/// What the connection waits for.
#[derive(Debug)]
enum Phase {
    Checking(Checking),
    Handshaking(Handshaking),
    Connected(Box<Connected>),
}

/// The deadlines that a connection can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timer {
    Check,
    Phase,
    Widen,
    Settle,
    Renew,
    Ticket,
    Liveness,
    Upgrade,
    Mtu,
}

impl Timer {
    const fn name(self) -> &'static str {
        match self {
            Self::Check => "peering: ICE check",
            Self::Phase => "peering: no path or no handshake",
            Self::Widen => "peering: use more relays",
            Self::Settle => "peering: release unused channels",
            Self::Renew => "peering: renew an idle session",
            Self::Ticket => "peering: repeat the reset ticket",
            Self::Liveness => "peering: liveness",
            Self::Upgrade => "peering: look for a direct path",
            Self::Mtu => "peering: path MTU",
        }
    }
}

/// What workers were told.
#[derive(Debug, Default)]
struct WorkerView {
    path: Option<Path>,
    /// A session that workers may seal with once they know a path.
    waiting: Option<Arc<Session>>,
}

/// Addresses inside the tunnel.
#[derive(Clone, Copy, Debug)]
struct TunnelAddresses {
    local: Ipv6Addr,
    remote: Ipv6Addr,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    id: ConnectionId,
    peer: PeerId,
    public_key: PublicKey,
    epoch: u64,
    tunnel: TunnelAddresses,
    ice: Ice,
    paths: Paths,
    nominated: Option<Pair>,
    selected: Option<Pair>,
    /// Where the newest authenticated packet came in.
    heard_on: Option<Pair>,
    phase: Phase,
    /// Relays whose addresses are candidates of this connection.
    relays: Vec<RelayKey>,
    /// Channels that this connection wants.
    held: BTreeSet<(RelayKey, SocketAddr)>,
    widen_at: Option<Instant>,
    copies: Option<Copies>,
    workers: WorkerView,
    closing: Option<CloseReason>,
    next_message: u32,
    /// Candidates that the peer may still send through the tunnel, and when that was true.
    candidate_allowance: (u32, Instant),
}

/// Names and keys of a connection to be made.
pub(crate) struct Opening {
    pub(crate) id: ConnectionId,
    pub(crate) peer: PeerId,
    pub(crate) tie_breaker: u64,
    pub(crate) first_message: u32,
}

impl Connection {
    /// Starts checks and, as client, the handshake.
    pub(crate) fn open(context: &mut Context<'_>, opening: &Opening, introduction: &Introduction) -> Self {
        let controlling = context.role == Role::Client;
        let ice =
            Ice::new(controlling, opening.tie_breaker, &introduction.local_ice, &introduction.remote_ice);
        let tunnel = TunnelAddresses {
            local: introduction.local_tunnel_address,
            remote: introduction.remote_tunnel_address,
        };
        let mut connection = Self {
            id: opening.id,
            peer: opening.peer,
            public_key: introduction.public_key,
            epoch: introduction.epoch,
            tunnel,
            ice,
            paths: Paths::default(),
            nominated: None,
            selected: None,
            heard_on: None,
            phase: Phase::Checking(Checking::enter(context.now)),
            relays: Vec::new(),
            held: BTreeSet::new(),
            widen_at: Some(context.now + candidates::WIDEN_AFTER),
            copies: None,
            workers: WorkerView::default(),
            closing: None,
            next_message: opening.first_message,
            candidate_allowance: (candidates::ALLOWANCE, context.now),
        };
        connection.relays.extend(context.relays.by_preference().first());
        connection.ice.add_remotes(context.now, &introduction.candidates);
        connection.sync_candidates(context);
        connection.ice.start(context.now);
        if controlling {
            context.device.initiate(context.now, connection.peer);
        }
        connection
    }

    pub(crate) fn peer(&self) -> PeerId {
        self.peer
    }

    pub(crate) fn public_key(&self) -> &PublicKey {
        &self.public_key
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn user(&self) -> &str {
        self.ice.user()
    }

    /// Why the connection is over, if it is.
    pub(crate) fn closing(&self) -> Option<CloseReason> {
        self.closing
    }

    fn connected(&mut self) -> Option<&mut Connected> {
        match &mut self.phase {
            Phase::Connected(connected) => Some(connected),
            Phase::Checking(_) | Phase::Handshaking(_) => None,
        }
    }

    /// Whether packets of applications travelled lately.
    pub(crate) fn is_active(&self) -> bool {
        matches!(&self.phase, Phase::Connected(connected) if !connected.liveness.is_idle())
    }

    pub(crate) fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected(_))
    }

    /// Does what has become due.
    pub(crate) fn handle_timeout(&mut self, context: &mut Context<'_>) {
        let now = context.now;
        for (at, timer) in self.timers().into_iter().flatten() {
            if at > now {
                continue;
            }
            match timer {
                Timer::Check => self.ice.handle_timeout(now),
                Timer::Phase => self.give_up(),
                Timer::Widen => self.widen(context),
                Timer::Settle => self.settle(context),
                Timer::Renew => self.renew(context),
                Timer::Ticket => self.repeat_ticket(context),
                Timer::Liveness => self.check_liveness(context),
                Timer::Upgrade => self.upgrade(context),
                Timer::Mtu => self.check_mtu(context),
            }
        }
    }

    /// The next deadline and why.
    pub(crate) fn poll_timeout(&mut self) -> Option<(Instant, &'static str)> {
        let next = self.timers().into_iter().flatten().min_by_key(|(at, _)| *at);
        next.map(|(at, timer)| (at, timer.name()))
    }

    fn timers(&mut self) -> [Option<(Instant, Timer)>; 9] {
        let check = self.ice.poll_timeout();
        let (phase, connected) = match &self.phase {
            Phase::Checking(checking) => (Some(checking.until()), None),
            Phase::Handshaking(handshaking) => (Some(handshaking.until()), None),
            Phase::Connected(connected) => (None, Some(connected)),
        };
        let of = |field: fn(&Connected) -> Option<Instant>| connected.and_then(|connected| field(connected));
        [
            (check, Timer::Check),
            (phase, Timer::Phase),
            (self.widen_at, Timer::Widen),
            (of(|connected| connected.settle_at), Timer::Settle),
            (of(|connected| connected.renew_at), Timer::Renew),
            (of(|connected| connected.ticket_repeat_at), Timer::Ticket),
            (of(|connected| Some(connected.liveness.deadline())), Timer::Liveness),
            (of(|connected| connected.upgrade_at), Timer::Upgrade),
            (of(|connected| connected.mtu.deadline()), Timer::Mtu),
        ]
        .map(|(at, timer)| at.map(|at| (at, timer)))
    }

    /// The phase lasted too long.
    fn give_up(&mut self) {
        self.closing = match self.phase {
            Phase::Checking(_) => Some(CloseReason::IceFailed),
            Phase::Handshaking(_) => Some(CloseReason::WireGuardExpired),
            Phase::Connected(_) => None,
        };
    }

    /// Sends what the agent has to say and takes its news. Call after everything else.
    pub(crate) fn flush(&mut self, context: &mut Context<'_>) {
        while let Some(check) = self.ice.poll_check() {
            if let Some(id) = check.transaction {
                let transaction = self.transaction(context.now, check.pair, Asker::Agent);
                context.transactions.insert(id, transaction);
            }
            context.send(check.pair, check.datagram);
        }
        while let Some(event) = self.ice.poll_event() {
            match event {
                IceEvent::Nominated(pair) => self.note_nominated(context, pair),
                IceEvent::Disconnected => self.doubt(context),
            }
        }
    }

    fn transaction(&self, now: Instant, pair: Pair, asker: Asker) -> Transaction {
        Transaction { connection: self.id, pair, sent: now, asker }
    }

    /// A check or probe of ours was answered.
    pub(crate) fn note_answer(&mut self, context: &mut Context<'_>, pair: Pair, rtt: Option<Duration>) {
        let now = context.now;
        let news = self.paths.note_answer(now, pair, self.class(context, pair), rtt);
        if let Phase::Checking(_) = self.phase {
            self.phase = Phase::Handshaking(Handshaking::enter(now));
        }
        if let Some(rtt) = self.paths.rtt(pair)
            && (self.selected == Some(pair) || !self.is_connected())
        {
            context.device.set_round_trip(self.peer, rtt);
        }
        if news {
            self.send_copy(context, pair);
        }
        self.note_probe_answer(context, pair);
        match context.role {
            Role::Client if news => self.reselect(context),
            // The client uses this path, and it was not trusted until now.
            Role::Gateway if news && self.heard_on == Some(pair) => self.select(context, pair),
            Role::Client | Role::Gateway => {}
        }
    }

    /// The peer checked a pair: what we send over it has a chance to arrive.
    pub(crate) fn note_request(&mut self, context: &mut Context<'_>, pair: Pair) {
        self.paths.note_heard(context.now, pair, self.class(context, pair));
        self.send_copy(context, pair);
        let owner = context.relays.owner(pair.local);
        if owner.is_some_and(|key| !self.held.contains(&(key, pair.remote))) {
            // The peer found a new way through our relay; the answer needs a channel.
            self.unsettle(context);
            self.sync_channels(context);
        }
    }

    /// What is between the ends of a pair.
    fn class(&self, context: &Context<'_>, pair: Pair) -> Class {
        let owner = context.relays.owner(pair.local);
        match owner.is_some_and(|key| context.relays.is_stream(key)) {
            true => Class::Stream,
            false if self.ice.is_relayed(pair) => Class::Relay,
            false => Class::Direct,
        }
    }

    /// The relay of ours that the path in use goes through.
    pub(crate) fn relay_in_use(&self, relays: &Relays) -> Option<RelayKey> {
        relays.owner(self.selected?.local)
    }

    pub(crate) fn ice(&mut self) -> &mut Ice {
        &mut self.ice
    }

    /// Whether datagrams of the path in use are sent to this address: the peer's, or a relay's.
    pub(crate) fn leads_to(&self, relays: &Relays, address: SocketAddr) -> bool {
        self.selected.is_some_and(|pair| relays.server(pair.local).unwrap_or(pair.remote) == address)
    }

    /// What people want to know of the path in use.
    pub(crate) fn path_info(&self, relays: &Relays) -> Option<PathInfo> {
        let pair = self.selected?;
        let udp = RelayTransport::Udp;
        let kind = match relays.server(pair.local) {
            Some(server) => PathKind::Relayed {
                relay: server.ip(),
                transport: relays.transport(pair.local).unwrap_or(udp),
            },
            None if self.ice.is_relayed_remote(pair.remote) => {
                PathKind::Relayed { relay: pair.remote.ip(), transport: udp }
            }
            None => PathKind::Direct,
        };
        Some(PathInfo { kind, local: pair.local, remote: pair.remote, rtt: self.paths.rtt(pair) })
    }
}
