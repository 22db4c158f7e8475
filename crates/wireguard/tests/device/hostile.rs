//! Bytes that no honest peer sends: nothing panics, everything is counted, nothing changes.

use crate::pair::Pair;
use adit_wireguard::{DropReason, is_data, is_wireguard, receiver_index};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn garbage_is_dropped_and_counted(
        kind in 0u8..6,
        reserved in prop_oneof![Just([0u8; 3]), any::<[u8; 3]>()],
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut pair = Pair::connected();
        let datagram = [&[kind][..], &reserved, &body].concat();
        let _ = (is_wireguard(&datagram), is_data(&datagram), receiver_index(&datagram));
        let before: u64 = pair.nodes[1].device.counters().drops().map(|(_, count)| count).sum();
        let source = pair.nodes[0].address;
        let (now, device) = (pair.now, &mut pair.nodes[1].device);
        prop_assert!(device.handle_datagram(now, source, &mut datagram.clone()).is_err());
        let after: u64 = device.counters().drops().map(|(_, count)| count).sum();
        prop_assert_eq!(after, before + 1);
        prop_assert!(device.poll_transmit().is_none() && device.poll_event().is_none());
    }

    #[test]
    fn changed_and_truncated_messages_change_nothing(
        which in 0usize..3,
        position in any::<prop::sample::Index>(),
        mask in 1u8..=255,
        cut in 0usize..160,
    ) {
        let mut pair = Pair::connected();
        let (_, from, original) = pair.log[which].clone();
        let mut datagram = original;
        let position = position.index(datagram.len());
        datagram[position] ^= mask;
        datagram.truncate(datagram.len().saturating_sub(cut / 4));
        let node = &mut pair.nodes[1 - from];
        let source = node.address;
        prop_assert!(node.device.handle_datagram(pair.now, source, &mut datagram).is_err());
        prop_assert!(node.device.poll_transmit().is_none() && node.device.poll_event().is_none());
        prop_assert!(pair.send(0, b"still") && pair.agrees());
    }
}

#[test]
fn every_prefix_of_every_message_is_dropped() {
    let mut pair = Pair::connected();
    pair.send(0, b"data for the fourth kind of message");
    let messages: Vec<_> = pair.log.clone();
    for (_, from, message) in messages {
        for length in 0..message.len() {
            let node = &mut pair.nodes[1 - from];
            let source = node.address;
            assert!(node.device.handle_datagram(pair.now, source, &mut message[..length].to_vec()).is_err());
        }
    }
}

#[test]
fn replayed_data_is_dropped_by_workers_and_device_alike() {
    let mut pair = Pair::connected();
    pair.send(0, b"once");
    let datagram = pair.log.last().unwrap().2.clone();
    pair.run_for(std::time::Duration::from_millis(50));
    pair.deliver(1, datagram.clone());
    let (now, source) = (pair.now, pair.nodes[0].address);
    let result = pair.nodes[1].device.handle_datagram(now, source, &mut datagram.clone());
    assert_eq!(result.err(), Some(DropReason::Replayed));
    assert_eq!(pair.nodes[1].drops, [DropReason::Replayed]);
    assert_eq!(pair.nodes[1].received, [b"once"]);
}
