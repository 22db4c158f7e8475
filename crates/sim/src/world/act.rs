//! What transitions do to the world.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_protocol::peer::GoodbyeReason;
use adit_tunnel::{Client, ClientConfig, Gateway, GatewayConfig, Handover};
use adit_wireguard::PrivateKey;
use rand::Rng as _;

use super::tcp::Owner;
use super::{Delivery, Probe, RESOLVER, World, byte, client_id, name_of, resource_id};
use crate::computer::{Computer, Power};
use crate::packets;
use crate::relay::Relay;
use crate::transition::Transition;

/// How long clients wait for a gateway that restarts.
const HOLD: Duration = Duration::from_secs(10);

impl World {
    /// Makes something happen.
    pub fn apply(&mut self, transition: &Transition) {
        match *transition {
            Transition::Traffic { client, resource, every_ms } => {
                self.set_traffic(client, resource, every_ms)
            }
            Transition::Grant { client, resource } if self.is_there(client, resource) => {
                // Applications ask for the name again: it may have another address now.
                self.names.remove(&(client, resource));
                let out = self.portal.grant(client_id(client), resource_id(resource));
                self.tell_if_up(out);
            }
            Transition::Revoke { client, resource } if self.is_there(client, resource) => {
                let out = self.portal.revoke(client_id(client), resource_id(resource));
                self.tell_if_up(out);
            }
            Transition::Wait(ms) => self.run_for(Duration::from_millis(ms)),
            Transition::PortalDown => self.portal_down(),
            Transition::PortalUp => self.is_portal_up = true,
            Transition::BlockDirect => self.network.is_direct_blocked = true,
            Transition::UnblockDirect => self.network.is_direct_blocked = false,
            Transition::CrashRelay(index) if index < self.relays.len() => {
                self.relays[index].is_up = false;
                self.tcp_relay_gone(index);
            }
            Transition::StartRelay(index) if index < self.relays.len() => self.start_relay(index),
            Transition::Part { client, gateway }
                if client < self.shape.clients && gateway < self.shape.gateways() =>
            {
                let pair = (self.client_places[client], self.gateway_places[gateway]);
                self.network.parted.insert(pair);
            }
            Transition::Unpart => self.network.parted.clear(),
            Transition::ClockJump { relay, by_s } if relay < self.relays.len() => {
                let unix = self.unix() + Duration::from_secs(by_s);
                self.relays[relay].server.set_unix_time(self.now, unix);
            }
            Transition::RepairAll => self.repair_all(),
            ref other => {
                self.apply_to_client(other);
                self.apply_to_gateway(other);
            }
        }
        self.drain();
    }

    fn is_there(&self, client: usize, resource: usize) -> bool {
        client < self.shape.clients && resource < self.shape.resources() && self.is_portal_up
    }

    fn tell_if_up(&mut self, out: Vec<crate::portal::Out>) {
        if self.is_portal_up {
            self.tell(out);
        }
    }

    fn apply_to_client(&mut self, transition: &Transition) {
        match *transition {
            Transition::SignOut(index) if self.is_client(index, Power::On) => self.sign_out(index),
            Transition::CrashClient(index) if self.is_client(index, Power::On) => self.stop_client(index),
            Transition::StartClient(index) if self.is_client(index, Power::Off) => self.start_client(index),
            Transition::Sleep { client, for_ms, stops_clock } if self.is_client(client, Power::On) => {
                self.clients[client].power = Power::Asleep;
                self.doubt_client(client);
                let wake = Delivery::WakeClient(client, self.now, stops_clock);
                self.schedule(Duration::from_millis(for_ms), wake);
            }
            Transition::Roam(index) if index < self.shape.clients => self.roam(index),
            Transition::CutClient(index) if index < self.shape.clients => {
                self.network.cut_off.insert(self.client_places[index]);
                self.doubt_client(index);
            }
            Transition::BlockUdp(index) if index < self.shape.clients => {
                self.network.udp_blocked.insert(self.client_places[index]);
            }
            Transition::UnblockUdp(index) if index < self.shape.clients => {
                self.network.udp_blocked.remove(&self.client_places[index]);
            }
            Transition::HealClient(index) if index < self.shape.clients => {
                self.network.cut_off.remove(&self.client_places[index]);
                self.release_stalled();
            }
            _ => {}
        }
    }

