//! The relay's figures for Prometheus. Labels are bounded: error codes and drop reasons, never users or addresses.

use adit_turn::server::DropReason;
use metrics::{counter, gauge};

use crate::forwarder::Snapshot;

/// Publishes the figures of a moment.
pub(crate) fn publish(snapshot: &Snapshot) {
    gauge!("adit_relay_allocations").set(snapshot.allocations as f64);
    gauge!("adit_relay_channels").set(snapshot.channels as f64);
    gauge!("adit_relay_permissions").set(snapshot.permissions as f64);
    gauge!("adit_relay_open_ports").set(snapshot.open_ports as f64);
    let counters = &snapshot.counters;
    for (direction, (packets, bytes)) in [("to_peer", counters.to_peers), ("to_client", counters.to_clients)]
    {
        counter!("adit_relay_forwarded_packets_total", "direction" => direction).absolute(packets);
        counter!("adit_relay_forwarded_bytes_total", "direction" => direction).absolute(bytes);
    }
    counter!("adit_relay_responses_total", "code" => "success").absolute(counters.successes);
    for (code, count) in &counters.errors {
        counter!("adit_relay_responses_total", "code" => code.to_string()).absolute(*count);
    }
    for reason in DropReason::ALL {
        counter!("adit_relay_dropped_total", "reason" => reason.name()).absolute(counters.dropped(reason));
    }
    counter!("adit_relay_sent_datagrams_total").absolute(snapshot.sent.datagrams);
    counter!("adit_relay_send_calls_total").absolute(snapshot.sent.calls);
    counter!("adit_relay_send_failures_total", "reason" => "buffer_full").absolute(snapshot.sent.full);
    counter!("adit_relay_send_failures_total", "reason" => "other").absolute(snapshot.sent.failed);
}
