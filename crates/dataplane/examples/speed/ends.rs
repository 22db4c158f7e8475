//! A gateway with peers and flows, and the client at the other end of its first peer; in virtual time.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_dataplane::{Config, Flow, FlowKey, GrantId, Origin, Path, PeerId, Update, Worker};
use adit_packet::FlowTuple;
use adit_wireguard::{
    Device, Event, PeerId as DevicePeer, PresharedKey, PrivateKey, PublicKey, Received, Session,
};

use crate::packets;

/// More than any bench installs.
const MAXIMUM_FLOWS: usize = 200_000;
/// Time between two handshakes: slower than what a device calls load.
const SPACING: Duration = Duration::from_millis(5);
/// Connections that one peer makes to one resource.
const PORTS: usize = 50_000;

/// The gateway's address, as peers see it.
pub(crate) const GATEWAY: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)), 6000);
/// Where every peer is.
pub(crate) const CLIENT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 5000);

/// The gateway as its client calls it.
pub(crate) const GATEWAY_PEER: PeerId = PeerId(1 << 40);

/// Lets new flows pass at once: nobody has packets that they could overtake.
pub(crate) const FLUSHED: Update = Update::Flushed { misses: 0 };

/// A device of this number, 0 being the gateway.
pub(crate) fn device(now: Instant, number: u32) -> Device {
    Device::new(
        now,
        Duration::from_secs(1_790_000_000),
        private_key(number),
        private_key(number).as_bytes().to_owned(),
    )
}

fn private_key(number: u32) -> PrivateKey {
    let mut bytes = [7; 32];
    // Not in the first byte, of which X25519 ignores three bits.
    bytes[8..12].copy_from_slice(&number.to_le_bytes());
    PrivateKey::from_bytes(bytes)
}

/// Makes `other` known to `device`.
pub(crate) fn introduce(now: Instant, device: &mut Device, other: PublicKey) -> DevicePeer {
    device.add_peer(now, other, PresharedKey([5; 32])).expect("a usable key")
}

/// A complete handshake that `initiator` begins, its confirmation included.
pub(crate) fn shake_hands(now: Instant, initiator: &mut Device, peer: DevicePeer, responder: &mut Device) {
    initiator.initiate(now, peer);
    let mut initiation = initiator.poll_transmit().expect("an initiation").datagram;
    let answer = responder.handle_datagram(now, CLIENT, &mut initiation);
    let Ok(Received::Handshake { reply: Some(mut response), .. }) = answer else {
        panic!("no response: {answer:?}");
    };
    initiator.handle_datagram(now, GATEWAY, &mut response).expect("a good response");
    let mut confirmation = initiator.poll_transmit().expect("a confirmation").datagram;
    responder.handle_datagram(now, CLIENT, &mut confirmation).expect("a good confirmation");
}

/// The newest session of which a device tells.
fn session(device: &mut Device) -> Arc<Session> {
    let events = std::iter::from_fn(|| device.poll_event());
    let session = events.filter_map(|event| match event {
        Event::SessionEstablished { session, .. } => Some(session),
        _ => None,
    });
    session.last().expect("a session")
}

/// A gateway's device and its workers' sessions, one for each peer.
pub(crate) struct Gateway {
    /// When all sessions were there.
    pub(crate) now: Instant,
    pub(crate) device: Device,
    pub(crate) sessions: Vec<Arc<Session>>,
    /// The other end of the first session.
    pub(crate) client: Arc<Session>,
}

impl Gateway {
    /// Shakes hands with so many peers.
    pub(crate) fn with_peers(mut now: Instant, peers: usize) -> Self {
        let mut device = device(now, 0);
        let (mut sessions, mut client) = (Vec::new(), None);
        for number in 1..=peers {
            now += SPACING;
            let mut other = self::device(now, number as u32);
            introduce(now, &mut device, other.public_key());
            let peer = introduce(now, &mut other, device.public_key());
            shake_hands(now, &mut other, peer, &mut device);
            sessions.push(session(&mut device));
            client.get_or_insert_with(|| session(&mut other));
        }
        Self { now, device, sessions, client: client.expect("at least one peer") }
    }

    /// A worker that knows all peers, and so many flows of theirs.
    pub(crate) fn worker(&self, flows: usize) -> Worker {
        let mut worker = worker(self.now);
        for (number, session) in self.sessions.iter().enumerate() {
            let path = Path { local: GATEWAY, remote: CLIENT, channel: None, stream: None };
            join(&mut worker, self.now, PeerId(number as u64), session, path);
        }
        for number in 0..flows {
            worker.apply(self.now, install(number, self.sessions.len()));
        }
        worker.apply(self.now, FLUSHED);
        assert_eq!(worker.sizes().flows, flows);
        worker
    }

    /// A worker of the first peer's client, with a flow to the gateway for the first of the gateway's.
    pub(crate) fn client(&self) -> Worker {
        let mut worker = worker(self.now);
        let path = Path { local: CLIENT, remote: GATEWAY, channel: None, stream: None };
        join(&mut worker, self.now, GATEWAY_PEER, &self.client, path);
        let key = FlowKey::new(Origin::Local, inside(0, 1));
        let flow = Flow::untranslated(key, Origin::Peer(GATEWAY_PEER), GrantId(0));
        worker.apply(self.now, Update::install(flow));
        worker.apply(self.now, FLUSHED);
        worker
    }
}

/// A worker without peers and flows.
pub(crate) fn worker(now: Instant) -> Worker {
    Worker::new(now, Config { seed: [7; 32], max_flows: MAXIMUM_FLOWS })
}

fn join(worker: &mut Worker, now: Instant, peer: PeerId, session: &Arc<Session>, path: Path) {
    worker.apply(now, Update::SessionAdded { peer, session: session.clone() });
    worker.apply(now, Update::SendSession { peer, session: session.clone() });
    worker.apply(now, Update::PathChanged { peer, path });
    worker.apply(now, Update::MtuChanged { peer, mtu: packets::FULL as u16 });
}

/// Installs the gateway's flow of this number. It rests on the grant that has its peer's number.
pub(crate) fn install(number: usize, peers: usize) -> Update {
    let peer = number % peers;
    let key = FlowKey::new(Origin::Peer(PeerId(peer as u64)), inside(number, peers));
    let reply_key = FlowKey::new(Origin::Local, beyond(number).reversed());
    Update::install(Flow::new(key, reply_key, GrantId(peer as u64)))
}

/// A flow's tuple in the tunnel.
pub(crate) fn inside(number: usize, peers: usize) -> FlowTuple {
    let (peer, nth) = (number % peers, number / peers);
    let source = Ipv4Addr::from(0x6440_0000 + peer as u32);
    let destination = Ipv4Addr::from(0x0a00_0000 + (nth / PORTS) as u32);
    packets::tuple((source, (1_024 + nth % PORTS) as u16).into(), (destination, 443).into())
}

/// A flow's tuple towards the resource, translated in all four parts.
pub(crate) fn beyond(number: usize) -> FlowTuple {
    let destination = Ipv4Addr::from(0xc0a8_0000 + (number / PORTS) as u32);
    let source = (Ipv4Addr::new(10, 7, 0, 1), (2_000 + number % PORTS) as u16);
    packets::tuple(source.into(), (destination, 8_443).into())
}
