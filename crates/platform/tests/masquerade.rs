//! Masquerading against the real kernel: two namespaces, a tunnel device and `nft`.

mod namespace;

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::mpsc;
use std::time::Duration;

use adit_platform::masquerade::{MasqueradeControl as _, MasqueradeState, NftablesMasquerade};
use adit_platform::tun::{Config, Offload, Tun};
use namespace::{enter, ip, isolated, run, set_sysctl, sysctl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

const CLIENT: [u8; 4] = [100, 64, 0, 7];
const RESOURCE: [u8; 4] = [10, 50, 0, 2];

/// A resource in a namespace of its own that answers every datagram and reports who sent it.
struct Resource {
    seen: mpsc::Receiver<SocketAddr>,
    commands: mpsc::Sender<&'static str>,
}

/// A gateway host: `adit-gw` towards the clients, `ethernet0` (10.50.0.1) towards the resource (10.50.0.2).
fn gateway() -> (Tun, Resource) {
    let tun = Tun::create(&Config { name: "adit-gw".to_owned(), mtu: 1_280, offload: Offload::None })
        .expect("creates");
    ip("link set adit-gw up");
    ip("route add 100.64.0.0/11 dev adit-gw");
    let resource = spawn_resource();
    ip("address add 10.50.0.1/24 dev ethernet0");
    ip("link set ethernet0 up");
    (tun, resource)
}

fn spawn_resource() -> Resource {
    let (ready, wait) = mpsc::channel();
    let (go, linked) = mpsc::channel::<()>();
    let (report, seen) = mpsc::channel();
    let (commands, orders) = mpsc::channel::<&'static str>();
    std::thread::spawn(move || {
        enter();
        ready.send(nix::unistd::gettid()).expect("sends");
        linked.recv().expect("linked");
        ip("address add 10.50.0.2/24 dev ethernet1");
        ip("link set ethernet1 up");
        ip("route add default via 10.50.0.1");
        let socket = UdpSocket::bind("10.50.0.2:7").expect("binds");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("timeout");
        ready.send(nix::unistd::gettid()).expect("sends");
        loop {
            let mut buffer = [0; 64];
            if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..length], from);
                if report.send(from).is_err() {
                    return;
                }
            }
            match orders.try_recv() {
                Ok(destination) => drop(socket.send_to(b"unasked", destination)),
                Err(mpsc::TryRecvError::Empty) => {}
                Err(mpsc::TryRecvError::Disconnected) => return,
            }
        }
    });
    let thread = wait.recv().expect("namespace");
    ip("link add ethernet0 type veth peer name ethernet1");
    ip(&format!("link set ethernet1 netns {thread}"));
    go.send(()).expect("sends");
    wait.recv().expect("ready");
    Resource { seen, commands }
}

fn udp(source: [u8; 4], destination: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(28 + payload.len()).expect("short").to_be_bytes();
    let length = u16::try_from(8 + payload.len()).expect("short").to_be_bytes();
    let mut packet = vec![0x45, 0, total[0], total[1], 0, 1, 0, 0, 64, 17, 0, 0];
    packet.extend(source);
    packet.extend(destination);
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet.extend([0x13, 0x88, 0, 7, length[0], length[1], 0, 0]); // port 5000 to port 7, no checksum
    packet.extend(payload);
    packet
}

fn read(tun: &Tun, limit: u16) -> Option<Vec<u8>> {
    let mut buffer = vec![0; 2_048];
    loop {
        let mut wait = [PollFd::new(tun.as_fd(), PollFlags::POLLIN)];
        if poll(&mut wait, PollTimeout::from(limit)).expect("polls") == 0 {
            return None;
        }
        match tun.read(&mut buffer) {
            Ok(length) if buffer[0] >> 4 == 4 => return Some(buffer[..length].to_vec()),
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
}

fn state() -> MasqueradeState {
    MasqueradeState {
        interface: "adit-gw".to_owned(),
        ranges: ["100.64.0.0/11", "fd00:ad17::/107"]
            .iter()
            .map(|text| text.parse().expect("range"))
            .collect(),
    }
}

#[test]
fn clients_reach_the_resource_with_the_gateways_address_and_get_answers() {
    isolated(|| async {
        let (tun, resource) = gateway();
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut masquerade = NftablesMasquerade::new(directory.path());
        masquerade.apply(&state()).expect("applies");
        tun.write(&udp(CLIENT, RESOURCE, b"hello")).expect("writes");
        let seen = resource.seen.recv_timeout(Duration::from_secs(5)).expect("arrives");
        assert_eq!(seen.ip().to_string(), "10.50.0.1");
        let answer = read(&tun, 5_000).expect("an answer");
        assert_eq!((&answer[12..16], &answer[16..20]), (&RESOURCE[..], &CLIENT[..]));
        assert_eq!(&answer[28..], b"hello");
    });
}

#[test]
fn the_resource_side_cannot_open_connections_to_clients() {
    isolated(|| async {
        let (tun, resource) = gateway();
        let directory = tempfile::tempdir().expect("temporary directory");
        let mut masquerade = NftablesMasquerade::new(directory.path());
        masquerade.apply(&state()).expect("applies");
        resource.commands.send("100.64.0.7:9").expect("sends");
        assert_eq!(read(&tun, 300), None);
    });
}

#[test]
fn everything_is_taken_back_also_after_a_crash() {
    isolated(|| async {
        ip("link add ethernet0 type veth peer name ethernet1");
        set_sysctl("net/ipv6/conf/ethernet0/accept_ra", "1");
        run("nft", "add table inet theirs");
        let directory = tempfile::tempdir().expect("temporary directory");
        let settings = || {
            ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/ethernet0/accept_ra"]
                .map(sysctl)
        };
        let before = (settings(), run("nft", "list ruleset"));
        let mut crashing = NftablesMasquerade::new(directory.path());
        crashing.apply(&state()).expect("applies");
        crashing.apply(&state()).expect("applies again");
        assert_eq!(settings(), ["1", "1", "2"]);
        assert_eq!(run("nft", "list ruleset").matches("100.64.0.0/11").count(), 1, "set once");
        drop(crashing);
        let mut next = NftablesMasquerade::new(directory.path());
        next.clear().expect("clears");
        assert_eq!((settings(), run("nft", "list ruleset")), before);
        next.clear().expect("clears nothing");
    });
}
