//! A small internet: machines with public addresses around one router, nothing translated or filtered.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use anyhow::Result;

use crate::topology::{self, Families, Pair, Zone};
use crate::world::{End, Host, World};

/// A machine with its own network.
#[derive(Debug)]
pub(in crate::scenarios) struct Machine {
    pub(in crate::scenarios) host: Host,
    pub(in crate::scenarios) address: Pair,
    /// A second address of the same network that nobody has yet.
    pub(in crate::scenarios) spare: Pair,
}

impl Machine {
    pub(in crate::scenarios) fn v4(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.address.v4), port)
    }

    pub(in crate::scenarios) fn v6(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V6(self.address.v6), port)
    }
}

/// The machines, in the order of their names; dropping it takes them down.
#[derive(Debug)]
pub(in crate::scenarios) struct Ground<const N: usize> {
    pub(in crate::scenarios) machines: [Machine; N],
    /// The router between them; its interface to each machine has the machine's name.
    pub(in crate::scenarios) router: Host,
    _world: World,
}

impl<const N: usize> Ground<N> {
    pub(in crate::scenarios) fn raise(names: [&str; N], log_dir: &Path) -> Result<Self> {
        let mut world = World::new(log_dir)?;
        let internet = world.add_router("internet")?;
        let mut machines = Vec::with_capacity(N);
        for (index, name) in (0..).zip(names) {
            machines.push(join(&mut world, &internet, name, index)?);
        }
        let machines = machines.try_into().map_err(|_| anyhow::anyhow!("a machine is missing"))?;
        Ok(Self { machines, router: internet, _world: world })
    }
}

fn join(world: &mut World, internet: &Host, name: &str, index: u8) -> Result<Machine> {
    let host = world.add_host(name)?;
    let (near, far) = (End::new(internet, name), End::new(&host, "eth0"));
    let subnet = Zone::Servers.outside(index);
    world.connect(&near, &far)?;
    topology::address(&near, &far, subnet, Families::Both)?;
    let [a, b, c, d] = subnet.far.v4.octets();
    let mut v6 = subnet.far.v6.segments();
    v6[7] += 1;
    let spare = Pair { v4: [a, b, c, d + 1].into(), v6: v6.into() };
    Ok(Machine { host, address: subnet.far, spare })
}
