//! Sessions with the portal: lossless while they last, and how each side learns that one is over.

use std::time::Duration;

use adit_protocol::client::RelaysChanged;
use adit_protocol::{PortalToClient, PortalToGateway};
use rand::Rng as _;

use super::{Delivery, PORTAL_LATENCY, World, client_id, gateway_id};
use crate::computer::Power;

/// The portal gives up a peer that says nothing for so long.
const SILENCE: Duration = Duration::from_secs(30);
/// A peer gives up a portal that says nothing for so long.
const PEER_SILENCE: Duration = Duration::from_secs(35);
/// Pause before another try to reach the portal.
const RETRY: Duration = Duration::from_millis(500);

impl World {
    pub(super) fn deliver_session(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::ClientHello(index, number) => self.client_hello(index, number),
            Delivery::GatewayHello(index, number) => self.gateway_hello(index, number),
            Delivery::ClientSilent(index, number) => self.client_silent(index, number),
            Delivery::GatewaySilent(index, number) => self.gateway_silent(index, number),
            message => self.deliver_message(message),
        }
    }

    fn deliver_message(&mut self, message: Delivery) {
        let (is_current, stands_still) = match &message {
            Delivery::FromClient(index, number, _) | Delivery::ToClient(index, number, _) => {
                let session = self.client_sessions[*index];
                (session.is_open && session.number == *number, self.is_client_unreachable(*index))
            }
            Delivery::FromGateway(index, number, _) | Delivery::ToGateway(index, number, _) => {
                let session = self.gateway_sessions[*index];
                (session.is_open && session.number == *number, self.is_gateway_unreachable(*index))
            }
            _ => (false, false),
        };
        if !is_current || !self.is_portal_up {
            return;
        }
        if stands_still {
            // TCP keeps it until the peer is back or given up.
            self.stalled.push(message);
            return;
        }
        let (now, now_ms) = (self.now, self.unix_ms());
        match message {
            Delivery::FromClient(index, _, message) => {
                let out = self.portal.take_from_client(now_ms, client_id(index), message);
                self.tell(out);
            }
            Delivery::FromGateway(index, _, message) => {
                let out = self.portal.take_from_gateway(now_ms, gateway_id(index), message);
                self.tell(out);
            }
            Delivery::ToClient(index, _, message) => {
                self.clients[index].with(now, |client, now| client.handle_portal(now, message));
            }
            Delivery::ToGateway(index, _, message) => {
                self.gateways[index].with(now, |gateway, now| gateway.handle_portal(now, message));
            }
            _ => {}
        }
    }

    pub(super) fn is_client_unreachable(&self, index: usize) -> bool {
        self.clients[index].power == Power::Asleep
            || self.network.cut_off.contains(&self.client_places[index])
    }

    pub(super) fn is_gateway_unreachable(&self, index: usize) -> bool {
        self.gateways[index].power == Power::Asleep
            || self.network.cut_off.contains(&self.gateway_places[index])
    }

    /// The client's program begins to look for the portal.
    pub(super) fn schedule_client_hello(&mut self, index: usize) {
        self.client_sessions[index].number += 1;
        let after = Duration::from_millis(self.random.random_range(20..600));
        self.schedule(after, Delivery::ClientHello(index, self.client_sessions[index].number));
    }

    pub(super) fn schedule_gateway_hello(&mut self, index: usize) {
        self.gateway_sessions[index].number += 1;
        let after = Duration::from_millis(self.random.random_range(20..600));
        self.schedule(after, Delivery::GatewayHello(index, self.gateway_sessions[index].number));
    }

    fn client_hello(&mut self, index: usize, number: u64) {
        let session = self.client_sessions[index];
        if session.is_open || session.number != number || self.clients[index].power == Power::Off {
            return;
        }
        if !self.is_portal_up || self.is_client_unreachable(index) {
            return self.schedule(RETRY, Delivery::ClientHello(index, number));
        }
        self.client_sessions[index].is_open = true;
        let unix = self.unix();
        let relays = self.relays.iter().filter(|relay| relay.is_up);
        let relays = relays.map(|relay| relay.access(&format!("client{index}"), unix)).collect();
        let key = self.clients[index].machine.public_key().0;
        let out = self.portal.client_hello(self.unix_ms(), client_id(index), key, relays);
        self.tell(out);
    }

    fn gateway_hello(&mut self, index: usize, number: u64) {
        let session = self.gateway_sessions[index];
        if session.is_open || session.number != number || self.gateways[index].power == Power::Off {
            return;
        }
        if !self.is_portal_up || self.is_gateway_unreachable(index) {
            return self.schedule(RETRY, Delivery::GatewayHello(index, number));
        }
        self.gateway_sessions[index].is_open = true;
        let unix = self.unix();
        let relays = self.relays.iter().filter(|relay| relay.is_up);
        let relays = relays.map(|relay| relay.access(&format!("gateway{index}"), unix)).collect();
        let key = self.gateways[index].machine.public_key().0;
        let out = self.portal.gateway_hello(self.unix_ms(), gateway_id(index), key, relays);
        self.tell(out);
    }

    /// The client can say nothing any more; the portal will notice.
    pub(super) fn doubt_client(&mut self, index: usize) {
        let number = self.client_sessions[index].number;
        self.schedule(SILENCE, Delivery::ClientSilent(index, number));
    }

    pub(super) fn doubt_gateway(&mut self, index: usize) {
        let number = self.gateway_sessions[index].number;
        self.schedule(SILENCE, Delivery::GatewaySilent(index, number));
    }

    fn client_silent(&mut self, index: usize, number: u64) {
        if self.client_sessions[index].number == number && self.is_client_unreachable(index) {
            self.end_client_session(index);
            if self.clients[index].is_on() {
                let late = PEER_SILENCE.saturating_sub(SILENCE);
                self.schedule(late, Delivery::ClientHello(index, self.client_sessions[index].number));
            }
        }
    }

    fn gateway_silent(&mut self, index: usize, number: u64) {
        if self.gateway_sessions[index].number == number && self.is_gateway_unreachable(index) {
            self.end_gateway_session(index);
            if self.gateways[index].is_on() {
                let late = PEER_SILENCE.saturating_sub(SILENCE);
                self.schedule(late, Delivery::GatewayHello(index, self.gateway_sessions[index].number));
            }
        }
    }

    /// The portal tells everybody of a relay that has come.
    pub(super) fn announce_relay(&mut self, index: usize) {
        let unix = self.unix();
        for client in 0..self.clients.len() {
            let added = vec![self.relays[index].access(&format!("client{client}"), unix)];
            let message = PortalToClient::RelaysChanged(RelaysChanged { removed: Vec::new(), added });
            self.schedule(
                PORTAL_LATENCY,
                Delivery::ToClient(client, self.client_sessions[client].number, message),
            );
        }
        for gateway in 0..self.gateways.len() {
            let added = vec![self.relays[index].access(&format!("gateway{gateway}"), unix)];
            let message = PortalToGateway::RelaysChanged(RelaysChanged { removed: Vec::new(), added });
            let number = self.gateway_sessions[gateway].number;
            self.schedule(PORTAL_LATENCY, Delivery::ToGateway(gateway, number, message));
        }
    }

    /// Both sides know that the session is over; the program, if it runs, looks for another.
    pub(super) fn end_client_session(&mut self, index: usize) {
        let now = self.now;
        if std::mem::take(&mut self.client_sessions[index].is_open) && self.is_portal_up {
            let out = self.portal.client_lost(client_id(index));
            self.tell(out);
        }
        if self.clients[index].is_on() {
            self.clients[index].with(now, |client, now| client.handle_portal_lost(now));
        }
        self.schedule_client_hello(index);
    }

    pub(super) fn end_gateway_session(&mut self, index: usize) {
        let now = self.now;
        if std::mem::take(&mut self.gateway_sessions[index].is_open) && self.is_portal_up {
            let out = self.portal.gateway_lost(gateway_id(index));
            self.tell(out);
        }
        if self.gateways[index].is_on() {
            self.gateways[index].with(now, |gateway, now| gateway.handle_portal_lost(now));
        }
        self.schedule_gateway_hello(index);
    }

    /// Whoever is back hears what TCP kept.
    pub(super) fn release_stalled(&mut self) {
        for message in std::mem::take(&mut self.stalled) {
            self.schedule(PORTAL_LATENCY, message);
        }
    }
}
