//! Several nodes on one server: it does not matter which one anybody is connected to.

use std::time::{Duration, Instant};

use adit_policy::AuthorizationId;
use adit_portal::serve::{self, Running};
use adit_protocol::client::DisconnectReason;
use adit_protocol::frame;
use adit_protocol::{
    Candidate, CandidateKind, CandidateUpdate, ClientToPortal, GatewayToPortal, PortalToClient,
    PortalToGateway,
};
use futures_util::SinkExt as _;
use reqwest::Method;
use tokio_tungstenite::tungstenite::Message;

use crate::program::Program;
use crate::world::{Client, ClientPeer, Office, World, hello, options};

/// One installation with two nodes; requests go to the node that was chosen last.
struct Pair {
    world: World,
    office: Office,
    second: Running,
    addresses: [std::net::SocketAddr; 2],
}

impl Pair {
    async fn new() -> Self {
        let world = World::new().await;
        let office = world.office().await;
        let second = serve::start(&options(&world.directory, &world.backend), None).await.unwrap();
        let addresses = [world.address, second.addresses()[0]];
        Self { world, office, second, addresses }
    }

    fn at(&mut self, node: usize) -> &World {
        self.world.address = self.addresses[node];
        &self.world
    }
}

fn candidate(address: &str) -> CandidateUpdate {
    let candidate = Candidate { kind: CandidateKind::Host, address: address.parse().unwrap(), base: None };
    CandidateUpdate { added: vec![candidate], removed: Vec::new() }
}

