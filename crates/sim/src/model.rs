//! The judge: what must arrive, what must not, and by when. Small enough to read, and ignorant of the machines.
//!
//! The model knows the transitions and nothing else. Three promises are checked:
//!
//! 1. **Nobody is stranded.** When nothing has happened for as long as the latest transitions need to recover
//!    ([`Transition::recovery`]), and access, portal, a gateway of the site and a way between the two are there,
//!    every probe is answered within [`ANSWER`]. On a lossy network not every probe, but never more than
//!    [`STREAK`] in a row, and for longer than [`STREAK_TIME`], are not.
//! 2. **Nobody gets in.** A probe for which the client has no access reaches the resource only while the revocation
//!    may still be on its way: [`GRACE`], or until the lease ends if the gateway could not hear the portal.
//! 3. **Nothing is left** once nobody may reach anything: the world checks that itself at the end of a story.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::transition::Transition;
use crate::world::{Arrival, Probe, Shape, World};

/// An answer takes no longer than this when all is well: two round trips of the longest ways, relays included.
pub const ANSWER: Duration = Duration::from_millis(1_500);

/// A revocation reaches a gateway that hears the portal within this time.
pub const GRACE: Duration = Duration::from_millis(300);

/// On a lossy network so many probes in a row do not fail by chance.
pub const STREAK: u32 = 25;

/// Nor for so long: loss may look like a dead path, and another one takes a moment.
pub const STREAK_TIME: Duration = Duration::from_secs(5);

/// A gateway that hears the portal again knows within this time what it missed.
const CATCH_UP: Duration = Duration::from_secs(3);

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What happened that must not, or the other way round.
    pub what: String,
    /// When, from the beginning of the world.
    pub at: Duration,
}

/// What the transitions so far mean.
#[derive(Debug)]
pub struct Model {
    shape: Shape,
    start: Instant,
    access: BTreeSet<(usize, usize)>,
    revoked: BTreeMap<(usize, usize), Instant>,
    clients_off: BTreeSet<usize>,
    clients_cut: BTreeSet<usize>,
    gateways_off: BTreeSet<usize>,
    gateways_cut: BTreeSet<usize>,
    relays_off: BTreeSet<usize>,
    is_portal_up: bool,
    is_direct_blocked: bool,
    /// Until then the latest transitions may still hurt.
    calm_from: Instant,
    last_disturbance: Instant,
    /// When each gateway was last unable to hear the portal.
    deaf: BTreeMap<usize, Instant>,
    /// Probes in a row without an answer, and when the first of them was sent.
    misses: BTreeMap<(usize, usize), (u32, Instant)>,
}

impl Model {
    /// The model of a new world.
    pub fn new(world: &World) -> Self {
        let shape = world.shape;
        let everything =
            (0..shape.clients).flat_map(|client| (0..shape.resources()).map(move |one| (client, one)));
        Self {
            shape,
            start: world.start,
            access: everything.collect(),
            revoked: BTreeMap::new(),
            clients_off: BTreeSet::new(),
            clients_cut: BTreeSet::new(),
            gateways_off: BTreeSet::new(),
            gateways_cut: BTreeSet::new(),
            relays_off: BTreeSet::new(),
            is_portal_up: true,
            is_direct_blocked: false,
            // On a very lossy network a first connection takes a few tries.
            calm_from: world.now + Duration::from_secs(if shape.loss > 100 { 20 } else { 3 }),
            last_disturbance: world.now,
            deaf: BTreeMap::new(),
            misses: BTreeMap::new(),
        }
    }

    /// Takes note of a transition, before the world does it.
    pub fn note(&mut self, now: Instant, transition: &Transition) {
        if transition.recovery() > Duration::ZERO {
            self.calm_from = self.calm_from.max(now + transition.recovery());
            self.last_disturbance = now;
            self.misses.clear();
        }
        match *transition {
            Transition::Grant { client, resource } if self.is_portal_up => {
                self.access.insert((client, resource));
            }
            Transition::Revoke { client, resource }
                if self.is_portal_up && self.access.remove(&(client, resource)) =>
            {
                self.revoked.insert((client, resource), now);
            }
            Transition::SignOut(client) | Transition::CrashClient(client) => {
                self.clients_off.insert(client);
            }
            Transition::StartClient(client) => {
                self.clients_off.remove(&client);
            }
            Transition::CutClient(client) => {
                self.clients_cut.insert(client);
            }
            Transition::HealClient(client) | Transition::Roam(client) => {
                self.clients_cut.remove(&client);
            }
            Transition::StopGateway(gateway) | Transition::CrashGateway(gateway) => {
                self.gateways_off.insert(gateway);
            }
            Transition::StartGateway(gateway) => {
                self.gateways_off.remove(&gateway);
            }
            Transition::RestartGateway { gateway, away_ms } => {
                self.deaf.insert(gateway, now + Duration::from_millis(away_ms));
            }
            Transition::FreezeGateway { gateway, for_ms } => {
                self.deaf.insert(gateway, now + Duration::from_millis(for_ms));
            }
            Transition::CutGateway(gateway) => {
                self.gateways_cut.insert(gateway);
            }
            Transition::HealGateway(gateway) => {
                self.gateways_cut.remove(&gateway);
                self.deaf.insert(gateway, now);
            }
            Transition::CrashRelay(relay) => {
                self.relays_off.insert(relay);
            }
            Transition::StartRelay(relay) => {
                self.relays_off.remove(&relay);
            }
            Transition::PortalDown => self.is_portal_up = false,
            Transition::PortalUp => self.portal_is_back(now),
            Transition::BlockDirect => self.is_direct_blocked = true,
            Transition::UnblockDirect => self.is_direct_blocked = false,
            Transition::RepairAll => self.repair_all(now),
            _ => {}
        }
    }

