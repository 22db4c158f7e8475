//! Whether the first packet of a client's flow may pass, and what becomes of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use adit_dataplane::{Flow, FlowKey, Origin};
use adit_packet::translate::{HEADER_DIFFERENCE, TCP_HEADERS_V6};
use adit_packet::{FlowTuple, IcmpError, PacketView, clamp_mss};
use adit_peering::ConnectionId;
use adit_policy::ClientId;

use super::clients::Client;
use super::held::{HOLD, Item};
use super::leases::{Covered, NotCovered};
use super::{Gateway, Timer};
use crate::address::{TunnelRanges, is_never_reachable};
use crate::drops::DropReason;
use crate::flow_log::{FarEnd, Subject};
use crate::link::peer_of;
use crate::traffic::FirstPacket;

/// How long a worker drops the packets of a refused flow by itself. Short: a grant may come.
const REFUSED_FOR: Duration = Duration::from_secs(1);

/// What to do with a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Judgement {
    /// A lease covers it; this is what it is beyond the gateway.
    Pass(Covered, FlowTuple),
    /// Nothing covers it yet; if nothing comes, it is refused like this.
    Hold(Denial),
    /// Nothing can ever cover it.
    Refuse(Denial),
}

/// Why a packet does not pass, and what its sender is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Denial {
    reason: DropReason,
    answer: IcmpError,
}

impl Denial {
    const fn prohibited(reason: DropReason) -> Self {
        Self { reason, answer: IcmpError::AdministrativelyProhibited }
    }

    const fn unreachable(reason: DropReason) -> Self {
        Self { reason, answer: IcmpError::HostUnreachable }
    }
}

impl From<NotCovered> for Judgement {
    fn from(failure: NotCovered) -> Self {
        Self::Hold(Denial::prohibited(match failure {
            NotCovered::Destination => DropReason::Unauthorized,
            NotCovered::Traffic => DropReason::Filtered,
        }))
    }
}

impl Client {
    fn judge(&self, ranges: &TunnelRanges, own: &[IpAddr], first: &FirstPacket) -> Judgement {
        let destination = first.destination();
        if is_never_reachable(destination) {
            return Judgement::Refuse(Denial::prohibited(DropReason::ForbiddenDestination));
        }
        if !ranges.is_proxy(destination) {
            return match self.leases.covers_address(ranges, own, destination, first.traffic) {
                Ok(covered) => Judgement::Pass(covered, first.tuple),
                Err(failure) => failure.into(),
            };
        }
        let Some((resource, name, real)) = self.domains.look_up(destination) else {
            return Judgement::Hold(Denial::unreachable(DropReason::UnknownProxyAddress));
        };
        match (self.leases.covers_name(resource, name, first.traffic), real) {
            (Ok(covered), Some(real)) => match self.beyond(first.tuple, real) {
                Some(wanted) => Judgement::Pass(covered, wanted),
                None => Judgement::Refuse(Denial::unreachable(DropReason::Untranslatable)),
            },
            (Ok(_), None) => Judgement::Hold(Denial::unreachable(DropReason::NameUnresolved)),
            (Err(failure), _) => failure.into(),
        }
    }
}

/// The first packet of a flow as it leaves; `mtu` is what the tunnel carries, in bytes.
fn rewritten(
    flow: &Flow,
    packet: &mut [u8],
    view: &PacketView,
    mtu: u16,
    identification: u16,
) -> Result<Vec<u8>, DropReason> {
    if !flow.changes_family() {
        flow.forward.apply(packet, view).map_err(|_| DropReason::Malformed)?;
        return Ok(packet[..view.total_length()].to_vec());
    }
    // An error, which would grow by more, starts no flow.
    let mut translated = vec![0; view.total_length() + HEADER_DIFFERENCE];
    let length = flow
        .forward
        .translate(packet, view, identification, &mut translated)
        .map_err(|_| DropReason::Untranslatable)?;
    translated.truncate(length);
    let view = PacketView::parse(&translated).map_err(|_| DropReason::Untranslatable)?;
    // What answers it is carried in the longer of the two families on one side.
    clamp_mss(&mut translated, &view, mtu.saturating_sub(TCP_HEADERS_V6));
    Ok(translated)
}

impl Gateway {
    /// Takes a packet that a client sent and no worker has a flow for.
    pub(super) fn admit(&mut self, now: Instant, connection: ConnectionId, packet: &mut [u8]) {
        let Some(id) = self.by_connection.get(&connection).copied() else {
            return self.link.drops.count(DropReason::UnknownPeer);
        };
        self.judge(now, id, packet, now + HOLD);
    }

