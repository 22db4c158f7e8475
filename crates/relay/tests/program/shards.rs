//! Several shards are one relay.

use std::net::UdpSocket;

use adit_turn::Family;

use crate::driver::{LIMIT, Program, SECRET};
use crate::requester::Requester;

const SHARDS: usize = 4;

/// Which shard lent a port: each has its part of the range.
fn shard(program: &Program, port: u16) -> usize {
    let (first, last) = program.lent_ports();
    usize::from(port - first) * SHARDS / (usize::from(last - first) + 1)
}

#[test]
fn all_shards_work_and_no_client_loses_anything() {
    let program = Program::alone(&["--shards", "4", "--max-allocations-per-user", "1000"]);
    let peer = UdpSocket::bind("127.0.0.1:0").expect("binds");
    peer.set_read_timeout(Some(LIMIT)).expect("sets");
    let peer_address = peer.local_addr().expect("address");
    let mut clients = Vec::new();
    let mut by_shard = [0; SHARDS];
    for _ in 0..96 {
        let mut client = Requester::udp(program.address(Family::V4));
        let relayed = client.allocate();
        assert_eq!(client.bind(0x4001, peer_address), 0);
        by_shard[shard(&program, relayed.port())] += 1;
        clients.push((client, relayed));
    }
    assert!(by_shard.iter().all(|&clients| clients >= 8), "{by_shard:?}");
    let mut buffer = [0; 2000];
    for round in 0..10_u8 {
        for (index, (client, _)) in clients.iter_mut().enumerate() {
            client.send_data(0x4001, &[index as u8, round]);
        }
        for _ in 0..clients.len() {
            let (length, from) = peer.recv_from(&mut buffer).expect("arrives");
            assert_eq!((length, from), (2, clients[usize::from(buffer[0])].1));
            peer.send_to(&buffer[..length], from).expect("sends");
        }
        for (index, (client, _)) in clients.iter_mut().enumerate() {
            assert_eq!(client.receive_data(), (0x4001, vec![index as u8, round]));
            assert_eq!(client.refresh(600), 0);
        }
    }
    assert_eq!(clients.iter().map(|(client, _)| client.repeated).sum::<u32>(), 0, "nothing was sent twice");
    program.wait_metric("adit_relay_allocations", |count| count == 96.0);
    for (index, clients) in by_shard.into_iter().enumerate() {
        let metric = format!("adit_relay_shard_allocations{{shard=\"{index}\"}}");
        program.wait_metric(&metric, |count| count == f64::from(clients));
    }
}

#[test]
fn clients_of_different_shards_reach_each_other_through_the_relay() {
    // No peer but the relay itself is allowed.
    let program = Program::start(&["--static-secret", SECRET, "--shards", "4"]);
    program.wait_ready();
    let mut first = Requester::udp(program.address(Family::V4));
    let first_address = first.allocate();
    let (mut second, second_address) = (0..100)
        .map(|_| {
            let mut client = Requester::udp(program.address(Family::V4));
            let address = client.allocate();
            (client, address)
        })
        .take(20)
        .find(|(_, address)| shard(&program, address.port()) != shard(&program, first_address.port()))
        .expect("another shard");
    assert_eq!(first.bind(0x4001, second_address), 0);
    assert_eq!(second.bind(0x4002, first_address), 0);
    for size in [0, 1, 1200] {
        first.send_data(0x4001, &vec![1; size]);
        assert_eq!(second.receive_data(), (0x4002, vec![1; size]));
        second.send_data(0x4002, &vec![2; size]);
        assert_eq!(first.receive_data(), (0x4001, vec![2; size]));
    }
    // A port of the range that nobody holds is not reached.
    let stranger = program.unlent();
    assert_eq!(first.bind(0x4003, stranger.local_addr().expect("address")), 0);
    first.send_data(0x4003, b"anybody?");
    program.wait_metric("adit_relay_dropped_total{reason=\"forbidden\"}", |count| count == 1.0);
    stranger.set_nonblocking(true).expect("sets");
    assert!(stranger.recv(&mut [0; 10]).is_err());
    // The end of one allocation closes the way to it.
    assert_eq!(second.refresh(0), 0);
    first.send_data(0x4001, b"gone");
    program.wait_metric("adit_relay_dropped_total{reason=\"forbidden\"}", |count| count == 2.0);
}

#[test]
fn bounds_hold_for_all_shards_together() {
    let program =
        Program::alone(&["--shards", "4", "--max-allocations", "10", "--max-allocations-per-user", "6"]);
    let mut held = Vec::new();
    let mut allocate = |user: &str| {
        let mut client = Requester::udp(program.address(Family::V4));
        client.become_user(user, SECRET);
        let outcome = client.try_allocate().map(drop);
        held.push(client);
        outcome
    };
    for number in 0..6 {
        assert_eq!(allocate("alice"), Ok(()), "{number}");
    }
    assert_eq!(allocate("alice"), Err(486));
    for number in 0..4 {
        assert_eq!(allocate("bob"), Ok(()), "{number}");
    }
    assert_eq!(allocate("bob"), Err(508));
    assert_eq!(held[0].refresh(0), 0);
    let mut client = Requester::udp(program.address(Family::V4));
    client.become_user("bob", SECRET);
    assert!(client.try_allocate().is_ok(), "a place that is given back can be taken");
}
