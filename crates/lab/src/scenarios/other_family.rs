//! A private name with addresses of one IP family, and programs that connect over the other one.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use super::nearby;
use crate::probe::http;
use crate::scenario::{Context, Target};
use crate::stage::{MONTH, PRIVATE_PAGE, Stage};
use crate::topology::{Pair, site_address};

/// What a policy opens, by name.
const NAMES: &str = "*.only.example";
/// Bytes of a download.
const TRANSFER: usize = 10_000_000;
/// What the network behind the gateway carries in the end, in bytes.
const NARROW: u16 = 1300;

const LIMIT: Duration = Duration::from_secs(60);

/// How a program connects, and what the name really has.
struct Case {
    name: &'static str,
    /// The switch of `curl` and `ping` for the family that the program wants.
    switch: &'static str,
    real: fn(Pair) -> IpAddr,
    /// What `ping` says when it hears of a smaller MTU: that of the network, in its own family.
    told: [&'static str; 2],
}

const CASES: [Case; 2] = [
    Case {
        name: "six.only.example",
        switch: "-4",
        real: |address| address.v6.into(),
        told: ["mtu = 1280", "mtu=1280"],
    },
    Case {
        name: "four.only.example",
        switch: "-6",
        real: |address| address.v4.into(),
        told: ["mtu=1320", "mtu: 1320"],
    },
];

pub(super) fn run(context: &mut Context) -> Result<()> {
    let mut stage = Stage::raise(&nearby(), &context.programs, context.log_dir())?;
    stage.portal.start()?;
    stage.start_relays()?;
    stage.grant_access()?;
    let resource = stage.portal.create_resource(&stage.access.site, "only", NAMES)?;
    stage.portal.create_policy(&stage.access.group, &resource)?;
    let web = stage.topology.sites[0].web_address;
    for case in &CASES {
        stage.site_dns.set(case.name, &[(case.real)(web)]);
    }
    stage.start_gateways()?;
    stage.start_clients()?;
    stage.sign_in(MONTH)?;
    for case in &CASES {
        page(&stage, case, context)?;
        let rate = download(&stage, case)?;
        context.record(&format!("download of {}", case.name), rate, "Mbit/s", Target::AtLeast(5.0));
        pings(&stage, case)?;
    }
    narrow(&stage)?;
    for case in &CASES {
        told(&stage, case)?;
        download(&stage, case)?;
    }
    stage.close()
}

/// The page comes over the family that was asked for, and its server sees the gateway in the other one.
fn page(stage: &Stage, case: &Case, context: &mut Context) -> Result<()> {
    let Case { name, switch, real, .. } = case;
    let url = format!("http://{name}/");
    let arguments = ["curl", "-sS", "--max-time", "15", "--write-out", "%{remote_ip}", switch, &url];
    let written = stage.client().host().run(&arguments)?;
    let remote = written.strip_prefix(PRIVATE_PAGE).with_context(|| format!("{url} answered {written}"))?;
    let remote: IpAddr = remote.parse().with_context(|| format!("not an address: {remote}"))?;
    ensure!(remote.is_ipv4() == (*switch == "-4"), "{url} was fetched from {remote}");
    let seen = stage.web.last_client().context("nobody came")?.ip().to_canonical();
    ensure!(seen == real(site_address(0, 11)), "the server saw {seen}");
    let warm = http::fetch(stage.client().host(), &url, LIMIT)?;
    context.record_time(&format!("page of {name}, warm"), warm.total, Target::AtMost(2_000.0));
    Ok(())
}

/// Megabits per second of a download whose every byte is right.
fn download(stage: &Stage, case: &Case) -> Result<f64> {
    let Case { name, switch, .. } = case;
    let host = stage.client().host();
    let url = format!("http://{name}/bytes/{TRANSFER}");
    let begin = Instant::now();
    let script = format!("curl -sS {switch} --max-time 50 {url} | sha256sum");
    let sum = host.run(&["sh", "-c", &script])?;
    let rate = TRANSFER as f64 * 8.0 / 1e6 / begin.elapsed().as_secs_f64();
    let expected = host.run(&["sh", "-c", &format!("head -c {TRANSFER} /dev/zero | sha256sum")])?;
    ensure!(sum == expected, "the download is damaged");
    Ok(rate)
}

fn pings(stage: &Stage, case: &Case) -> Result<()> {
    let Case { name, switch, .. } = case;
    // Small, and as large as the tunnel's interface allows in either family.
    for size in ["56", "1200", "1330"] {
        let answered = ping(stage, &["-c", "3", "-i", "0.3", switch, "-s", size, name])?;
        ensure!(answered.contains(" bytes from "), "{name}, {size} bytes: {answered}");
    }
    Ok(())
}

/// From now on the gateway's network carries less, and the gateway's kernel says so.
fn narrow(stage: &Stage) -> Result<()> {
    let gateway = &stage.topology.gateway().host;
    gateway.ip(&format!("route replace 10.30.0.0/24 dev site mtu lock {NARROW}"))?;
    gateway.ip(&format!("-6 route replace fd00:ad17::/64 dev site metric 256 mtu lock {NARROW}"))
}

/// Who sends too much is told how much is not too much, in the family it speaks.
fn told(stage: &Stage, case: &Case) -> Result<()> {
    let Case { name, switch, told, .. } = case;
    let heard = ping(stage, &["-c", "3", "-i", "0.3", "-M", "do", switch, "-s", "1330", name])?;
    ensure!(told.iter().any(|text| heard.contains(text)), "{name}: {heard}");
    Ok(())
}

/// What `ping` says, whether it is answered or not.
fn ping(stage: &Stage, arguments: &[&str]) -> Result<String> {
    let command = [&["ping", "-n", "-W", "2"][..], arguments].concat();
    let finished = stage.client().host().finish(&command, LIMIT)?;
    Ok(format!("{}{}", finished.stdout, finished.complaint()))
}
