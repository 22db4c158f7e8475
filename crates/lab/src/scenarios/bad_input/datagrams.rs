//! Garbage at every UDP port of relay, gateway and client.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::corpus::{self, Bytes};
use super::stranger::Stranger;
use super::vitals;
use crate::probe::http;
use crate::process::Process;
use crate::scenario::{Context, Target};
use crate::stage::Stage;
use crate::system::Relay;
use crate::world::Host;

/// Pause after each datagram was sent to every target: a few thousand a second in all.
const PAUSE: Duration = Duration::from_millis(3);

/// Ports of one kind that are attacked, at most.
const MOST_PORTS: usize = 2;

/// Ports in this range are lent by relays.
const FIRST_LENT: u16 = 49_152;

/// A port to attack and a machine that can reach it.
#[derive(Debug)]
pub(super) struct Victim {
    pub(super) from: Host,
    pub(super) target: SocketAddr,
}

/// Local ports of the UDP sockets in a program's network.
pub(super) fn ports(process: &Process, is_v4: bool) -> Result<Vec<u16>> {
    let table = if is_v4 { "udp" } else { "udp6" };
    let path = format!("/proc/{}/net/{table}", process.pid());
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let local = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1));
    let ports = local.filter_map(|local| u16::from_str_radix(local.rsplit_once(':')?.1, 16).ok());
    Ok(ports.collect::<BTreeSet<u16>>().into_iter().collect())
}

/// Everything that can be sent to: the relay from the internet, the others from their routers.
fn victims(stage: &Stage, stranger: &Stranger) -> Result<Vec<Victim>> {
    let mut victims = Vec::new();
    let relay = &stage.topology.relays[0];
    let process = stage.relays[0].process();
    for address in [IpAddr::from(relay.address.v4), relay.address.v6.into()] {
        let open = ports(process, address.is_ipv4())?;
        let lent = open.into_iter().filter(|port| *port >= FIRST_LENT).take(MOST_PORTS);
        for port in std::iter::once(Relay::PORT).chain(lent) {
            victims.push(Victim { from: stranger.host.clone(), target: SocketAddr::new(address, port) });
        }
    }
    ensure!(victims.len() >= 4, "the relay lends no port: {victims:?}");
    let gateway = stage.gateways[0].process().context("the gateway does not run")?;
    for (edge, process) in
        [(stage.topology.client(), stage.client().process()), (stage.topology.gateway(), gateway)]
    {
        for address in [IpAddr::from(edge.address.v4), edge.address.v6.into()] {
            let open = ports(process, address.is_ipv4())?;
            ensure!(!open.is_empty(), "{} has no UDP port for {address}", process.name());
            for port in open.into_iter().take(MOST_PORTS) {
                let from = edge.router.host.clone();
                victims.push(Victim { from, target: SocketAddr::new(address, port) });
            }
        }
    }
    Ok(victims)
}

/// A socket on `host` that can send to `target`.
pub(super) fn socket(host: &Host, target: SocketAddr) -> Result<UdpSocket> {
    let any: SocketAddr = if target.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = host.enter(|| UdpSocket::bind(any))??;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

pub(super) fn send(stage: &Stage, stranger: &Stranger, context: &mut Context) -> Result<()> {
    let victims = victims(stage, stranger)?;
    let mut sockets = Vec::new();
    for victim in &victims {
        sockets.push((socket(&victim.from, victim.target)?, victim.target));
    }
    let before = Counted::take(stage)?;
    let corpus = corpus::datagrams(&mut Bytes::new(0x5eed));
    let mut sent = 0_u32;
    for datagram in &corpus {
        for (socket, target) in &sockets {
            // What does not fit a buffer on the way, or met an ICMP error of an earlier one, is not counted.
            sent += u32::from(socket.send_to(datagram, target).is_ok());
        }
        std::thread::sleep(PAUSE);
    }
    let wanted = corpus.len() * victims.len();
    context.record("garbage datagrams: ports", victims.len() as f64, "ports", Target::Shown);
    context.record(
        "garbage datagrams: sent",
        f64::from(sent),
        "datagrams",
        Target::AtLeast(wanted as f64 * 0.95),
    );
    // Longer than the interval at which every program copies its counters to the metrics.
    std::thread::sleep(Duration::from_millis(5_500));
    before.compare(stage, corpus.len(), context)
}

/// What kernel and programs counted.
struct Counted {
    received: Vec<u64>,
    dropped: Vec<f64>,
}

/// Programs with UDP ports.
fn receivers(stage: &Stage) -> Vec<&Process> {
    vitals::programs(stage).into_iter().filter(|process| process.name() != "adit-portal").collect()
}

impl Counted {
    fn take(stage: &Stage) -> Result<Self> {
        let receivers = receivers(stage);
        let received = receivers.iter().map(|process| received(process)).collect::<Result<_>>()?;
        let dropped = receivers.iter().map(|process| dropped(process)).collect::<Result<_>>()?;
        Ok(Self { received, dropped })
    }

    /// Requires that most of it arrived, and that the programs counted what they dropped.
    fn compare(&self, stage: &Stage, sent: usize, context: &mut Context) -> Result<()> {
        for (index, process) in receivers(stage).into_iter().enumerate() {
            let received = received(process)?.saturating_sub(self.received[index]) as f64;
            let dropped = dropped(process)? - self.dropped[index];
            let name = process.name();
            // Each program has at least two ports, and each port was sent everything.
            let bound = Target::AtLeast(sent as f64);
            context.record(&format!("garbage datagrams: at {name}"), received, "datagrams", bound);
            context.record(&format!("garbage datagrams: counted by {name}"), dropped, "drops", bound);
        }
        Ok(())
    }
}

/// Datagrams that the kernel gave to sockets of the program's network, IPv4 and IPv6.
fn received(process: &Process) -> Result<u64> {
    let snmp = std::fs::read_to_string(format!("/proc/{}/net/snmp", process.pid()))?;
    let snmp6 = std::fs::read_to_string(format!("/proc/{}/net/snmp6", process.pid()))?;
    let v4 = snmp.lines().filter_map(|line| line.strip_prefix("Udp:")).nth(1);
    let v4 = v4.and_then(|values| values.split_whitespace().next()?.parse::<u64>().ok());
    let v6 = snmp6.lines().find_map(|line| line.strip_prefix("Udp6InDatagrams")?.trim().parse::<u64>().ok());
    Ok(v4.context("no count of IPv4 datagrams")? + v6.context("no count of IPv6 datagrams")?)
}

/// Sum of all counters of dropped packets and refused requests.
fn dropped(process: &Process) -> Result<f64> {
    let page = http::get(process.host(), crate::system::health(), "/metrics")?;
    let is_drop = |line: &&str| {
        line.contains("dropped_total") || line.starts_with("adit_relay_responses_total{code=\"4")
    };
    let values = page.body.lines().filter(is_drop).filter_map(|line| line.rsplit_once(' '));
    Ok(values.filter_map(|(_, value)| value.parse::<f64>().ok()).sum())
}