    /// Lets the packet pass, refuses it, or holds it until then.
    fn judge(&mut self, now: Instant, id: ClientId, packet: &mut [u8], until: Instant) {
        let (Some(client), Some((_, ranges))) = (self.clients.get_mut(&id), &self.configuration) else {
            return self.link.drops.count(DropReason::NotConfigured);
        };
        let Ok(view) = PacketView::parse(packet) else {
            return self.link.drops.count(DropReason::Malformed);
        };
        if !client.owns(view.source()) {
            return self.link.drops.count(DropReason::WrongSource);
        }
        let Some(first) = FirstPacket::of(&view) else {
            return self.link.drops.count(DropReason::NotAFlow);
        };
        match client.judge(ranges, &self.addresses, &first) {
            Judgement::Pass(covered, wanted) => self.pass(now, id, packet, &first, covered, wanted),
            Judgement::Hold(_) if until > now => {
                let item = Item::Packet(packet[..view.total_length()].to_vec());
                if client.held.push(until, item).is_err() {
                    return self.link.drops.count(DropReason::QueueFull);
                }
                self.timers.set_at_latest(Timer::Held(id), until);
            }
            Judgement::Hold(denial) | Judgement::Refuse(denial) => self.deny(now, id, packet, &first, denial),
        }
    }

    /// The lease is the proof: gives the flow an entry and sends its first packet on.
    fn pass(
        &mut self,
        now: Instant,
        id: ClientId,
        packet: &mut [u8],
        first: &FirstPacket,
        covered: Covered,
        wanted: FlowTuple,
    ) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        let Some(beyond) = client.translations.assign(first.tuple, wanted, covered.grant()) else {
            return self.deny(now, id, packet, first, Denial::unreachable(DropReason::NoFreePort));
        };
        let peer = peer_of(client.connection);
        let key = first.key(Origin::Peer(peer));
        let flow = Flow::new(key, FlowKey::new(Origin::Local, beyond.reversed()), covered.grant());
        let subject = Subject {
            authorization: covered.authorization(),
            far_end: FarEnd::Client(id),
            peer,
            resource: covered.resource(),
            beyond,
            name: client.domains.name_at(first.destination()),
        };
        let identification = client.translations.made() as u16;
        let usage = self.link.install(flow);
        let at_ms = self.clock.unix_ms_at(now);
        let Ok(view) = PacketView::parse(packet) else {
            return self.link.drops.count(DropReason::Malformed);
        };
        match rewritten(&flow, packet, &view, self.link.interface_mtu(), identification) {
            Ok(sent) => {
                let first_packet = [1, view.total_length() as u64];
                self.flows.opened(now, at_ms, key, &usage, subject, first_packet);
                self.link.write_tun(sent);
            }
            Err(reason) => self.link.drops.count(reason),
        }
    }

    fn deny(&mut self, now: Instant, id: ClientId, packet: &[u8], first: &FirstPacket, denial: Denial) {
        let own = self.own_addresses();
        let Some(client) = self.clients.get_mut(&id) else { return };
        let connection = client.connection;
        self.link.drops.count(denial.reason);
        self.link.refuse(first.key(Origin::Peer(peer_of(connection))), denial.reason, now + REFUSED_FOR);
        let Ok(view) = PacketView::parse(packet) else { return };
        if let Some(error) = client.answers.answer(now, denial.answer, own, packet, &view) {
            self.link.send(now, connection, &error);
        }
    }

    fn own_addresses(&self) -> (Ipv4Addr, Ipv6Addr) {
        let unset = (Ipv4Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED);
        self.configuration
            .as_ref()
            .map_or(unset, |(configuration, _)| (configuration.ipv4, configuration.ipv6))
    }

    /// A grant or an answer of the resolver came: what is held may pass now.
    pub(super) fn release(&mut self, now: Instant, id: ClientId) {
        self.timers.clear(Timer::Held(id));
        let Some(client) = self.clients.get_mut(&id) else { return };
        for (until, item) in client.held.take_all() {
            self.take_again(now, id, item, until);
        }
    }

    /// No grant came in time.
    pub(super) fn release_expired(&mut self, now: Instant, id: ClientId) {
        while let Some(item) = self.clients.get_mut(&id).and_then(|client| client.held.pop_expired(now)) {
            self.take_again(now, id, item, now);
        }
        if let Some(next) = self.clients.get(&id).and_then(|client| client.held.next_expiry()) {
            self.timers.set(Timer::Held(id), next);
        }
    }

    fn take_again(&mut self, now: Instant, id: ClientId, item: Item, until: Instant) {
        match item {
            Item::Packet(mut packet) => self.judge(now, id, &mut packet, until),
            Item::Announcement(announcement) => self.judge_announcement(now, id, announcement, until),
        }
    }
}
