//! Direct paths, relay channels, roaming, and datagrams for the control thread.

use std::time::Duration;

use adit_dataplane::{DropReason, Event, Inbound, Path, StreamId, Update, Worker};

use crate::world::{
    CLIENT, CLIENT_ADDRESS, GATEWAY_ADDRESS, RELAY_ADDRESS, World, deliver, events, seal, socket, udp,
};

fn packet() -> Vec<u8> {
    udp("100.64.0.1:4000", "10.0.0.9:53", b"question")
}

fn connected() -> World {
    let mut world = World::new();
    world.install(&packet(), &packet());
    let _ = (events(&mut world.client), events(&mut world.gateway));
    world
}

fn roams(worker: &mut Worker) -> Vec<Path> {
    let path = |event| match event {
        Event::Roamed { path, .. } => Some(path),
        Event::PeerActive { .. } | Event::FlowEnded { .. } => None,
    };
    events(worker).into_iter().filter_map(path).collect()
}

#[test]
fn a_channel_header_is_written_and_taken_off() {
    let mut world = connected();
    world.use_path(Some(0x4123));
    let (datagram, path) = seal(&mut world.client, world.now, &packet()).unwrap();
    assert_eq!(path.remote, socket(RELAY_ADDRESS));
    let length = u16::try_from(datagram.len() - 4).unwrap().to_be_bytes();
    assert_eq!(datagram[..4], [0x41, 0x23, length[0], length[1]]);
    assert_eq!(datagram[4..8], [4, 0, 0, 0]);
    assert_eq!(world.forward(&packet()), Ok(packet()));
    let (mut padded, _) = seal(&mut world.client, world.now, &packet()).unwrap();
    padded.extend_from_slice(&[0; 3]);
    let addresses = [socket(GATEWAY_ADDRESS), socket(RELAY_ADDRESS)];
    assert_eq!(deliver(&mut world.gateway, world.now, addresses, padded), Ok(packet()), "padding is ignored");
    assert!(roams(&mut world.gateway).is_empty());
}

#[test]
fn a_datagram_is_padded_to_sixteen_bytes() {
    let mut world = connected();
    let (datagram, _) = seal(&mut world.client, world.now, &packet()).unwrap();
    assert_eq!(packet().len() % 16, 4);
    assert_eq!(datagram.len(), packet().len().next_multiple_of(16) + 32);
}

#[test]
fn another_way_is_told_once_until_the_path_changes() {
    let mut world = connected();
    let local = socket(GATEWAY_ADDRESS);
    let elsewhere = socket("192.0.2.200:777");
    let arrive = |world: &mut World, from| {
        let (datagram, _) = seal(&mut world.client, world.now, &packet()).unwrap();
        deliver(&mut world.gateway, world.now, [local, from], datagram).unwrap();
        world.now += Duration::from_millis(20);
        roams(&mut world.gateway)
    };
    assert_eq!(
        arrive(&mut world, elsewhere),
        [Path { local, remote: elsewhere, channel: None, stream: None }]
    );
    assert!(arrive(&mut world, elsewhere).is_empty());
    assert!(arrive(&mut world, socket("192.0.2.201:1")).is_empty(), "not twice within 100 ms");
    world.now += Duration::from_millis(100);
    assert_eq!(arrive(&mut world, socket("192.0.2.201:1")).len(), 1);
    let path = Path { local, remote: elsewhere, channel: None, stream: None };
    world.gateway.apply(world.now, Update::PathChanged { peer: CLIENT, path });
    assert!(arrive(&mut world, elsewhere).is_empty(), "now it is the path");
    assert_eq!(arrive(&mut world, socket(CLIENT_ADDRESS)).len(), 1, "and the old one is another way");
}

#[test]
fn a_stream_is_a_way_of_its_own() {
    let mut world = connected();
    world.use_path(Some(0x4123));
    let message = |world: &mut World| seal(&mut world.client, world.now, &packet()).unwrap().0;
    let arrive = |world: &mut World, stream| {
        let mut message = message(world);
        world.now += Duration::from_millis(200);
        assert!(matches!(world.gateway.inbound_message(world.now, stream, &mut message), Inbound::Tun(_)));
        roams(&mut world.gateway)
    };
    let told = arrive(&mut world, StreamId(7));
    assert_eq!(told.len(), 1, "over UDP the same channel is another one");
    assert_eq!((told[0].stream, told[0].channel), (Some(StreamId(7)), Some(0x4123)));
    let path = Path { remote: socket(RELAY_ADDRESS), ..told[0] };
    world.gateway.apply(world.now, Update::PathChanged { peer: CLIENT, path });
    assert!(arrive(&mut world, StreamId(7)).is_empty(), "whatever address the relay has");
    assert_eq!(arrive(&mut world, StreamId(8)).len(), 1);
    let reply = udp("10.0.0.9:53", "100.64.0.1:4000", b"answer");
    let (_, answered) = seal(&mut world.gateway, world.now, &reply).unwrap();
    assert_eq!(answered.stream, Some(StreamId(7)));
    let mut garbage = vec![0x41, 0x23, 0, 9, 1];
    assert!(matches!(
        world.gateway.inbound_message(world.now, StreamId(7), &mut garbage),
        Inbound::Drop(DropReason::MalformedChannelData)
    ));
}

#[test]
fn a_late_or_forged_datagram_moves_nobody() {
    let mut world = connected();
    let (late, _) = seal(&mut world.client, world.now, &packet()).unwrap();
    world.forward(&packet()).unwrap();
    let addresses = [socket(GATEWAY_ADDRESS), socket("192.0.2.200:777")];
    assert!(deliver(&mut world.gateway, world.now, addresses, late.clone()).is_ok());
    assert!(roams(&mut world.gateway).is_empty(), "late");
    assert_eq!(deliver(&mut world.gateway, world.now, addresses, late), Err("replayed".to_owned()));
    let (mut forged, _) = seal(&mut world.client, world.now, &packet()).unwrap();
    forged[30] ^= 1;
    assert_eq!(deliver(&mut world.gateway, world.now, addresses, forged), Err("decryption".to_owned()));
    assert!(roams(&mut world.gateway).is_empty(), "forged");
}

#[test]
fn everything_else_is_for_the_control_thread() {
    let mut world = connected();
    let addresses = [socket(GATEWAY_ADDRESS), socket(CLIENT_ADDRESS)];
    let mut initiation = vec![0; 148];
    initiation[0] = 1;
    let mut stun = vec![0; 20];
    stun[1] = 1;
    let mut unknown_session = vec![9; 64];
    unknown_session[..4].copy_from_slice(&[4, 0, 0, 0]);
    let in_channel = [&[0x40, 1, 0, 64][..], &unknown_session].concat();
    for datagram in [initiation, stun, unknown_session, in_channel, vec![4, 0, 0, 0], Vec::new()] {
        assert_eq!(deliver(&mut world.gateway, world.now, addresses, datagram), Err("not mine".to_owned()));
    }
    assert_eq!(world.gateway.counters().not_mine, 6);
}

#[test]
fn keepalives_are_counted_and_go_nowhere() {
    let mut world = connected();
    let mut keepalive = vec![0; 32];
    world.sessions[0].seal_in_place(&mut keepalive, 0).unwrap();
    let addresses = [socket(GATEWAY_ADDRESS), socket(CLIENT_ADDRESS)];
    assert_eq!(deliver(&mut world.gateway, world.now, addresses, keepalive), Err("keepalive".to_owned()));
    assert_eq!(world.gateway.counters().keepalives, 1);
}
