//! Conditions of policies: what is judged, by which facts, and when it ends.

use std::time::{SystemTime, UNIX_EPOCH};

use adit_portal::Database;
use adit_protocol::PortalToClient;
use adit_protocol::client::{ConnectedGateway, FailureReason, RequestAuthorization};
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection, SqliteConnection};

use crate::world::{Client, Office, World, id};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A window from one moment to another, to the minute and by UTC; on every day of the week.
fn during(from: u64, to: u64) -> Value {
    let clock = |at: u64| format!("{:02}:{:02}", at / 3600 % 24, at / 60 % 60);
    let days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let window = json!({ "days": days, "from": clock(from), "to": clock(to) });
    json!({ "time": { "time_zone": "UTC", "windows": [window] } })
}

/// As if every token had been issued that much earlier.
async fn tokens_grow_older(world: &World) {
    run_sql(world, "UPDATE token SET created_ms = created_ms - 57000").await;
}

/// Changes rows as only time could.
pub(crate) async fn run_sql(world: &World, text: &'static str) {
    match world.backend.database() {
        Some(Database::Postgres(url)) => {
            let mut server = PgConnection::connect(&url).await.unwrap();
            sqlx::raw_sql(text).execute(&mut server).await.unwrap();
        }
        _ => {
            let file = format!("sqlite:{}", world.directory.path().join("data/portal.db").display());
            let mut file = SqliteConnection::connect(&file).await.unwrap();
            sqlx::raw_sql(text).execute(&mut file).await.unwrap();
        }
    }
}

async fn conditional(conditions: Value) -> (World, Office) {
    let world = World::new().await;
    let office = world.office().await;
    world.conditions(&office.policy, conditions).await;
    (world, office)
}

async fn explained(world: &World, office: &Office) -> Value {
    let question = format!("explain?actor={}&resource={}", office.actor, office.resource);
    world.admin(Method::GET, &question, None).await
}

async fn refused(client: &mut Client, office: &Office) {
    client.request(99, office.resource).await;
    assert_eq!(client.denied().await.reason, FailureReason::Forbidden);
}

#[tokio::test]
async fn a_lease_ends_with_the_window_that_granted_it() {
    let end = (now() + 3661) / 60 * 60;
    let (world, office) = conditional(during(end - 7200, end)).await;
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    client.request(1, office.resource).await;
    let (granted, told) = (client.granted().await, gateway.told().await);
    assert_eq!((granted.expires_at_ms, told.expires_at_ms), (end * 1000, end * 1000));
    // A window that ends earlier ends what was granted, and one that ends later does not.
    world.conditions(&office.policy, during(end - 7200, end + 3600)).await;
    gateway.peer.silent().await;
    world.conditions(&office.policy, during(end - 7200, end - 1200)).await;
    assert_eq!((gateway.revoked().await.id, client.revoked().await.id), (granted.id, granted.id));
    client.request(2, office.resource).await;
    assert_eq!(client.granted().await.expires_at_ms, (end - 1200) * 1000);
}

#[tokio::test]
async fn outside_of_its_window_a_resource_is_not_to_be_seen() {
    let (world, office) = conditional(during(now() + 7200, now() + 10_800)).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    assert_eq!(client.init.resources, []);
    refused(&mut client, &office).await;
    let why = explained(&world, &office).await;
    let text =
        "ana on device-2 may not reach wiki: the policy that would grant it does not do so at this time.";
    assert_eq!(why["text"], text);
    assert_eq!(why["device"]["name"], "device-2");
    let unmet = json!([{ "condition": "time", "is_unknown": false }]);
    assert_eq!(why["policies"], json!([{ "policy": office.policy, "verdict": { "unmet": unmet } }]));
    // Another policy lets the same people in all the same.
    let groups = world.admin(Method::GET, "groups", None).await;
    let everyone =
        groups["items"].as_array().unwrap().iter().find(|group| group["everyone"] == true).unwrap();
    world.post("policies", json!({ "group": everyone["id"], "resource": office.resource })).await;
    assert!(matches!(client.peer.next().await, PortalToClient::ResourceChanged(_)));
}

#[tokio::test]
async fn only_a_verified_device_is_let_in() {
    let (world, office) = conditional(json!({ "verified_device": true })).await;
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    let mut other = world.client(&office.client_token, 3, 3).await;
    refused(&mut client, &office).await;
    world.verify(client.id(), true).await;
    assert!(matches!(client.peer.next().await, PortalToClient::ResourceChanged(_)));
    client.request(1, office.resource).await;
    client.granted().await;
    assert_eq!(gateway.told().await.client.id, client.id());
    other.peer.silent().await;
    refused(&mut other, &office).await;
    let devices = world.admin(Method::GET, "devices", None).await;
    let verified: Vec<bool> =
        devices["items"].as_array().unwrap().iter().map(|device| device["verified_ms"].is_i64()).collect();
    assert_eq!(verified, [true, false]);
    // A gateway is no client, and nobody vouches for what is not there.
    for path in [format!("devices/{}", gateway.id()), format!("devices/{}", uuid::Uuid::from_u128(9))] {
        let (status, _) = world.call(Method::PATCH, &path, Some(json!({ "verified": true }))).await;
        assert_eq!(status, 404);
    }
    // It is the device that is vouched for, also when it has restarted.
    drop(client);
    let again = world.client(&office.client_token, 2, 77).await;
    assert_eq!(again.init.resources.len(), 1);
}

