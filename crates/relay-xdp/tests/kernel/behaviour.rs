//! What the engine promises, one promise a test.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_relay_xdp::measure::Verdict;
use adit_relay_xdp::{Config, Direction, Engine, InsertError, LEASE, Mode, PassReason, Route, XdpError};

use crate::frame::{Envelope, build, parse, set_checksum};
use crate::ground::{
    Ground, LISTENER, NEIGHBOUR, NEIGHBOUR_V4, NOWHERE_V4, ROUTER, SILENT_V4, address, command, config,
    isolated,
};
use crate::judge::judge;
use crate::relay::{Channel, Datagram, Relay, local};

/// What a client sends on a channel.
fn from_client(channel: &Channel, data: &[u8]) -> Datagram {
    let header = [channel.number.to_be_bytes(), (data.len() as u16).to_be_bytes()].concat();
    Datagram {
        source: channel.client,
        destination: SocketAddr::new(local(channel.client.is_ipv4()), LISTENER),
        payload: [&header, data].concat(),
    }
}

/// What a peer sends to a relayed address.
fn from_peer(channel: &Channel, data: &[u8]) -> Datagram {
    Datagram { source: channel.peer, destination: channel.relayed, payload: data.to_vec() }
}

fn plain(datagram: &Datagram) -> Vec<u8> {
    build(datagram, &Envelope::default())
}

/// A relay with one client and one channel, and the program that knows it.
fn one_channel(peer: &str) -> (Relay, Ground, Channel) {
    let (mut relay, ground) = (Relay::new(), Ground::new());
    let client = address("198.51.100.1:4001");
    relay.allocate(client);
    let channel = relay.bind(client, 0x4000, address(peer));
    relay.announce(&ground.engine);
    (relay, ground, channel)
}

const PEER: &str = "192.0.2.9:5000";

#[test]
fn both_directions_are_forwarded_and_counted() {
    isolated(|| {
        let (mut relay, ground, channel) = one_channel(PEER);
        assert_eq!(judge(&ground, &mut relay, &plain(&from_client(&channel, &[1; 160]))), Ok(true));
        assert_eq!(judge(&ground, &mut relay, &plain(&from_client(&channel, &[]))), Ok(true));
        assert_eq!(judge(&ground, &mut relay, &plain(&from_peer(&channel, &[2; 40]))), Ok(true));
        let counters = ground.engine.counters();
        assert_eq!(counters.forwarded(Direction::ToPeer), (2, 160));
        assert_eq!(counters.forwarded(Direction::ToClient), (1, 40));
        assert_eq!(counters.passed, [0; PassReason::ALL.len()]);
        assert_eq!(ground.engine.routes(), 1);
    });
}

#[test]
fn frames_go_to_whom_the_kernel_would_send_them() {
    isolated(|| {
        for (peer, station) in [(PEER, ROUTER), (NEIGHBOUR_V4, NEIGHBOUR)] {
            let (_, ground, channel) = one_channel(peer);
            let Verdict::Sent(sent) = ground.run(&plain(&from_client(&channel, b"hello"))) else {
                panic!("not sent: {:?}", ground.engine.counters())
            };
            assert_eq!(parse(&sent).expect("plain").to, station);
        }
    });
}

#[test]
fn nothing_but_loopback_forwards_for_it() {
    isolated(|| {
        let _ground = Ground::new();
        let setting = |path: &str| std::fs::read_to_string(format!("/proc/sys/net/{path}")).expect("reads");
        assert_eq!(setting("ipv4/conf/eth0/forwarding"), "0\n");
        assert_eq!(setting("ipv6/conf/eth0/forwarding"), "0\n");
        assert_eq!(setting("ipv4/ip_forward"), "0\n");
        assert_eq!(setting("ipv4/conf/lo/forwarding"), "1\n");
    });
}

