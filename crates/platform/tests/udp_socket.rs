//! UDP sockets against the real kernel: batches, offload, addresses, faults.

#[expect(dead_code, reason = "each test file uses its part of the helpers")]
mod namespace;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd as _;
use std::time::Duration;

use adit_platform::tun::{Config as TunConfig, Offload, Tun};
use adit_platform::udp::{BindError, Config, ReceiveBatch, SendError, Transmit, UdpSocket, drained};
use namespace::{ip, isolated};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

fn v4() -> UdpSocket {
    UdpSocket::bind(&Config::wildcard_v4(0)).expect("binds")
}

fn to(address: &str, socket: &UdpSocket) -> SocketAddr {
    SocketAddr::new(address.parse().expect("address"), socket.local_addr().port())
}

/// Receives until `count` datagrams have come: payload, source, local address.
fn receive(socket: &UdpSocket, count: usize) -> Vec<(Vec<u8>, SocketAddr, SocketAddr)> {
    let mut batch = ReceiveBatch::new(8);
    let mut all = Vec::new();
    while all.len() < count {
        let mut wait = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
        assert_ne!(
            poll(&mut wait, PollTimeout::from(5_000u16)).expect("polls"),
            0,
            "only {} came",
            all.len()
        );
        socket.receive(&mut batch).expect("receives");
        all.extend(batch.datagrams().map(|got| (got.payload.to_vec(), got.source, got.local)));
    }
    all
}

#[test]
fn local_addresses_are_known_when_receiving_and_chosen_when_sending() {
    let (sender, receiver) = (v4(), v4());
    let source: IpAddr = "127.0.0.3".parse().expect("address");
    let transmit = Transmit {
        source: Some(source),
        destination: to("127.0.0.2", &receiver),
        contents: b"hello",
        segment_size: None,
    };
    sender.send(&transmit).expect("sends");
    let got = receive(&receiver, 1).remove(0);
    assert_eq!(got, (b"hello".to_vec(), to("127.0.0.3", &sender), to("127.0.0.2", &receiver)));
}

#[test]
fn ipv6_sockets_carry_only_ipv6() {
    let sender = UdpSocket::bind(&Config::wildcard_v6(0)).expect("binds");
    let receiver = UdpSocket::bind(&Config::wildcard_v6(0)).expect("binds");
    let same_port =
        UdpSocket::bind(&Config::wildcard_v4(receiver.local_addr().port())).expect("both families");
    let destination = to("::1", &receiver);
    let transmit = Transmit { source: None, destination, contents: b"six", segment_size: None };
    sender.send(&transmit).expect("sends");
    let got = receive(&receiver, 1).remove(0);
    assert_eq!((got.0, got.2), (b"six".to_vec(), destination));
    assert_eq!(same_port.receive(&mut ReceiveBatch::new(1)).expect("receives"), 0);
}

#[test]
fn segments_arrive_as_single_datagrams_in_order() {
    let (sender, receiver) = (v4(), v4());
    let destination = to("127.0.0.1", &receiver);
    for (segment, total) in [(1_200, 1_200 * 60 + 7), (100, 100 * 130), (1_400, 1_400), (9_000, 27_000)] {
        let contents: Vec<u8> = (0..total).map(|at| (at / segment) as u8).collect();
        let transmit =
            Transmit { source: None, destination, contents: &contents, segment_size: Some(segment) };
        sender.send(&transmit).expect("sends");
        let count = total.div_ceil(segment);
        let payloads: Vec<Vec<u8>> = receive(&receiver, count).into_iter().map(|got| got.0).collect();
        assert_eq!(payloads, contents.chunks(segment).map(<[u8]>::to_vec).collect::<Vec<_>>());
    }
}

#[test]
fn a_source_address_that_is_gone_does_not_switch_offload_off() {
    let (sender, receiver) = (v4(), v4());
    let before = sender.max_segments();
    let gone = Transmit {
        source: Some("192.0.2.1".parse().expect("address")),
        destination: to("127.0.0.1", &receiver),
        contents: &[7; 3_000],
        segment_size: Some(1_000),
    };
    let refused = sender.send(&gone);
    assert!(matches!(refused, Err(SendError::SourceGone | SendError::Unreachable(_))), "{refused:?}");
    assert_eq!(sender.max_segments(), before);
    sender.send(&Transmit { source: None, ..gone }).expect("sends");
    assert_eq!(receive(&receiver, 3).len(), 3);
    assert_eq!(sender.max_segments(), before);
}

#[test]
fn a_closed_port_and_an_oversized_datagram_harm_nothing() {
    let (sender, receiver) = (v4(), v4());
    let closed = to("127.0.0.1", &v4());
    let send = |destination, contents: &[u8]| {
        sender.send(&Transmit { source: None, destination, contents, segment_size: None })
    };
    for _ in 0..5 {
        let _ = send(closed, b"nobody listens");
    }
    assert!(matches!(send(to("127.0.0.1", &receiver), &[0; 65_508]), Err(SendError::TooLarge)));
    assert_eq!(sender.receive(&mut ReceiveBatch::new(4)).expect("still sound"), 0);
    send(to("127.0.0.1", &receiver), b"fine").expect("sends");
    assert_eq!(receive(&receiver, 1)[0].0, b"fine");
}

