//! Who takes part in the relay race.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::ground::Site;
use crate::coturn::Build;
use crate::coturn::server::{Setup, TurnServer};
use crate::process::{self, Process, Spawn};
use crate::system::{Alone, Programs, Relay, StateDir};
use crate::topology::Families;

/// What relays and users make credentials from.
pub(super) const SECRET: &str = "a secret of this race";

/// Package and name of the example program that is the rod.
pub const ROD: (&str, &str) = ("adit-relay", "relay-rod");

/// Package and name of the example program that makes the load.
pub const GENERATOR: (&str, &str) = ("adit-lab", "turn-load");

const READY_LIMIT: Duration = Duration::from_secs(10);

/// Ports that newer versions of coturn can share among allocations, where this is asked for.
const MULTIPLEX_PORT: &str = "48000";

/// Something that carries datagrams between clients and peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Contestant {
    /// Our relay, userspace alone.
    Adit,
    /// Our relay with its fast path in the kernel.
    AditXdp,
    /// coturn as this machine's Debian has it.
    Coturn,
    /// The newest coturn, told to share ports and to send trains.
    CoturnGso,
    /// The bare way through a relay: how far one can go.
    Rod,
    /// No relay.
    Direct,
}

impl Contestant {
    /// Everybody, in the order in which they are shown.
    pub const ALL: [Self; 6] =
        [Self::Adit, Self::AditXdp, Self::Coturn, Self::CoturnGso, Self::Rod, Self::Direct];

    /// Whom one may leave out.
    pub const PEERS: [Self; 4] = [Self::AditXdp, Self::Coturn, Self::CoturnGso, Self::Rod];

    /// Name on the command line and in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Adit => "adit",
            Self::AditXdp => "adit-xdp",
            Self::Coturn => "coturn",
            Self::CoturnGso => "coturn-gso",
            Self::Rod => "rod",
            Self::Direct => "direct",
        }
    }

    /// The peer of this name.
    pub fn peer(name: &str) -> Option<Self> {
        Self::PEERS.into_iter().find(|peer| peer.name() == name)
    }
}

/// Builds of coturn that were found.
#[derive(Clone, Debug, Default)]
pub struct Coturns {
    /// This machine's.
    pub installed: Option<Build>,
    /// The newest.
    pub newest: Option<Build>,
}

/// A relay that runs.
#[derive(Debug)]
pub(super) enum Running {
    Adit(Relay),
    Coturn(TurnServer),
    Rod(Process),
    Direct,
}

impl Running {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When its program is missing or does not work.
    pub(super) fn start(
        site: &Site,
        coturns: &Coturns,
        programs: &Programs,
        state: &StateDir,
    ) -> Result<Self> {
        match site.contestant {
            Contestant::Adit | Contestant::AditXdp => adit(site, programs).map(Self::Adit),
            Contestant::Coturn => coturn(site, coturns.installed.as_ref(), state, &[]),
            Contestant::CoturnGso => {
                let arguments = ["--multiplex-peer", "--multiplex-peer-port", MULTIPLEX_PORT, "--udp-gso"];
                coturn(site, coturns.newest.as_ref(), state, &arguments)
            }
            Contestant::Rod => rod(site, programs).map(Self::Rod),
            Contestant::Direct => Ok(Self::Direct),
        }
    }

    /// The process that carries the datagrams, if there is one.
    pub(super) fn process(&self) -> Option<&Process> {
        match self {
            Self::Adit(relay) => Some(relay.process()),
            Self::Coturn(server) => Some(server.process()),
            Self::Rod(process) => Some(process),
            Self::Direct => None,
        }
    }
}

/// Our relay, with or without its way through the kernel. A build that does not know that has only the one without.
fn adit(site: &Site, programs: &Programs) -> Result<Relay> {
    let mut help = site.host.command(programs.path("adit-relay"));
    help.arg("--help");
    let knows_xdp = process::finish(help, READY_LIMIT)?.stdout.contains("--xdp");
    let arguments: &[&str] = match (site.contestant, knows_xdp) {
        (Contestant::AditXdp, true) => &["--xdp", "driver"],
        (Contestant::AditXdp, false) => bail!("this build of adit-relay has no --xdp"),
        (_, true) => &["--xdp", "off"],
        (_, false) => &[],
    };
    let alone = Alone { address: site.address, families: Families::V4, secret: SECRET, arguments };
    Relay::start_alone(&site.host, &alone, programs)
}

fn coturn(site: &Site, build: Option<&Build>, state: &StateDir, arguments: &[&str]) -> Result<Running> {
    let build = build.with_context(|| format!("no program for {}", site.contestant.name()))?;
    let directory = state.of(site.contestant.name())?;
    let off = ["--no-tcp", "--no-tls", "--no-auth-pings"];
    let setup = Setup {
        build,
        address: site.address,
        families: Families::V4,
        secret: SECRET,
        directory: Path::new(&directory),
        arguments: off.iter().chain(arguments).map(Into::into).collect(),
    };
    Ok(Running::Coturn(TurnServer::start(&site.host, &setup)?))
}

fn rod(site: &Site, programs: &Programs) -> Result<Process> {
    let listen = format!("{}:{}", site.address.v4, Relay::PORT);
    let spawn = Spawn::new("relay-rod", programs.example(ROD.1)).args(["--listen", &listen]);
    let mut process = site.host.spawn(&spawn)?;
    process.wait_for_output("ready", READY_LIMIT)?;
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_found_by_name_and_our_relay_is_none() {
        for peer in Contestant::PEERS {
            assert_eq!(Contestant::peer(peer.name()), Some(peer));
        }
        assert_eq!(Contestant::peer("adit"), None);
    }
}
