//! Whatever clients do, in whatever order: nothing is left when everything has expired.

use crate::requester::{Bench, V6, address, config};
use adit_turn::channel_data;
use adit_turn::server::{HEADROOM, Limits, TAILROOM};
use adit_turn::stun::{AttributeKind, Method};
use proptest::prelude::*;
use std::time::Duration;

/// One thing a client, a peer or time does.
#[derive(Clone, Debug)]
enum Step {
    Become { client: u8, user: u8 },
    Allocate { dual: bool, even: bool },
    Refresh { lifetime: u32, only_v6: bool },
    Permit { peer: u8 },
    Bind { number: u16, peer: u8 },
    FromClient { number: u16, length: u8 },
    FromPeer { port: usize, peer: u8, length: u8 },
    Garbage { bytes: Vec<u8> },
    Wait { seconds: u16 },
    Occupy { number: u16 },
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3u8, 0..2u8).prop_map(|(client, user)| Step::Become { client, user }),
        any::<(bool, bool)>().prop_map(|(dual, even)| Step::Allocate { dual, even }),
        (0..4000u32, any::<bool>()).prop_map(|(lifetime, only_v6)| Step::Refresh { lifetime, only_v6 }),
        Just(Step::Refresh { lifetime: 0, only_v6: false }),
        (0..6u8).prop_map(|peer| Step::Permit { peer }),
        (0x3fffu16..0x4005, 0..6u8).prop_map(|(number, peer)| Step::Bind { number, peer }),
        (0x4000u16..0x4005, 0..20u8).prop_map(|(number, length)| Step::FromClient { number, length }),
        (0..4usize, 0..6u8, any::<u8>()).prop_map(|(port, peer, length)| Step::FromPeer {
            port,
            peer,
            length
        }),
        prop::collection::vec(any::<u8>(), 0..60).prop_map(|bytes| Step::Garbage { bytes }),
        (0..700u16).prop_map(|seconds| Step::Wait { seconds }),
        (50_000..50_008u16).prop_map(|number| Step::Occupy { number }),
    ]
}

/// Peers 0 to 3 are allowed, 4 is forbidden, 5 is IPv6.
fn peer(number: u8) -> &'static str {
    [
        "198.51.100.1:1",
        "198.51.100.1:2",
        "198.51.100.2:1",
        "192.0.2.10:50001",
        "127.0.0.1:1",
        "[2606:4700::1]:1",
    ][usize::from(number)]
}

fn perform(bench: &mut Bench, step: Step) {
    match step {
        Step::Become { client, user } => {
            bench.client = address(&format!("203.0.113.{client}:4000"));
            bench.become_user(["alice", "bob"][usize::from(user)]);
            bench.learn_nonce();
        }
        Step::Allocate { dual, even } => {
            let mut request = bench.allocate_request();
            if dual {
                request = request.number(AttributeKind::ADDITIONAL_ADDRESS_FAMILY, V6);
            }
            if even {
                request = request.attribute(AttributeKind::EVEN_PORT, &[0]);
            }
            bench.ask(request);
        }
        Step::Refresh { lifetime, only_v6 } => {
            let mut request = bench.request(Method::REFRESH).number(AttributeKind::LIFETIME, lifetime);
            if only_v6 {
                request = request.number(AttributeKind::REQUESTED_ADDRESS_FAMILY, V6);
            }
            bench.ask(request);
        }
        Step::Permit { peer: number } => drop(bench.permit(peer(number))),
        Step::Bind { number, peer: other } => drop(bench.bind(number, peer(other))),
        Step::FromClient { number, length } => {
            let mut datagram = channel_data::header(number, length.into()).to_vec();
            datagram.resize(datagram.len() + usize::from(length), 7);
            bench.server.handle_client(bench.now, bench.client(), &datagram);
        }
        Step::FromPeer { port, peer: number, length } => {
            let length = usize::from(length);
            let mut buffer = vec![0; HEADROOM + length + TAILROOM];
            if let Some(&port) = bench.bound.get(port) {
                bench.server.handle_peer(
                    bench.now,
                    port,
                    address(peer(number)),
                    &mut buffer,
                    HEADROOM..HEADROOM + length,
                );
            }
        }
        Step::Garbage { bytes } => drop(bench.server.handle_client(bench.now, bench.client(), &bytes)),
        Step::Wait { seconds } => {
            bench.now += Duration::from_secs(seconds.into());
            bench.server.handle_timeout(bench.now);
            bench.collect();
        }
        Step::Occupy { number } => bench.unbindable = vec![number, number ^ 1],
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_is_left_when_everything_has_expired(steps in prop::collection::vec(any_step(), 0..60)) {
        let limits = Limits {
            allocations: 4,
            allocations_per_user: 2,
            channels_per_allocation: 3,
            permissions_per_allocation: 3,
            unauthenticated_replies: 1_000_000,
            ..Limits::default()
        };
        let mut bench = Bench::new(adit_turn::server::Config { limits, ports: 50_000..=50_007, ..config() });
        for step in steps {
            perform(&mut bench, step);
            prop_assert!(bench.server.allocations() <= limits.allocations);
            prop_assert!(bench.server.channels() <= bench.server.allocations() * 3);
            prop_assert!(bench.server.permissions() <= bench.server.allocations() * 3);
            prop_assert!(bench.bound.len() <= bench.server.allocations() * 2);
            prop_assert_eq!(bench.server.poll_timeout().is_some(), bench.server.allocations() > 0);
        }
        perform(&mut bench, Step::Wait { seconds: 3601 });
        prop_assert_eq!(bench.server.allocations(), 0);
        prop_assert_eq!((bench.server.channels(), bench.server.permissions()), (0, 0));
        prop_assert!(bench.bound.is_empty(), "{:?}", bench.bound);
        prop_assert_eq!(bench.server.poll_timeout(), None);
    }
}
