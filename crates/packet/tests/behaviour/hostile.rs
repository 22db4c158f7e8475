//! Bytes from a stranger: every entry point returns, whatever it is given.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::samples::sample;
use adit_packet::{
    Ecn, IcmpError, PacketView, Quoted, Rewrite, checksum, clamp_mss, decrement_hop_limit, ecn, hop_limit,
    icmp_error, set_ecn,
};
use proptest::prelude::*;

/// Runs everything the crate offers over `bytes`.
fn exercise(bytes: &[u8], stale: Option<PacketView>) {
    let mut packet = bytes.to_vec();
    let _ = (ecn(bytes), hop_limit(bytes), checksum::verify(bytes));
    let _ = set_ecn(&mut packet, Ecn::CongestionExperienced);
    let _ = decrement_hop_limit(&mut packet);
    for view in PacketView::parse(bytes).ok().into_iter().chain(stale) {
        let mut packet = bytes.to_vec();
        let _ = (view.flow(), view.udp_payload(bytes), Quoted::parse(bytes, &view));
        let (v4, v6) = (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::LOCALHOST));
        let own = if view.is_ipv4() { v4 } else { v6 };
        let _ = icmp_error(IcmpError::PacketTooBig { mtu: 1280 }, own, bytes, &view);
        let everything = Rewrite {
            source: Some(own),
            destination: Some(own),
            source_port: Some(1),
            destination_port: Some(2),
        };
        let _ = everything.apply_to_icmp_error(&mut packet, &view);
        let _ = everything.apply(&mut packet, &view);
        let _ = clamp_mss(&mut packet, &view, 500);
        let other = if view.is_ipv4() { v6 } else { v4 };
        let crossing = Rewrite { source: Some(other), destination: Some(other), ..everything };
        for room in [0, 50, 100, 2_000] {
            let _ = crossing.translate(bytes, &view, 1, &mut vec![0; room]);
            let _ = crossing.translate_partial(bytes, &view, 500, 1, &mut vec![0; room]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn noise_does_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..120), version in prop::sample::select(&[4u8, 6])) {
        exercise(&bytes, None);
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = version << 4 | 5;
            exercise(&bytes, None);
        }
    }

    /// Noise shaped like a header gets far deeper than plain noise.
    #[test]
    fn plausible_headers_over_noise_do_no_harm(
        mut bytes in prop::collection::vec(any::<u8>(), 60..120), v4 in any::<bool>(),
        protocol in prop::sample::select(&[0u8, 1, 6, 17, 43, 44, 51, 58, 60, 253]),
        kind in 0..16u8, quoted in prop::sample::select(&[0x45u8, 0x46, 0x60]),
    ) {
        let length = bytes.len() as u16;
        let transport = if v4 {
            (bytes[0], bytes[9]) = (0x45, protocol);
            bytes[2..4].copy_from_slice(&length.to_be_bytes());
            20
        } else {
            (bytes[0], bytes[6]) = (0x60, protocol);
            bytes[4..6].copy_from_slice(&(length - 40).to_be_bytes());
            40
        };
        bytes[transport] = kind;
        bytes[transport + 8] = quoted;
        exercise(&bytes, None);
    }

    #[test]
    fn a_view_of_another_packet_does_no_harm(one in sample(), other in sample(), cut in any::<prop::sample::Index>()) {
        let (one, other) = (one.bytes(), other.bytes());
        let view = PacketView::parse(&other).expect("valid");
        exercise(&one, Some(view));
        exercise(&one[..cut.index(one.len())], Some(view));
    }

    #[test]
    fn mutated_packets_do_no_harm(sample in sample(), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = sample.bytes();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        exercise(&bytes, None);
    }
}
