//! How long the program takes for a frame: prints `xdp_prog_ns`, and the same for each way through it.
//!
//! The kernel runs the program a million times on one frame and takes the time (`BPF_PROG_TEST_RUN`); what it costs
//! to put the frame back each time is measured as well and taken off. Everything is in the caches: this is the cost
//! of the program, not a rate that any network card reaches.
//!
//! Needs root; works in a network namespace of its own.

use std::net::SocketAddr;
use std::process::{Command, ExitCode};
use std::time::Duration;

use adit_relay_xdp::measure::{self, Timed};
use adit_relay_xdp::{Addresses, Config, Engine, Mode, Route, XdpError};
use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, UdpHeader};
use nix::sched::{CloneFlags, unshare};

const LISTENER: u16 = 3478;
const PORT: u16 = 50_000;
const REPEAT: u32 = 1_000_000;
const ROUNDS: usize = 9;
/// Bytes of data in each packet.
const DATA: usize = 160;
const RELAY: [u8; 6] = [2, 0, 0, 0, 0, 1];
const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Ways through the program: name, client, peer, whether the client sends.
const WAYS: [(&str, &str, &str, bool); 9] = [
    ("to_peer_44", "198.51.100.1:4001", "192.0.2.9:5000", true),
    ("to_client_44", "198.51.100.1:4001", "192.0.2.9:5000", false),
    ("to_peer_66", "[2001:db8:c::1]:4001", "[2001:db8:b::9]:5000", true),
    ("to_client_66", "[2001:db8:c::1]:4001", "[2001:db8:b::9]:5000", false),
    ("to_peer_46", "198.51.100.1:4001", "[2001:db8:b::9]:5000", true),
    ("to_client_64", "198.51.100.1:4001", "[2001:db8:b::9]:5000", false),
    ("to_peer_64", "[2001:db8:c::1]:4001", "192.0.2.9:5000", true),
    ("to_client_46", "[2001:db8:c::1]:4001", "192.0.2.9:5000", false),
    ("within_relay_44", "198.51.100.1:4001", "203.0.113.2:50001", true),
];

/// The ways that the figure is of: ordinary clients and peers, both directions.
const USUAL: usize = 2;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("prog-run: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    lay_wire()?;
    let engine = measure::attach(&config())?;
    let interface = nix::net::if_::if_nametoindex("eth0")?;
    let (mut usual, mut harness) = (Vec::new(), Vec::new());
    for (index, (name, client, peer, from_client)) in WAYS.into_iter().enumerate() {
        let (client, peer): (SocketAddr, SocketAddr) = (client.parse()?, peer.parse()?);
        announce(&engine, index as u64, client, peer)?;
        let frame = frame(client, peer, from_client)?;
        let (program, restoring) = time(&engine, interface, &frame)?;
        let time = program.saturating_sub(restoring);
        println!("xdp_prog_ns_{name} {}", time.as_nanos());
        harness.push(restoring);
        if index < USUAL {
            usual.push(time);
        }
    }
    let mean = |times: &[Duration]| (times.iter().sum::<Duration>() / times.len() as u32).as_nanos();
    println!("xdp_harness_ns {}", mean(&harness));
    println!("xdp_prog_ns {}", mean(&usual));
    Ok(())
}

/// The median of some rounds: the program with putting the frame back, and putting back alone.
fn time(engine: &Engine, interface: u32, frame: &[u8]) -> Result<(Duration, Duration), XdpError> {
    let (mut programs, mut restorings) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        engine.renew_lease();
        programs.push(measure::time(engine, Timed::Program, interface, frame, REPEAT)?);
        restorings.push(measure::time(engine, Timed::Restoring, interface, frame, REPEAT)?);
    }
    programs.sort_unstable();
    restorings.sort_unstable();
    Ok((programs[ROUNDS / 2], restorings[ROUNDS / 2]))
}

