//! A client's worker and a gateway's worker with sessions between them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_dataplane::{
    Config, Event, Flow, FlowKey, GrantId, Inbound, Origin, Outbound, Path, PeerId, Update, Worker, room,
};
use adit_packet::offload::VirtioHeader;
use adit_packet::{PacketView, build};
use adit_wireguard::{Device, Event as TunnelEvent, PresharedKey, PrivateKey, Received, Session};

/// The gateway, as the client calls it; the client, as the gateway calls it.
pub(crate) const GATEWAY: PeerId = PeerId(70);
pub(crate) const CLIENT: PeerId = PeerId(30);
pub(crate) const GRANT: GrantId = GrantId(5);

pub(crate) const CLIENT_ADDRESS: &str = "192.0.2.1:5000";
pub(crate) const GATEWAY_ADDRESS: &str = "198.51.100.1:6000";
pub(crate) const RELAY_ADDRESS: &str = "203.0.113.1:3478";

pub(crate) fn socket(text: &str) -> SocketAddr {
    text.parse().expect("a socket address")
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) client: Worker,
    pub(crate) gateway: Worker,
    pub(crate) sessions: [Arc<Session>; 2],
}

/// Two ends of one session.
pub(crate) fn sessions(now: Instant) -> [Arc<Session>; 2] {
    let source = socket(CLIENT_ADDRESS);
    let keys = [1, 2].map(|byte| PrivateKey::from_bytes([byte; 32]));
    let publics = [keys[0].public_key(), keys[1].public_key()];
    let mut devices = keys.map(|key| {
        let seed = *key.as_bytes();
        Device::new(now, Duration::from_secs(1_790_000_000), key, seed)
    });
    let peer = devices[0].add_peer(now, publics[1], PresharedKey([0; 32])).expect("a usable key");
    devices[1].add_peer(now, publics[0], PresharedKey([0; 32])).expect("a usable key");
    devices[0].initiate(now, peer);
    let mut datagram = devices[0].poll_transmit().expect("an initiation").datagram;
    let answer = devices[1].handle_datagram(now, source, &mut datagram);
    let Ok(Received::Handshake { reply: Some(mut response), .. }) = answer else { panic!("a response") };
    devices[0].handle_datagram(now, source, &mut response).expect("a good response");
    let mut confirmation = devices[0].poll_transmit().expect("a confirmation").datagram;
    devices[1].handle_datagram(now, source, &mut confirmation).expect("good data");
    devices.map(|mut device| {
        let event = device.poll_event();
        let Some(TunnelEvent::SessionEstablished { session, .. }) = event else { panic!("{event:?}") };
        session
    })
}

pub(crate) fn config() -> Config {
    Config { seed: [7; 32], max_flows: 1000 }
}

impl World {
    /// Two workers with sessions and direct paths, without flows.
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        let sessions = sessions(now);
        let mut world =
            Self { now, client: Worker::new(now, config()), gateway: Worker::new(now, config()), sessions };
        world.use_path(None);
        let [ours, theirs] = world.sessions.clone();
        for (worker, peer, session) in
            [(&mut world.client, GATEWAY, ours), (&mut world.gateway, CLIENT, theirs)]
        {
            worker.apply(now, Update::SessionAdded { peer, session: session.clone() });
            worker.apply(now, Update::SendSession { peer, session });
        }
        world
    }

    /// Sends over a relay's channel, or directly.
    pub(crate) fn use_path(&mut self, channel: Option<u16>) {
        let remote = |direct| socket(if channel.is_some() { RELAY_ADDRESS } else { direct });
        let path =
            Path { local: socket(CLIENT_ADDRESS), remote: remote(GATEWAY_ADDRESS), channel, stream: None };
        self.client.apply(self.now, Update::PathChanged { peer: GATEWAY, path });
        let path =
            Path { local: socket(GATEWAY_ADDRESS), remote: remote(CLIENT_ADDRESS), channel, stream: None };
        self.gateway.apply(self.now, Update::PathChanged { peer: CLIENT, path });
    }

    /// Installs a flow that starts with `packet` at the client; beyond the gateway its tuple is
    /// that of `beyond`.
    pub(crate) fn install(&mut self, packet: &[u8], beyond: &[u8]) {
        let [tuple, beyond] = [packet, beyond].map(|packet| view(packet).flow().expect("a flow"));
        let flow = Flow::untranslated(FlowKey::new(Origin::Local, tuple), Origin::Peer(GATEWAY), GRANT);
        install_flow(&mut self.client, self.now, flow);
        let key = FlowKey::new(Origin::Peer(CLIENT), tuple);
        let flow = Flow::new(key, FlowKey::new(Origin::Local, beyond.reversed()), GRANT);
        install_flow(&mut self.gateway, self.now, flow);
    }

    /// Carries a packet from the client's TUN device to the gateway's.
    pub(crate) fn forward(&mut self, packet: &[u8]) -> Result<Vec<u8>, String> {
        let (datagram, path) = seal(&mut self.client, self.now, packet)?;
        let from = if path.channel.is_some() { socket(RELAY_ADDRESS) } else { socket(CLIENT_ADDRESS) };
        deliver(&mut self.gateway, self.now, [socket(GATEWAY_ADDRESS), from], datagram)
    }

    /// Carries a packet from the gateway's TUN device to the client's.
    pub(crate) fn backward(&mut self, packet: &[u8]) -> Result<Vec<u8>, String> {
        let (datagram, path) = seal(&mut self.gateway, self.now, packet)?;
        let from = if path.channel.is_some() { socket(RELAY_ADDRESS) } else { socket(GATEWAY_ADDRESS) };
        deliver(&mut self.client, self.now, [socket(CLIENT_ADDRESS), from], datagram)
    }

    pub(crate) fn wait(&mut self, duration: Duration) {
        let end = self.now + duration;
        for worker in [&mut self.client, &mut self.gateway] {
            while let Some((at, _)) = worker.poll_timeout().filter(|(at, _)| *at <= end) {
                worker.handle_timeout(at);
            }
        }
        self.now = end;
    }
}

