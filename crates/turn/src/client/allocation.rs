//! The life of the allocation: asking, keeping, losing, asking again.

use super::authentication::Credentials;
use super::requests::Purpose;
use super::{Client, Event, FailureReason, Timer};
use crate::Family;
use crate::stun::{AttributeKind, ErrorCode, Writer};
use rand::Rng as _;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(30);

#[derive(Debug)]
enum State {
    /// A request is under way.
    Requesting,
    /// The relay lends us addresses.
    Active { relayed: Vec<SocketAddr>, mapped: SocketAddr, owner: Credentials },
    /// An allocation we cannot use is being ended, for a new one.
    Replacing { owner: Credentials },
    /// Waiting before the next request.
    Pausing,
    /// The caller is done.
    Closed { owner: Option<Credentials> },
}

/// Which relayed families to ask for; narrowed when the server refuses.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Families {
    Dual,
    OnlyV4,
    OnlyV6,
}

/// The allocation, or the way to one.
#[derive(Debug)]
pub(super) struct Allocation {
    state: State,
    /// Which of our sockets the allocation belongs to.
    family: Family,
    families: Families,
    pause: Duration,
    /// Set after a mismatch made us end a foreign allocation, so that we do it only once in a row.
    replaced: bool,
}

impl Allocation {
    pub(super) fn new(family: Family) -> Self {
        Self { state: State::Pausing, family, families: Families::Dual, pause: FIRST_PAUSE, replaced: false }
    }

    pub(super) fn family(&self) -> Family {
        self.family
    }

    pub(super) fn is_active(&self) -> bool {
        matches!(self.state, State::Active { .. })
    }

    pub(super) fn relayed(&self) -> &[SocketAddr] {
        match &self.state {
            State::Active { relayed, .. } => relayed,
            _ => &[],
        }
    }

    /// Our address as the relay knows the allocation's owner by.
    pub(super) fn mapped(&self) -> Option<SocketAddr> {
        match &self.state {
            State::Active { mapped, .. } => Some(*mapped),
            _ => None,
        }
    }

    /// The credentials that made the allocation.
    pub(super) fn owner(&self) -> Option<&Credentials> {
        match &self.state {
            State::Active { owner, .. } | State::Replacing { owner } => Some(owner),
            State::Closed { owner } => owner.as_ref(),
            State::Requesting | State::Pausing => None,
        }
    }

    pub(super) fn close(&mut self) {
        let owner = self.owner().cloned();
        self.state = State::Closed { owner };
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// The attributes that ask for address families (RFC 8656, section 7.1).
    pub(super) fn write_families(&self, writer: Writer) -> Writer {
        let family = |family: Family| u32::from(family.code()) << 24;
        match self.families {
            Families::Dual => writer.number(AttributeKind::ADDITIONAL_ADDRESS_FAMILY, family(Family::V6)),
            Families::OnlyV4 => writer,
            Families::OnlyV6 => writer.number(AttributeKind::REQUESTED_ADDRESS_FAMILY, family(Family::V6)),
        }
    }

    /// Asks for less after a 440; false when there is nothing less to ask for.
    pub(super) fn narrow_families(&mut self) -> bool {
        self.families = match self.families {
            Families::Dual => Families::OnlyV4,
            Families::OnlyV4 => Families::OnlyV6,
            Families::OnlyV6 => return false,
        };
        true
    }
}

impl Client {
    /// Sends an Allocate request.
    pub(super) fn begin_allocation(&mut self, now: Instant) {
        if self.allocation.is_closed() || !self.is_connected {
            return;
        }
        if self.server(self.allocation.family).is_none() {
            self.fail_allocation(now, FailureReason::NoServer);
            return;
        }
        self.allocation.state = State::Requesting;
        self.send_request(now, Purpose::Allocate, 0);
    }

    /// Refresh or retry is due.
    pub(super) fn handle_allocation_timer(&mut self, now: Instant) {
        match self.allocation.state {
            State::Active { .. } => self.send_refresh(now, 0),
            State::Pausing => self.begin_allocation(now),
            State::Requesting | State::Replacing { .. } | State::Closed { .. } => {}
        }
    }

