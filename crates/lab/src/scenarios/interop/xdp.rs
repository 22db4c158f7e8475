//! coturn's client against our relay again, this time with the kernel forwarding for it.

use anyhow::Result;

use super::ground::Ground;
use super::turn::{ECHO_PORT, MESSAGES, SESSIONS, their_client};
use super::turn_servers::{Options, Server, Servers};
use crate::probe::udp::EchoServer;
use crate::scenario::{Context, Target};
use crate::scenarios::kernel_path::counters::Counters;
use crate::world::End;

/// Visits whose data travels on channels over UDP; the others use indications, TCP or TLS.
const WITH_CHANNELS: u32 = 6;

/// Mode, and the relay's arguments.
const MODES: [(&str, &[&str]); 2] = [
    (" with XDP in driver mode", &["--xdp", "driver"]),
    (" with XDP in generic mode", &["--xdp", "generic"]),
];

pub(crate) fn xdp(context: &mut Context) -> Result<()> {
    let ground = Ground::raise(["adit", "coturn", "client", "peer"], context.log_dir())?;
    let [adit, coturn, ..] = &ground.machines;
    let _echo = EchoServer::start(&ground.machines[3].host, ECHO_PORT)?;
    End::new(&ground.router, "adit").face_program()?;
    for (mode, arguments) in MODES {
        let options = Options { adit: arguments, ..Options::default() };
        let servers = Servers::start([adit, coturn], &context.programs, options)?;
        their_client(&ground, Server::Adit, mode, context)?;
        judge(mode, &Counters::settled(&adit.host)?, context);
        servers.adit.stop()?;
    }
    Ok(())
}

/// Each message takes at least one way to the echo server and one back, or one within the relay.
fn judge(mode: &str, counters: &Counters, context: &mut Context) {
    let messages = f64::from(SESSIONS * MESSAGES * WITH_CHANNELS);
    let forwarded = counters.forwarded() as f64;
    context.record(&format!("through the kernel{mode}"), forwarded, "packets", Target::AtLeast(messages));
    let ways = [
        ("to peers", counters.forwarded_to("to_peer")),
        ("to clients", counters.forwarded_to("to_client")),
        ("within the relay", counters.within_relay()),
    ];
    for (way, forwarded) in ways {
        let name = format!("{way} through the kernel{mode}");
        context.record(&name, forwarded as f64, "packets", Target::AtLeast(1.0));
    }
    counters.record_passed(mode, context);
}