/// Each frame, and why it must go up.
fn frames_with_reasons(channel: &Channel, over_ipv6: &Channel) -> Vec<(PassReason, Vec<u8>)> {
    let good = plain(&from_client(channel, &[7; 100]));
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = good.clone();
        change(&mut frame);
        frame
    };
    let enveloped = |envelope: Envelope| build(&from_client(channel, &[7; 100]), &envelope);
    let stun = Datagram { payload: vec![0, 1, 0, 0], ..from_client(channel, &[]) };
    let stranger = Datagram { source: address("198.51.100.1:4999"), ..from_client(channel, &[7; 100]) };
    let padded = Datagram {
        payload: [from_client(channel, &[7; 100]).payload, vec![0; 4]].concat(),
        ..from_client(channel, &[])
    };
    vec![
        (PassReason::Control, plain(&stun)),
        (PassReason::IpOptions, changed(&|frame| frame[14] = 0x46)),
        (PassReason::Fragment, changed(&|frame| frame[20] |= 0x20)),
        (PassReason::Fragment, changed(&|frame| frame[21] = 1)),
        (PassReason::Fragment, changed(&|frame| frame[20] |= 0x80)),
        (PassReason::BadLength, plain(&padded)),
        (PassReason::BadLength, changed(&|frame| frame[39] -= 1)),
        (PassReason::BadChecksum, changed(&|frame| frame[18] ^= 1)),
        (
            PassReason::UnfinishedChecksum,
            changed(&|frame| {
                let sum = parse(frame).expect("plain").unfinished_checksum;
                set_checksum(frame, sum);
            }),
        ),
        (PassReason::NoChecksum, {
            let mut frame = plain(&from_client(over_ipv6, &[7; 100]));
            set_checksum(&mut frame, 0);
            frame
        }),
        (PassReason::HopLimit, enveloped(Envelope { hop_limit: 1, ..Envelope::default() })),
        (PassReason::NoRoute, plain(&stranger)),
        (PassReason::OtherStation, enveloped(Envelope { to: NEIGHBOUR, ..Envelope::default() })),
        (PassReason::TooLong, plain(&from_client(over_ipv6, &[7; 1453]))),
    ]
}

#[test]
fn every_frame_that_goes_up_has_its_reason() {
    isolated(|| {
        let (mut relay, ground) = (Relay::with_clients(), Ground::new());
        relay.announce(&ground.engine);
        let (channel, over_ipv6) = (relay.channels[0], relay.channels[1]);
        for (reason, frame) in frames_with_reasons(&channel, &over_ipv6) {
            let before = ground.engine.counters();
            assert_eq!(judge(&ground, &mut relay, &frame), Ok(false), "{reason:?}");
            let after = ground.engine.counters();
            assert_eq!(after.packets(), before.packets(), "{reason:?}");
            for counted in PassReason::ALL {
                let expected = before.passed(counted) + u64::from(counted == reason);
                assert_eq!(after.passed(counted), expected, "{counted:?} for a frame of {reason:?}");
            }
        }
    });
}

#[test]
fn without_a_known_way_frames_go_up() {
    isolated(|| {
        command("ip link add eth1 type veth peer name far1");
        command("ip link set eth1 up");
        command("ip link set far1 up");
        command("ip address add 10.9.0.1/24 dev eth1");
        command("ip route add 198.51.100.128/25 via 10.9.0.2");
        command("ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:09 dev eth1 nud permanent");
        let elsewhere = "198.51.100.200:9999";
        for (peer, reason) in [
            (NOWHERE_V4, PassReason::NoNextHop),
            (SILENT_V4, PassReason::NoNextHop),
            (elsewhere, PassReason::OtherInterface),
        ] {
            let (mut relay, ground, channel) = one_channel(peer);
            assert_eq!(
                judge(&ground, &mut relay, &plain(&from_client(&channel, b"hello"))),
                Ok(false),
                "{peer}"
            );
            assert_eq!(ground.engine.counters().passed(reason), 1, "{peer}");
        }
    });
}

#[test]
fn a_neighbour_that_moves_is_followed_within_a_second() {
    isolated(|| {
        let (_, ground, channel) = one_channel(NEIGHBOUR_V4);
        let frame = plain(&from_client(&channel, b"hello"));
        assert!(matches!(ground.run(&frame), Verdict::Sent(_)));
        command("ip neigh change 203.0.113.5 lladdr 02:00:00:00:00:77 dev eth0 nud permanent");
        std::thread::sleep(Duration::from_millis(1_100));
        let Verdict::Sent(sent) = ground.run(&frame) else { panic!("not sent") };
        assert_eq!(parse(&sent).expect("plain").to, [2, 0, 0, 0, 0, 0x77]);
        command("ip neigh del 203.0.113.5 dev eth0");
        std::thread::sleep(Duration::from_millis(1_100));
        assert!(matches!(ground.run(&frame), Verdict::Passed(_)));
    });
}

#[test]
fn a_narrower_way_is_noticed_within_a_second() {
    isolated(|| {
        let (_, ground, channel) = one_channel(PEER);
        let frame = |length| plain(&from_client(&channel, &vec![7; length]));
        assert!(matches!(ground.run(&frame(100)), Verdict::Sent(_)));
        assert!(matches!(ground.run(&frame(1472)), Verdict::Sent(_)), "the known way has the whole MTU");
        assert!(matches!(ground.run(&frame(1473)), Verdict::Passed(_)));
        command("ip route replace default via 203.0.113.1 mtu lock 1200");
        std::thread::sleep(Duration::from_millis(1_100));
        assert!(matches!(ground.run(&frame(1172)), Verdict::Sent(_)));
        assert!(matches!(ground.run(&frame(1173)), Verdict::Passed(_)));
    });
}

