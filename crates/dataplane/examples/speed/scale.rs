//! What a worker costs when it has many peers and flows, against one that has one of each; in virtual time.

use std::time::{Duration, Instant};

use adit_dataplane::{GrantId, Inbound, Outbound, Update, Worker, room};
use adit_packet::offload::VirtioHeader;
use adit_wireguard::Device;

use crate::Failure;
use crate::ends::{self, Gateway};
use crate::memory;
use crate::packets::{self, FULL};
use crate::stopwatch::{Stopwatch, least_of_each, sample};

const PEERS: usize = 5_000;
const FLOWS: usize = 100_000;
/// Packets in one run.
const PACKETS: usize = 128;
/// Ticks in one run.
const TICKS: usize = 1_000;
/// Runs of which the best counts.
const REPETITIONS: usize = 30;
/// Grants that are revoked in a round.
const REVOCATIONS: usize = 16;
/// Longer than any flow without packets lives.
const ALL_OVER: Duration = Duration::from_secs(300);

/// How the two sites are called in samples.
const NAMES: [&str; 2] = ["1-peer", "adit"];

pub(crate) fn run(rounds: u32) -> Result<(), Failure> {
    let now = Instant::now();
    // First, while the process has no memory left over from other work.
    let before = memory::resident()?;
    let worker = filled(now);
    sample("flow_bytes", "adit", 1, (memory::resident()? - before) / FLOWS as f64);
    drop(worker);
    let mut sites = [Site::new(now, 1, 1), Site::new(now, PEERS, FLOWS)];
    for round in 1..=rounds {
        busy_peer(&mut sites, round);
        all_peers(&mut sites, round);
        ticks(&mut sites, round);
        revocations(&mut sites[1], round);
    }
    sample("gateway_rss_mib", "adit", 1, memory::peak_mebibytes()?);
    (1..=rounds).for_each(life);
    Ok(())
}

/// A gateway with peers and flows, and the client of its first peer.
struct Site {
    now: Instant,
    peers: usize,
    flows: usize,
    device: Device,
    worker: Worker,
    client: Worker,
    out: Vec<u8>,
}

impl Site {
    fn new(now: Instant, peers: usize, flows: usize) -> Self {
        let gateway = Gateway::with_peers(now, peers);
        let (worker, client) = (gateway.worker(flows), gateway.client());
        let Gateway { now, device, .. } = gateway;
        Self { now, peers, flows, device, worker, client, out: vec![0; room(FULL, 1)] }
    }

    /// Nanoseconds of a packet that arrives from the first peer.
    fn inbound(&mut self) -> f64 {
        let packet = packets::tcp(&ends::inside(0, self.peers), FULL);
        let mut datagrams: Vec<Vec<u8>> = (0..PACKETS).map(|_| self.sealed_by_client(&packet)).collect();
        let (now, worker) = (self.now, &mut self.worker);
        let mut stopwatch = Stopwatch::default();
        stopwatch.time(|| {
            for datagram in &mut datagrams {
                let received = worker.inbound(now, ends::GATEWAY, ends::CLIENT, datagram);
                assert!(matches!(received, Inbound::Tun(_)), "{received:?}");
            }
        });
        stopwatch.nanoseconds_each(PACKETS)
    }

    fn sealed_by_client(&mut self, packet: &[u8]) -> Vec<u8> {
        let sent = self.client.outbound(self.now, VirtioHeader::NONE, &mut packet.to_vec(), &mut self.out);
        let Outbound::Send { datagrams, .. } = sent else { panic!("{sent:?}") };
        self.out[..datagrams.length].to_vec()
    }

    /// Nanoseconds of a packet for the peer of a flow; `flow` says which, for each packet.
    fn outbound(&mut self, flow: impl Fn(usize) -> usize) -> f64 {
        let reply = |number: usize| packets::tcp(&ends::beyond(flow(number)).reversed(), FULL);
        let mut replies: Vec<Vec<u8>> = (0..PACKETS).map(reply).collect();
        let (now, worker, out) = (self.now, &mut self.worker, &mut self.out);
        let mut stopwatch = Stopwatch::default();
        stopwatch.time(|| {
            for reply in &mut replies {
                let sent = worker.outbound(now, VirtioHeader::NONE, reply, out);
                let Outbound::Send { datagrams, .. } = sent else { panic!("{sent:?}") };
                assert_eq!(datagrams.length, datagrams.segment, "one packet, one datagram");
            }
        });
        stopwatch.nanoseconds_each(PACKETS)
    }
}