#[test]
fn empty_datagrams_are_left_out() {
    let (sender, receiver) = (v4(), v4());
    let destination = to("127.0.0.1", &receiver);
    for contents in [&b""[..], b"x"] {
        sender.send(&Transmit { source: None, destination, contents, segment_size: None }).expect("sends");
    }
    assert_eq!(receive(&receiver, 1)[0].0, b"x");
}

#[test]
fn a_taken_port_is_said_to_be_taken() {
    let holder = v4();
    let again = UdpSocket::bind(&Config::wildcard_v4(holder.local_addr().port()));
    assert!(matches!(again, Err(BindError::Taken(_))), "{again:?}");
}

#[test]
fn sockets_can_be_shared_between_threads() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<UdpSocket>();
}

#[tokio::test]
async fn a_flushed_socket_is_drained() {
    let (sender, receiver) = (v4(), v4());
    let destination = to("127.0.0.1", &receiver);
    for _ in 0..100 {
        sender
            .send(&Transmit { source: None, destination, contents: &[1; 1_000], segment_size: None })
            .expect("sends");
    }
    receive(&receiver, 100);
    assert!(drained(&[&sender], Duration::from_secs(1)).await);
}

#[test]
fn a_device_without_offload_still_gets_every_segment() {
    isolated(|| async {
        let tun = Tun::create(&TunConfig { name: "adit0".to_owned(), mtu: 1_400, offload: Offload::None })
            .expect("creates");
        ip("address add 10.9.0.1/24 dev adit0");
        ip("link set adit0 up");
        let sender = v4();
        for _ in 0..2 {
            let transmit = Transmit {
                source: None,
                destination: "10.9.0.2:5000".parse().expect("address"),
                contents: &[9; 3_500],
                segment_size: Some(1_000),
            };
            sender.send(&transmit).expect("sends");
            let mut buffer = [0; 2_048];
            let mut lengths = Vec::new();
            while lengths.len() < 4 {
                let mut wait = [PollFd::new(tun.as_fd(), PollFlags::POLLIN)];
                assert_ne!(poll(&mut wait, PollTimeout::from(5_000u16)).expect("polls"), 0, "{lengths:?}");
                match tun.read(&mut buffer) {
                    Ok(length) if buffer[0] >> 4 == 4 && buffer[9] == 17 => lengths.push(length - 28),
                    _ => {}
                }
            }
            assert_eq!(lengths, [1_000, 1_000, 1_000, 500]);
        }
    });
}

#[test]
fn marked_sockets_follow_the_rules_for_their_mark() {
    isolated(|| async {
        ip("link add ethernet0 type veth peer name ethernet1");
        ip("address add 10.1.0.1/24 dev ethernet0");
        ip("link set ethernet0 up");
        ip("link set ethernet1 up");
        ip("route add unreachable 10.1.0.9/32 table 99");
        ip("rule add not fwmark 0xad000000/0xff000000 lookup 99 priority 100");
        let transmit = Transmit {
            source: None,
            destination: "10.1.0.9:9".parse().expect("address"),
            contents: b"x",
            segment_size: None,
        };
        assert!(matches!(v4().send(&transmit), Err(SendError::Unreachable(_))));
        let mark = Some(adit_platform::network::FWMARK);
        let marked = UdpSocket::bind(&Config { fwmark: mark, ..Config::wildcard_v4(0) }).expect("binds");
        marked.send(&transmit).expect("sends");
    });
}

#[test]
fn a_host_without_ipv6_is_told_apart() {
    isolated(|| async {
        namespace::set_sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        let bound = UdpSocket::bind(&Config::wildcard_v6(0));
        // Kernels differ: some still bind the wildcard address.
        assert!(matches!(bound, Ok(_) | Err(BindError::NoFamily("IPv6"))), "{bound:?}");
    });
}

#[test]
fn a_closed_port_is_reported_and_costs_others_nothing() {
    let address = "127.0.0.1:0".parse().expect("an address");
    let sender = UdpSocket::bind(&Config { keep_errors: true, ..Config::new(address) }).expect("binds");
    let receiver = UdpSocket::bind(&Config::new(address)).expect("binds");
    let closed = UdpSocket::bind(&Config::new(address)).expect("binds").local_addr();
    let send = |destination| {
        let contents = b"anybody there?";
        sender.send(&Transmit { source: None, destination, contents, segment_size: None })
    };
    assert_eq!(sender.take_unreachable(), None);
    for _ in 0..3 {
        send(closed).expect("it leaves");
        // The error of the datagram before is pending now.
        send(receiver.local_addr()).expect("that was another destination");
    }
    let mut reported = 0;
    while let Some(unreachable) = sender.take_unreachable() {
        assert_eq!(unreachable, closed);
        reported += 1;
    }
    assert!((1..=3).contains(&reported), "{reported} of 3");
    let mut batch = ReceiveBatch::new(8);
    let mut received = 0;
    while received < 3 && receiver.receive(&mut batch).expect("works") > 0 {
        received += batch.datagrams().count();
    }
    assert_eq!(received, 3);
}
