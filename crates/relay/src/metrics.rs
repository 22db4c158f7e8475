//! The relay's figures for Prometheus. Labels are bounded: methods, codes, paths and reasons, never users or addresses.

use adit_turn::server::DropReason;
use adit_turn::stun::Method;
use metrics::{counter, gauge};

use crate::probe::Outcome;
use crate::shard::Snapshot;
use crate::streams::{End, Refusal, Security};

/// Publishes the figures of a moment, one set for each shard.
pub(crate) fn publish(shards: &[Snapshot]) {
    for (index, shard) in shards.iter().enumerate() {
        gauge!("adit_relay_shard_allocations", "shard" => index.to_string()).set(shard.allocations as f64);
    }
    publish_all(&Snapshot::sum(shards));
    counter!("adit_relay_reports_total").increment(1);
}

fn publish_all(snapshot: &Snapshot) {
    gauge!("adit_relay_allocations").set(snapshot.allocations as f64);
    gauge!("adit_relay_channels").set(snapshot.channels as f64);
    gauge!("adit_relay_permissions").set(snapshot.permissions as f64);
    gauge!("adit_relay_open_ports").set(snapshot.open_ports as f64);
    publish_forwarded(snapshot);
    publish_responses(snapshot);
    publish_streams(snapshot);
    for reason in DropReason::ALL {
        counter!("adit_relay_dropped_total", "reason" => reason.name())
            .absolute(snapshot.counters.dropped(reason));
    }
    for (queue, dropped) in [("data", snapshot.unseen[0]), ("requests", snapshot.unseen[1])] {
        counter!("adit_relay_queue_overflows_total", "queue" => queue).absolute(dropped);
    }
    counter!("adit_relay_sent_datagrams_total").absolute(snapshot.sent.datagrams);
    counter!("adit_relay_sent_trains_total").absolute(snapshot.sent.trains);
    counter!("adit_relay_send_failures_total", "reason" => "buffer_full").absolute(snapshot.sent.full);
    counter!("adit_relay_send_failures_total", "reason" => "other").absolute(snapshot.sent.failed);
    counter!("adit_relay_send_failures_total", "reason" => "answer").absolute(snapshot.lost_answers);
    counter!("adit_relay_unbound_ports_total").absolute(snapshot.unbound_ports);
}

/// By direction and by how the client reaches the relay.
fn publish_forwarded(snapshot: &Snapshot) {
    let (counters, streams) = (&snapshot.counters, &snapshot.streams);
    for (direction, all, by_stream) in [
        ("to_peer", counters.to_peers, streams.to_peers),
        ("to_client", counters.to_clients, streams.to_clients),
    ] {
        // What the machine has forwarded and no connection has carried; a connection's queue may have been full.
        let (packets, bytes) = by_stream.iter().fold(all, |(packets, bytes), stream| {
            (packets.saturating_sub(stream.0), bytes.saturating_sub(stream.1))
        });
        let packets = if direction == "to_client" { packets.saturating_sub(streams.full) } else { packets };
        for (path, (packets, bytes)) in
            [("udp", (packets, bytes)), ("tcp", by_stream[0]), ("tls", by_stream[1])]
        {
            counter!("adit_relay_forwarded_packets_total", "direction" => direction, "path" => path)
                .absolute(packets);
            counter!("adit_relay_forwarded_bytes_total", "direction" => direction, "path" => path)
                .absolute(bytes);
        }
    }
}

fn publish_responses(snapshot: &Snapshot) {
    for ((method, code), count) in &snapshot.counters.responses {
        let method = match *method {
            Method::BINDING => "binding",
            Method::ALLOCATE => "allocate",
            Method::REFRESH => "refresh",
            Method::CREATE_PERMISSION => "create_permission",
            Method::CHANNEL_BIND => "channel_bind",
            _ => "other",
        };
        let code = if *code == 0 { "success".to_owned() } else { code.to_string() };
        counter!("adit_relay_responses_total", "method" => method, "code" => code).absolute(*count);
    }
}

fn publish_streams(snapshot: &Snapshot) {
    let streams = &snapshot.streams;
    for (security, name) in [(Security::Plain, "tcp"), (Security::Tls, "tls")] {
        let index = security as usize;
        gauge!("adit_relay_connections", "transport" => name).set(snapshot.connections[index] as f64);
        counter!("adit_relay_connections_accepted_total", "transport" => name)
            .absolute(streams.accepted[index]);
    }
    for refusal in Refusal::ALL {
        counter!("adit_relay_connections_refused_total", "reason" => refusal.name())
            .absolute(streams.refused[refusal as usize]);
    }
    for end in End::ALL {
        counter!("adit_relay_connections_ended_total", "reason" => end.name())
            .absolute(streams.ended[end as usize]);
    }
    counter!("adit_relay_send_failures_total", "reason" => "connection_full").absolute(streams.full);
}

/// How long the certificate is still good.
pub(crate) fn publish_certificate(seconds_left: f64) {
    gauge!("adit_relay_certificate_seconds_left").set(seconds_left);
}

/// The certificate's files could not be read again.
pub(crate) fn count_failed_reload() {
    counter!("adit_relay_certificate_failures_total").increment(1);
}

/// The relay has asked itself for an allocation.
pub(crate) fn count_probe(outcome: &Outcome) {
    let outcome = match outcome {
        Outcome::Works => "works",
        Outcome::Fails(_) => "fails",
        Outcome::Impossible(_) => "impossible",
    };
    counter!("adit_relay_probes_total", "outcome" => outcome).increment(1);
}