    fn apply_to_gateway(&mut self, transition: &Transition) {
        match *transition {
            Transition::StopGateway(index) if self.is_gateway(index, Power::On) => {
                self.gateways[index].with(self.now, |gateway, now| {
                    gateway.shut_down(now, GoodbyeReason::ShuttingDown);
                });
                self.drain();
                self.stop_gateway(index);
            }
            Transition::RestartGateway { gateway, away_ms } if self.is_gateway(gateway, Power::On) => {
                let away = Duration::from_millis(away_ms);
                let handover =
                    self.gateways[gateway].with(self.now, |machine, now| machine.hand_over(now, HOLD));
                self.drain();
                self.stop_gateway(gateway);
                let run = self.gateway_runs[gateway];
                match handover {
                    Some(handover) if away <= HOLD => {
                        self.schedule(away, Delivery::Successor(gateway, run, Box::new(handover), away));
                    }
                    _ => self.start_gateway(gateway),
                }
            }
            Transition::CrashGateway(index) if self.is_gateway(index, Power::On) => self.stop_gateway(index),
            Transition::StartGateway(index) if self.is_gateway(index, Power::Off) => {
                self.start_gateway(index)
            }
            Transition::FreezeGateway { gateway, for_ms } if self.is_gateway(gateway, Power::On) => {
                self.gateways[gateway].power = Power::Asleep;
                self.doubt_gateway(gateway);
                let thaw = Delivery::ThawGateway(gateway, self.gateway_runs[gateway]);
                self.schedule(Duration::from_millis(for_ms), thaw);
            }
            Transition::CutGateway(index) if index < self.shape.gateways() => {
                self.network.cut_off.insert(self.gateway_places[index]);
                self.doubt_gateway(index);
            }
            Transition::BlockGatewayUdp(index) if index < self.shape.gateways() => {
                self.network.udp_blocked.insert(self.gateway_places[index]);
            }
            Transition::UnblockGatewayUdp(index) if index < self.shape.gateways() => {
                self.network.udp_blocked.remove(&self.gateway_places[index]);
            }
            Transition::HealGateway(index) if index < self.shape.gateways() => {
                self.network.cut_off.remove(&self.gateway_places[index]);
                self.release_stalled();
            }
            _ => {}
        }
    }

    fn is_client(&self, index: usize, power: Power) -> bool {
        self.clients.get(index).is_some_and(|client| client.power == power)
    }

    fn is_gateway(&self, index: usize, power: Power) -> bool {
        self.gateways.get(index).is_some_and(|gateway| gateway.power == power)
    }

    /// A program that starts may find a wrong clock.
    fn some_unix(&mut self) -> Duration {
        let wrong = Duration::from_secs(self.random.random_range(0..7200));
        self.unix() + wrong
    }

    pub(super) fn new_client(&mut self, index: usize) -> Computer<Client> {
        let private_key = PrivateKey::from_bytes(self.random.random());
        let config = ClientConfig { private_key, seed: self.random.random(), profile: 0 };
        let machine = Client::new(self.now, self.some_unix(), config);
        let address = self.network.inner(self.client_places[index]);
        Computer::new(self.now, machine, address, self.random.random())
    }

    pub(super) fn new_gateway(&mut self, index: usize) -> Computer<Gateway> {
        self.gateway_keys[index] = self.random.random();
        self.gateway_with_key(index)
    }

