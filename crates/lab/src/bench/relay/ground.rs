//! The world of the relay race: a machine for each relay, and one that is every client and every peer.
//!
//! ```text
//!              ┌─ adit        203.0.113.2
//!              ├─ coturn      203.0.113.10
//! generator ───┼─ …
//!              └─ rod
//! ```
//!
//! Each relay has a cable of its own, so that what one loads into its interface (XDP) is of no concern to the others.
//! Clients have addresses in a large network that the generator owns whole (198.18.0.0/15, RFC 2544): many users are in
//! many prefixes, and relays budget by prefix.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::contestant::Contestant;
use crate::bench::usage;
use crate::topology::{self, Families, Pair, Zone};
use crate::world::{End, Host, World};

/// Where clients and strangers have their addresses.
pub(super) const CLIENTS: &str = "198.18.0.0/15";

/// A relay's machine and its cable.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) contestant: Contestant,
    pub(super) host: Host,
    pub(super) address: Pair,
    /// Address of the peers on this cable.
    pub(super) peers: IpAddr,
    /// The two ends.
    near: End,
    far: End,
}

/// The machines; dropping it takes them down.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) generator: Host,
    pub(super) sites: Vec<Site>,
    _world: World,
}

impl Ground {
    /// Raises the world, with logs below `log_dir`.
    ///
    /// # Errors
    /// Without root rights, or when a part cannot be made; what was made by then is removed.
    pub(super) fn raise(contestants: &[Contestant], log_dir: &Path) -> Result<Self> {
        let mut world = World::new(log_dir)?;
        let generator = world.add_host("generator")?;
        generator.ip(&format!("route add local {CLIENTS} dev lo"))?;
        let mut sites = Vec::new();
        for (index, contestant) in (0..).zip(contestants) {
            sites.push(site(&mut world, &generator, *contestant, index)?);
        }
        for host in world.hosts() {
            // A machine with many cables must not wonder through which one a packet comes.
            for scope in ["all", "default"] {
                host.sysctl(&format!("net/ipv4/conf/{scope}/rp_filter"), "0")?;
            }
        }
        Ok(Self { generator, sites, _world: world })
    }
}

fn site(world: &mut World, generator: &Host, contestant: Contestant, index: u8) -> Result<Site> {
    let host = world.add_host(contestant.name())?;
    // Kernel threads are named after interfaces, so these need names of their own: see `receive_in_threads`.
    let (near, far) =
        (End::new(generator, &interface("near", index)), End::new(&host, &interface("far", index)));
    let subnet = Zone::Servers.outside(index);
    world.connect(&near, &far)?;
    topology::address(&near, &far, subnet, Families::V4)?;
    Ok(Site { contestant, host, address: subnet.far, peers: subnet.near.v4.into(), near, far })
}

/// At most 15 bytes, and different from those of a race that runs beside this one.
fn interface(end: &str, index: u8) -> String {
    format!("{end}{index}-{}", std::process::id() % 1_000_000)
}

impl Site {
    /// Has both ends of the cable receive with NAPI, and the generator finish its checksums, as a wire would want it. A
    /// relay with a program gets a cable on which a program can send.
    ///
    /// # Errors
    /// When the kernel cannot.
    pub(super) fn prepare_for_xdp(&self) -> Result<()> {
        self.far.host.run(&["ethtool", "-K", &self.far.interface, "gro", "on"])?;
        self.near.host.run(&["ethtool", "-K", &self.near.interface, "gro", "on", "tx", "off"])?;
        if self.contestant == Contestant::AditXdp { self.near.face_program() } else { Ok(()) }
    }

    /// Has both ends of the cable receive in kernel threads (threaded NAPI).
    ///
    /// Usually what arrives is worked off by whoever happens to run, which on one machine is mostly the sender. Here it
    /// is worked off by a thread of the interface, so that the work of the relay's machine can be told from that of
    /// the generator's, also where no program takes part in it.
    ///
    /// # Errors
    /// When the kernel cannot, or the cable is not prepared.
    pub(super) fn receive_in_threads(&self) -> Result<()> {
        for end in [&self.near, &self.far] {
            let file = format!("/sys/class/net/{}/threaded", end.interface);
            end.host.run(&["sh", "-c", "echo 1 > \"$0\"", &file])?;
        }
        self.kernel_threads().map(drop)
    }

    /// Processor seconds of the threads that receive for the relay's machine.
    ///
    /// # Errors
    /// Without such threads.
    pub(super) fn kernel_seconds(&self) -> Result<f64> {
        self.kernel_threads()?.into_iter().map(usage::exact_cpu_seconds).sum()
    }

    fn kernel_threads(&self) -> Result<Vec<u32>> {
        // The kernel cuts names of threads short, but shows kernel threads' whole names here.
        let wanted = format!("napi/{}-", self.far.interface);
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").context("reading /proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if name.starts_with(&wanted) {
                found.push(pid);
            }
        }
        if found.is_empty() {
            bail!("{} has no kernel thread: this kernel does not know threaded NAPI", self.far.interface);
        }
        Ok(found)
    }
}
