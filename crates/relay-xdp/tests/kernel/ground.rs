//! A network namespace with the interface of a relay, and the program attached to it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;

use adit_relay_xdp::measure::{self, Verdict};
use adit_relay_xdp::{Addresses, Config, Engine, Mode};
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, unshare};

pub(crate) const LOCAL_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
pub(crate) const LOCAL_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 2);
pub(crate) const LISTENER: u16 = 3478;
pub(crate) const FIRST_PORT: u16 = 50_000;
pub(crate) const LAST_PORT: u16 = 50_999;
/// Hardware addresses: the relay's, its router's, and that of a neighbour on the same wire.
pub(crate) const RELAY: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const NEIGHBOUR: [u8; 6] = [2, 0, 0, 0, 0, 3];
/// A neighbour that can be reached without the router.
pub(crate) const NEIGHBOUR_V4: &str = "203.0.113.5:9999";
/// An address that no route leads to.
pub(crate) const NOWHERE_V4: &str = "198.18.0.1:9999";
/// A neighbour that does not answer.
pub(crate) const SILENT_V4: &str = "203.0.113.6:9999";
pub(crate) const MTU: usize = 1500;

/// Runs `test` on a thread in a fresh network namespace; without root it says why it does not.
pub(crate) fn isolated(test: impl FnOnce() + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: network namespaces and XDP need root");
        return;
    }
    let worker = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
        lay_wire();
        test();
    });
    if let Err(panic) = worker.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a program in the namespace of this thread.
pub(crate) fn command(line: &str) {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a program");
    let output = Command::new(program).args(words).output().expect("starts");
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
}

fn lay_wire() {
    for line in [
        "ip link set lo up",
        "ip link add eth0 address 02:00:00:00:00:01 type veth peer name far address 02:00:00:00:00:02",
        "ip link set eth0 up",
        "ip link set far up",
        "ip address add 203.0.113.2/29 dev eth0",
        "ip address add 2001:db8:a::2/64 dev eth0 nodad",
        "ip route add default via 203.0.113.1",
        "ip -6 route add default via 2001:db8:a::1",
        "ip route add unreachable 198.18.0.0/15",
        "ip neigh add 203.0.113.1 lladdr 02:00:00:00:00:02 dev eth0 nud permanent",
        "ip neigh add 203.0.113.5 lladdr 02:00:00:00:00:03 dev eth0 nud permanent",
        "ip -6 neigh add 2001:db8:a::1 lladdr 02:00:00:00:00:02 dev eth0 nud permanent",
    ] {
        command(line);
    }
}

pub(crate) fn addresses() -> Addresses {
    Addresses {
        local_v4: Some(LOCAL_V4),
        local_v6: Some(LOCAL_V6),
        listener_port: LISTENER,
        ports: FIRST_PORT..=LAST_PORT,
    }
}

pub(crate) fn config() -> Config {
    Config {
        interfaces: vec!["eth0".to_owned()],
        mode: Mode::Driver,
        addresses: addresses(),
        capacity: 1000,
        secret: (1, 2),
    }
}

/// The program, attached.
pub(crate) struct Ground {
    pub(crate) engine: Engine,
    interface: u32,
}

impl Ground {
    pub(crate) fn new() -> Self {
        Self::with(&config())
    }

    pub(crate) fn with(config: &Config) -> Self {
        let engine = Engine::attach(config).expect("attaches");
        Self { engine, interface: if_nametoindex("eth0").expect("interface") }
    }

    /// What the program does with a frame.
    pub(crate) fn run(&self, frame: &[u8]) -> Verdict {
        measure::run(&self.engine, self.interface, frame).expect("runs")
    }
}

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("address")
}
