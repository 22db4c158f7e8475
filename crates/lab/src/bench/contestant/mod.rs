//! Tunnels of all kinds, brought up between the two ends of one world.

mod adit;
mod nebula;
mod rod;
mod wireguard;

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

pub(super) use adit::Adit;

use super::ground::{self, Ground};
use super::implementation::Implementation;
use crate::process::Process;
use crate::system::{Programs, StateDir};
use crate::world::Host;

/// Package and name of the example program that is the rod.
pub const ROD: (&str, &str) = ("adit-platform", "tunnel-rod");

/// Inner MTU of all peers, as WireGuard and Nebula are used on an Ethernet.
const MTU: u16 = 1420;

/// Longest wait for the first answer through a tunnel.
const REACH_LIMIT: Duration = Duration::from_secs(15);

const READY_LIMIT: Duration = Duration::from_secs(10);

/// A peer's program.
#[derive(Clone, Debug)]
pub struct Program {
    /// Whose it is.
    pub implementation: Implementation,
    /// Where it is.
    pub path: PathBuf,
    /// What exactly is measured.
    pub version: String,
}

/// A tunnel that is up. It ends when dropped.
#[derive(Debug)]
pub(super) struct Contestant {
    pub(super) implementation: Implementation,
    /// The machine whose users go through it.
    pub(super) host: Host,
    /// What they connect to.
    pub(super) target: String,
    /// Process ids of its ends, and of a relay between them.
    pub(super) client: Option<u32>,
    pub(super) gateway: Option<u32>,
    pub(super) relay: Option<u32>,
    _processes: Vec<Process>,
}

impl Contestant {
    /// A peer whose two ends are these processes.
    fn of_peer(implementation: Implementation, ground: &Ground, ends: Option<[Process; 2]>) -> Self {
        let pids = ends.as_ref().map(|ends| ends.each_ref().map(Process::pid));
        Self {
            implementation,
            host: ground.client.clone(),
            target: ground::resource_address(implementation),
            client: pids.map(|[client, _]| client),
            gateway: pids.map(|[_, gateway]| gateway),
            relay: None,
            _processes: ends.map(Vec::from).unwrap_or_default(),
        }
    }

    /// Process ids of everything that carries its packets.
    pub(super) fn pids(&self) -> impl Iterator<Item = u32> {
        [self.client, self.gateway, self.relay].into_iter().flatten()
    }

    /// Waits until a first answer comes.
    ///
    /// # Errors
    /// When none comes in time.
    pub(super) fn reach(&self) -> Result<()> {
        let begin = Instant::now();
        // A name has addresses of both versions; the race is about IPv4.
        let command = ["ping", "-4", "-n", "-q", "-c", "1", "-W", "1", &self.target];
        while !self.host.finish(&command, REACH_LIMIT)?.success() {
            if begin.elapsed() > REACH_LIMIT {
                bail!("{}: {} does not answer", self.implementation.name(), self.target);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// Brings up one peer and waits until it carries packets.
///
/// # Errors
/// When its program is missing or does not work.
pub(super) fn start_peer(
    peer: Implementation,
    ground: &Ground,
    found: &[Program],
    programs: &Programs,
    state: &StateDir,
) -> Result<Contestant> {
    let program = || {
        let program = found.iter().find(|program| program.implementation == peer);
        program.map(|program| program.path.as_path()).with_context(|| format!("no {}", peer.name()))
    };
    let ends = match peer {
        Implementation::Raw => None,
        Implementation::Rod | Implementation::RodWithoutCrypto => Some(rod::start(peer, ground, programs)?),
        Implementation::Nebula => Some(nebula::start(ground, program()?, state)?),
        Implementation::WireguardGo | Implementation::Gotatun | Implementation::Boringtun => {
            Some(wireguard::start(peer, ground, program()?, state)?)
        }
        Implementation::Adit | Implementation::AditByName | Implementation::AditRelayed => {
            bail!("{} is no peer", peer.name())
        }
    };
    let contestant = Contestant::of_peer(peer, ground, ends);
    contestant.reach()?;
    Ok(contestant)
}

/// One end of a peer's tunnel.
struct Side<'a> {
    host: &'a Host,
    processor: Option<usize>,
    interface: String,
    /// Address inside the tunnel.
    inner: Ipv4Addr,
    port: u16,
    /// Where the other end is.
    other: std::net::SocketAddrV4,
}

/// Both ends of a peer's tunnel, the client's first. Names, addresses and ports are the peer's own.
///
/// Inner addresses are link-local (RFC 3927), since implementations that look for all ways between two hosts would
/// take any other for one more of them, and might run through a tunnel of a competitor.
fn sides(peer: Implementation, ground: &Ground) -> [Side<'_>; 2] {
    let number = peer.number();
    let [client_port, gateway_port] = [51_000, 52_000].map(|base| base + u16::from(number));
    let side = |host, processor, last, port, other, other_port| Side {
        host,
        processor,
        interface: format!("tunnel{number}"),
        inner: Ipv4Addr::new(169, 254, number, last),
        port,
        other: std::net::SocketAddrV4::new(other, other_port),
    };
    let (client, gateway) = (Ground::client_address(), Ground::gateway_address());
    [
        side(&ground.client, ground.client_processor(), 1, client_port, gateway, gateway_port),
        side(&ground.gateway, ground.gateway_processor(), 2, gateway_port, client, client_port),
    ]
}

/// Gives both ends their addresses, and the client the route to the peer's resource.
fn address(sides: &[Side<'_>; 2], peer: Implementation) -> Result<()> {
    for side in sides {
        let (host, interface) = (side.host, &side.interface);
        host.ip(&format!("address add {}/24 dev {interface}", side.inner))?;
        host.ip(&format!("link set {interface} up mtu {MTU}"))?;
    }
    let [client, _] = sides;
    let resource = ground::resource_address(peer);
    client.host.ip(&format!("route add {resource}/32 dev {} src {}", client.interface, client.inner))
}
