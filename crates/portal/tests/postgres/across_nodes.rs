//! The tests of revocation once more: administrator and gateway at one node, the client at the other;
//! a sign-in that is renewed at the node where the device is not; and a flow log that is switched off at one of them.

use adit_protocol::PortalToClient;
use reqwest::Method;
use serde_json::json;

use crate::client_flows;
use crate::device_sign_in::{begin, decide, device_token, person_of, poll, token};
use crate::flows;

#[path = "../portal/revocation.rs"]
mod revocation;

mod ground {
    use std::time::Duration;

    use adit_portal::serve;

    use crate::world::{World, options};

    /// The design's target across nodes.
    pub(crate) const DEADLINE: Duration = Duration::from_secs(1);

    pub(crate) async fn ground() -> World {
        let mut world = World::new().await;
        let second = serve::start(&options(&world.directory, &world.backend), None).await.unwrap();
        world.clients_at = Some(second.addresses()[0]);
        world.second = Some(second);
        world
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_at_one_node_reaches_the_device_at_the_other() {
    let world = ground::ground().await;
    let office = world.office().await;
    let mut browser = person_of(&world, &office.actor).await;
    let issued = device_token(&world, &mut browser, "laptop").await;
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = world.client(&issued.access_token, 2, 2).await;
    client.request(1, office.resource).await;
    let granted = client.granted().await;
    gateway.told().await;
    world.patch("settings", json!({ "device_session_days": 60 })).await;
    let begun = begin(&world, "laptop").await;
    assert_eq!(decide(&mut browser, &begun.user_code, "approve").await.status, 200);
    let mut fields = poll(&begun.device_code);
    fields.push(("renews", &issued.access_token));
    let renewed = token(&world, &fields).await;
    assert_eq!(renewed.access_token, issued.access_token);
    let PortalToClient::SignIn(told) = client.peer.next().await else { panic!("not told") };
    let thirty_days = 30 * 24 * 60 * 60 * 1000;
    assert!(told.expires_at_ms.unwrap() > client.sign_in.expires_at_ms.unwrap() + thirty_days - 60_000);
    // What it holds goes on, and the new end is known where it comes back.
    gateway.peer.silent().await;
    client.peer.silent().await;
    let again = world.client(&issued.access_token, 2, 2).await;
    assert_eq!(again.init.session_expires_at_ms, told.expires_at_ms);
    assert_eq!(again.init.authorizations[0].id, granted.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_log_that_is_switched_off_at_one_node_is_so_at_the_other() {
    let world = ground::ground().await;
    let office = world.office().await;
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    let off = json!({ "keep_days": 0, "max_rows": 1000, "from_clients": true });
    world.admin(Method::PUT, "flows/settings", Some(off)).await;
    assert!(!flows::asked(&mut gateway).await);
    assert!(!client_flows::asked(&mut client).await);
}
