//! How long the first packet waits: for a connection, and for one more resource on a connection that is open.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::nearby;
use crate::probe::udp::{EchoServer, Probe};
use crate::scenario::{Context, Target};
use crate::stage::{MONTH, Stage};
use crate::topology::{Options, site_address};

const LIMIT: Duration = Duration::from_secs(15);

/// Cold starts in one world; each begins with signing in.
const STARTS: usize = 4;

/// Where the further servers listen: the first one has its port on every address.
const PORT: u16 = 70;

/// Resources beside the one that opened the connection.
const FURTHER: u8 = 10;

/// Lets relays be found and candidates be told before the first packet: nobody signs in and sends at once.
const SETTLE: Duration = Duration::from_millis(700);

/// Round trip to the portal, two to the gateway, and 50 ms, in the world of [`nearby`].
const COLD_TARGET: f64 = 20.0 + 2.0 * 40.0 + 50.0;

pub(super) fn start(context: &mut Context) -> Result<()> {
    for (options, metric, target) in [
        (nearby(), "first_reply_ms", Target::Percentile(95, COLD_TARGET)),
        (Options::lan(), "first_reply_lan_ms", Target::Percentile(50, 12.0)),
    ] {
        let stage = Stage::complete(&options, context)?;
        for round in 0..STARTS {
            if round > 0 {
                stage.client().adit(&["down"])?;
                stage.sign_in(MONTH)?;
            }
            std::thread::sleep(SETTLE);
            context.record_time(metric, first_reply(&stage, stage.echo_address())?, target);
        }
        stage.close()?;
    }
    Ok(())
}

/// From the first datagram to the first echo.
fn first_reply(stage: &Stage, target: SocketAddr) -> Result<Duration> {
    let probe = Probe::start(stage.client().host(), target, 1_000, 64)?;
    let waited = probe.wait_for_reply_after(Instant::now(), LIMIT)?;
    Ok(probe.stop(Duration::ZERO).first_reply.unwrap_or(waited))
}

pub(super) fn second_resource(context: &mut Context) -> Result<()> {
    let stage = Stage::complete(&Options::lan(), context)?;
    let mut servers = Vec::new();
    for number in 0..FURTHER {
        let address = site_address(0, 100 + number).v4;
        servers.push(serve(&stage, address)?);
    }
    std::thread::sleep(SETTLE);
    first_reply(&stage, stage.echo_address())?;
    for (_, address) in &servers {
        let took = first_reply(&stage, *address)?;
        context.record_time("first_reply_lan_ms", took, Target::Percentile(50, 4.0));
    }
    drop(servers);
    stage.close()
}

/// One more address with an echo server, and a resource that leads to it alone.
fn serve(stage: &Stage, address: Ipv4Addr) -> Result<(EchoServer, SocketAddr)> {
    let host = &stage.topology.sites[0].web;
    host.ip(&format!("address add {address}/24 dev eth0"))?;
    let socket = SocketAddr::new(IpAddr::V4(address), PORT);
    let server = EchoServer::start_at(host, socket)?;
    let text = address.to_string();
    let resource = stage.portal.create_resource(&stage.access.site, &text, &text)?;
    stage.portal.create_policy(&stage.access.group, &resource)?;
    Ok((server, socket))
}
