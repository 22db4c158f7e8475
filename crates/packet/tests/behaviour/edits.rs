//! Hop limit, ECN and segment size: changed in place, checksums still right, everything else untouched.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::samples::{Kind, assert_checksums, sample};
use adit_packet::build::{self, Echo};
use adit_packet::{
    Ecn, EditError, PacketView, Transport, checksum, clamp_mss, decrement_hop_limit, ecn, hop_limit, set_ecn,
};
use etherparse::{PacketBuilder, SlicedPacket, TcpOptionElement, TransportSlice};
use proptest::prelude::*;

proptest! {
    #[test]
    fn every_hop_takes_one_until_none_is_left(sample in sample()) {
        let mut bytes = sample.bytes();
        for left in (1..sample.hop_limit).rev() {
            prop_assert_eq!(decrement_hop_limit(&mut bytes), Ok(left));
            prop_assert_eq!(hop_limit(&bytes), Some(left));
        }
        assert_checksums(&bytes);
        let before = bytes.clone();
        prop_assert_eq!(decrement_hop_limit(&mut bytes), Err(EditError::HopLimitExceeded));
        prop_assert_eq!(bytes, before);
    }

    #[test]
    fn ecn_is_read_back_as_written(sample in sample(), bits in 0..4u8) {
        let mut bytes = sample.bytes();
        set_ecn(&mut bytes, Ecn::from_bits(bits)).expect("an IP packet");
        prop_assert_eq!(ecn(&bytes).map(Ecn::bits), Some(bits));
        assert_checksums(&bytes);
        set_ecn(&mut bytes, Ecn::NotCapable).expect("an IP packet");
        prop_assert_eq!(bytes, sample.bytes());
    }

    #[test]
    fn a_large_segment_size_is_lowered_wherever_the_option_stands(
        announced in any::<u16>(), maximum in any::<u16>(), padding in 0..6usize, v4 in any::<bool>()
    ) {
        let mut bytes = syn(v4, padding, Some(announced));
        let view = PacketView::parse(&bytes).expect("valid");
        prop_assert_eq!(clamp_mss(&mut bytes, &view, maximum), announced > maximum);
        assert_checksums(&bytes);
        prop_assert_eq!(announced_mss(&bytes), Some(announced.min(maximum)));
    }

    #[test]
    fn garbage_in_tcp_options_ends_the_search(options in prop::collection::vec(any::<u8>(), 40)) {
        let mut bytes = syn(true, 0, None);
        bytes.extend_from_slice(&options);
        bytes[3] = bytes.len() as u8;
        bytes[32] = 0xf0;
        let view = PacketView::parse(&bytes).expect("valid");
        clamp_mss(&mut bytes, &view, 1);
    }

    #[test]
    fn a_reply_answers_its_request(identifier in any::<u16>(), sequence in any::<u16>(), payload in prop::collection::vec(any::<u8>(), 0..64), v4 in any::<bool>()) {
        let (source, destination) = if v4 {
            (Ipv4Addr::new(10, 0, 0, 1).into(), Ipv4Addr::new(10, 0, 0, 2).into())
        } else {
            (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::UNSPECIFIED.into())
        };
        let echo = Echo { source, destination, identifier, sequence };
        for (packet, request) in [(build::echo_request(echo, &payload), true), (build::echo_reply(echo, &payload), false)] {
            let packet = packet.expect("fits");
            assert_checksums(&packet);
            prop_assert_eq!(checksum::verify(&packet), Ok(()));
            let view = PacketView::parse(&packet).expect("valid");
            prop_assert_eq!(view.transport(), Transport::Echo { identifier, request });
            prop_assert!(packet.ends_with(&payload));
        }
    }

    #[test]
    fn a_built_datagram_equals_that_of_an_independent_builder(mut sample in sample()) {
        (sample.kind, sample.extras, sample.hop_limit) = (Kind::Udp, 0, 64);
        let flow = sample.flow();
        let built = build::udp((flow.source, flow.source_port).into(), (flow.destination, flow.destination_port).into(), &sample.payload);
        prop_assert_eq!(built.expect("fits"), sample.bytes());
    }
}

/// A SYN whose segment size option comes after `padding` no-operation bytes.
fn syn(v4: bool, padding: usize, mss: Option<u16>) -> Vec<u8> {
    let mut options = vec![TcpOptionElement::Noop; padding];
    options.extend(mss.map(TcpOptionElement::MaximumSegmentSize));
    let step = if v4 {
        PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
    } else {
        PacketBuilder::ipv6([1; 16], [2; 16], 64)
    };
    let mut bytes = Vec::new();
    let builder = step.tcp(1, 2, 3, 4).syn().options(&options).expect("options fit");
    builder.write(&mut bytes, &[]).expect("valid");
    bytes
}

fn announced_mss(packet: &[u8]) -> Option<u16> {
    let sliced = SlicedPacket::from_ip(packet).expect("valid");
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("not TCP") };
    tcp.options_iterator().find_map(|option| match option {
        Ok(TcpOptionElement::MaximumSegmentSize(size)) => Some(size),
        _ => None,
    })
}

#[test]
fn only_a_syn_announces_a_segment_size() {
    let mut bytes = syn(true, 0, Some(1460));
    bytes[33] = 0x10;
    let view = PacketView::parse(&bytes).expect("valid");
    assert!(!clamp_mss(&mut bytes, &view, 1000));
    assert_eq!(announced_mss(&bytes), Some(1460));
}

#[test]
fn a_datagram_beyond_64_kibibytes_cannot_be_built() {
    let socket = "10.0.0.1:1".parse().expect("valid");
    assert!(build::udp(socket, socket, &[0; 65_507]).is_ok());
    assert_eq!(build::udp(socket, socket, &[0; 65_508]), Err(build::BuildError::TooLong));
    let other = "[::1]:1".parse().expect("valid");
    assert_eq!(build::udp(socket, other, &[]), Err(build::BuildError::FamilyMismatch));
}
