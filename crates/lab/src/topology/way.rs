//! Two networks that a client can move between, as a laptop does from a cable to the next room's wireless.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{Families, Subnet};
use crate::link::Link;
use crate::nat::Router;
use crate::world::{End, Host};

/// Number of the first client's second router among client routers.
pub(super) const FIRST: u8 = 15;

/// The client's interface to its second router.
pub(super) const INTERFACE: &str = "eth1";

/// A router's interface to its client.
const ROUTER_INTERFACE: &str = "lan";

/// Longest time a move may take.
const LIMIT: Duration = Duration::from_secs(5);

/// A client's second network.
#[derive(Debug)]
pub struct Way {
    pub(super) host: Host,
    /// The router of the second network.
    pub router: Router,
    /// The second router's cable to the internet, when emulated.
    pub link: Option<Link>,
    /// The first router, the second; both call their interface to the client `lan`.
    pub(super) routers: [Host; 2],
    /// Behind the first router, behind the second.
    pub(super) subnets: [Subnet; 2],
    pub(super) families: Families,
}

/// Addresses the router's end; the client's end stays down.
pub(super) fn prepare(near: &End, far: &End, subnet: Subnet, families: Families) -> Result<()> {
    far.host.ip(&format!("link set {} down", far.interface))?;
    if families.has_v4() {
        near.host
            .ip(&format!("address add {}/{} dev {}", subnet.near.v4, subnet.v4_length, near.interface))?;
    }
    if families.has_v6() {
        near.host.ip(&format!("address add {}/64 dev {}", subnet.near.v6, near.interface))?;
    }
    Ok(())
}

impl Way {
    /// Leaves the first network and joins the second: break, then make.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take(&self) -> Result<()> {
        self.switch("eth0", INTERFACE, 1)
    }

    /// Goes back to the first network.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn leave(&self) -> Result<()> {
        self.switch(INTERFACE, "eth0", 0)
    }

    fn switch(&self, from: &str, to: &str, side: usize) -> Result<()> {
        let subnet = self.subnets[side];
        self.batch(&format!("address flush dev {from}\nlink set {from} down\nlink set {to} up"))?;
        wait_until_plugged(&self.routers[side])?;
        let mut lines = Vec::new();
        if self.families.has_v4() {
            lines.push(format!("address add {}/{} dev {to}", subnet.far.v4, subnet.v4_length));
            lines.push(format!("route add default via {} dev {to}", subnet.near.v4));
        }
        if self.families.has_v6() {
            lines.push(format!("address add {}/64 dev {to} nodad", subnet.far.v6));
            lines.push(format!("route add ::/0 via {} dev {to}", subnet.near.v6));
        }
        self.batch(&lines.join("\n"))
    }

    /// All in one process, so that the move takes no longer than the kernel needs.
    fn batch(&self, script: &str) -> Result<()> {
        let mut command = self.host.command("ip");
        command.args(["-batch", "-"]);
        let finished = crate::process::finish_with_input(command, script.as_bytes(), LIMIT)
            .context("moving to another network")?;
        if !finished.success() {
            bail!("ip -batch ended with {}: {}\n{script}", finished.status, finished.complaint());
        }
        Ok(())
    }
}

/// Waits until a router's end of the cable sends, as it does before anybody gets an address from it.
///
/// An end whose other end just came up drops what it should send (`noop`) until the kernel has seen to it. An
/// answer to the client's first question for the router's hardware address would be lost, and asked for again
/// only after a second.
fn wait_until_plugged(router: &Host) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while router.run(&["ip", "link", "show", "dev", ROUTER_INTERFACE])?.contains("qdisc noop ") {
        if Instant::now() > deadline {
            bail!("{}: {ROUTER_INTERFACE} does not come up", router.name());
        }
    }
    Ok(())
}