    fn gateway_with_key(&mut self, index: usize) -> Computer<Gateway> {
        let config = GatewayConfig {
            private_key: PrivateKey::from_bytes(self.gateway_keys[index]),
            seed: self.random.random(),
            reset_secret: Some([byte(index) + 1; 32]),
        };
        let machine = Gateway::new(self.now, self.some_unix(), config);
        let address = self.network.inner(self.gateway_places[index]);
        Computer::new(self.now, machine, address, self.random.random())
    }

    fn sign_out(&mut self, index: usize) {
        self.clients[index].with(self.now, |client, now| client.shut_down(now, GoodbyeReason::SignedOut));
        self.drain();
        // The last words are on their way; the program waits for them to leave.
        let session = self.client_sessions[index];
        if session.is_open && self.is_portal_up && !self.is_client_unreachable(index) {
            let sign_out = adit_protocol::ClientToPortal::SignOut(Default::default());
            let out = self.portal.take_from_client(self.unix_ms(), client_id(index), sign_out);
            self.tell(out);
        }
        self.stop_client(index);
    }

    fn stop_client(&mut self, index: usize) {
        self.clients[index].power = Power::Off;
        self.tcp_owner_gone(Owner::Client(index));
        self.names.retain(|(client, _), _| *client != index);
        self.end_client_session(index);
    }

    fn start_client(&mut self, index: usize) {
        self.client_runs[index] += 1;
        self.clients[index] = self.new_client(index);
        self.schedule_client_hello(index);
    }

    fn stop_gateway(&mut self, index: usize) {
        self.gateways[index].power = Power::Off;
        self.tcp_owner_gone(Owner::Gateway(index));
        self.gateway_runs[index] += 1;
        self.end_gateway_session(index);
    }

    fn start_gateway(&mut self, index: usize) {
        self.gateway_runs[index] += 1;
        self.gateways[index] = self.new_gateway(index);
        self.schedule_gateway_hello(index);
    }

    /// The successor of a gateway that made room for it.
    pub(super) fn succeed(&mut self, index: usize, run: u64, handover: Handover, away: Duration) {
        if self.gateway_runs[index] != run || !self.is_gateway(index, Power::Off) {
            return;
        }
        self.gateway_runs[index] += 1;
        self.gateways[index] = self.gateway_with_key(index);
        self.gateways[index].with(self.now, |gateway, now| gateway.take_over(now, handover, away));
        self.schedule_gateway_hello(index);
    }

    pub(super) fn thaw_gateway(&mut self, index: usize, run: u64) {
        if self.gateway_runs[index] == run && self.is_gateway(index, Power::Asleep) {
            self.gateways[index].power = Power::On;
            if !self.gateway_sessions[index].is_open {
                self.gateways[index].with(self.now, |gateway, now| gateway.handle_portal_lost(now));
            }
            self.release_stalled();
        }
    }

    pub(super) fn wake_client(&mut self, index: usize, since: Instant, stops_clock: bool) {
        if self.is_client(index, Power::Asleep) {
            if stops_clock {
                let slept = self.now - since;
                self.clients[index].oversleep(slept);
            }
            self.clients[index].power = Power::On;
            // It may have been carried elsewhere.
            let address = self.network.inner(self.client_places[index]);
            self.clients[index].set_address(self.now, Some(address));
            if !self.client_sessions[index].is_open {
                self.clients[index].with(self.now, |client, now| client.handle_portal_lost(now));
            }
            self.release_stalled();
        }
    }

    fn roam(&mut self, index: usize) {
        let was_cut = self.network.cut_off.remove(&self.client_places[index]);
        let place = self.any_place();
        self.client_places[index] = place;
        if was_cut {
            self.release_stalled();
        }
        if self.clients[index].is_on() {
            self.clients[index].set_address(self.now, Some(self.network.inner(place)));
        }
        // The TCP connection to the portal does not survive a change of address.
        self.end_client_session(index);
    }