    /// The relay granted the allocation.
    pub(super) fn activate(
        &mut self,
        now: Instant,
        relayed: Vec<SocketAddr>,
        mapped: SocketAddr,
        lifetime: Duration,
    ) {
        self.allocation.state = State::Active {
            relayed: relayed.clone(),
            mapped,
            owner: self.authentication.credentials().clone(),
        };
        self.allocation.pause = FIRST_PAUSE;
        self.allocation.replaced = false;
        self.note_mapped_address(self.allocation.family, mapped);
        self.events.push_back(Event::AllocationCreated { relayed });
        self.schedule_refresh(now, lifetime);
        for peer in self.peers.channels() {
            self.send_channel_bind(now, peer, 0);
        }
        for peer in self.peers.permissions() {
            self.send_create_permission(now, peer, 0);
        }
    }

    /// Next refresh at half the lifetime, but not in a tight loop whatever the server says.
    pub(super) fn schedule_refresh(&mut self, now: Instant, lifetime: Duration) {
        let pause = (lifetime / 2).max(Duration::from_secs(5));
        self.timers.set(Timer::Allocation, now + pause);
    }

    /// The relay answered a refresh that was signed with the present credentials.
    pub(super) fn note_refreshed(&mut self, now: Instant, lifetime: Duration) {
        let credentials = self.authentication.credentials().clone();
        if let State::Active { owner, .. } = &mut self.allocation.state {
            *owner = credentials;
            self.schedule_refresh(now, lifetime);
        }
    }

    /// An Allocate request failed: tells the caller, waits, tries again.
    pub(super) fn fail_allocation(&mut self, now: Instant, reason: FailureReason) {
        if self.allocation.is_closed() {
            return;
        }
        self.events.push_back(Event::AllocationFailed { reason });
        self.allocation.state = State::Pausing;
        self.allocation.families = Families::Dual;
        self.allocation.replaced = false;
        let unreachable = reason == FailureReason::Timeout || reason == FailureReason::NoServer;
        if unreachable && self.server(self.allocation.family.other()).is_some() {
            self.allocation.family = self.allocation.family.other();
        }
        // Spread over 75 to 125 % so that clients of one relay do not return in step.
        let no_room = [ErrorCode::ALLOCATION_QUOTA_REACHED, ErrorCode::INSUFFICIENT_CAPACITY];
        if no_room.iter().any(|&code| reason == FailureReason::Rejected(code)) {
            self.allocation.pause = MAX_PAUSE; // more requests do not make more room
        }
        let pause = self.allocation.pause * self.random.random_range(75..125) / 100;
        self.allocation.pause = (self.allocation.pause * 2).min(MAX_PAUSE);
        self.timers.set(Timer::Allocation, now + pause);
    }

    /// Forgets the allocation and everything that hung on it, and tells the caller.
    pub(super) fn lose_allocation(&mut self, reason: FailureReason) {
        self.requests.clear_allocation(&mut self.timers);
        self.timers.clear(Timer::Allocation);
        self.forget_peer_timers();
        self.peers.forget_grants();
        if self.allocation.is_active() {
            self.events.push_back(Event::AllocationLost { reason });
        }
        if !self.allocation.is_closed() {
            self.allocation.state = State::Pausing;
            self.allocation.families = Families::Dual;
            self.allocation.pause = FIRST_PAUSE;
        }
    }

    /// Ends an allocation that is not usable for us and makes a new one.
    pub(super) fn replace_allocation(&mut self, now: Instant, reason: FailureReason) {
        let credentials = self.authentication.credentials();
        let owner = self.allocation.owner().unwrap_or(credentials).clone();
        self.lose_allocation(reason);
        if self.allocation.is_closed() {
            return;
        }
        self.allocation.replaced = true;
        self.allocation.state = State::Replacing { owner };
        self.send_deallocate(now, true, 0);
    }

    /// True if an allocation in our way has not just been ended already.
    pub(super) fn may_replace(&self) -> bool {
        !self.allocation.replaced
    }

    /// New credentials: use them at once, whatever the state.
    pub(super) fn handle_new_credentials(&mut self, now: Instant) {
        match self.allocation.state {
            State::Active { .. } => {
                // A refresh under way bears the old name; its answer must not count as ours.
                self.requests.forget(Purpose::Refresh, &mut self.timers);
                self.send_refresh(now, 0);
            }
            State::Requesting | State::Pausing => {
                self.requests.clear_allocation(&mut self.timers);
                self.timers.clear(Timer::Allocation);
                self.begin_allocation(now);
            }
            State::Replacing { .. } | State::Closed { .. } => {}
        }
    }

    pub(super) fn forget_peer_timers(&mut self) {
        for peer in self.peers.channels() {
            self.timers.clear(Timer::Channel(peer));
        }
        for peer in self.peers.permissions() {
            self.timers.clear(Timer::Permission(peer));
        }
    }
}
