//! What gateways report of flows: believed as far as they may be, stored once, listed, exported, sent on and forgotten.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adit_policy::{AuthorizationId, ClientId, ResourceId};
use adit_protocol::flow::{FlowEnd, FlowPath, FlowRecord, FlowReport, Flows, MAX_FLOWS, NumberedFlow};
use adit_protocol::{GatewayToPortal, PortalToGateway};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::program::Program;
use crate::world::{Client, Gateway, Office, World};

pub(crate) const SPOOL: Uuid = Uuid::from_u128(0x5900);

/// A client that was introduced to a gateway; both report what they like.
pub(crate) struct Ground {
    pub(crate) world: World,
    pub(crate) office: Office,
    pub(crate) gateway: Gateway,
    pub(crate) client: Client,
}

impl Ground {
    pub(crate) async fn new() -> Self {
        let world = World::new().await;
        let office = world.office().await;
        let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
        let mut client = world.client(&office.client_token, 2, 2).await;
        client.request(1, office.resource).await;
        client.granted().await;
        gateway.told().await;
        Self { world, office, gateway, client }
    }

    pub(crate) fn record(&self, number: u128) -> FlowRecord {
        record(number, self.client.id(), self.office.resource)
    }

    /// Sends a batch and waits for the answer.
    pub(crate) async fn report(&mut self, reports: Vec<(u64, FlowReport)>) -> u64 {
        send(&mut self.gateway, reports).await;
        stored(&mut self.gateway).await
    }

    pub(crate) async fn flows(&self, query: &str) -> Vec<Value> {
        let list = self.world.admin(Method::GET, &format!("flows{query}"), None).await;
        list["items"].as_array().unwrap().clone()
    }
}

/// A flow that is over.
pub(crate) fn record(number: u128, client: ClientId, resource: ResourceId) -> FlowRecord {
    FlowRecord {
        id: Uuid::from_u128(0xf100 + number),
        authorization: AuthorizationId::from_uuid(Uuid::from_u128(5)),
        client: Some(client),
        gateway: None,
        resource,
        protocol: 6,
        source: "100.64.0.2".parse().unwrap(),
        source_port: 4000,
        destination: "10.0.0.5".parse().unwrap(),
        destination_port: 443,
        name: Some("wiki.corp".to_owned()),
        path: Some(FlowPath::Direct),
        opened_ms: now_ms() - 1000,
        at_ms: now_ms(),
        end: Some(FlowEnd::Closed),
        sent_packets: 1,
        sent_bytes: 40,
        received_packets: 2,
        received_bytes: 3000,
    }
}

pub(crate) async fn send(gateway: &mut Gateway, reports: Vec<(u64, FlowReport)>) {
    let flows = reports.into_iter().map(|(number, report)| NumberedFlow { number, report }).collect();
    gateway.peer.send(&GatewayToPortal::Flows(Flows { spool: SPOOL, flows })).await;
}

pub(crate) async fn stored(gateway: &mut Gateway) -> u64 {
    match gateway.peer.next().await {
        PortalToGateway::FlowsStored(stored) => {
            assert_eq!(stored.spool, SPOOL);
            stored.number
        }
        other => panic!("{other:?}"),
    }
}

pub(crate) fn flow(record: FlowRecord) -> FlowReport {
    FlowReport::Flow(Box::new(record))
}