    fn portal_is_back(&mut self, now: Instant) {
        if !std::mem::replace(&mut self.is_portal_up, true) {
            self.deaf.extend((0..self.shape.gateways()).map(|gateway| (gateway, now)));
        }
    }

    fn repair_all(&mut self, now: Instant) {
        self.deaf.extend((0..self.shape.gateways()).map(|gateway| (gateway, now)));
        self.is_portal_up = true;
        self.is_direct_blocked = false;
        self.clients_off.clear();
        self.clients_cut.clear();
        self.gateways_off.clear();
        self.gateways_cut.clear();
        self.relays_off.clear();
    }

    /// Judges everything that is old enough; call it after each transition.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn judge(&mut self, world: &mut World) -> Result<(), Violation> {
        for arrival in world.take_arrivals() {
            self.judge_arrival(&arrival)?;
        }
        let until = world.now.checked_sub(ANSWER).unwrap_or(world.start);
        for probe in world.take_probes(until) {
            self.judge_probe(world, &probe)?;
        }
        Ok(())
    }

    /// Promise 2.
    fn judge_arrival(&self, arrival: &Arrival) -> Result<(), Violation> {
        let pair = (arrival.client, arrival.resource);
        if self.access.contains(&pair) {
            return Ok(());
        }
        let Some(revoked) = self.revoked.get(&pair).copied() else {
            return self.violation(arrival.at, format!("{arrival:?} without access"));
        };
        let was_deaf = !self.is_portal_up
            || self.gateways_cut.contains(&arrival.gateway)
            || self.deaf.get(&arrival.gateway).is_some_and(|deaf| arrival.at <= *deaf + CATCH_UP);
        let end = revoked + if was_deaf { self.shape.lease_time + GRACE } else { GRACE };
        if arrival.at > end {
            return self.violation(
                arrival.at,
                format!("{arrival:?}, {:?} after access ended", arrival.at - revoked),
            );
        }
        Ok(())
    }

    /// Promise 1.
    fn judge_probe(&mut self, world: &World, probe: &Probe) -> Result<(), Violation> {
        let pair = (probe.client, probe.resource);
        let is_demanded = probe.sent >= self.calm_from
            && self.last_disturbance < probe.sent
            && self.access.contains(&pair)
            && self.has_a_way(world, probe);
        let in_time = probe.answered.is_some_and(|at| at <= probe.sent + ANSWER);
        if !is_demanded || in_time {
            self.misses.remove(&pair);
            return Ok(());
        }
        let (misses, since) = self.misses.entry(pair).or_insert((0, probe.sent));
        *misses += 1;
        let is_bad_luck = *misses <= STREAK || probe.sent < *since + STREAK_TIME;
        if self.shape.loss == 0 || !is_bad_luck {
            let what = match probe.answered {
                Some(at) => format!("client {} waited {:?} for resource {}", pair.0, at - probe.sent, pair.1),
                None => format!("client {} got no answer of resource {}", pair.0, pair.1),
            };
            return self.violation(probe.sent, what);
        }
        Ok(())
    }

    fn has_a_way(&self, world: &World, probe: &Probe) -> bool {
        let has_relay = (0..self.shape.relays).any(|relay| !self.relays_off.contains(&relay));
        let client_is_there =
            !self.clients_off.contains(&probe.client) && !self.clients_cut.contains(&probe.client);
        let serves = |gateway: &usize| {
            self.shape.site_of_gateway(*gateway) == probe.resource / 2
                && !self.gateways_off.contains(gateway)
                && !self.gateways_cut.contains(gateway)
        };
        let gateways: Vec<usize> = (0..self.shape.gateways()).filter(serves).collect();
        // Which gateway the portal names is its business: whichever it is, there must be a way to it.
        let all_can_meet =
            has_relay || gateways.iter().all(|gateway| !world.needs_relay(probe.client, *gateway));
        client_is_there && self.is_portal_up && !gateways.is_empty() && all_can_meet && has_relay
    }

    fn violation(&self, at: Instant, what: String) -> Result<(), Violation> {
        Err(Violation { what, at: at - self.start })
    }
}
