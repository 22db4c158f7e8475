//! What clients report of flows: beside what gateways say of them, and without a word about others.

use adit_policy::{ClientId, GatewayId};
use adit_protocol::flow::{FlowRecord, FlowReport, Flows, MAX_FLOWS, NumberedFlow};
use adit_protocol::{ClientToPortal, PortalToClient};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::flows::{self, Ground, SPOOL, flow};
use crate::world::{Client, World};

/// What the ground's client says of a flow.
fn own_record(ground: &Ground, number: u128) -> FlowRecord {
    FlowRecord {
        client: None,
        gateway: Some(ground.gateway.id()),
        destination: "100.96.0.9".parse().unwrap(),
        ..ground.record(number)
    }
}

async fn send(client: &mut Client, reports: Vec<(u64, FlowReport)>) {
    let flows = reports.into_iter().map(|(number, report)| NumberedFlow { number, report }).collect();
    client.peer.send(&ClientToPortal::Flows(Flows { spool: SPOOL, flows })).await;
}

/// Waits for the word whether to report from now on.
pub(crate) async fn asked(client: &mut Client) -> bool {
    match client.peer.next().await {
        PortalToClient::FlowLogChanged(changed) => changed.keeps_flows,
        other => panic!("{other:?}"),
    }
}

/// Sends a batch and waits for the answer.
async fn report(client: &mut Client, reports: Vec<(u64, FlowReport)>) -> u64 {
    send(client, reports).await;
    match client.peer.next().await {
        PortalToClient::FlowsStored(stored) => {
            assert_eq!(stored.spool, SPOOL);
            stored.number
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn both_accounts_of_a_flow_are_listed_and_told_apart() {
    let mut ground = Ground::new().await;
    assert!(ground.client.init.keeps_flows);
    // The same id and the same numbers: neither touches the other's.
    let theirs = FlowRecord { sent_bytes: 77, ..ground.record(1) };
    assert_eq!(ground.report(vec![(1, flow(theirs))]).await, 1);
    let own = own_record(&ground, 1);
    assert_eq!(report(&mut ground.client, vec![(1, flow(own))]).await, 1);
    let all = ground.flows("").await;
    assert_eq!(all.len(), 2);
    let [theirs] = &ground.flows("?reported_by=gateway").await[..] else { panic!("{all:?}") };
    let [own] = &ground.flows("?reported_by=client").await[..] else { panic!("{all:?}") };
    assert_eq!((&theirs["reported_by"], &own["reported_by"]), (&json!("gateway"), &json!("client")));
    assert_eq!((&theirs["sent_bytes"], &own["sent_bytes"]), (&json!(77), &json!(40)));
    assert_eq!((&theirs["destination"], &own["destination"]), (&json!("10.0.0.5"), &json!("100.96.0.9")));
    for same in ["gateway_id", "gateway_name", "client_id", "actor_name", "resource_name", "name"] {
        assert!(own[same].is_string() && own[same] == theirs[same], "{same}: {own} {theirs}");
    }
    assert_eq!(report(&mut ground.client, vec![(1, FlowReport::Restarted)]).await, 1, "it was stored");
}

#[tokio::test]
async fn a_client_speaks_for_itself_alone() {
    let mut ground = Ground::new().await;
    // Another's flow under its own gateway, and a gateway that it has never met.
    let forged =
        FlowRecord { client: Some(ClientId::from_uuid(Uuid::from_u128(7))), ..own_record(&ground, 1) };
    let unmet =
        FlowRecord { gateway: Some(GatewayId::from_uuid(Uuid::from_u128(8))), ..own_record(&ground, 2) };
    let nobody = FlowRecord { gateway: None, ..own_record(&ground, 3) };
    let batch = vec![(1, flow(forged)), (2, flow(unmet)), (3, flow(nobody))];
    assert_eq!(report(&mut ground.client, batch).await, 3, "it need not say that again");
    let flows = ground.flows("").await;
    let [row] = &flows[..] else { panic!("{flows:?}") };
    assert_eq!(row["client_id"], ground.client.id().to_string());
    let mut stranger = ground.world.client(&ground.office.client_token, 3, 3).await;
    let borrowed = own_record(&ground, 4);
    assert_eq!(report(&mut stranger, vec![(1, flow(borrowed))]).await, 1);
    assert_eq!(ground.flows("").await.len(), 1, "it was never introduced to that gateway");
    let too_many = (0..=MAX_FLOWS).map(|number| (number as u64, FlowReport::Restarted)).collect();
    send(&mut stranger, too_many).await;
    assert!(matches!(stranger.peer.try_next().await, Some(PortalToClient::Disconnect(_)) | None));
}

#[tokio::test]
async fn a_restarted_client_ends_its_own_account_only() {
    let mut ground = Ground::new().await;
    let open = |record: FlowRecord| flow(FlowRecord { end: None, ..record });
    let (theirs, own) = (open(ground.record(1)), open(own_record(&ground, 1)));
    ground.report(vec![(1, theirs)]).await;
    report(&mut ground.client, vec![(1, own), (2, FlowReport::Restarted)]).await;
    let end = |flows: Vec<Value>| flows[0].get("end_reason").cloned();
    assert_eq!(end(ground.flows("?reported_by=client").await), Some(json!("client_lost")));
    assert_eq!(end(ground.flows("?reported_by=gateway").await), None);
}

#[tokio::test]
async fn whoever_signs_out_leaves_no_open_account_behind() {
    let mut ground = Ground::new().await;
    let own = FlowRecord { end: None, ..own_record(&ground, 1) };
    let theirs = FlowRecord { end: None, ..ground.record(1) };
    report(&mut ground.client, vec![(1, flow(own))]).await;
    ground.report(vec![(1, flow(theirs))]).await;
    ground.client.peer.send(&ClientToPortal::SignOut(Default::default())).await;
    // What was granted is taken back first.
    while !matches!(ground.client.peer.next().await, PortalToClient::Disconnect(_)) {}
    let end = |flows: Vec<Value>| flows[0].get("end_reason").cloned();
    assert_eq!(end(ground.flows("?reported_by=client").await), Some(json!("client_lost")));
    assert_eq!(end(ground.flows("?reported_by=gateway").await), None, "the gateway will say");
}

#[tokio::test]
async fn clients_are_not_asked_where_gateways_are_enough() {
    let mut ground = Ground::new().await;
    let alone = json!({ "keep_days": 30, "max_rows": 1000, "from_clients": false });
    ground.world.admin(Method::PUT, "flows/settings", Some(alone.clone())).await;
    assert_eq!(ground.world.admin(Method::GET, "flows/settings", None).await, alone);
    assert!(!asked(&mut ground.client).await);
    let own = own_record(&ground, 1);
    assert_eq!(report(&mut ground.client, vec![(1, flow(own))]).await, 1, "taken off its hands");
    assert_eq!(ground.flows("").await.len(), 0);
    assert_eq!(ground.report(vec![(1, flow(ground.record(1)))]).await, 1);
    assert_eq!(ground.flows("").await.len(), 1);
    assert!(!ground.world.client(&ground.office.client_token, 2, 2).await.init.keeps_flows);
    assert!(ground.world.gateway(&ground.office.gateway_token, 1, 1).await.init.keeps_flows);
}

#[tokio::test]
async fn whoever_is_connected_hears_at_once_that_the_log_is_switched_on_or_off() {
    let mut ground = Ground::new().await;
    let set = async |world: &World, keep_days: u32, from_clients: bool| {
        let wanted = json!({ "keep_days": keep_days, "max_rows": 1000, "from_clients": from_clients });
        world.admin(Method::PUT, "flows/settings", Some(wanted)).await;
    };
    set(&ground.world, 0, true).await;
    assert_eq!((flows::asked(&mut ground.gateway).await, asked(&mut ground.client).await), (false, false));
    // Clients were not asked before, and are not now.
    set(&ground.world, 0, false).await;
    set(&ground.world, 30, false).await;
    assert!(flows::asked(&mut ground.gateway).await);
    set(&ground.world, 30, true).await;
    assert!(asked(&mut ground.client).await);
    // Nothing that reporters would do differently.
    set(&ground.world, 60, true).await;
    ground.gateway.peer.silent().await;
    ground.client.peer.silent().await;
}
