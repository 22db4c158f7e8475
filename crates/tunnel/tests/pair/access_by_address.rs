//! A resource is reached by its address.

use std::time::Duration;

use adit_packet::{PacketView, TcpFlags};
use adit_tunnel::ResourceState;

use crate::packets::{socket, tcp, udp};
use crate::portal::{cidr, resource, resource_id};
use crate::world::World;

const CLIENT: &str = "100.64.0.10:5000";
const SERVER: &str = "10.1.0.7:443";

#[test]
fn the_first_packet_opens_the_way_and_the_rest_follow_it() {
    let mut world = World::new([resource(1, cidr("10.1.0.0/16"))]);
    world.client_sends(0, &tcp(socket(CLIENT), socket(SERVER), TcpFlags::SYN));
    let (packet, took) = world.await_packet(0, Duration::from_secs(5)).expect("an answer");
    let view = PacketView::parse(&packet).unwrap();
    assert!(view.tcp_flags().contains(TcpFlags::ACK));
    assert_eq!(view.source_socket(), Some(socket(SERVER)));
    // Portal there and back 40 ms, then at most two round trips of 40 ms and 50 ms.
    assert!(took <= Duration::from_millis(40 + 80 + 50), "{took:?}");

    let request = udp(socket(CLIENT), socket(SERVER), b"hello");
    world.client_sends(0, &request);
    let (_, took) = world.await_packet(0, Duration::from_secs(1)).expect("an answer");
    assert_eq!(took, Duration::from_millis(41), "one round trip, and one behind the gateway");
    let state = world.clients[0].machine.resources(world.now).remove(0).state;
    assert!(matches!(state, ResourceState::Connected { .. }), "{state:?}");
    assert_eq!(world.portal.requests.len(), 1);
    assert_eq!(world.portal.requests[0].resource, resource_id(1));
}
