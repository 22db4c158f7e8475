//! Relays come, go and change their secrets; peers always know what to use.

use adit_protocol::relay::SecretRotated;
use adit_protocol::{ClientToPortal, PortalToClient, PortalToGateway, RelayToPortal};

use crate::world::{Client, World};

const SECRET: &str = "a secret of sufficient length";

async fn relays_changed(client: &mut Client) -> adit_protocol::client::RelaysChanged {
    match client.peer.next().await {
        PortalToClient::RelaysChanged(change) => change,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn peers_learn_of_relays_that_come() {
    let world = World::new().await;
    let office = world.office().await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    assert!(client.init.relays.is_empty());
    let _relay = world.relay(7, SECRET).await;
    let change = relays_changed(&mut client).await;
    assert_eq!(change.added[0].ipv4, Some("192.0.2.7:3478".parse().unwrap()));
    assert_eq!(change.added[0].ipv6, Some("[2001:db8::7]:3478".parse().unwrap()));
    assert_eq!(change.added[0].tcp_port, Some(3478));
    let tls = change.added[0].tls.as_ref().unwrap();
    assert_eq!((tls.port, tls.server_name.as_str()), (443, "relay.example"));
    match gateway.peer.next().await {
        PortalToGateway::RelaysChanged(theirs) => {
            assert_eq!(theirs.added[0].id, change.added[0].id);
            assert_ne!(theirs.added[0].username, change.added[0].username, "each device has its own");
        }
        other => panic!("{other:?}"),
    }
    let later = world.client(&office.client_token, 3, 3).await;
    assert_eq!(later.init.relays[0].id, change.added[0].id);
}

#[tokio::test]
async fn credentials_are_what_a_relay_can_check_with_its_secret_alone() {
    let world = World::new().await;
    let office = world.office().await;
    let _relay = world.relay(7, SECRET).await;
    let client = world.client(&office.client_token, 2, 2).await;
    let access = &client.init.relays[0];
    let (expiry, salt) = access.username.split_once(':').unwrap();
    let expiry: u64 = expiry.parse().unwrap();
    assert_eq!(expiry, access.expires_at_ms / 1000);
    let hours = (access.expires_at_ms - client.init.portal_time_ms) / 1000 / 3600;
    assert!((11..=12).contains(&hours), "{hours}");
    assert!(!salt.is_empty());
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, SECRET.as_bytes());
    let tag = aws_lc_rs::hmac::sign(&key, access.username.as_bytes());
    let password = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, tag);
    assert_eq!(access.password, password);
}

#[tokio::test]
async fn a_relay_that_is_gone_for_a_second_is_withdrawn() {
    let world = World::new().await;
    let office = world.office().await;
    let relay = world.relay(7, SECRET).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    let id = client.init.relays[0].id;
    drop(relay);
    client.peer.silent().await;
    // Back in time: nobody needs to know.
    let relay = world.relay(7, SECRET).await;
    client.peer.silent().await;
    drop(relay);
    assert_eq!(relays_changed(&mut client).await.removed, [id]);
}

#[tokio::test]
async fn a_new_secret_brings_new_credentials() {
    let world = World::new().await;
    let office = world.office().await;
    let mut relay = world.relay(7, SECRET).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    let before = client.init.relays[0].clone();
    let secret = "another secret of good length".to_owned();
    relay.send(&RelayToPortal::SecretRotated(SecretRotated { secret })).await;
    let change = relays_changed(&mut client).await;
    assert_eq!((change.added[0].id, change.removed.len()), (before.id, 0));
    assert_ne!(change.added[0].password, before.password);
    // A relay that restarts comes with yet another one.
    drop(relay);
    let _relay = world.relay(7, SECRET).await;
    assert_eq!(relays_changed(&mut client).await.added[0].id, before.id);
}

#[tokio::test]
async fn a_peer_may_ask_for_its_relays_again_but_not_without_end() {
    let world = World::new().await;
    let office = world.office().await;
    let _relay = world.relay(7, SECRET).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    for _ in 0..20 {
        client.peer.send(&ClientToPortal::RequestRelays(Default::default())).await;
    }
    for _ in 0..5 {
        assert_eq!(relays_changed(&mut client).await.added.len(), 1);
    }
    client.peer.silent().await;
}