#[tokio::test]
async fn a_device_that_moves_elsewhere_loses_what_its_address_gave_it() {
    let (world, office) = conditional(json!({ "remote_address": { "any_of": ["127.0.0.1/32"] } })).await;
    let other = world.resource(office.site, "db", json!({ "type": "ip", "address": "10.1.1.1" })).await;
    world.post("policies", json!({ "group": office.group, "resource": other })).await;
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = world.client_from("127.0.0.1", &office.client_token, 2, 2).await;
    assert_eq!(client.init.resources.len(), 2);
    client.request(1, office.resource).await;
    let (bound, _) = (client.granted().await, gateway.told().await);
    client.request(2, other).await;
    let (free, _) = (client.granted().await, gateway.told().await);
    let mut moved = world.client_from("127.0.0.2", &office.client_token, 2, 2).await;
    assert_eq!(gateway.revoked().await.id, bound.id);
    assert_eq!(moved.init.resources.iter().map(|resource| resource.id).collect::<Vec<_>>(), [other]);
    assert_eq!(moved.init.authorizations.iter().map(|held| held.id).collect::<Vec<_>>(), [free.id]);
    refused(&mut moved, &office).await;
    let text = explained(&world, &office).await["text"].to_string();
    assert!(text.contains("does not do so from this address"), "{text}");
    let back = world.client_from("127.0.0.1", &office.client_token, 2, 2).await;
    assert_eq!(back.init.resources.len(), 2);
}

#[tokio::test]
async fn an_old_sign_in_gives_nothing_until_there_is_a_newer_one() {
    let (world, office) = conditional(json!({ "authentication_age": 60 })).await;
    let other = world.resource(office.site, "db", json!({ "type": "ip", "address": "10.1.1.1" })).await;
    world.post("policies", json!({ "group": office.group, "resource": other })).await;
    tokens_grow_older(&world).await;
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    client.request(1, other).await;
    let (kept, _) = (client.granted().await, gateway.told().await);
    client.request(2, office.resource).await;
    let short = client.granted().await;
    assert_eq!(gateway.told().await.expires_at_ms, short.expires_at_ms);
    assert!((now()..=now() + 3).contains(&(short.expires_at_ms / 1000)), "{}", short.expires_at_ms);
    // When it has become too old, the resource vanishes without being asked for.
    match client.peer.next().await {
        PortalToClient::ResourceRemoved(removed) => assert_eq!(removed.id, office.resource),
        other => panic!("{other:?}"),
    }
    assert!(matches!(client.peer.next().await, PortalToClient::SignIn(told) if told.is_too_old));
    refused(&mut client, &office).await;
    let text = explained(&world, &office).await["text"].to_string();
    assert!(text.contains("does not do so so long after signing in"), "{text}");
    // The same device with a newer token: the other connection stays as it is.
    let token = world.client_token(&office.actor).await;
    let mut again = world.client(&token, 2, 2).await;
    assert!(again.init.authorizations.iter().any(|held| held.id == kept.id));
    let connected_gateways = vec![ConnectedGateway { id: gateway.id(), epoch: kept.gateway.epoch }];
    again
        .request_with(RequestAuthorization {
            request_id: 3,
            resource: office.resource,
            connected_gateways,
            avoid_gateways: Vec::new(),
            prefer_gateway: None,
        })
        .await;
    assert_eq!(again.granted().await.gateway.epoch, kept.gateway.epoch, "no new tunnel");
}

#[tokio::test]
async fn conditions_that_nobody_could_meet_are_refused() {
    let (world, office) = conditional(json!({})).await;
    let refused = |conditions: Value| {
        let (world, policy) = (&world, format!("policies/{}", office.policy));
        async move {
            let body = json!({ "conditions": conditions });
            let (status, answer) = world.call(Method::PATCH, &policy, Some(body)).await;
            (status, answer["detail"].as_str().unwrap().to_owned())
        }
    };
    for (conditions, complaint) in [
        (json!({ "remote_address": { "any_of": [] } }), "1 to 256 values"),
        (json!({ "authentication_age": 5 }), "would lock everybody out"),
        (json!({ "region": { "any_of": ["DE"] } }), "does not know which country"),
    ] {
        let (status, detail) = refused(conditions).await;
        assert!(status == 422 && detail.contains(complaint), "{status} {detail}");
    }
    let berlin = |from: &str, to: &str| {
        let windows = json!([{ "days": ["mon"], "from": from, "to": to }]);
        json!({ "time": { "time_zone": "Europe/Berlin", "windows": windows } })
    };
    assert_eq!(refused(berlin("8:00", "18:00")).await.0, 400);
    assert_eq!(refused(json!({ "adress": {} })).await.0, 400);
    let (status, _) =
        world.call(Method::PATCH, &format!("policies/{}", office.policy), Some(json!({}))).await;
    assert_eq!(status, 422);
    // What is accepted is shown as it was written, and its change is in the audit log.
    let written = berlin("08:00", "18:00");
    world.conditions(&office.policy, written.clone()).await;
    let list = world.admin(Method::GET, "policies", None).await;
    assert_eq!(list["items"][0]["conditions"], written);
    let audit = world.admin(Method::GET, "audit", None).await["items"].to_string();
    assert!(audit.contains("policy.conditions") && audit.contains("Europe/Berlin"), "{audit}");
    let other = world.resource(office.site, "db", json!({ "type": "ip", "address": "10.1.1.1" })).await;
    let body = json!({ "group": office.group, "resource": other, "conditions": { "verified_device": true } });
    let made = id(&world.post("policies", body).await);
    let list = world.admin(Method::GET, "policies", None).await;
    let shown =
        list["items"].as_array().unwrap().iter().find(|policy| policy["id"] == made.as_str()).unwrap();
    assert_eq!(shown["conditions"], json!({ "verified_device": true }));
}
