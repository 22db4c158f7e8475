//! Waiting for a gateway that restarts.
//!
//! A gateway with a successor says when it will be back. Until then nothing that goes through it is
//! moved elsewhere, which would end every TCP connection: authorizations and flows are kept, packets
//! wait in their resource's queue, and the portal hears nothing. The connection itself is gone
//! as after any goodbye, so a new one is opened at once, with the introduction of the old one. It must
//! not wait for a packet: one who only receives would never send any.

use std::time::{Duration, Instant};

use adit_policy::GatewayId;
use adit_protocol::{Candidate, CandidateKind};

use super::connection::AVOID_FOR;
use super::{Client, Timer};
use crate::link::peer_of;

impl Client {
    /// Keeps what goes through a gateway for its successor; false when there is nothing to keep.
    pub(super) fn hold(&mut self, now: Instant, id: GatewayId, back_within: Duration) -> bool {
        let own_address = self.configuration.as_ref().map(|configuration| configuration.ipv6);
        let (Some(own_address), Some(gateway)) = (own_address, self.gateways.get(id)) else { return false };
        if gateway.is_held || !self.accesses.has_any_through(id) {
            return false;
        }
        let before = gateway.connection;
        let mut introduction = gateway.introduction.clone();
        // The way that worked last is the best guess.
        if let Some(path) = gateway.path {
            let last = Candidate { kind: CandidateKind::ServerReflexive, address: path.remote, base: None };
            introduction.candidates.insert(0, last);
        }
        let Ok(connection) = self.link.open(now, own_address, &introduction) else { return false };
        tracing::info!(gateway = %id, ?back_within, "the gateway restarts");
        self.link.move_flows(before, connection);
        self.flows.move_peer(peer_of(before), peer_of(connection));
        self.gateways.reconnect(id, connection);
        self.timers.set(Timer::Hold(id), now + back_within);
        self.announce_connection(id);
        true
    }

    /// The successor did not come: all that waited for it ends as with any other failure.
    pub(super) fn end_hold(&mut self, now: Instant, id: GatewayId) {
        if self.gateways.get(id).is_some_and(|gateway| gateway.is_held) {
            self.gateways.avoid(now, id, now + AVOID_FOR);
            self.leave_gateway(now, id, None);
        }
    }
}
