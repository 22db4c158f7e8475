//! Every way in which access ends: the gateway hears it, the client hears it, and in time.
//!
//! Whoever includes this module says what it runs on and how long it may take: one node, or two with the administrator
//! and the gateway at one and the client at the other.

use std::time::{Duration, Instant};

use adit_policy::{AuthorizationId, ResourceId};
use adit_protocol::client::{AuthorizationCreated, DisconnectReason};
use adit_protocol::{ClientToPortal, PortalToClient, PortalToGateway};
use reqwest::Method;
use serde_json::json;

use super::ground::{DEADLINE, ground};
use crate::world::{Client, Gateway, Office, World};

/// A client with one authorization.
struct Granted {
    world: World,
    office: Office,
    gateway: Gateway,
    client: Client,
    authorization: AuthorizationId,
    /// When what ends it was said, or the answer to that came.
    said: Instant,
}

async fn granted() -> Granted {
    granted_by(json!({})).await
}

/// By a policy with conditions, which the client meets: it is verified.
async fn granted_by(conditions: serde_json::Value) -> Granted {
    let world = ground().await;
    let office = world.office().await;
    world.conditions(&office.policy, conditions).await;
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    world.verify(client.id(), true).await;
    let authorization = ask(&mut client, office.resource).await.id;
    gateway.told().await;
    Granted { world, office, gateway, client, authorization, said: Instant::now() }
}