fn now_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// Waits for the word whether to report from now on.
pub(crate) async fn asked(gateway: &mut Gateway) -> bool {
    match gateway.peer.next().await {
        PortalToGateway::FlowLogChanged(changed) => changed.keeps_flows,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_flow_is_listed_with_everybody_who_had_to_do_with_it() {
    let mut ground = Ground::new().await;
    assert!(ground.gateway.init.keeps_flows);
    assert_eq!(ground.report(vec![(1, flow(ground.record(1)))]).await, 1);
    let flows = ground.flows("").await;
    let [row] = &flows[..] else { panic!("{flows:?}") };
    assert_eq!((row["actor_name"].as_str(), row["resource_name"].as_str()), (Some("ana"), Some("wiki")));
    assert_eq!(row["actor_id"], ground.office.actor);
    assert_eq!((&row["sent_bytes"], &row["received_bytes"]), (&json!(40), &json!(3000)));
    assert_eq!((&row["path"], &row["end_reason"]), (&json!("direct"), &json!("closed")));
    assert_eq!((&row["destination"], &row["name"]), (&json!("10.0.0.5"), &json!("wiki.corp")));
    for (query, count) in [
        (format!("?actor={}", ground.office.actor), 1),
        (format!("?device={}", ground.client.id()), 1),
        (format!("?gateway={}", ground.gateway.id()), 1),
        (format!("?resource={}", ground.client.id()), 0),
        (format!("?since_ms={}", now_ms() + 5000), 0),
        ("?limit=1".to_owned(), 1),
    ] {
        assert_eq!(ground.flows(&query).await.len(), count, "{query}");
    }
}

#[tokio::test]
async fn an_authorization_shows_how_it_runs_and_what_it_carried() {
    let mut ground = Ground::new().await;
    let list = ground.world.admin(Method::GET, "authorizations", None).await;
    let before = &list["items"][0];
    assert!(before.get("path").is_none() && before["sent_bytes"] == 0, "{before}");
    let open = FlowRecord { end: None, path: Some(FlowPath::Relayed), ..ground.record(1) };
    ground.report(vec![(1, flow(open)), (2, flow(ground.record(2)))]).await;
    let mut elsewhere = ground.record(3);
    elsewhere.resource = ResourceId::from_uuid(Uuid::from_u128(77));
    ground.report(vec![(3, flow(elsewhere))]).await;
    let list = ground.world.admin(Method::GET, "authorizations", None).await;
    let row = &list["items"][0];
    assert_eq!(row["path"], "direct", "the last report counts");
    assert_eq!((&row["sent_bytes"], &row["received_bytes"]), (&json!(80), &json!(6000)));
}

#[tokio::test]
async fn a_batch_that_comes_again_changes_nothing() {
    let mut ground = Ground::new().await;
    let mut open = ground.record(1);
    (open.end, open.sent_bytes) = (None, 10);
    let batch = vec![(1, flow(open)), (2, flow(ground.record(2)))];
    assert_eq!(ground.report(batch.clone()).await, 2);
    // The same flow once more, over now, and in one batch with what was stored already.
    let mut again = batch.clone();
    again.push((3, flow(ground.record(1))));
    assert_eq!(ground.report(again).await, 3);
    let before = ground.flows("").await;
    assert_eq!(before.len(), 2);
    assert_eq!(ground.report(batch).await, 3, "older numbers are behind what is stored");
    assert_eq!(ground.flows("").await, before);
    let first = before.iter().find(|row| row["sent_bytes"] == 40 && row["seq"] == 3);
    assert!(first.is_some(), "the later report counts: {before:?}");
}

#[tokio::test]
async fn a_restarted_gateway_has_no_open_flows() {
    let mut ground = Ground::new().await;
    let open = |mut record: FlowRecord| {
        record.end = None;
        flow(record)
    };
    let batch = vec![(1, open(ground.record(1))), (2, open(ground.record(2)))];
    ground.report(batch).await;
    assert!(ground.flows("").await.iter().all(|row| row["closed_ms"].is_null()));
    ground.report(vec![(3, FlowReport::Restarted), (4, open(ground.record(3)))]).await;
    let flows = ground.flows("").await;
    let lost = |row: &&Value| row["end_reason"] == "gateway_lost" && row["closed_ms"] == row["at_ms"];
    assert_eq!((flows.len(), flows.iter().filter(lost).count()), (3, 2), "{flows:?}");
}

#[tokio::test]
async fn a_gateway_is_not_believed_about_strangers() {
    let mut ground = Ground::new().await;
    let stranger = ground.world.client(&ground.office.client_token, 3, 3).await;
    let mut record = ground.record(1);
    record.client = Some(stranger.id());
    let mut other = ground.record(2);
    other.resource = ResourceId::from_uuid(Uuid::from_u128(77));
    other.client = Some(ClientId::from_uuid(Uuid::from_u128(78)));
    ground.report(vec![(1, flow(record)), (2, flow(other))]).await;
    for row in ground.flows("").await {
        assert!(row.get("client_id").is_none() && row.get("actor_name").is_none(), "{row}");
        assert!(row.get("authorization_id").is_none(), "{row}");
    }
}

#[tokio::test]
async fn nonsense_is_cut_to_size() {
    let mut ground = Ground::new().await;
    let mut record = ground.record(1);
    (record.sent_bytes, record.received_packets) = (u64::MAX, u64::MAX);
    (record.opened_ms, record.at_ms) = (u64::MAX, u64::MAX);
    record.name = Some("<script>alert(1)</script>".to_owned());
    let mut long = ground.record(2);
    long.name = Some("\u{1b}[2J".repeat(1000));
    assert_eq!(ground.report(vec![(1, flow(record)), (u64::MAX, flow(long))]).await, i64::MAX as u64);
    let flows = ground.flows("").await;
    assert_eq!(flows[1]["sent_bytes"], i64::MAX);
    assert!(flows[1]["opened_ms"].as_u64().unwrap() <= now_ms() + 61_000);
    assert!(flows[0].get("name").is_none(), "{}", flows[0]);
    let too_many = (0..=MAX_FLOWS).map(|number| (number as u64, FlowReport::Restarted)).collect();
    send(&mut ground.gateway, too_many).await;
    assert!(matches!(ground.gateway.peer.try_next().await, Some(PortalToGateway::Disconnect(_)) | None));
}

#[tokio::test]
async fn what_was_stored_before_a_crash_is_not_stored_again() {
    let mut world = World::new().await;
    let office = world.office().await;
    world.stop().await;
    let program = Program::start(&world);
    world.address = program.address;
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    client.request(1, office.resource).await;
    client.granted().await;
    gateway.told().await;
    let mut ground = Ground { world, office, gateway, client };
    let batch = vec![(1, flow(ground.record(1))), (2, flow(ground.record(2)))];
    // The program dies while it stores, or after the commit and before the answer.
    send(&mut ground.gateway, batch.clone()).await;
    program.kill();
    let program = Program::start(&ground.world);
    ground.world.address = program.address;
    ground.gateway = ground.world.gateway(&ground.office.gateway_token, 1, 1).await;
    assert_eq!(ground.report(batch).await, 2);
    assert_eq!(ground.flows("").await.len(), 2);
}

#[tokio::test]
async fn an_export_goes_on_where_it_stopped() {
    let mut ground = Ground::new().await;
    let batch: Vec<_> = (1..=20).map(|number| (number, flow(ground.record(u128::from(number))))).collect();
    ground.report(batch).await;
    let lines =
        |text: &str| -> Vec<Value> { text.lines().map(|line| serde_json::from_str(line).unwrap()).collect() };
    let world = &ground.world;
    let all = lines(&world.text("flows/export").await);
    assert_eq!(
        all.iter().map(|row| row["seq"].as_i64().unwrap()).collect::<Vec<_>>(),
        (1..=20).collect::<Vec<_>>()
    );
    assert_eq!(lines(&world.text("flows/export?after_seq=18").await), all[18..]);
    assert_eq!(
        lines(&world.text(&format!("flows/export?since_ms={}", now_ms() + 9000)).await),
        [] as [Value; 0]
    );
}

#[tokio::test]
async fn a_log_that_is_switched_off_is_forgotten_and_nothing_is_added() {
    let mut ground = Ground::new().await;
    ground.report(vec![(1, flow(ground.record(1)))]).await;
    for wrong in [json!({ "keep_days": -1, "max_rows": 1000 }), json!({ "keep_days": 1, "max_rows": 5 })] {
        let (status, _) = ground.world.call(Method::PUT, "flows/settings", Some(wrong)).await;
        assert_eq!(status, 422);
    }
    let off = json!({ "keep_days": 0, "max_rows": 1000, "from_clients": true });
    ground.world.admin(Method::PUT, "flows/settings", Some(off.clone())).await;
    assert_eq!(ground.world.admin(Method::GET, "flows/settings", None).await, off);
    assert!(!asked(&mut ground.gateway).await);
    assert_eq!(ground.report(vec![(2, flow(ground.record(2)))]).await, 2, "taken off its hands");
    assert_eq!(ground.flows("").await.len(), 1);
    let again = ground.world.gateway(&ground.office.gateway_token, 1, 1).await;
    assert!(!again.init.keeps_flows);
    assert!(!ground.world.client(&ground.office.client_token, 2, 2).await.init.keeps_flows);
}

/// Takes requests, or refuses them, and remembers what came.
async fn sink(is_up: Arc<Mutex<bool>>, taken: Arc<Mutex<Vec<(String, String)>>>) -> std::net::SocketAddr {
    let handler = move |headers: axum::http::HeaderMap, body: String| {
        let (is_up, taken) = (Arc::clone(&is_up), Arc::clone(&taken));
        async move {
            if !*is_up.lock().unwrap() {
                return axum::http::StatusCode::BAD_GATEWAY;
            }
            let secret = headers["authorization"].to_str().unwrap().to_owned();
            taken.lock().unwrap().push((secret, body));
            axum::http::StatusCode::OK
        }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().route("/flows", axum::routing::post(handler));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_gets_everything_also_what_came_while_it_was_down() {
    let mut ground = Ground::new().await;
    ground.report(vec![(1, flow(ground.record(1)))]).await;
    let (is_up, taken) = (Arc::new(Mutex::new(false)), Arc::default());
    let address = sink(Arc::clone(&is_up), Arc::clone(&taken)).await;
    let url = format!("http://{address}/flows");
    for wrong in [
        json!({ "url": "file:///etc/passwd" }),
        json!({ "url": "https://user:password@logs.example/" }),
        json!({ "url": "http://logs.example/", "authorization": "Bearer x" }),
        json!({ "url": url, "authorization": "two\nlines" }),
    ] {
        let (status, _) = ground.world.call(Method::PUT, "flows/sink", Some(wrong.clone())).await;
        assert_eq!(status, 422, "{wrong}");
    }
    let wanted = json!({ "url": url, "authorization": "Bearer secret-of-the-sink" });
    let shown = ground.world.admin(Method::PUT, "flows/sink", Some(wanted)).await;
    assert_eq!(shown["has_authorization"], true);
    assert!(!shown.to_string().contains("secret-of-the-sink"), "{shown}");
    assert!(!ground.world.admin(Method::GET, "audit", None).await.to_string().contains("secret-of-the-sink"));
    ground.report(vec![(2, flow(ground.record(2))), (3, flow(ground.record(3)))]).await;
    let wait = |done: fn(&Value) -> bool| {
        let world = &ground.world;
        async move {
            for _ in 0..200 {
                let shown = world.admin(Method::GET, "flows/sink", None).await;
                if done(&shown) {
                    return shown;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            panic!("{}", world.admin(Method::GET, "flows/sink", None).await);
        }
    };
    let failing = wait(|shown| shown.get("error").is_some()).await;
    assert_eq!(
        (failing["seq"].as_i64(), failing["error"].as_str()),
        (Some(1), Some("the sink answered 502 Bad Gateway"))
    );
    *is_up.lock().unwrap() = true;
    let shown = wait(|shown| shown["seq"] == 3).await;
    assert!(shown.get("error").is_none(), "{shown}");
    let taken: Vec<(String, String)> = std::mem::take(&mut *taken.lock().unwrap());
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].0, "Bearer secret-of-the-sink");
    let seqs: Vec<i64> = taken[0]
        .1
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["seq"].as_i64().unwrap())
        .collect();
    assert_eq!(seqs, [2, 3], "what was reported before the sink was named stays here");
    let (status, _) = ground.world.call(Method::DELETE, "flows/sink", None).await;
    assert_eq!(status, 204);
    assert!(ground.world.admin(Method::GET, "flows/sink", None).await.get("url").is_none());
}
