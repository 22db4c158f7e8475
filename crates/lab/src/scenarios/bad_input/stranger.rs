//! A machine on the internet that belongs to nobody, with a public address.

use std::path::PathBuf;

use anyhow::Result;

use crate::process::{self, Finished};
use crate::stage::Stage;
use crate::system::StateDir;
use crate::topology::{self, PUBLIC_RESOLVER, Pair, Zone};
use crate::world::{End, Host};

/// Its place among the public servers, which count from 0.
const PLACE: u8 = 28;

/// The machine, and a place for the files of programs that run there.
#[derive(Debug)]
pub(super) struct Stranger {
    pub(super) host: Host,
    pub(super) address: Pair,
    pub(super) state: StateDir,
}

impl Stranger {
    pub(super) fn join(stage: &mut Stage) -> Result<Self> {
        let host = stage.topology.world.add_host("stranger")?;
        let (near, far) = (End::new(&stage.topology.internet, "stranger"), End::new(&host, "eth0"));
        stage.topology.world.connect(&near, &far)?;
        let subnet = Zone::Servers.outside(PLACE);
        topology::address(&near, &far, subnet, stage.topology.families)?;
        // Programs that set the resolver must set this machine's, not that of the machine outside.
        host.set_resolvers(&[PUBLIC_RESOLVER.v4.into()])?;
        Ok(Self { host, address: subnet.far, state: StateDir::create()? })
    }

    /// A directory that does not exist yet.
    pub(super) fn fresh(&self, name: &str) -> Result<PathBuf> {
        let path = self.state.of("fresh")?.join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        Ok(path)
    }

    /// Runs a command line here until it ends.
    pub(super) fn finish(&self, line: &[String], limit: std::time::Duration) -> Result<Finished> {
        let mut command = self.host.command(&line[0]);
        command.args(&line[1..]);
        process::finish(command, limit)
    }
}
