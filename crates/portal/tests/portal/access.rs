//! Asking for access: what both peers are told, and when a new connection begins.

use adit_protocol::client::{ConnectedGateway, ConnectionClosed, FailureReason, RequestAuthorization};
use adit_protocol::{
    Candidate, CandidateKind, CandidateUpdate, ClientToPortal, GatewayToPortal, PortalToClient,
    PortalToGateway, gateway,
};
use serde_json::json;

use crate::world::World;

fn candidate(address: &str) -> Candidate {
    Candidate { kind: CandidateKind::Host, address: address.parse().unwrap(), base: None }
}

fn added(address: &str) -> CandidateUpdate {
    CandidateUpdate { added: vec![candidate(address)], removed: Vec::new() }
}

#[tokio::test]
async fn both_ends_are_introduced_with_matching_secrets_and_current_candidates() {
    let world = World::new().await;
    let office = world.office().await;
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    assert_eq!(client.init.resources.len(), 1);
    assert_eq!(client.init.resources[0].id, office.resource);
    gateway.peer.send(&GatewayToPortal::Candidates(added("10.0.0.1:51820"))).await;
    client.peer.send(&ClientToPortal::Candidates(added("10.0.0.2:51820"))).await;
    // Candidates and request travel in order on one socket; the gateway's travel on another.
    gateway.peer.silent().await;

    client.request(7, office.resource).await;
    let (to_client, to_gateway) = (client.granted().await, gateway.told().await);
    assert_eq!((to_client.request_id, to_client.resource), (7, office.resource));
    assert_eq!(to_client.id, to_gateway.id);
    assert_eq!(to_client.site, office.site);
    assert_eq!(to_client.expires_at_ms, to_gateway.expires_at_ms);
    let (theirs, ours) = (&to_client.gateway, &to_gateway.client);
    assert_eq!((theirs.id, ours.id), (gateway.id(), client.id()));
    assert_eq!((theirs.public_key.0, ours.public_key.0), ([1; 32], [2; 32]));
    assert_eq!(theirs.preshared_key, ours.preshared_key);
    assert_eq!((theirs.epoch, ours.epoch), (1, 1));
    assert_eq!((&theirs.local_ice, &theirs.remote_ice), (&ours.remote_ice, &ours.local_ice));
    assert_ne!(theirs.local_ice, theirs.remote_ice);
    assert_eq!((theirs.ipv4, theirs.ipv6), (gateway.init.interface.ipv4, gateway.init.interface.ipv6));
    assert_eq!((ours.ipv4, ours.ipv6), (client.init.interface.ipv4, client.init.interface.ipv6));
    assert_eq!(theirs.candidates, [candidate("10.0.0.1:51820")]);
    assert_eq!(ours.candidates, [candidate("10.0.0.2:51820")]);

    // Later candidates trickle, both ways.
    gateway.peer.send(&GatewayToPortal::Candidates(added("10.0.0.1:51821"))).await;
    match client.peer.next().await {
        PortalToClient::PeerCandidates(change) => {
            assert_eq!((change.gateway, change.update), (gateway.id(), added("10.0.0.1:51821")));
        }
        other => panic!("{other:?}"),
    }
    client.peer.send(&ClientToPortal::Candidates(added("10.0.0.2:51821"))).await;
    match gateway.peer.next().await {
        PortalToGateway::PeerCandidates(change) => assert_eq!(change.client, client.id()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn addresses_are_of_the_account_and_stay_with_the_device() {
    let world = World::new().await;
    let office = world.office().await;
    let first = world.client(&office.client_token, 2, 2).await;
    let interface = first.init.interface.clone();
    assert!(interface.ipv4_range.contains(&interface.ipv4) && interface.ipv6_range.contains(&interface.ipv6));
    assert_eq!(interface.ipv4_range.to_string(), "100.64.0.0/11");
    assert_eq!(interface.ipv4_proxy_range.to_string(), "100.96.0.0/11");
    drop(first);
    let again = world.client(&office.client_token, 2, 9).await;
    assert_eq!(again.init.interface, interface);
    let other = world.client(&office.client_token, 3, 3).await;
    assert_ne!(other.init.interface.ipv4, interface.ipv4);
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_authorization() {
    let world = World::new().await;
    let office = world.office().await;
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    client.request(7, office.resource).await;
    let first = client.granted().await;
    client.request(7, office.resource).await;
    assert_eq!(client.granted().await, first);
    assert_eq!(gateway.told().await, gateway.told().await);
    // Another request while more than half of the lease is left: the same lease answers it.
    client.request(8, office.resource).await;
    let second = client.granted().await;
    assert_eq!((second.id, second.request_id), (first.id, 8));
}

#[tokio::test]
async fn resources_of_one_site_share_a_connection_also_when_asked_for_at_once() {
    let world = World::new().await;
    let office = world.office().await;
    let other = world.resource(office.site, "db", json!({ "type": "ip", "address": "10.1.1.1" })).await;
    world.post("policies", json!({ "group": office.group, "resource": other })).await;
    let _gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    // The second request cannot know of the connection that the first one opens.
    client.request(1, office.resource).await;
    client.request(2, other).await;
    let (first, second) = (client.granted().await, client.granted().await);
    assert_ne!(first.id, second.id);
    assert_eq!(first.gateway, second.gateway, "same epoch, same keys, same credentials");
    client.peer.silent().await;
}

#[tokio::test]
async fn a_closed_connection_ends_its_authorizations_and_the_next_one_is_a_new_epoch() {
    let world = World::new().await;
    let office = world.office().await;
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    client.request(1, office.resource).await;
    let (first, _) = (client.granted().await, gateway.told().await);

    let closed = ConnectionClosed { gateway: gateway.id(), epoch: 1 };
    client.peer.send(&ClientToPortal::ConnectionClosed(closed)).await;
    assert_eq!(gateway.revoked().await.id, first.id);
    assert_eq!(client.revoked().await.id, first.id);
    client.request(2, office.resource).await;
    let (second, told) = (client.granted().await, gateway.told().await);
    assert_eq!((second.gateway.epoch, told.client.epoch), (2, 2));
    assert_ne!(second.gateway.preshared_key, first.gateway.preshared_key);
    assert_ne!(second.gateway.local_ice, first.gateway.local_ice);

    // Late news of the first epoch changes nothing.
    client.peer.send(&ClientToPortal::ConnectionClosed(closed)).await;
    gateway.peer.silent().await;
    // The gateway may be the one that closes.
    let closed = gateway::ConnectionClosed { client: client.id(), epoch: 2 };
    gateway.peer.send(&GatewayToPortal::ConnectionClosed(closed)).await;
    assert_eq!(client.revoked().await.id, second.id);
}

#[tokio::test]
async fn a_client_that_reconnects_without_its_connections_gets_a_new_epoch() {
    let world = World::new().await;
    let office = world.office().await;
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    client.request(1, office.resource).await;
    let (first, _) = (client.granted().await, gateway.told().await);
    drop(client);
    assert!(matches!(gateway.peer.next().await, PortalToGateway::ClientGone(_)));

    let mut client = world.client(&office.client_token, 2, 2).await;
    assert_eq!(client.init.authorizations[0].id, first.id);
    let connected = ConnectedGateway { id: gateway.id(), epoch: 1 };
    let ask = |request_id, connected_gateways| RequestAuthorization {
        request_id,
        resource: office.resource,
        connected_gateways,
        avoid_gateways: Vec::new(),
        prefer_gateway: None,
    };
    client.request_with(ask(2, vec![connected])).await;
    assert_eq!((client.granted().await.gateway.epoch, gateway.told().await.client.epoch), (1, 1));
    client.request_with(ask(3, Vec::new())).await;
    assert_eq!(gateway.revoked().await.id, first.id);
    assert_eq!(client.revoked().await.id, first.id);
    assert_eq!((client.granted().await.gateway.epoch, gateway.told().await.client.epoch), (2, 2));
}

#[tokio::test]
async fn what_cannot_be_granted_says_why() {
    let world = World::new().await;
    let office = world.office().await;
    let hidden = world.resource(office.site, "hidden", json!({ "type": "ip", "address": "10.1.1.1" })).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    client.request(1, office.resource).await;
    let failed = client.denied().await;
    assert_eq!((failed.request_id, failed.reason), (1, FailureReason::Offline));
    assert!(failed.retry_after_ms.is_some());
    client.request(2, hidden).await;
    assert_eq!(client.denied().await.reason, FailureReason::Forbidden);
    client.request(3, adit_policy::ResourceId::from_uuid(uuid::Uuid::from_u128(99))).await;
    assert_eq!(client.denied().await.reason, FailureReason::NotFound);
}

#[tokio::test]
async fn the_newest_gateway_is_chosen_unless_it_is_to_be_avoided_or_drains() {
    let world = World::new().await;
    let office = world.office().await;
    let old = world.gateway_of_version(&office.gateway_token, 1, 1, "1.4.9").await;
    let mut new = world.gateway_of_version(&office.gateway_token, 3, 3, "1.4.18").await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    let ask = |request_id, avoid_gateways| RequestAuthorization {
        request_id,
        resource: office.resource,
        connected_gateways: Vec::new(),
        avoid_gateways,
        prefer_gateway: None,
    };
    client.request_with(ask(1, Vec::new())).await;
    assert_eq!(client.granted().await.gateway.id, new.id());
    client.request_with(ask(2, vec![new.id()])).await;
    assert_eq!(client.granted().await.gateway.id, old.id());
    client.request_with(ask(3, vec![old.id(), new.id()])).await;
    assert_eq!(client.granted().await.gateway.id, new.id(), "the last of those to avoid");

    new.told().await;
    assert_eq!(new.told().await.client.id, client.id());
    new.peer.send(&GatewayToPortal::Draining(Default::default())).await;
    new.peer.silent().await;
    drop(old);
    assert!(matches!(client.peer.next().await, PortalToClient::GatewayGone(_)));
    client.request_with(ask(4, Vec::new())).await;
    assert_eq!(client.denied().await.reason, FailureReason::Offline);
    let back_soon = adit_protocol::gateway::Draining { retry_after_ms: Some(10_000) };
    new.peer.send(&GatewayToPortal::Draining(back_soon)).await;
    new.peer.silent().await;
    client.request_with(ask(5, Vec::new())).await;
    let denied = client.denied().await;
    assert_eq!(denied.reason, FailureReason::Unavailable, "packets wait for a gateway that restarts");
    assert_eq!(denied.retry_after_ms, Some(100));
}

#[tokio::test]
async fn losing_a_gateway_is_told_at_once() {
    let world = World::new().await;
    let office = world.office().await;
    let gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    let mut bystander = world.client(&office.client_token, 3, 3).await;
    client.request(1, office.resource).await;
    client.granted().await;
    let id = gateway.id();
    drop(gateway);
    match client.peer.next().await {
        PortalToClient::GatewayGone(gone) => assert_eq!(gone.gateway, id),
        other => panic!("{other:?}"),
    }
    bystander.peer.silent().await;
}

#[tokio::test]
async fn a_gateway_that_reconnects_gets_all_of_its_authorizations_again() {
    let mut world = World::new().await;
    let office = world.office().await;
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    client.peer.send(&ClientToPortal::Candidates(added("10.0.0.2:51820"))).await;
    client.request(1, office.resource).await;
    client.granted().await;
    let told = gateway.told().await;
    drop(gateway);
    let gateway = world.gateway(&office.gateway_token, 1, 1).await;
    assert_eq!(gateway.init.authorizations, std::slice::from_ref(&told), "candidates included");
    drop((gateway, client));

    // Also after the portal itself has restarted, when no client is there yet.
    world.restart().await;
    let gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut expected = told;
    expected.client.candidates.clear();
    assert_eq!(gateway.init.authorizations, [expected]);
}
