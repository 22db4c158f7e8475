//! A set of machines in network namespaces, made for one run and always taken down again.
//!
//! The machines see only each other: links join two namespaces directly, nothing is ever attached to the
//! network of the machine the lab runs on. Takedown happens when the `World` is dropped (also by a panic), on
//! Ctrl-C, and, if the process was killed, by the sweep at the start of the next one.

mod host;
mod interrupt;
mod namespace;
mod xdp;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;

pub use host::Host;
pub(crate) use namespace::own_prefix;
pub use namespace::{owned, sweep_stale};

use crate::link::{Link, Profile};

/// Worlds made by this process so far; part of the namespace names.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// One end of a link: on which host, and the name of the interface there.
#[derive(Clone, Debug)]
pub struct End {
    /// The machine that gets the interface.
    pub host: Host,
    /// Name of the interface, at most 15 bytes.
    pub interface: String,
}

impl End {
    /// An end named `interface` on `host`.
    pub fn new(host: &Host, interface: &str) -> Self {
        Self { host: host.clone(), interface: interface.to_owned() }
    }
}

/// Machines and links of one run.
#[derive(Debug)]
pub struct World {
    prefix: String,
    log_dir: PathBuf,
    hosts: Vec<Host>,
    /// Namespace in which link emulators sit; made with the first emulated link.
    wire: Option<Host>,
    emulated_links: u32,
}

/// Whether this process may make namespaces at all.
pub fn is_permitted() -> bool {
    Uid::effective().is_root()
}

impl World {
    /// An empty world whose programs log below `log_dir`.
    ///
    /// Removes what dead runs left behind first, and arranges that Ctrl-C takes this one down.
    ///
    /// # Errors
    /// Without root rights, or when the log directory cannot be made.
    pub fn new(log_dir: &Path) -> Result<Self> {
        if !is_permitted() {
            bail!("network namespaces need root");
        }
        interrupt::install();
        sweep_stale();
        std::fs::create_dir_all(log_dir).with_context(|| format!("making {}", log_dir.display()))?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{}{number}-", namespace::own_prefix()?);
        Ok(Self { prefix, log_dir: log_dir.to_owned(), hosts: Vec::new(), wire: None, emulated_links: 0 })
    }

    /// Directory below which all programs of this world log.
    pub fn log_dir(&self) -> &Path {
        &self.log_dir
    }

    /// Every machine added so far, the emulators' namespace left out.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Adds a machine that does not forward.
    ///
    /// # Errors
    /// When the namespace cannot be made, for example because the name is taken.
    pub fn add_host(&mut self, name: &str) -> Result<Host> {
        let host = Host::create(&self.prefix, name, &self.log_dir)?;
        self.hosts.push(host.clone());
        Ok(host)
    }

    /// Adds a machine that forwards IPv4 and IPv6.
    ///
    /// # Errors
    /// As [`World::add_host`].
    pub fn add_router(&mut self, name: &str) -> Result<Host> {
        let host = self.add_host(name)?;
        host.sysctl("net/ipv4/ip_forward", "1")?;
        host.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        Ok(host)
    }

    /// Joins two machines with a plain virtual cable, both ends up.
    ///
    /// # Errors
    /// When an interface name is taken.
    pub fn connect(&mut self, a: &End, b: &End) -> Result<()> {
        cable(a, b)?;
        set_up(a)?;
        set_up(b)
    }

    /// Joins two machines with a cable that has delay, loss, a rate or an MTU, which may be changed later.
    ///
    /// Segmentation and checksum offloads of both ends are off, since frames must be complete on the way.
    ///
    /// # Errors
    /// When an interface name is taken or the emulator cannot open its sockets.
    pub fn connect_emulated(&mut self, a: &End, b: &End, profile: Profile) -> Result<Link> {
        let wire = self.wire()?;
        let number = self.emulated_links;
        self.emulated_links += 1;
        let inner_a = End::new(&wire, &format!("w{number}a"));
        let inner_b = End::new(&wire, &format!("w{number}b"));
        for (outer, inner) in [(a, &inner_a), (b, &inner_b)] {
            cable(outer, inner)?;
            for end in [outer, inner] {
                disable_offloads(end)?;
                set_up(end)?;
            }
        }
        Link::start(&wire, &inner_a.interface, &inner_b.interface, profile)
    }

    fn wire(&mut self) -> Result<Host> {
        if let Some(wire) = &self.wire {
            return Ok(wire.clone());
        }
        let wire = Host::create(&self.prefix, "wire", &self.log_dir)?;
        // The emulator's interfaces must not speak for themselves.
        wire.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        self.wire = Some(wire.clone());
        Ok(wire)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for host in self.hosts.drain(..).chain(self.wire.take()) {
            namespace::remove(host.namespace());
        }
    }
}

fn cable(a: &End, b: &End) -> Result<()> {
    namespace::ip(&[
        "link",
        "add",
        &a.interface,
        "netns",
        a.host.namespace(),
        "type",
        "veth",
        "peer",
        "name",
        &b.interface,
        "netns",
        b.host.namespace(),
    ])
}

fn set_up(end: &End) -> Result<()> {
    end.host.ip(&format!("link set {} up", end.interface))
}

fn disable_offloads(end: &End) -> Result<()> {
    let features = ["tso", "gso", "gro", "tx", "rx"];
    let mut command = vec!["ethtool", "-K", &end.interface];
    command.extend(features.iter().flat_map(|feature| [*feature, "off"]));
    end.host.run(&command).map(drop)
}