/// Installs a flow of which the control thread has no packets.
pub(crate) fn install_flow(worker: &mut Worker, now: Instant, flow: Flow) {
    worker.apply(now, Update::install(flow));
    worker.apply(now, Update::Flushed { misses: 0 });
}

/// Puts a packet through `outbound`; the datagram, or what else came of it.
pub(crate) fn seal(worker: &mut Worker, now: Instant, packet: &[u8]) -> Result<(Vec<u8>, Path), String> {
    let mut same = packet.to_vec();
    let mut out = vec![0xaa; room(packet.len(), 1)];
    match worker.outbound(now, VirtioHeader::NONE, &mut same, &mut out) {
        Outbound::Send { path, datagrams, .. } => {
            assert_eq!(datagrams.segment, datagrams.length, "one packet, one datagram");
            Ok((out[..datagrams.length].to_vec(), path))
        }
        Outbound::Miss => {
            assert_eq!(same, *packet, "a miss leaves the packet as it was");
            Err("miss".to_owned())
        }
        Outbound::TooBig { mtu } => Err(format!("too big for {mtu}")),
        Outbound::Drop(reason) => Err(reason.name().to_owned()),
    }
}

/// Puts a datagram through `inbound`; the packet for the TUN device, or what else came of it.
pub(crate) fn deliver(
    worker: &mut Worker,
    now: Instant,
    [local, from]: [SocketAddr; 2],
    mut datagram: Vec<u8>,
) -> Result<Vec<u8>, String> {
    let original = datagram.clone();
    match worker.inbound(now, local, from, &mut datagram) {
        Inbound::Tun(range) => Ok(datagram[range].to_vec()),
        Inbound::Miss { range, .. } => Err(format!("miss of {} bytes", range.len())),
        Inbound::Keepalive => Err("keepalive".to_owned()),
        Inbound::NotMine => {
            assert_eq!(datagram, original, "what is not mine stays as it was");
            Err("not mine".to_owned())
        }
        Inbound::Drop(reason) => Err(reason.name().to_owned()),
    }
}

pub(crate) fn events(worker: &mut Worker) -> Vec<Event> {
    std::iter::from_fn(|| worker.poll_event()).collect()
}

pub(crate) fn view(packet: &[u8]) -> PacketView {
    PacketView::parse(packet).expect("a good packet")
}

pub(crate) fn udp(source: &str, destination: &str, payload: &[u8]) -> Vec<u8> {
    build::udp(socket(source), socket(destination), payload).expect("one family")
}

/// A TCP packet with the given flags: S, A, F, R.
pub(crate) fn tcp(source: &str, destination: &str, flags: &str) -> Vec<u8> {
    let (source, destination) = (socket(source), socket(destination));
    let builder = match (source.ip(), destination.ip()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => etherparse::PacketBuilder::ipv4(a.octets(), b.octets(), 64),
        (IpAddr::V6(a), IpAddr::V6(b)) => etherparse::PacketBuilder::ipv6(a.octets(), b.octets(), 64),
        _ => panic!("one family"),
    };
    let mut step = builder.tcp(source.port(), destination.port(), 1000, 64_000);
    for flag in flags.chars() {
        step = match flag {
            'S' => step.syn(),
            'A' => step.ack(1),
            'F' => step.fin(),
            _ => step.rst(),
        };
    }
    let mut packet = Vec::new();
    step.write(&mut packet, b"payload").expect("memory");
    packet
}