fn busy_peer(sites: &mut [Site; 2], round: u32) {
    let received = least_of_each(sites, REPETITIONS, Site::inbound);
    let sent = least_of_each(sites, REPETITIONS, |site| site.outbound(|_| 0));
    for ((whose, received), sent) in NAMES.into_iter().zip(received).zip(sent) {
        sample("busy_peer_inbound_ns", whose, round, received);
        sample("busy_peer_outbound_ns", whose, round, sent);
        sample("busy_peer_packets_per_s", whose, round, 2e9 / (received + sent));
    }
}

/// Every packet belongs to another flow, so that none of what it needs is in a cache.
fn all_peers(sites: &mut [Site; 2], round: u32) {
    let mut run = 0;
    let sent = least_of_each(sites, REPETITIONS, |site| {
        run += 1;
        let flows = site.flows;
        // A large prime jumps to and fro, and comes by everywhere.
        site.outbound(|number| (run * PACKETS + number) * 15_485_863 % flows)
    });
    for (whose, sent) in NAMES.into_iter().zip(sent) {
        sample("all_peers_outbound_ns", whose, round, sent);
    }
}

/// What a turn of the loop costs when nothing is due.
fn ticks(sites: &mut [Site; 2], round: u32) {
    let of_worker = least_of_each(sites, REPETITIONS, |site| {
        let (now, worker) = (site.now, &mut site.worker);
        tick(|| {
            worker.handle_timeout(now);
            worker.poll_timeout()
        })
    });
    let of_device = least_of_each(sites, REPETITIONS, |site| {
        let (now, device) = (site.now, &mut site.device);
        tick(|| {
            device.handle_timeout(now);
            device.poll_timeout()
        })
    });
    for ((whose, of_worker), of_device) in NAMES.into_iter().zip(of_worker).zip(of_device) {
        sample("worker_tick_ns", whose, round, of_worker);
        sample("device_tick_ns", whose, round, of_device);
    }
}

fn tick<T>(mut turn: impl FnMut() -> T) -> f64 {
    let mut stopwatch = Stopwatch::default();
    stopwatch.time(|| {
        for _ in 0..TICKS {
            std::hint::black_box(turn());
        }
    });
    stopwatch.nanoseconds_each(TICKS)
}

/// Revokes some grants, each of one peer's flows, and installs the flows again.
fn revocations(site: &mut Site, round: u32) {
    let (now, worker) = (site.now, &mut site.worker);
    let mut least = f64::MAX;
    for grant in 0..REVOCATIONS {
        let mut stopwatch = Stopwatch::default();
        stopwatch.time(|| worker.apply(now, Update::GrantRevoked { grant: GrantId(grant as u64) }));
        least = least.min(stopwatch.nanoseconds_each(1));
        assert_eq!(worker.sizes().flows, site.flows - site.flows / site.peers);
        while worker.poll_event().is_some() {}
        for number in (grant..site.flows).step_by(site.peers) {
            worker.apply(now, ends::install(number, site.peers));
        }
        worker.apply(now, ends::FLUSHED);
    }
    sample("revoke_us", "adit", round, least / 1e3);
}

/// All flows of a worker, from their installation until the wheel has ended them.
fn life(round: u32) {
    let start = Instant::now();
    let mut worker = ends::worker(start);
    let mut updates: Vec<Update> = (0..FLOWS).map(|number| ends::install(number, PEERS)).collect();
    updates.push(ends::FLUSHED);
    let mut installing = Stopwatch::default();
    installing.time(|| updates.into_iter().for_each(|update| worker.apply(start, update)));
    sample("new_flows_per_s", "adit", round, 1e9 / installing.nanoseconds_each(FLOWS));
    let now = start + ALL_OVER;
    let (mut ending, mut longest) = (Stopwatch::default(), 0.0_f64);
    while worker.poll_timeout().is_some_and(|(at, _)| at <= now) {
        let mut one = Stopwatch::default();
        ending.time(|| one.time(|| worker.handle_timeout(now)));
        longest = longest.max(one.nanoseconds_each(1));
    }
    assert_eq!(worker.sizes().flows, 0);
    sample("expiry_ns_per_flow", "adit", round, ending.nanoseconds_each(FLOWS));
    sample("longest_tick_us", "adit", round, longest / 1e3);
}

/// A worker with all flows and no session.
fn filled(now: Instant) -> Worker {
    let mut worker = ends::worker(now);
    for number in 0..FLOWS {
        worker.apply(now, ends::install(number, PEERS));
    }
    worker.apply(now, ends::FLUSHED);
    worker
}
