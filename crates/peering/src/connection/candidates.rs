//! Candidates of both ends, and the channels that relayed pairs need.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use adit_protocol::Candidate;
use adit_protocol::peer::PeerMessage;

use super::{Connection, Context, Phase};
use crate::Role;
use crate::address::family;
use crate::relays::RelayKey;

/// A connection that finds no path for so long, or depends on a relay, uses all our relays.
pub(super) const WIDEN_AFTER: Duration = Duration::from_secs(1);

/// After so long, channels that turned out to be of no use are given back.
pub(super) const SETTLE_AFTER: Duration = Duration::from_secs(10);

/// With fewer channels than this there is room for standby paths.
const FEW_CHANNELS: usize = 1024;

/// Candidates that a peer may send through the tunnel at once; it regains one per second.
/// Each makes us send checks to an address that the peer chose.
pub(super) const ALLOWANCE: u32 = 128;

impl Connection {
    /// The peer's candidates changed, as it says itself.
    pub(super) fn update_remotes(
        &mut self,
        context: &mut Context<'_>,
        added: &[Candidate],
        removed: &[Candidate],
    ) {
        let (left, since) = self.candidate_allowance;
        let gained = context.now.saturating_duration_since(since).as_secs();
        let left = left.saturating_add(u32::try_from(gained).unwrap_or(u32::MAX)).min(ALLOWANCE);
        let asked = u32::try_from(added.len().max(1)).unwrap_or(u32::MAX);
        let since = since + Duration::from_secs(gained);
        self.candidate_allowance = (left.saturating_sub(asked), since);
        if asked <= left {
            self.remove_remotes(context, removed);
            self.add_remotes(context, added);
        }
    }

    /// The peer can be reached at more addresses.
    pub(crate) fn add_remotes(&mut self, context: &mut Context<'_>, candidates: &[Candidate]) {
        if self.ice.add_remotes(context.now, candidates).is_empty() {
            return;
        }
        self.unsettle(context);
        self.sync_channels(context);
        self.ice.handle_timeout(context.now);
        self.send_copies(context);
    }

    /// The peer can no longer be reached at some addresses.
    pub(crate) fn remove_remotes(&mut self, context: &mut Context<'_>, candidates: &[Candidate]) {
        for removed in self.ice.remove_remotes(candidates) {
            // The path in use is left to the probes: the peer may say it before it has moved. But one
            // that worked and ends elsewhere is better.
            match self.selected.filter(|selected| selected.remote == removed) {
                Some(selected) => self.paths.mark_suspect(selected),
                None => self.paths.forget_remote(removed),
            }
        }
        if context.role == Role::Client {
            self.reselect(context);
        }
        self.sync_channels(context);
        if self.is_connected() {
            self.doubt(context);
        }
    }

    /// Our own addresses changed, by a roam or by a relay.
    pub(crate) fn note_locals_changed(&mut self, context: &mut Context<'_>, roamed: bool) {
        let direct = self.selected.is_some_and(|pair| !self.ice.is_relayed(pair));
        // A gateway with thousands of direct connections does not ask for all channels at once
        // only because a relay came back.
        if roamed || !direct || context.relays.channels() < FEW_CHANNELS {
            self.unsettle(context);
        }
        self.sync_candidates(context);
        self.ice.handle_timeout(context.now);
        let lost = self.selected.is_none_or(|pair| !self.is_ours(context, pair.local));
        if self.is_connected() && lost {
            self.replace_path(context);
        } else if self.is_connected() && roamed {
            self.doubt_anew(context);
        }
        self.send_copies(context);
    }

    /// Tells the peer all our candidates through the tunnel: what was said while there was no
    /// path is lost, and the portal may be away.
    pub(super) fn send_candidates(&mut self, context: &mut Context<'_>) {
        let added = context.relays.candidates(context.locals);
        let message = PeerMessage::Candidates { added, removed: Vec::new() };
        // If it cannot be sent there is no path after all.
        let _ = self.send_message(context, &message);
    }

    /// Whether an address is a socket of ours or lent by a relay.
    pub(super) fn is_ours(&self, context: &Context<'_>, local: SocketAddr) -> bool {
        context.locals.contains(local) || context.relays.owner(local).is_some()
    }

