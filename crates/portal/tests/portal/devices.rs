//! The same device twice, and devices that pretend.

use adit_protocol::client::DisconnectReason;
use adit_protocol::{ClientToPortal, GatewayToPortal, PortalToClient, PortalToGateway};

use crate::world::{Client, ClientPeer, GatewayPeer, World, hello};

#[tokio::test]
async fn the_same_process_reconnects_and_takes_over_at_once() {
    let world = World::new().await;
    let office = world.office().await;
    let mut old = world.gateway(&office.gateway_token, 1, 1).await;
    let new = world.gateway(&office.gateway_token, 1, 1).await;
    assert_eq!(new.id(), old.id());
    match old.peer.next().await {
        PortalToGateway::Disconnect(disconnect) => {
            assert_eq!(disconnect.reason, DisconnectReason::Superseded)
        }
        other => panic!("{other:?}"),
    }
    // The old session's end is not the gateway's.
    let mut client = world.client(&office.client_token, 2, 2).await;
    client.request(1, office.resource).await;
    client.granted().await;
    client.peer.silent().await;
}

#[tokio::test]
async fn a_copied_device_is_refused_while_the_first_one_answers() {
    let world = World::new().await;
    let office = world.office().await;
    let first = world.gateway(&office.gateway_token, 1, 1).await;
    // It answers pings as long as somebody reads from its socket.
    let (alive, mut dead) = tokio::sync::oneshot::channel::<()>();
    let mut peer = first.peer;
    let reader = tokio::spawn(async move {
        tokio::select! {
            message = peer.try_next() => panic!("{message:?}"),
            _ = &mut dead => {}
        }
        peer
    });
    let mut copy = GatewayPeer::connect(world.address, "gateway", &office.gateway_token).await.unwrap();
    copy.send(&GatewayToPortal::Hello(hello(1, 9))).await;
    match copy.next().await {
        PortalToGateway::Disconnect(disconnect) => {
            assert_eq!(disconnect.reason, DisconnectReason::Superseded)
        }
        other => panic!("{other:?}"),
    }
    drop(alive);
    drop(reader.await.unwrap());
    world.gateway(&office.gateway_token, 1, 9).await;
}

#[tokio::test]
async fn a_device_that_does_not_answer_makes_room_for_its_successor() {
    let world = World::new().await;
    let office = world.office().await;
    // Nobody reads from this socket, so no ping is answered.
    let silent = world.client(&office.client_token, 2, 2).await;
    let successor = world.client(&office.client_token, 2, 3).await;
    assert_eq!(successor.id(), silent.id());
}

#[tokio::test]
async fn the_successor_of_a_draining_gateway_is_welcome_at_once() {
    let world = World::new().await;
    let office = world.office().await;
    let mut old = world.gateway(&office.gateway_token, 1, 1).await;
    old.peer.send(&GatewayToPortal::Draining(Default::default())).await;
    old.peer.silent().await;
    let start = std::time::Instant::now();
    let new = world.gateway(&office.gateway_token, 1, 9).await;
    assert_eq!(new.id(), old.id());
    assert!(start.elapsed() < std::time::Duration::from_millis(900), "no probe was waited for");
}

#[tokio::test]
async fn the_key_of_a_live_peer_cannot_be_claimed() {
    let world = World::new().await;
    let office = world.office().await;
    let victim = world.client(&office.client_token, 2, 2).await;
    let mut thief = ClientPeer::connect(world.address, "client", &office.client_token).await.unwrap();
    thief.send(&ClientToPortal::Hello(hello(3, 2))).await;
    assert!(matches!(thief.next().await, PortalToClient::Disconnect(_)));
    // A machine that was given to somebody else may come back with its key.
    drop(victim);
    let mut again = ClientPeer::connect(world.address, "client", &office.client_token).await.unwrap();
    again.send(&ClientToPortal::Hello(hello(3, 2))).await;
    Client::new(again).await;
}

#[tokio::test]
async fn the_same_device_of_another_actor_is_another_client() {
    let world = World::new().await;
    let office = world.office().await;
    let bob = world.post("actors", serde_json::json!({ "kind": "user", "name": "bob" })).await;
    let token = world.client_token(&crate::world::id(&bob)).await;
    let ana = world.client(&office.client_token, 2, 2).await;
    let bob = world.client(&token, 2, 3).await;
    assert_ne!(ana.id(), bob.id());
    assert_eq!((bob.init.actor_name.as_str(), bob.init.resources.len()), ("bob", 0));
}

#[tokio::test]
async fn what_changes_while_a_client_connects_is_not_missed() {
    let world = World::new().await;
    let office = world.office().await;
    for round in 0..10_u8 {
        let enabled = round % 2 == 1;
        let path = format!("policies/{}", office.policy);
        let change = world.patch(&path, serde_json::json!({ "enabled": enabled }));
        let connect = world.client(&office.client_token, 100 + u128::from(round), 100 + round);
        let (_, mut client) = tokio::join!(change, connect);
        let mut visible = !client.init.resources.is_empty();
        while visible != enabled {
            visible = match client.peer.next().await {
                PortalToClient::ResourceChanged(_) => true,
                PortalToClient::ResourceRemoved(_) => false,
                other => panic!("{other:?}"),
            };
        }
    }
}