/// Until what another node does is known here.
async fn settled() {
    tokio::time::sleep(Duration::from_millis(300)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_of_different_nodes_are_introduced() {
    let mut pair = Pair::new().await;
    let (gateway_token, client_token) = (pair.office.gateway_token.clone(), pair.office.client_token.clone());
    let resource = pair.office.resource;
    let mut gateway = pair.at(0).gateway(&gateway_token, 1, 1).await;
    gateway.peer.send(&GatewayToPortal::Candidates(candidate("192.0.2.1:1"))).await;
    settled().await;
    let mut client = pair.at(1).client(&client_token, 2, 2).await;
    client.peer.send(&ClientToPortal::Candidates(candidate("192.0.2.2:2"))).await;
    settled().await;
    client.request(1, resource).await;
    let (granted, told) = (client.granted().await, gateway.told().await);
    assert_eq!((granted.id, granted.gateway.id), (told.id, gateway.id()));
    assert_eq!(granted.gateway.preshared_key.0, told.client.preshared_key.0);
    assert_eq!(granted.gateway.candidates, candidate("192.0.2.1:1").added);
    assert_eq!(told.client.candidates, candidate("192.0.2.2:2").added);
    // What comes later reaches the other side too.
    client.peer.send(&ClientToPortal::Candidates(candidate("192.0.2.3:3"))).await;
    match gateway.peer.next().await {
        PortalToGateway::PeerCandidates(news) => assert_eq!(news.update, candidate("192.0.2.3:3")),
        other => panic!("{other:?}"),
    }
    gateway.peer.send(&GatewayToPortal::Candidates(candidate("192.0.2.4:4"))).await;
    match client.peer.next().await {
        PortalToClient::PeerCandidates(news) => assert_eq!(news.update, candidate("192.0.2.4:4")),
        other => panic!("{other:?}"),
    }
    // Both nodes show both as online.
    for node in [0, 1] {
        for list in ["devices", "gateways"] {
            let list = pair.at(node).admin(Method::GET, list, None).await;
            assert_eq!(list["items"][0]["online"], true, "{list}");
        }
    }
    // The client hears that the gateway's session at the other node is lost.
    drop(gateway);
    match client.peer.next().await {
        PortalToClient::GatewayGone(_) => {}
        other => panic!("{other:?}"),
    }
}

/// The design's target across nodes is a second.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_at_one_node_reaches_peers_of_the_other_at_once() {
    let mut pair = Pair::new().await;
    let (gateway_token, client_token) = (pair.office.gateway_token.clone(), pair.office.client_token.clone());
    let resource = pair.office.resource;
    let mut gateway = pair.at(0).gateway(&gateway_token, 1, 1).await;
    settled().await;
    let mut client = pair.at(1).client(&client_token, 2, 2).await;
    let mut worst = Duration::ZERO;
    for request in 1..=20 {
        client.request(request, resource).await;
        let id = client.granted().await.id;
        gateway.told().await;
        pair.at(1).delete(&format!("authorizations/{id}")).await;
        let answered = Instant::now();
        assert_eq!(gateway.revoked().await.id, id);
        worst = worst.max(answered.elapsed());
        assert_eq!(client.revoked().await.id, id);
    }
    println!("slowest revocation across nodes: {} µs after the answer", worst.as_micros());
    assert!(worst < Duration::from_millis(500), "{worst:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_revoked_at_one_node_ends_the_session_at_the_other() {
    let mut pair = Pair::new().await;
    let token = pair.office.client_token.clone();
    let mut client = pair.at(0).client(&token, 2, 2).await;
    pair.at(1).delete(&format!("tokens/{}", World::token_id(&token))).await;
    match client.peer.next().await {
        PortalToClient::Disconnect(disconnect) => {
            assert_eq!(disconnect.reason, DisconnectReason::RevokedToken);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_changes_nodes_leaves_its_old_session_behind() {
    let mut pair = Pair::new().await;
    let token = pair.office.client_token.clone();
    let mut old = pair.at(0).client(&token, 2, 2).await;
    settled().await;
    let mut new = pair.at(1).client(&token, 2, 2).await;
    match old.peer.next().await {
        PortalToClient::Disconnect(disconnect) => assert_eq!(disconnect.reason, DisconnectReason::Superseded),
        other => panic!("{other:?}"),
    }
    new.peer.silent().await;
    let list = pair.at(0).admin(Method::GET, "devices", None).await;
    assert_eq!((list["items"].as_array().unwrap().len(), &list["items"][0]["online"]), (1, &true.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_device_is_refused_at_the_other_node_too() {
    let mut pair = Pair::new().await;
    let token = pair.office.client_token.clone();
    let mut first = pair.at(0).client(&token, 2, 2).await;
    settled().await;
    let mut copy = ClientPeer::connect(pair.addresses[1], "client", &token).await.unwrap();
    copy.send(&ClientToPortal::Hello(hello(2, 77))).await;
    // The first one is alive: it answers the ping while it waits for the next message.
    let (first_hears, copy_hears) =
        tokio::join!(tokio::time::timeout(Duration::from_secs(3), first.peer.try_next()), copy.next());
    assert!(first_hears.is_err(), "{first_hears:?}");
    match copy_hears {
        PortalToClient::Disconnect(disconnect) => assert_eq!(disconnect.reason, DisconnectReason::Superseded),
        other => panic!("{other:?}"),
    }
    // Once it is gone, another key is a restarted machine.
    drop(first);
    settled().await;
    pair.at(1).client(&token, 2, 77).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_of_one_node_serves_peers_of_the_other() {
    let mut pair = Pair::new().await;
    let token = pair.office.client_token.clone();
    let relay = pair.at(0).relay(9, "a secret of the relay's own").await;
    settled().await;
    let mut here = pair.at(0).client(&token, 2, 2).await;
    let mut there = pair.at(1).client(&token, 3, 3).await;
    let (one, two) = (here.init.relays.remove(0), there.init.relays.remove(0));
    assert_eq!((one.id, one.ipv4, one.ipv6), (two.id, two.ipv4, two.ipv6));
    // The secret itself is nowhere in the database.
    let url = pair.world.backend.url();
    assert!(url.starts_with("postgres://"));
    let rows = pair.world.backend.sql("SELECT detail FROM presence");
    assert!(rows.contains("192.0.2.7") && !rows.contains("of the relay's own"), "{rows}");
    drop(relay);
    for client in [&mut here, &mut there] {
        match client.peer.next().await {
            PortalToClient::RelaysChanged(change) => assert_eq!(change.removed, [one.id]),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_other_secrets_is_refused() {
    let pair = Pair::new().await;
    let stranger = World::new().await;
    let wrong = options(&stranger.directory, &pair.world.backend);
    let error = serve::start(&wrong, None).await.unwrap_err();
    assert!(format!("{error:#}").contains("belong to another installation"), "{error:#}");
    pair.second.stop().await;
}

/// The server ends every connection, as when it is restarted: nobody has to do anything.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_come_back_when_the_database_does() {
    let mut pair = Pair::new().await;
    let (gateway_token, client_token) = (pair.office.gateway_token.clone(), pair.office.client_token.clone());
    let resource = pair.office.resource;
    let mut gateway = pair.at(0).gateway(&gateway_token, 1, 1).await;
    settled().await;
    let mut client = pair.at(1).client(&client_token, 2, 2).await;
    for request in 1..=3 {
        // An answer that arrives is an answer; a request that fails is repeated, as clients do.
        pair.world.backend.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
        client.request(request, resource).await;
        let id = match client.peer.next().await {
            PortalToClient::AuthorizationCreated(created) => created.id,
            PortalToClient::AuthorizationFailed(_) => {
                client.request(request, resource).await;
                client.granted().await.id
            }
            other => panic!("{other:?}"),
        };
        gateway.told().await;
        pair.at(1).delete(&format!("authorizations/{id}")).await;
        let answered = Instant::now();
        assert_eq!(gateway.revoked().await.id, id);
        assert!(answered.elapsed() < Duration::from_secs(2), "{:?}", answered.elapsed());
        assert_eq!(client.revoked().await.id, id);
    }
}

/// A node dies under load. What it has acknowledged is known to the other one, and peers that go
/// on there find it in their state.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_with_a_node() {
    let mut pair = Pair::new().await;
    let (gateway_token, client_token) = (pair.office.gateway_token.clone(), pair.office.client_token.clone());
    let resource = pair.office.resource;
    let doomed = Program::start(&pair.world);
    let mut gateway = pair.at(0).gateway(&gateway_token, 1, 1).await;
    settled().await;
    // Ten clients at the doomed node, each asks, is answered, and asks again.
    let mut load = tokio::task::JoinSet::new();
    let (working, mut at_work) = tokio::sync::mpsc::channel(10);
    for number in 0..10_u8 {
        let (address, token, working) = (doomed.address, client_token.clone(), working.clone());
        load.spawn(async move {
            let mut peer = ClientPeer::connect(address, "client", &token).await.unwrap();
            peer.send(&ClientToPortal::Hello(hello(100 + u128::from(number), 100 + number))).await;
            let mut client = Client::new(peer).await;
            let mut last: Option<AuthorizationId> = None;
            for request in 1.. {
                let asked = adit_protocol::client::RequestAuthorization {
                    request_id: request,
                    resource,
                    connected_gateways: Vec::new(),
                    avoid_gateways: Vec::new(),
                    prefer_gateway: None,
                };
                let text = frame::encode(&ClientToPortal::RequestAuthorization(asked), None).unwrap();
                if client.peer.socket.send(Message::text(text)).await.is_err() {
                    break;
                }
                match client.peer.try_next().await {
                    Some(PortalToClient::AuthorizationCreated(created)) => {
                        if last.replace(created.id).is_none() {
                            working.send(()).await.unwrap();
                        }
                    }
                    Some(PortalToClient::AuthorizationRevoked(_)) => {}
                    Some(other) => panic!("{other:?}"),
                    None => break,
                }
            }
            (number, last)
        });
    }
    let hearing = tokio::spawn(async move {
        let mut count = 0;
        while let Some(message) = gateway.peer.try_next().await {
            count += usize::from(matches!(message, PortalToGateway::AuthorizationCreated(_)));
        }
        count
    });
    for _ in 0..10 {
        at_work.recv().await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    doomed.kill();
    let died = Instant::now();
    let mut answered = Vec::new();
    while let Some(done) = load.join_next().await {
        let (number, last) = done.unwrap();
        answered.push((number, last.expect("it was answered before the node died")));
    }
    for (number, id) in answered {
        let key = 100 + number;
        let client = pair.at(1).client(&client_token, 100 + u128::from(number), key).await;
        let held: Vec<_> = client.init.authorizations.iter().map(|held| held.id).collect();
        assert!(held.contains(&id), "client {number} was granted {id} and now holds {held:?}");
    }
    println!("peers are back {} ms after the node died", died.elapsed().as_millis());
    assert!(died.elapsed() < Duration::from_secs(5));
    hearing.abort();
    // The lease of the dead node ends, and its presence with it; nobody else is affected.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let list = pair.at(0).admin(Method::GET, "devices", None).await;
    let online = list["items"].as_array().unwrap().iter().filter(|device| device["online"] == true).count();
    assert_eq!(online, 0, "the clients of the dead node, which came back and left, are offline");
}
