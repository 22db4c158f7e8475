//! What goes through the tunnel arrives as it was, whatever the kernel can do and the path carries.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};

use super::download;
use crate::bench::median;
use crate::probe::udp_load::{self, Load};
use crate::scenario::{Context, Target};
use crate::stage::Stage;
use crate::topology::Options;

/// Bytes of a transfer.
const TRANSFER: usize = 20_000_000;

/// Each switch alone, and all together.
const SWITCHES: [&str; 5] = ["tun", "tun-udp", "udp-send", "udp-receive", "tun,udp-send,udp-receive"];

/// Rounds of a comparison.
const ROUNDS: usize = 5;

const LIMIT: Duration = Duration::from_secs(60);

/// Flows, one after the other, and what is sent in each.
const FLOWS: u16 = 12;
const LOAD: Load = Load { per_second: 20_000.0, duration: Duration::from_millis(250), size: 64 };

/// Downloads and large pings without each of the kernel's offloads.
pub(super) fn without_offloads(context: &mut Context) -> Result<()> {
    let programs = context.programs.clone();
    for kinds in SWITCHES {
        context.programs = programs.without_offload(kinds);
        let stage = Stage::complete(&Options::lan(), context)?;
        stage.open_page(&stage.page_by_address())?;
        let rate = download(&stage)?;
        context.record(&format!("download without {kinds}"), rate, "Mbit/s", Target::AtLeast(20.0));
        large_pings(&stage)?;
        stage.close()?;
    }
    context.programs = programs;
    Ok(())
}

/// Many flows through several workers: none of their packets overtakes another one.
pub(super) fn workers(context: &mut Context) -> Result<()> {
    let programs = context.programs.clone();
    for count in ["1", "2", "4"] {
        context.programs = programs.with_workers(count);
        let stage = Stage::complete(&Options::lan(), context)?;
        stage.open_page(&stage.page_by_address())?;
        let rate = download(&stage)?;
        context.record(&format!("download, workers: {count}"), rate, "Mbit/s", Target::AtLeast(20.0));
        let site = &stage.topology.sites[0];
        let (mut reordered, mut received) = (0, 0);
        for port in 7_000..7_000 + FLOWS {
            let target = SocketAddr::new(site.web_address.v4.into(), port);
            let arrivals = udp_load::run(stage.client().host(), &site.web, target, &LOAD)?;
            (reordered, received) = (reordered + arrivals.reordered, received + arrivals.received);
        }
        context.record("datagrams overtaken", reordered as f64, "datagrams", Target::AtMost(0.0));
        context.record("datagrams received", received as f64, "datagrams", Target::AtLeast(1_000.0));
        large_pings(&stage)?;
        stage.close()?;
    }
    context.programs = programs;
    Ok(())
}

/// A path of 1,400 bytes between client and gateway; then one that becomes so without a word.
pub(super) fn narrow(context: &mut Context) -> Result<()> {
    let stage = Stage::complete(&Options::lan(), context)?;
    narrow_by(&stage)?;
    stage.open_page(&stage.page_by_address())?;
    context.record("download over 1,400 bytes", download(&stage)?, "Mbit/s", Target::AtLeast(20.0));
    large_pings(&stage)?;
    stage.close()?;

    let stage = Stage::complete(&Options::lan(), context)?;
    stage.open_page(&stage.page_by_address())?;
    context.record("download over Ethernet", download(&stage)?, "Mbit/s", Target::AtLeast(20.0));
    // Nobody says so.
    stage.topology.client().router.host.nft(
        "flush ruleset
table inet silence {
    chain output {
        type filter hook output priority filter; policy accept;
        icmp type destination-unreachable drop
        icmpv6 type packet-too-big drop
    }
}
",
    )?;
    narrow_by(&stage)?;
    let begin = Instant::now();
    download(&stage)?;
    context.record_time("download into a black hole", begin.elapsed(), Target::AtMost(30_000.0));
    large_pings(&stage)?;
    stage.close()
}

/// Makes the client's router a place where packets have at most 1,400 bytes.
fn narrow_by(stage: &Stage) -> Result<()> {
    let router = &stage.topology.client().router.host;
    router.ip("link set dev wan mtu 1400")?;
    router.ip("link set dev lan mtu 1400")
}

/// One device scans the network behind the gateway; another one works.
pub(super) fn scan(context: &mut Context) -> Result<()> {
    let stage = Stage::complete(&Options { clients: 2, ..Options::lan() }, context)?;
    let (worker, scanner) = (stage.clients[0].host(), stage.clients[1].host());
    for host in [worker, scanner] {
        host.run(&["curl", "-sS", "--max-time", "20", &stage.page_by_address()])?;
    }
    let target = stage.topology.sites[0].web_address.v4;
    let is_over = AtomicBool::new(false);
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(download(&stage)?);
        is_over.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| -> Result<()> {
            let scanning = scope.spawn(|| scanner.enter(|| send_everywhere(target, &is_over)));
            let outcome = download(&stage).and_then(|rate| {
                let begin = Instant::now();
                stage.open_page(&stage.page_by_address())?;
                Ok((rate, begin.elapsed()))
            });
            is_over.store(true, Ordering::Relaxed);
            let sent = scanning.join().map_err(|_| anyhow!("the scan failed"))???;
            let (rate, page) = outcome?;
            beside.push(rate);
            context.record("datagrams of the scan", sent as f64, "datagrams", Target::Shown);
            context.record_time("a page beside a scan", page, Target::AtMost(1_000.0));
            Ok(())
        })?;
    }
    let share = median(&beside).zip(median(&alone)).map(|(beside, alone)| beside / alone);
    let share = share.context("nothing was measured")?;
    // On two cores the scan takes its share of the machine too.
    context.record("share of the throughput beside a scan", share, "", Target::AtLeast(0.5));
    stage.close()
}

/// Sends a datagram to one port after the other, 5,000 a second, until told to stop; returns how many.
fn send_everywhere(target: Ipv4Addr, is_over: &AtomicBool) -> std::io::Result<u64> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let mut sent = 0_u64;
    while !is_over.load(Ordering::Relaxed) {
        for _ in 0..50 {
            let port = 1_024 + (sent % 60_000) as u16;
            // What the kernel refuses (an ICMP error for an earlier one) is as good as sent.
            let _ = socket.send_to(b"?", (target, port));
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(sent)
}

/// Megabits per second of a download.
fn download(stage: &Stage) -> Result<f64> {
    Ok(TRANSFER as f64 * 8.0 / 1e6 / download::download(stage, TRANSFER, LIMIT)?.as_secs_f64())
}

/// Packets beyond every size that a path carries, with and without leave to fragment them.
fn large_pings(stage: &Stage) -> Result<()> {
    let address = stage.topology.sites[0].web_address.v4.to_string();
    let host = stage.client().host();
    // Until one is answered: what the path carries may have to be found out first.
    for options in [["-M", "dont", "-s", "1250"], ["-M", "dont", "-s", "3000"], ["-M", "want", "-s", "1390"]]
    {
        let mut command = vec!["ping", "-c", "1", "-i", "0.2", "-w", "20"];
        command.extend(options);
        command.push(&address);
        // The first error ends a ping; the next one heeds it.
        let mut attempts = (0..3).map(|_| host.finish(&command, LIMIT));
        let answered = attempts
            .find(|attempt| attempt.as_ref().is_ok_and(|finished| finished.stdout.contains(" bytes from ")));
        ensure!(answered.is_some(), "{}: no answer", command.join(" "));
    }
    Ok(())
}
