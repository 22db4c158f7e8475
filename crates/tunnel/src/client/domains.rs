//! Names that the client has told its gateways about.
//!
//! A packet to a proxy address means nothing to a gateway until it knows which name the
//! address stands for and has resolved it. The client announces a name when the first
//! packet to it is about to leave, and again once in a while, so that a service that moved
//! is found at its new place. Announcements are repeated until answered.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use adit_policy::{GatewayId, ResourceId};
use adit_protocol::peer::{DomainState, PeerMessage};

/// The first repetition comes after this, each later one after twice as long.
const FIRST_REPEAT: Duration = Duration::from_millis(500);
/// An announcement that was not answered within this time has failed.
const GIVE_UP: Duration = Duration::from_secs(10);
/// An answer older than this is asked for again by the next new flow, which does not wait.
const STALE: Duration = Duration::from_secs(60);
/// How long a failure stands.
pub(crate) const FAILED_FOR: Duration = Duration::from_secs(2);
/// The most names announced to all gateways together.
const MAX_DOMAINS: usize = 4096;

/// Names an announcement for the timers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DomainKey(u64);

/// What is known of a name at a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Not answered yet.
    Unknown,
    /// Packets flow; the answer came then.
    Active(Instant),
    /// It cannot be reached; that stands until then.
    Failed(DomainState, Instant),
}

/// A name announced to a gateway.
#[derive(Debug)]
pub(crate) struct Domain {
    pub(crate) gateway: GatewayId,
    pub(crate) resource: ResourceId,
    pub(crate) name: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) status: Status,
    /// The id of the announcement, once one was sent.
    pub(crate) message_id: Option<u32>,
    /// Set while an answer is awaited: when to give up, and the time to the next repetition.
    asking: Option<(Instant, Duration)>,
}

impl Domain {
    /// The announcement.
    pub(crate) fn message(&self) -> PeerMessage {
        PeerMessage::AssignedAddresses {
            resource: self.resource,
            name: self.name.clone(),
            addresses: self.addresses.clone(),
        }
    }

    /// Begins to ask; false when an answer is awaited already.
    fn ask(&mut self, now: Instant) -> bool {
        let begins = self.asking.is_none();
        if begins {
            self.asking = Some((now + GIVE_UP, FIRST_REPEAT));
            self.message_id = None;
        }
        begins
    }

    /// When to ask again; `None` when it is time to give up.
    pub(crate) fn next_repeat(&mut self, now: Instant) -> Option<Instant> {
        let (give_up, interval) = self.asking?;
        if now >= give_up {
            self.asking = None;
            return None;
        }
        self.asking = Some((give_up, interval * 2));
        Some((now + interval).min(give_up))
    }
}

/// What to do with a packet to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// Send it.
    Active,
    /// Let it wait.
    Wait,
    /// Refuse it.
    Failed(DomainState, Instant),
}

/// All announcements.
#[derive(Debug, Default)]
pub(crate) struct Domains {
    by_key: BTreeMap<DomainKey, Domain>,
    by_name: BTreeMap<(GatewayId, String), DomainKey>,
    last_key: u64,
}

impl Domains {
    /// What to do with a packet to `name`; the key is set when the name is to be announced now.
    pub(crate) fn look_up(
        &mut self,
        now: Instant,
        gateway: GatewayId,
        resource: ResourceId,
        name: &str,
        addresses: &[IpAddr],
    ) -> (Lookup, Option<DomainKey>) {
        let key = self.entry(gateway, resource, name, addresses);
        let Some(domain) = self.by_key.get_mut(&key) else { return (Lookup::Wait, None) };
        match domain.status {
            Status::Active(since) if now.saturating_duration_since(since) < STALE => (Lookup::Active, None),
            Status::Active(_) => (Lookup::Active, domain.ask(now).then_some(key)),
            Status::Failed(state, until) if until > now => (Lookup::Failed(state, until), None),
            Status::Failed(..) | Status::Unknown => {
                domain.status = Status::Unknown;
                (Lookup::Wait, domain.ask(now).then_some(key))
            }
        }
    }

    fn entry(
        &mut self,
        gateway: GatewayId,
        resource: ResourceId,
        name: &str,
        addresses: &[IpAddr],
    ) -> DomainKey {
        let index = (gateway, name.to_owned());
        if let Some(key) = self.by_name.get(&index).copied() {
            let is_same = self
                .by_key
                .get(&key)
                .is_some_and(|domain| domain.resource == resource && domain.addresses == addresses);
            if is_same {
                return key;
            }
            self.remove(key);
        }
        self.make_room();
        self.last_key += 1;
        let key = DomainKey(self.last_key);
        let domain = Domain {
            gateway,
            resource,
            name: name.to_owned(),
            addresses: addresses.to_vec(),
            status: Status::Unknown,
            message_id: None,
            asking: None,
        };
        self.by_key.insert(key, domain);
        self.by_name.insert(index, key);
        key
    }

    /// Forgets the oldest announcement when there are too many; the name is simply announced again.
    fn make_room(&mut self) {
        if self.by_key.len() >= MAX_DOMAINS
            && let Some(oldest) = self.by_key.keys().next().copied()
        {
            self.remove(oldest);
        }
    }

    fn remove(&mut self, key: DomainKey) {
        if let Some(domain) = self.by_key.remove(&key) {
            self.by_name.remove(&(domain.gateway, domain.name));
        }
    }

    pub(crate) fn get_mut(&mut self, key: DomainKey) -> Option<&mut Domain> {
        self.by_key.get_mut(&key)
    }

    /// Takes an answer; returns the name's key if it is one to a question of ours.
    pub(crate) fn answer(
        &mut self,
        now: Instant,
        gateway: GatewayId,
        message_id: u32,
        resource: ResourceId,
        name: &str,
        state: DomainState,
    ) -> Option<DomainKey> {
        let key = *self.by_name.get(&(gateway, name.to_owned()))?;
        let domain = self.by_key.get_mut(&key)?;
        if domain.message_id != Some(message_id) || domain.resource != resource {
            return None;
        }
        domain.asking = None;
        domain.status = match state {
            DomainState::Active => Status::Active(now),
            failed => Status::Failed(failed, now + FAILED_FOR),
        };
        Some(key)
    }

    /// Nobody answered; a name that was reachable stays so.
    pub(crate) fn give_up(&mut self, now: Instant, key: DomainKey) {
        if let Some(domain) = self.by_key.get_mut(&key)
            && domain.status == Status::Unknown
        {
            domain.status = Status::Failed(DomainState::ResolverFailed, now + FAILED_FOR);
        }
    }

    /// Forgets what a gateway, or the gateways of a resource, were told.
    pub(crate) fn remove_where(&mut self, condition: impl Fn(&Domain) -> bool) -> Vec<DomainKey> {
        let keys: Vec<DomainKey> =
            self.by_key.iter().filter(|(_, domain)| condition(domain)).map(|(key, _)| *key).collect();
        for key in &keys {
            self.remove(*key);
        }
        keys
    }

    pub(crate) fn len(&self) -> usize {
        self.by_key.len()
    }
}