#[test]
fn within_the_relay_one_pass_is_enough_and_nobody_can_pretend() {
    isolated(|| {
        let (mut relay, ground) = (Relay::with_clients(), Ground::new());
        relay.announce(&ground.engine);
        let within: Vec<Channel> = relay.channels.iter().copied().filter(is_within_relay).collect();
        assert_eq!(within.len(), 8);
        for channel in &within {
            assert_eq!(judge(&ground, &mut relay, &plain(&from_client(channel, b"hello"))), Ok(true));
            // The other end's relayed address as the source of a frame from outside.
            assert_eq!(judge(&ground, &mut relay, &plain(&from_peer(channel, b"hello"))), Ok(false));
        }
        assert_eq!(ground.engine.counters().forwarded(Direction::WithinRelay), (8, 40));
        // Both ends must agree: when one has no channel any more, the machine decides.
        let (place, other) = (within[0], within.iter().find(|other| other.relayed == within[0].peer));
        let other = other.expect("bound both ways");
        ground.engine.remove(&other.route);
        assert_eq!(judge(&ground, &mut relay, &plain(&from_client(&place, b"hello"))), Ok(false));
    });
}

fn is_within_relay(channel: &Channel) -> bool {
    channel.peer.ip() == local(channel.peer.is_ipv4())
}

#[test]
fn a_full_table_refuses_and_harms_nobody() {
    isolated(|| {
        let mut relay = Relay::new();
        let client = address("198.51.100.1:4001");
        relay.allocate(client);
        for number in 0..3 {
            relay.bind(client, 0x4000 + number, SocketAddr::new(address(PEER).ip(), 5000 + number));
        }
        let ground = Ground::with(&Config { capacity: 2, ..config() });
        let inserted: Vec<_> =
            (0..3).map(|index| ground.engine.insert(&relay.channels[index].route)).collect();
        assert!(matches!(inserted[..], [Ok(()), Ok(()), Err(InsertError::Full)]), "{inserted:?}");
        assert_eq!(ground.engine.routes(), 2);
        let channels = relay.channels.clone();
        for (channel, is_in_table) in channels.iter().zip([true, true, false]) {
            for frame in [plain(&from_client(channel, b"a")), plain(&from_peer(channel, b"b"))] {
                assert_eq!(judge(&ground, &mut relay, &frame), Ok(is_in_table));
            }
        }
        // The same again changes nothing; another name for the same channel does not need room.
        let renamed = Route { name: 77, ..channels[0].route };
        ground.engine.insert(&renamed).expect("is there already");
        assert_eq!(ground.engine.routes(), 2);
        // A channel that moves to another peer would need room for one direction: refused, and nothing is half done.
        let moved = Channel { peer: channels[2].peer, ..channels[0] };
        let moved_route = Route { name: 78, peer: moved.peer, ..moved.route };
        assert!(matches!(ground.engine.insert(&moved_route), Err(InsertError::Full)));
        assert_eq!(judge(&ground, &mut relay, &plain(&from_client(&channels[0], b"a"))), Ok(true));
        assert_eq!(judge(&ground, &mut relay, &plain(&from_peer(&channels[0], b"b"))), Ok(true));
        assert_eq!(judge(&ground, &mut relay, &plain(&from_peer(&moved, b"b"))), Ok(false));
        ground.engine.remove(&channels[1].route);
        ground.engine.insert(&channels[2].route).expect("there is room again");
        assert_eq!(judge(&ground, &mut relay, &plain(&from_client(&channels[2], b"a"))), Ok(true));
    });
}

#[test]
fn a_late_removal_does_not_hit_a_newer_route() {
    isolated(|| {
        let (mut relay, ground, channel) = one_channel(PEER);
        let newer = Route { name: 5, ..channel.route };
        ground.engine.insert(&newer).expect("inserts");
        ground.engine.remove(&channel.route);
        assert_eq!(judge(&ground, &mut relay, &plain(&from_client(&channel, b"a"))), Ok(true));
        assert_eq!(judge(&ground, &mut relay, &plain(&from_peer(&channel, b"b"))), Ok(true));
        ground.engine.remove(&newer);
        assert_eq!(judge(&ground, &mut relay, &plain(&from_client(&channel, b"a"))), Ok(false));
        assert_eq!(judge(&ground, &mut relay, &plain(&from_peer(&channel, b"b"))), Ok(false));
        assert_eq!(ground.engine.routes(), 0);
    });
}