/// Asks until it is granted: another node may not know the gateway yet, and the resource may have appeared just now.
async fn ask(client: &mut Client, resource: ResourceId) -> AuthorizationCreated {
    client.request(1, resource).await;
    loop {
        match client.peer.next().await {
            PortalToClient::AuthorizationCreated(created) => return *created,
            PortalToClient::AuthorizationFailed(_) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                client.request(1, resource).await;
            }
            PortalToClient::ResourceChanged(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

impl Granted {
    async fn patch(&mut self, path: &str, body: serde_json::Value) {
        self.world.patch(path, body).await;
        self.said = Instant::now();
    }

    async fn delete(&mut self, path: &str) {
        self.world.delete(path).await;
        self.said = Instant::now();
    }

    async fn gateway_is_told(&mut self) {
        let revoked = self.gateway.revoked().await;
        let after = self.said.elapsed();
        assert!(after < DEADLINE, "the gateway heard of it after {after:?}");
        assert_eq!((revoked.id, revoked.client), (self.authorization, self.client.id()));
        assert_eq!(revoked.resource, self.office.resource);
    }

    async fn client_is_told(&mut self) {
        let revoked = self.client.revoked().await;
        let after = self.said.elapsed();
        assert!(after < DEADLINE, "the client heard of it after {after:?}");
        assert_eq!((revoked.id, revoked.gateway), (self.authorization, self.gateway.id()));
    }

    async fn client_loses_sight(&mut self) {
        match self.client.peer.next().await {
            PortalToClient::ResourceRemoved(removed) => assert_eq!(removed.id, self.office.resource),
            other => panic!("{other:?}"),
        }
    }

    async fn both_are_told_and_the_resource_vanishes(&mut self) {
        self.gateway_is_told().await;
        self.client_is_told().await;
        self.client_loses_sight().await;
        self.nothing_is_left().await;
    }

    async fn client_is_signed_out(&mut self) {
        loop {
            match self.client.peer.try_next().await {
                Some(PortalToClient::Disconnect(disconnect)) => {
                    assert_eq!(disconnect.reason, DisconnectReason::RevokedToken);
                    break;
                }
                Some(_) => {}
                None => panic!("closed without a reason"),
            }
        }
        assert!(self.client.peer.try_next().await.is_none());
        let (status, code) = crate::world::ClientPeer::connect(
            self.world.clients_at.unwrap_or(self.world.address),
            "client",
            &self.office.client_token,
        )
        .await
        .err()
        .unwrap();
        assert_eq!(status, 401);
        assert!(["revoked_token", "invalid_token"].contains(&code.as_str()), "{code}");
    }

    async fn nothing_is_left(&self) {
        let list = self.world.admin(Method::GET, "authorizations", None).await;
        assert_eq!(list["items"], json!([]));
    }
}

#[tokio::test]
async fn policy_disabled() {
    let mut at = granted().await;
    at.patch(&format!("policies/{}", at.office.policy), json!({ "enabled": false })).await;
    at.both_are_told_and_the_resource_vanishes().await;
    at.patch(&format!("policies/{}", at.office.policy), json!({ "enabled": true })).await;
    assert!(matches!(at.client.peer.next().await, PortalToClient::ResourceChanged(_)));
}

#[tokio::test]
async fn policy_deleted() {
    let mut at = granted().await;
    at.delete(&format!("policies/{}", at.office.policy)).await;
    at.both_are_told_and_the_resource_vanishes().await;
}

#[tokio::test]
async fn one_of_two_policies_deleted_leaves_the_resource_in_sight() {
    let mut at = granted().await;
    let groups = at.world.admin(Method::GET, "groups", None).await;
    let everyone =
        groups["items"].as_array().unwrap().iter().find(|group| group["everyone"] == true).unwrap();
    let body = json!({ "group": everyone["id"], "resource": at.office.resource });
    at.world.post("policies", body).await;
    at.delete(&format!("policies/{}", at.office.policy)).await;
    at.gateway_is_told().await;
    at.client_is_told().await;
    at.client.peer.silent().await;
    at.client.request(2, at.office.resource).await;
    at.client.granted().await;
}

#[tokio::test]
async fn membership_removed() {
    let mut at = granted().await;
    at.delete(&format!("groups/{}/members/{}", at.office.group, at.office.actor)).await;
    at.both_are_told_and_the_resource_vanishes().await;
}

#[tokio::test]
async fn group_deleted() {
    let mut at = granted().await;
    at.delete(&format!("groups/{}", at.office.group)).await;
    at.both_are_told_and_the_resource_vanishes().await;
}

#[tokio::test]
async fn resource_deleted() {
    let mut at = granted().await;
    at.delete(&format!("resources/{}", at.office.resource)).await;
    at.both_are_told_and_the_resource_vanishes().await;
}

#[tokio::test]
async fn resource_address_changed() {
    let mut at = granted().await;
    let body = json!({ "address": { "type": "dns", "pattern": "wiki2.corp" } });
    at.patch(&format!("resources/{}", at.office.resource), body).await;
    at.gateway_is_told().await;
    at.client_is_told().await;
    assert!(matches!(at.client.peer.next().await, PortalToClient::ResourceChanged(_)));
    at.nothing_is_left().await;
}

#[tokio::test]
async fn resource_moved_to_another_site() {
    let mut at = granted().await;
    let site = at.world.post("sites", json!({ "name": "lab" })).await;
    at.patch(&format!("resources/{}", at.office.resource), json!({ "site": site["id"] })).await;
    at.gateway_is_told().await;
    at.client_is_told().await;
    match at.client.peer.next().await {
        PortalToClient::ResourceChanged(resource) => assert_eq!(resource.site.name, "lab"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn filters_change_in_place() {
    let mut at = granted().await;
    let body = json!({ "filters": [{ "protocol": "tcp", "ports": [80, 80] }] });
    at.patch(&format!("resources/{}", at.office.resource), body).await;
    match at.gateway.peer.next().await {
        PortalToGateway::ResourceChanged(resource) => assert_eq!(resource.filters.len(), 1),
        other => panic!("{other:?}"),
    }
    match at.client.peer.next().await {
        PortalToClient::ResourceChanged(resource) => assert_eq!(resource.filters.len(), 1),
        other => panic!("{other:?}"),
    }
    at.client.peer.silent().await;
}

#[tokio::test]
async fn site_deleted() {
    let mut at = granted().await;
    at.delete(&format!("sites/{}", at.office.site)).await;
    at.client_is_told().await;
    at.client_loses_sight().await;
    at.gateway_is_told().await;
    match at.gateway.peer.next().await {
        PortalToGateway::Disconnect(disconnect) => {
            assert_eq!(disconnect.reason, DisconnectReason::RevokedToken);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn actor_disabled_and_enabled_again() {
    let mut at = granted().await;
    at.patch(&format!("actors/{}", at.office.actor), json!({ "enabled": false })).await;
    at.gateway_is_told().await;
    at.client_is_signed_out().await;
    at.nothing_is_left().await;
    at.patch(&format!("actors/{}", at.office.actor), json!({ "enabled": true })).await;
    let token = at.world.client_token(&at.office.actor).await;
    let mut client = at.world.client(&token, 2, 2).await;
    client.request(1, at.office.resource).await;
    client.granted().await;
}

#[tokio::test]
async fn actor_deleted() {
    let mut at = granted().await;
    at.delete(&format!("actors/{}", at.office.actor)).await;
    at.gateway_is_told().await;
    at.client_is_signed_out().await;
}

#[tokio::test]
async fn client_token_revoked() {
    let mut at = granted().await;
    at.delete(&format!("tokens/{}", World::token_id(&at.office.client_token))).await;
    at.gateway_is_told().await;
    at.client_is_signed_out().await;
    at.nothing_is_left().await;
}

#[tokio::test]
async fn gateway_token_revoked() {
    let mut at = granted().await;
    at.delete(&format!("tokens/{}", World::token_id(&at.office.gateway_token))).await;
    at.client_is_told().await;
    at.nothing_is_left().await;
    at.gateway_is_told().await;
    match at.gateway.peer.next().await {
        PortalToGateway::Disconnect(disconnect) => {
            assert_eq!(disconnect.reason, DisconnectReason::RevokedToken);
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn client_token_expires() {
    let world = ground().await;
    let office = world.office().await;
    let body = json!({ "kind": "client", "actor": office.actor, "expires_in": 2 });
    let token = world.post("tokens", body).await["token"].as_str().unwrap().to_owned();
    let _gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = world.client(&token, 2, 2).await;
    let granted = ask(&mut client, office.resource).await;
    assert!(
        granted.expires_at_ms <= client.init.session_expires_at_ms.unwrap(),
        "no lease outlives the session"
    );
    match client.peer.next().await {
        PortalToClient::Disconnect(disconnect) => {
            assert_eq!(disconnect.reason, DisconnectReason::ExpiredToken)
        }
        other => panic!("{other:?}"),
    }
    let refused = crate::world::ClientPeer::connect(world.address, "client", &token).await.err().unwrap();
    assert_eq!(refused, (401, "expired_token".to_owned()));
}

#[tokio::test]
async fn client_device_deleted() {
    let mut at = granted().await;
    at.delete(&format!("devices/{}", at.client.id())).await;
    at.gateway_is_told().await;
    let before = at.client.id();
    loop {
        match at.client.peer.next().await {
            PortalToClient::Disconnect(disconnect) => {
                assert_eq!(disconnect.reason, DisconnectReason::Restart);
                break;
            }
            PortalToClient::AuthorizationRevoked(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let again = at.world.client(&at.office.client_token, 2, 2).await;
    assert_ne!(again.id(), before);
}

#[tokio::test]
async fn gateway_deleted() {
    let mut at = granted().await;
    at.delete(&format!("gateways/{}", at.gateway.id())).await;
    at.client_is_told().await;
    at.nothing_is_left().await;
}

#[tokio::test]
async fn authorization_revoked_by_hand() {
    let mut at = granted().await;
    at.delete(&format!("authorizations/{}", at.authorization)).await;
    at.gateway_is_told().await;
    at.client_is_told().await;
    at.client.peer.silent().await;
    let (status, _) =
        at.world.call(Method::DELETE, &format!("authorizations/{}", at.authorization), None).await;
    assert_eq!(status, 404);
    // The last authorization of a connection takes the connection along.
    at.client.request(2, at.office.resource).await;
    assert_eq!(at.client.granted().await.gateway.epoch, 2);
}

#[tokio::test]
async fn signing_out_ends_it_on_the_server() {
    let mut at = granted().await;
    at.said = Instant::now();
    at.client.peer.send(&ClientToPortal::SignOut(Default::default())).await;
    at.gateway_is_told().await;
    at.client_is_signed_out().await;
    at.nothing_is_left().await;
}

#[tokio::test]
async fn a_service_account_signs_out_one_machine_and_not_the_others() {
    let world = World::new().await;
    let office = world.office().await;
    let made = world.post("actors", json!({ "kind": "service_account", "name": "ci" })).await;
    let token = world.client_token(&crate::world::id(&made)).await;
    let mut one = world.client(&token, 2, 2).await;
    let mut two = world.client(&token, 3, 3).await;
    one.peer.send(&ClientToPortal::SignOut(Default::default())).await;
    assert!(matches!(one.peer.next().await, PortalToClient::Disconnect(_)));
    two.peer.silent().await;
    drop(office);
}

#[tokio::test]
async fn a_gateway_with_a_new_key_has_lost_its_connections() {
    let mut at = granted().await;
    let gateway = at.world.gateway(&at.office.gateway_token, 1, 77).await;
    at.said = Instant::now();
    assert_eq!(gateway.init.gateway, at.gateway.id());
    assert_eq!(gateway.init.authorizations, []);
    at.client_is_told().await;
}

#[tokio::test]
async fn a_client_with_a_new_key_has_lost_its_connections() {
    let mut at = granted().await;
    let Granted { world, office, client, .. } = &mut at;
    client.peer.socket.close(None).await.unwrap();
    let client = world.client(&office.client_token, 2, 77).await;
    assert_eq!(client.init.client, at.client.id());
    assert_eq!(client.init.authorizations, []);
    loop {
        match at.gateway.peer.next().await {
            PortalToGateway::AuthorizationRevoked(revoked) => break assert_eq!(revoked.id, at.authorization),
            PortalToGateway::ClientGone(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn conditions_changed() {
    let mut at = granted().await;
    // Those that the client meets leave it alone.
    let policy = format!("policies/{}", at.office.policy);
    at.patch(&policy, json!({ "conditions": { "remote_address": { "any_of": ["127.0.0.0/8"] } } })).await;
    at.patch(&policy, json!({ "conditions": { "verified_device": true } })).await;
    at.client.peer.silent().await;
    at.patch(&policy, json!({ "conditions": { "remote_address": { "any_of": ["192.0.2.0/24"] } } })).await;
    at.both_are_told_and_the_resource_vanishes().await;
    at.patch(&policy, json!({ "conditions": {} })).await;
    assert!(matches!(at.client.peer.next().await, PortalToClient::ResourceChanged(_)));
}

#[tokio::test]
async fn device_unverified() {
    let mut at = granted_by(json!({ "verified_device": true })).await;
    let device = format!("devices/{}", at.client.id());
    at.patch(&device, json!({ "verified": false })).await;
    at.both_are_told_and_the_resource_vanishes().await;
    at.patch(&device, json!({ "verified": true })).await;
    assert!(matches!(at.client.peer.next().await, PortalToClient::ResourceChanged(_)));
    at.client.request(2, at.office.resource).await;
    at.client.granted().await;
}

#[tokio::test]
async fn device_unverified_without_anything_that_rests_on_it() {
    let mut at = granted().await;
    at.patch(&format!("devices/{}", at.client.id()), json!({ "verified": false })).await;
    at.client.peer.silent().await;
    at.gateway.peer.silent().await;
}

/// From the answer of the API to the gateway's ear: it should be there before the answer or
/// milliseconds after it. The bound is generous because tests share two cores.
#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_is_fast() {
    let mut at = granted().await;
    let mut worst = Duration::ZERO;
    for request in 2..20 {
        at.delete(&format!("authorizations/{}", at.authorization)).await;
        at.gateway.revoked().await;
        worst = worst.max(at.said.elapsed());
        at.client.revoked().await;
        at.client.request(request, at.office.resource).await;
        at.authorization = at.client.granted().await.id;
        at.gateway.told().await;
    }
    println!("slowest revocation: {} µs after the answer", worst.as_micros());
    assert!(worst < DEADLINE, "{worst:?}");
}
