//! When relays are reached over byte streams.
//!
//! Some networks let no UDP out. A relay can then be reached over TCP or TLS, but what is lost there delays everything
//! behind it, and packets inside that have no use any more arrive all the same. So streams are a last resort: they
//! are made when no relay has answered over UDP for a second although it was asked, and left, as a draining relay is
//! left, when one lends us addresses over UDP. While they are in use UDP is tried on, with growing pauses.
//!
//! What was found out lasts: in a network without UDP, streams exist before the next connection needs one, and after
//! a change of network they are made at once, beside the new attempts over UDP.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::relay::Relay;
use super::stream::Stream;
use super::{RETIRE_AFTER, RelayChange, RelayKey, Relays};
use crate::event::{StreamId, StreamTarget};

/// A relay that is asked over UDP and answers nothing for so long, or three round trips if that is more, is silent.
const PATIENCE: Duration = Duration::from_secs(1);

impl Relays {
    /// Decides whether streams are needed. Call after everything that may change the answer.
    pub(super) fn review(&mut self, now: Instant) {
        if !self.has_network {
            return;
        }
        if self.over_udp().any(|relay| relay.works() && silent_at(relay).is_none_or(|at| at > now)) {
            self.is_udp_blocked = false;
            self.retire_streams(now);
        } else if self.silent_at().is_some_and(|at| at <= now) {
            self.is_udp_blocked = true;
        }
        if self.is_udp_blocked {
            self.make_streams(now);
        }
        self.connect_streams(now);
    }

    /// When the next decision is due.
    pub(super) fn review_at(&self) -> Option<Instant> {
        let is_undecided = self.has_network && !self.is_udp_blocked;
        let has_choice = self.over_udp().any(Relay::may_have_stream);
        self.silent_at().filter(|_| is_undecided && has_choice)
    }

    /// Relays on the list, as they are reached over UDP.
    pub(super) fn over_udp(&self) -> impl Iterator<Item = &Relay> {
        self.relays.iter().filter(|relay| !relay.is_stream() && relay.retires_at().is_none())
    }

    /// When all relays will have been silent for long enough; `None` if one owes no answer, or there is none.
    fn silent_at(&self) -> Option<Instant> {
        let silent: Option<Vec<Instant>> = self.over_udp().map(silent_at).collect();
        silent?.into_iter().max()
    }

    /// Every relay on the list that takes streams gets one.
    fn make_streams(&mut self, now: Instant) {
        let listed: Vec<_> = self.over_udp().map(|relay| relay.access().clone()).collect();
        for relay in self.relays.iter_mut().filter(|relay| relay.is_stream()) {
            if listed.iter().any(|access| relay.is_same(access)) {
                relay.set_retirement(None);
            }
        }
        let has_stream = |relay: &Relay| {
            self.relays.iter().any(|other| other.is_stream() && other.is_same(relay.access()))
        };
        let missing: Vec<_> = self
            .over_udp()
            .filter(|relay| !has_stream(relay))
            .filter_map(|relay| {
                let stream = Stream::new(now, relay.access(), relay.families())?;
                Some((relay.access().clone(), relay.families().to_vec(), stream))
            })
            .collect();
        for (access, families, stream) in missing {
            tracing::info!(relay = ?access.id, "no relay answers over UDP: trying a stream");
            let (key, seed) = (self.new_key(), super::random_seed(&mut self.random));
            self.relays.push(Relay::over_stream(now, key, access, families, stream, seed));
        }
    }

    /// Gives the streams up, once nobody depends on them.
    fn retire_streams(&mut self, now: Instant) {
        for relay in &mut self.relays {
            if relay.is_stream() && relay.retires_at().is_none() {
                tracing::info!(relay = ?relay.access().id, "relays answer over UDP: leaving the stream");
                relay.set_retirement(Some(now + RETIRE_AFTER));
                self.changes.push_back(RelayChange::Retiring(relay.key()));
            }
        }
    }

    /// Starts the attempts that are due.
    fn connect_streams(&mut self, now: Instant) {
        for relay in &mut self.relays {
            let Some(stream) = relay.stream_mut() else { continue };
            if stream.due().is_some_and(|at| at <= now) {
                stream.connect(StreamId(self.next_stream));
                self.next_stream += 1;
            }
        }
    }

    /// The caller is connected.
    pub(crate) fn note_stream_opened(&mut self, now: Instant, id: StreamId) {
        for relay in &mut self.relays {
            relay.note_stream_opened(now, id);
        }
    }

    /// The caller could not connect, or is connected no more.
    pub(crate) fn note_stream_closed(&mut self, now: Instant, id: StreamId) {
        for relay in &mut self.relays {
            relay.note_stream_closed(now, id, &mut self.random);
        }
        self.collect(now);
    }

    /// The streams that the caller is to have, if they changed since this was last asked.
    pub(crate) fn poll_streams(&mut self) -> Option<Vec<StreamTarget>> {
        let wanted: Vec<_> = self.relays.iter().filter_map(Relay::stream_target).collect();
        if wanted == self.told_streams {
            return None;
        }
        self.told_streams.clone_from(&wanted);
        Some(wanted)
    }

    /// Streams whose time is over, if there are any, to relays that are there to stay.
    pub(crate) fn overdue_streams(&self, now: Instant) -> BTreeSet<RelayKey> {
        let is_listed = |stream: &Relay| self.over_udp().any(|relay| stream.is_same(relay.access()));
        let overdue = |relay: &&Relay| relay.is_stream() && relay.retires_at().is_some_and(|at| at <= now);
        self.relays.iter().filter(overdue).filter(|relay| is_listed(relay)).map(Relay::key).collect()
    }

    /// Keeps streams for a while longer: a connection has found no other way yet, and nobody is waiting for us to go.
    pub(crate) fn postpone(&mut self, now: Instant, keys: &BTreeSet<RelayKey>) {
        for relay in self.relays.iter_mut().filter(|relay| keys.contains(&relay.key())) {
            relay.set_retirement(Some(now + RETIRE_AFTER));
        }
    }
}

/// When a relay will have been silent for long enough; from the start if it has no address that we can reach.
fn silent_at(relay: &Relay) -> Option<Instant> {
    if !relay.is_reachable() {
        return Some(relay.bound_at());
    }
    let patience = PATIENCE.max(relay.round_trip().unwrap_or_default() * 3);
    Some(relay.unanswered_since()? + patience)
}