#[test]
fn a_port_that_is_taken_back_ends_its_routes_at_once() {
    isolated(|| {
        let (mut relay, ground) = (Relay::with_clients(), Ground::new());
        relay.announce(&ground.engine);
        let (channel, other_family) = (relay.channels[0], relay.channels[1]);
        ground.engine.release_port(false, channel.relayed.port());
        for frame in [plain(&from_client(&channel, b"a")), plain(&from_peer(&channel, b"b"))] {
            assert_eq!(judge(&ground, &mut relay, &frame), Ok(false));
        }
        assert_eq!(ground.engine.counters().passed(PassReason::StaleRoute), 2);
        assert_eq!(judge(&ground, &mut relay, &plain(&from_client(&other_family, b"a"))), Ok(true));
        // Who gets the port next has a route of its own.
        ground.engine.insert(&Route { name: 99, ..channel.route }).expect("inserts");
        assert_eq!(judge(&ground, &mut relay, &plain(&from_client(&channel, b"a"))), Ok(true));
        ground.engine.release_port(false, 1);
        ground.engine.release_port(true, u16::MAX);
    });
}

#[test]
fn a_relay_that_stands_still_forwards_nothing_and_a_neighbour_is_confirmed() {
    isolated(|| {
        let (mut relay, ground, channel) = one_channel(PEER);
        let frame = plain(&from_client(&channel, b"hello"));
        let begin = Instant::now();
        assert_eq!(judge(&ground, &mut relay, &frame), Ok(true));
        std::thread::sleep(LEASE + Duration::from_millis(100));
        assert_eq!(judge(&ground, &mut relay, &frame), Ok(false));
        assert_eq!(ground.engine.counters().passed(PassReason::NoLease), 1);
        assert!(ground.engine.renew_lease());
        assert_eq!(judge(&ground, &mut relay, &frame), Ok(true));
        // Once in half a minute one packet goes up, so that the kernel sees to its neighbour.
        while begin.elapsed() < Duration::from_secs(31) {
            std::thread::sleep(Duration::from_secs(1));
            assert!(ground.engine.renew_lease());
        }
        let outcomes: Vec<bool> =
            (0..3).map(|_| judge(&ground, &mut relay, &frame).expect("alike")).collect();
        // Each processor has ways of its own, so the test may have moved to one that is new to it.
        let confirmations = ground.engine.counters().passed(PassReason::Confirmation);
        assert_eq!(outcomes.iter().filter(|sent| !**sent).count() as u64, confirmations);
        assert!(outcomes[2] && confirmations <= 1, "{outcomes:?}");
    });
}

#[test]
fn threads_may_come_and_go_with_their_routes() {
    isolated(|| {
        let ground = Ground::new();
        std::thread::scope(|scope| {
            for thread in 0..4_u16 {
                let engine = ground.engine.clone();
                scope.spawn(move || {
                    for round in 0..200_u64 {
                        let route = Route {
                            name: u64::from(thread) << 48 | round,
                            client: SocketAddr::new([198, 51, 100, 7].into(), 1000 + thread),
                            channel: 0x4000,
                            port: 50_000,
                            peer: SocketAddr::new([192, 0, 2, 9].into(), 1000 + thread),
                            is_within_relay: false,
                        };
                        engine.insert(&route).expect("inserts");
                        engine.release_port(false, 50_000);
                        engine.remove(&route);
                    }
                });
            }
        });
        assert_eq!(ground.engine.routes(), 0);
    });
}

#[test]
fn what_does_not_attach_says_why_and_leaves_nothing() {
    isolated(|| {
        let refusal = |config: &Config| Engine::attach(config).expect_err("refused");
        let with = |interfaces: &[&str]| Config {
            interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
            ..config()
        };
        assert!(matches!(refusal(&with(&[])), XdpError::Interfaces(0)));
        let error = refusal(&with(&["eth0", "eth7"]));
        assert!(matches!(&error, XdpError::NoInterface(name) if name == "eth7"), "{error}");
        // What was attached before the error is gone, so that this works.
        let first = Ground::new();
        let error = refusal(&config());
        let busy = error.to_string().contains("busy");
        assert!(matches!(error, XdpError::Attach { .. }) && busy, "{error}");
        drop(first);
        let generic = Ground::with(&Config { mode: Mode::Generic, ..config() });
        drop(generic);
        let _again = Ground::new();
        // Loopback has no driver that could.
        let error = refusal(&with(&["lo"]));
        assert!(error.to_string().contains("lo does not take the program in driver mode"), "{error}");
    });
}