    fn portal_down(&mut self) {
        if !std::mem::replace(&mut self.is_portal_up, false) {
            return;
        }
        self.portal.forget_sessions();
        for index in 0..self.clients.len() {
            if self.client_sessions[index].is_open {
                self.end_client_session(index);
            }
        }
        for index in 0..self.gateways.len() {
            if self.gateway_sessions[index].is_open {
                self.end_gateway_session(index);
            }
        }
    }

    fn start_relay(&mut self, index: usize) {
        if !self.relays[index].is_up {
            let seed = self.random.random();
            self.relays[index] = Relay::new(self.now, self.unix(), index, seed);
            self.announce_relay(index);
        }
    }

    fn repair_all(&mut self) {
        self.network.is_direct_blocked = false;
        self.network.udp_blocked.clear();
        self.network.cut_off.clear();
        self.network.parted.clear();
        self.release_stalled();
        self.is_portal_up = true;
        for index in 0..self.relays.len() {
            self.start_relay(index);
        }
        for index in 0..self.gateways.len() {
            match self.gateways[index].power {
                Power::Off => self.start_gateway(index),
                Power::Asleep => self.thaw_gateway(index, self.gateway_runs[index]),
                Power::On => {}
            }
        }
        for index in 0..self.clients.len() {
            match self.clients[index].power {
                Power::Off => self.start_client(index),
                Power::Asleep => self.wake_client(index, self.now, false),
                Power::On => {}
            }
        }
    }

    fn set_traffic(&mut self, client: usize, resource: usize, every_ms: u64) {
        if client >= self.shape.clients || resource >= self.shape.resources() {
            return;
        }
        if every_ms == 0 {
            self.traffic.remove(&(client, resource));
            return;
        }
        self.queued += 1;
        let generation = self.queued;
        self.traffic.insert((client, resource), (generation, Duration::from_millis(every_ms)));
        self.tick(client, resource, generation);
    }

    /// An application's timer: sends a probe and sets the next.
    pub(super) fn tick(&mut self, client: usize, resource: usize, generation: u64) {
        let Some((current, every)) = self.traffic.get(&(client, resource)).copied() else { return };
        if current != generation {
            return;
        }
        self.schedule(every, Delivery::Tick(client, resource, generation));
        if self.clients[client].is_on() {
            self.send_probe(client, resource);
        }
    }

    fn send_probe(&mut self, client: usize, resource: usize) {
        let number = self.next_probe;
        self.next_probe += 1;
        let probe = Probe { client, resource, sent: self.now, answered: None };
        self.probes.insert(number, probe);
        // Without an address for the name the application has nowhere to send to: the probe is lost.
        let Some(destination) = self.destination(client, resource) else { return };
        let source = SocketAddr::from(([100, 64, 0, 10 + byte(client)], 10_000 + u16::from(byte(resource))));
        let packet = packets::udp(source, destination, &number.to_be_bytes());
        self.clients[client].tun_packet(self.now, &packet);
        self.drain();
    }

    fn destination(&mut self, client: usize, resource: usize) -> Option<SocketAddr> {
        let site = byte(resource / 2);
        if resource.is_multiple_of(2) {
            return Some(SocketAddr::from(([10, site, 0, 7], 9)));
        }
        if let Some(known) = self.names.get(&(client, resource)) {
            return Some(SocketAddr::new(*known, 9));
        }
        let question = packets::question(&name_of(resource));
        let source = SocketAddr::from(([100, 64, 0, 10 + byte(client)], 5353));
        self.dns_answer = None;
        let packet = packets::udp(source, SocketAddr::from((RESOLVER, 53)), &question);
        self.clients[client].tun_packet(self.now, &packet);
        self.drain();
        let address = packets::first_address(&question, &self.dns_answer.take()?)?;
        self.names.insert((client, resource), address);
        Some(SocketAddr::new(address, 9))
    }
}