    /// Brings the agent, the paths and the channels in line with our addresses.
    pub(super) fn sync_candidates(&mut self, context: &mut Context<'_>) {
        let preferred = context.relays.by_preference();
        self.relays.retain(|key| preferred.contains(key));
        if !self.relays.iter().any(|key| context.relays.is_listed(*key)) {
            self.relays.extend(preferred.first().filter(|key| !self.relays.contains(key)).copied());
        }
        let hosts: BTreeSet<_> = context.locals.as_slice().iter().copied().collect();
        let relayed: BTreeSet<_> =
            self.relays.iter().flat_map(|key| context.relays.addresses(*key)).copied().collect();
        self.sync_channels(context);
        let streams = relayed
            .iter()
            .copied()
            .filter(|lent| context.relays.owner(*lent).is_some_and(|key| context.relays.is_stream(key)));
        self.ice.set_last_resorts(streams.collect());
        self.ice.set_locals(context.now, &hosts, &relayed);
        let locals: BTreeSet<_> = self.paths.validated().map(|pair| pair.local).collect();
        for gone in locals.into_iter().filter(|local| !hosts.contains(local) && !relayed.contains(local)) {
            self.paths.forget_local(gone);
        }
    }

    /// Asks for the channels that are missing and gives back those that are not needed.
    pub(super) fn sync_channels(&mut self, context: &mut Context<'_>) {
        let wanted = self.wanted_channels(context);
        for (key, peer) in wanted.difference(&self.held) {
            context.relays.hold(context.now, *key, *peer, self.id);
        }
        for (key, peer) in self.held.difference(&wanted) {
            context.relays.release(*key, *peer, self.id);
        }
        self.held = wanted;
    }

    /// Before the connection has settled every relayed pair needs a channel, then only paths.
    fn wanted_channels(&self, context: &Context<'_>) -> BTreeSet<(RelayKey, SocketAddr)> {
        let settled = matches!(&self.phase, Phase::Connected(connected) if connected.settle_at.is_none());
        if settled {
            let paths = self.paths.validated().chain(self.selected);
            return paths
                .filter_map(|pair| Some((context.relays.owner(pair.local)?, pair.remote)))
                .filter(|(key, _)| self.relays.contains(key))
                .collect();
        }
        let mut wanted = BTreeSet::new();
        for key in &self.relays {
            let lent = context.relays.addresses(*key);
            for remote in self.ice.remote_addresses() {
                if lent.iter().any(|address| family(*address) == family(remote)) {
                    wanted.insert((*key, remote));
                }
            }
        }
        wanted
    }

    /// Uses the addresses of all our relays from now on.
    pub(super) fn widen(&mut self, context: &mut Context<'_>) {
        self.widen_at = None;
        let all = context.relays.by_preference();
        if all.len() == self.relays.len() {
            return;
        }
        self.relays = all;
        self.unsettle(context);
        self.sync_candidates(context);
        self.ice.handle_timeout(context.now);
        self.send_copies(context);
    }

    /// A relay lends us addresses.
    pub(crate) fn note_lent(&mut self, context: &mut Context<'_>, key: RelayKey) {
        // There is a stream only because nothing else works, so whoever is not well off needs it at once.
        let is_in_doubt = self.connected().is_none_or(|connected| connected.liveness.is_in_doubt());
        let is_well_off = !is_in_doubt
            && self.selected.is_some_and(|pair| {
                !self.ice.is_relayed(pair) && self.paths.is_validated(pair) && !self.paths.is_suspect(pair)
            });
        if context.relays.is_stream(key) && !is_well_off && !self.relays.contains(&key) {
            self.relays.push(key);
        }
        if self.uses(key) {
            self.note_locals_changed(context, false);
        }
    }

    /// A relay will be given up: whoever uses it gets ready to use the others.
    pub(crate) fn note_retiring(&mut self, context: &mut Context<'_>, key: RelayKey) {
        let depends = self.selected.is_some_and(|pair| self.ice.is_relayed(pair));
        if self.relays.contains(&key) || depends {
            self.widen(context);
        }
        if depends {
            // Other pairs may not have been asked for long.
            self.unsettle(context);
            self.sync_channels(context);
            self.ice.recheck(context.now);
            if context.role == Role::Client {
                self.reselect(context);
            }
            self.doubt(context);
        }
    }

    /// New candidates: every relayed pair may be of use again for a while.
    pub(super) fn unsettle(&mut self, context: &Context<'_>) {
        let at = context.now + SETTLE_AFTER;
        if let Some(connected) = self.connected() {
            connected.settle_at = Some(at);
        }
    }

    /// Gives back the channels of pairs that never answered.
    pub(super) fn settle(&mut self, context: &mut Context<'_>) {
        if let Some(connected) = self.connected() {
            connected.settle_at = None;
        }
        self.paths.forget_old(context.now, self.selected);
        self.sync_channels(context);
    }

    /// Whether addresses of this relay matter, or would as the first.
    fn uses(&self, key: RelayKey) -> bool {
        self.relays.is_empty() || self.relays.contains(&key)
    }
}
