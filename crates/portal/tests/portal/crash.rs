//! The portal dies at the worst moment, or stops as it should: nothing that was revoked returns.

use std::process::Command;
use std::time::Duration;

use adit_protocol::client::DisconnectReason;
use adit_protocol::{PortalToClient, PortalToGateway};

use crate::program::Program;
use crate::world::{ClientPeer, World};

#[tokio::test]
async fn what_was_revoked_before_a_crash_stays_revoked() {
    let mut world = World::new().await;
    let office = world.office().await;
    world.stop().await;
    for round in 0..3_u8 {
        let program = Program::start(&world);
        world.address = program.address;
        let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
        let mut client = world.client(&office.client_token, 2, 2).await;
        client.request(u64::from(round), office.resource).await;
        let granted = client.granted().await;
        gateway.told().await;
        // The answer comes after the commit; the program dies before or after the push.
        let list = world.admin(reqwest::Method::GET, "authorizations", None).await;
        assert_eq!(list["items"][0]["id"], granted.id.to_string());
        world.delete(&format!("authorizations/{}", granted.id)).await;
        program.kill();

        let program = Program::start(&world);
        world.address = program.address;
        let gateway = world.gateway(&office.gateway_token, 1, 1).await;
        assert_eq!(gateway.init.authorizations, [], "the gateway hears that nothing is valid");
        let client = world.client(&office.client_token, 2, 2).await;
        assert_eq!(client.init.authorizations, []);
    }
}

#[tokio::test]
async fn what_was_granted_before_a_crash_is_known_after_it() {
    let mut world = World::new().await;
    let office = world.office().await;
    world.stop().await;
    let program = Program::start(&world);
    world.address = program.address;
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    client.request(1, office.resource).await;
    let (granted, told) = (client.granted().await, gateway.told().await);
    program.kill();
    let program = Program::start(&world);
    world.address = program.address;
    let gateway = world.gateway(&office.gateway_token, 1, 1).await;
    assert_eq!(gateway.init.authorizations, [told], "same credentials, same epoch");
    let mut client = world.client(&office.client_token, 2, 2).await;
    assert_eq!(client.init.authorizations[0].id, granted.id);
    // The same request once more, because the answer may have been lost with the portal: the
    // client has no connection, so the two are introduced anew.
    client.request(1, office.resource).await;
    assert_eq!(client.revoked().await.id, granted.id);
    assert_eq!(client.granted().await.gateway.epoch, 2);
}

#[tokio::test]
async fn a_portal_that_stops_sends_everybody_away_to_come_back() {
    let mut world = World::new().await;
    let office = world.office().await;
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    let start = std::time::Instant::now();
    let (_, to_gateway, to_client) = tokio::join!(world.stop(), gateway.peer.next(), client.peer.next());
    assert!(start.elapsed() < Duration::from_secs(4));
    match (to_gateway, to_client) {
        (PortalToGateway::Disconnect(one), PortalToClient::Disconnect(two)) => {
            assert_eq!((one.reason, two.reason), (DisconnectReason::Restart, DisconnectReason::Restart));
        }
        other => panic!("{other:?}"),
    }
    let refused = tokio::net::TcpStream::connect(world.address).await;
    assert!(refused.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_second_bootstrap_is_refused_and_rotation_replaces_the_token() {
    let world = World::new().await;
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_adit-portal"))
            .args(["bootstrap", "--url", "https://localhost", "--json", "--data-dir"])
            .arg(world.directory.path().join("data"))
            .args(world.backend.arguments())
            .args(arguments)
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (ok, _, error) = run(&[]);
    assert!(!ok && error.contains("holds a portal already"), "{error}");
    let (ok, made, error) = run(&["--rotate-admin-token"]);
    assert!(ok, "{error}");
    let made: serde_json::Value = serde_json::from_str(&made).unwrap();
    assert_eq!(world.call(reqwest::Method::GET, "sites", None).await.0, 401, "the old token is dead at once");
    let token = made["admin_token"].as_str().unwrap();
    assert_eq!(world.call_as(token, reqwest::Method::GET, "sites", None).await.0, 200);
    let refused = ClientPeer::connect(world.address, "client", token).await.err().unwrap();
    assert_eq!(refused.0, 403);
}
