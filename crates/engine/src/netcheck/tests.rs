//! Relays of our own making on loopback, and none.

use std::net::{SocketAddr, UdpSocket};

use adit_turn::stun::{AttributeKind, Class, Message, Method, Writer};

use super::*;

/// Answers Binding requests of at most `largest` bytes until the socket's other end is dropped with the test; says
/// that it saw `seen`, or what it really saw.
fn relay(seen: Option<SocketAddr>, largest: usize) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    std::thread::spawn(move || {
        let mut datagram = [0; 65_536];
        while let Ok((length, from)) = socket.recv_from(&mut datagram) {
            let Ok(request) = Message::parse(&datagram[..length]) else { continue };
            if length <= largest {
                let answer = Writer::new(Method::BINDING, Class::Success, request.transaction());
                let answer = answer.xor_address(AttributeKind::XOR_MAPPED_ADDRESS, seen.unwrap_or(from));
                socket.send_to(&answer.finish(), from).unwrap();
            }
        }
    });
    address
}

fn silent() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[test]
fn relays_answer_or_do_not() {
    let (_kept, quiet) = silent();
    let probed = udp::probe(&[relay(None, 65_536), quiet], None);
    assert!(probed.attempts[0].is_ok(), "{probed:?}");
    assert_eq!(probed.attempts[1].as_ref().unwrap_err().kind, FailureKind::NoAnswer);
    assert_eq!(probed.family.mapping, Some(Mapping::None));
    // Loopback carries the largest of them.
    assert_eq!(probed.family.path_mtu, Some(PathMtu { bytes: 9_000, is_silent: false }));
}

#[test]
fn what_swallows_large_packets_is_a_black_hole() {
    let probed = udp::probe(&[relay(None, 1_460 - 28)], None);
    assert_eq!(probed.family.path_mtu, Some(PathMtu { bytes: 1_460, is_silent: true }));
}

#[test]
fn one_relay_alone_cannot_tell_how_addresses_are_translated() {
    let outside = "203.0.113.9:1024".parse().unwrap();
    let probed = udp::probe(&[relay(Some(outside), 65_536)], None);
    assert_eq!((probed.family.public, probed.family.mapping), (Some(outside), None));
}

#[tokio::test]
async fn a_portal_that_is_none_is_told_from_one_that_is_away() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // The other end may hang up first.
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, b"SSH-2.0-x\r\n\r\n").await;
        }
    });
    let config = |port| PortalConfig {
        url: format!("http://127.0.0.1:{port}").parse().unwrap(),
        token: String::new(),
        ca: None,
        allow_plain: true,
    };
    let stranger = check(&config(port), &[], None).await.unwrap();
    let failure = stranger.portal.unwrap_err();
    assert_eq!(
        (failure.kind, failure.detail.as_str()),
        (FailureKind::Other, "something answered that is no web server")
    );
    let away = check(&config(1), &[], None).await.unwrap();
    assert_eq!(away.portal.unwrap_err().kind, FailureKind::Refused);
    assert!(away.relays.is_empty() && away.ipv4.is_none() && away.clock_ahead_ms.is_none());
}
