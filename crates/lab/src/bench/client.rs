//! A client as its user meets it: how soon it is online, what it costs while nothing happens, how fast it answers.

use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::usage;
use crate::link::Profile;
use crate::stage::{MONTH, PRIVATE_NAME, Stage};
use crate::system::Programs;
use crate::topology::Options;

/// Resources of the user.
const RESOURCES: usize = 50;

/// One way through each of the two cables between a device and the portal makes 20 ms for a round trip.
const DELAY_MS: u64 = 10;

/// After signing in, until nothing is left to do.
const SETTLE: Duration = Duration::from_secs(8);

/// Over so long the idle daemon is watched.
const IDLE: Duration = Duration::from_secs(20);

const STATUS_CALLS: usize = 20;
const NAME_QUERIES: usize = 2_000;

/// Queries without a pause, and the pause: more would be a flood, of which the client drops a part.
const NAMES_AT_ONCE: usize = 500;
const PAUSE: Duration = Duration::from_millis(200);

/// One measured figure.
pub type Sample = (&'static str, f64);

/// Raises a world of its own and measures everything once.
///
/// # Errors
/// When the world cannot be raised, or a program fails.
pub fn measure(programs: &Programs, log_dir: &Path) -> Result<Vec<Sample>> {
    let link = Some(Profile::delay_ms(DELAY_MS));
    let options = Options { client_link: link, ..Options::default() };
    let mut stage = Stage::raise(&options, programs, log_dir)?;
    stage.portal.start()?;
    stage.start_relays()?;
    stage.grant_access()?;
    more_resources(&stage)?;
    stage.start_gateways()?;
    stage.start_clients()?;
    let token = stage.portal.create_client_token(&stage.access.actor, MONTH)?;
    let online = stage.client().sign_in(&token, &stage.state)?;
    let mut samples = vec![("up_to_online_ms", milliseconds(online))];
    std::thread::sleep(SETTLE);
    samples.extend(idle(&stage)?);
    samples.push(("status_ms", status(&stage)?));
    samples.push(("dns_stub_p99_us", names(&stage)?));
    stage.close()?;
    Ok(samples)
}

fn more_resources(stage: &Stage) -> Result<()> {
    for index in stage.access.policies.len()..RESOURCES {
        let address = format!("service-{index}.corp.example");
        let resource =
            stage.portal.create_resource(&stage.access.site, &format!("service {index}"), &address)?;
        stage.portal.create_policy(&stage.access.group, &resource)?;
    }
    Ok(())
}

fn idle(stage: &Stage) -> Result<[Sample; 2]> {
    let pid = stage.client().process().pid();
    let (begin, before) = (Instant::now(), usage::exact_cpu_seconds(pid)?);
    std::thread::sleep(IDLE);
    let used = usage::exact_cpu_seconds(pid)? - before;
    let share = used / begin.elapsed().as_secs_f64() * 100.0;
    let resident = stage.client().process().resident_bytes()? as f64 / 1024.0 / 1024.0;
    Ok([("idle_cpu_percent", share), ("idle_rss_mib", resident)])
}

/// The median time of `adit status`, start of the program included.
fn status(stage: &Stage) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..STATUS_CALLS {
        times.push(milliseconds(stage.client().adit(&["status"])?.took));
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// The 99th percentile of queries for a resource's name, asked one after the other where programs ask.
fn names(stage: &Stage) -> Result<f64> {
    let server = resolver(stage)?;
    let times = stage.client().host().enter(|| ask_often(server))??;
    Ok(times[times.len() * 99 / 100])
}

/// The server that the client's machine asks now.
fn resolver(stage: &Stage) -> Result<IpAddr> {
    let text = std::fs::read_to_string(stage.client().host().etc_dir().join("resolv.conf"))?;
    let mut servers = text.lines().filter_map(|line| line.strip_prefix("nameserver ")?.trim().parse().ok());
    servers.next().context("the machine has no resolver")
}

fn ask_often(server: IpAddr) -> Result<Vec<f64>> {
    let socket = UdpSocket::bind((if server.is_ipv4() { "0.0.0.0" } else { "::" }, 0))?;
    socket.connect((server, 53))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut query = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in PRIVATE_NAME.split('.') {
        query.push(u8::try_from(label.len())?);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let mut times = Vec::with_capacity(NAME_QUERIES);
    let mut answer = [0; 1500];
    for id in 0..NAME_QUERIES {
        query[..2].copy_from_slice(&u16::try_from(id)?.to_be_bytes());
        if id % NAMES_AT_ONCE == 0 {
            std::thread::sleep(PAUSE);
        }
        let begin = Instant::now();
        socket.send(&query)?;
        let length = socket.recv(&mut answer).context("no answer to a query")?;
        times.push(begin.elapsed().as_secs_f64() * 1e6);
        ensure!(length > query.len() && answer[..2] == query[..2], "another answer than was asked for");
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