fn lay_wire() -> Result<(), Box<dyn std::error::Error>> {
    for line in [
        "link set lo up",
        "link add eth0 address 02:00:00:00:00:01 type veth peer name far",
        "link set eth0 up",
        "link set far up",
        "address add 203.0.113.2/29 dev eth0",
        "address add 2001:db8:a::2/64 dev eth0 nodad",
        "route add default via 203.0.113.1",
        "-6 route add default via 2001:db8:a::1",
        "neigh add 203.0.113.1 lladdr 02:00:00:00:00:02 dev eth0 nud permanent",
        "-6 neigh add 2001:db8:a::1 lladdr 02:00:00:00:00:02 dev eth0 nud permanent",
    ] {
        let status = Command::new("ip").args(line.split(' ')).status()?;
        if !status.success() {
            return Err(format!("ip {line}: {status}").into());
        }
    }
    Ok(())
}

fn config() -> Config {
    let addresses = Addresses {
        local_v4: Some([203, 0, 113, 2].into()),
        local_v6: Some("2001:db8:a::2".parse().expect("address")),
        listener_port: LISTENER,
        ports: PORT..=PORT + 999,
    };
    let interfaces = vec!["eth0".to_owned()];
    Config { interfaces, mode: Mode::Driver, addresses, capacity: 1000, secret: (1, 2) }
}

/// Puts a channel into the table; one that stays within the relay needs its counterpart.
fn announce(
    engine: &Engine,
    name: u64,
    client: SocketAddr,
    peer: SocketAddr,
) -> Result<(), Box<dyn std::error::Error>> {
    let is_within_relay = peer.port() == PORT + 1;
    let route = Route { name, client, channel: 0x4000 + name as u16, port: PORT, peer, is_within_relay };
    engine.insert(&route)?;
    if is_within_relay {
        let (client, peer) = ("198.51.100.3:4003".parse()?, SocketAddr::new(peer.ip(), PORT));
        engine.insert(&Route {
            name: 1000 + name,
            client,
            channel: 0x4000,
            port: PORT + 1,
            peer,
            ..route
        })?;
    }
    Ok(())
}

fn frame(
    client: SocketAddr,
    peer: SocketAddr,
    from_client: bool,
) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let ways = WAYS
        .iter()
        .position(|way| way.1.parse() == Ok(client) && way.2.parse() == Ok(peer) && way.3 == from_client);
    let number = 0x4000 + ways.ok_or("no such way")? as u16;
    let (source, port, payload) = if from_client {
        let header = [number.to_be_bytes(), (DATA as u16).to_be_bytes()].concat();
        (client, LISTENER, [header, vec![7; DATA]].concat())
    } else {
        (peer, PORT, vec![7; DATA])
    };
    let mut frame = Vec::new();
    let ether_type = if source.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
    Ethernet2Header { source: ROUTER, destination: RELAY, ether_type }.write(&mut frame)?;
    let length = 8 + payload.len() as u16;
    let udp = match source {
        SocketAddr::V4(source) => {
            let mut ip = Ipv4Header::new(length, 64, IpNumber::UDP, source.ip().octets(), [203, 0, 113, 2])?;
            ip.header_checksum = ip.calc_header_checksum();
            ip.write(&mut frame)?;
            UdpHeader::with_ipv4_checksum(source.port(), port, &ip, &payload)?
        }
        SocketAddr::V6(source) => {
            let ip = Ipv6Header {
                traffic_class: 0,
                flow_label: Ipv6FlowLabel::ZERO,
                payload_length: length,
                next_header: IpNumber::UDP,
                hop_limit: 64,
                source: source.ip().octets(),
                destination: "2001:db8:a::2".parse::<std::net::Ipv6Addr>()?.octets(),
            };
            ip.write(&mut frame)?;
            UdpHeader::with_ipv6_checksum(source.port(), port, &ip, &payload)?
        }
    };
    udp.write(&mut frame)?;
    frame.extend_from_slice(&payload);
    Ok(frame)
}
