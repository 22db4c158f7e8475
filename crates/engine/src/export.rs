//! Counters for whoever scrapes them: what the machines and the worker counted so far.
//!
//! The packet path counts in plain integers; they are copied to the metrics recorder once in
//! a while, so that no packet pays for it.

use std::time::Duration;

use adit_dataplane::Counters;
use adit_tunnel::DropCounters;
use metrics::{counter, gauge};

/// How often counters are copied.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);

/// Adds what a worker counted since `before`.
pub(crate) fn worker(now: &Counters, before: &Counters) {
    let directions = [
        ("sent", now.sent_packets - before.sent_packets, now.sent_bytes - before.sent_bytes),
        (
            "received",
            now.received_packets - before.received_packets,
            now.received_bytes - before.received_bytes,
        ),
    ];
    for (direction, packets, bytes) in directions {
        counter!("adit_tunnel_packets_total", "direction" => direction).increment(packets);
        counter!("adit_tunnel_bytes_total", "direction" => direction).increment(bytes);
    }
    counter!("adit_flow_misses_total").increment(now.misses - before.misses);
    counter!("adit_flow_evictions_total").increment(now.evictions - before.evictions);
    let drops = now.drops().zip(before.drops()).map(|((reason, now), (_, before))| (reason, now - before));
    for (reason, count) in drops.filter(|(_, count)| *count > 0) {
        counter!("adit_packets_dropped_total", "path" => "fast", "reason" => reason.name()).increment(count);
    }
}

/// Copies what a machine counted and how much it holds.
pub(crate) fn machine(drops: &DropCounters, connections: usize) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge shows magnitudes")]
    gauge!("adit_connections").set(connections as f64);
    for (reason, count) in drops.iter().filter(|(_, count)| *count > 0) {
        counter!("adit_packets_dropped_total", "path" => "slow", "reason" => reason.name()).absolute(count);
    }
}
