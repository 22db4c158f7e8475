//! Flows that are sent on by two nodes: as long as both live, each report comes once; when the one that sends dies in the
//! middle, what it had sent may come again, word for word, and nothing is missing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adit_policy::ClientId;
use adit_portal::serve;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::flows::{flow, record, send, stored};
use crate::program::Program;
use crate::world::{Gateway, Office, World, options};

/// What the collector does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mood {
    Takes,
    /// The answer never comes.
    TakesInSilence,
    Refuses,
}

/// A collector of flows.
#[derive(Clone)]
struct Collector {
    mood: Arc<Mutex<Mood>>,
    taken: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    async fn start() -> (Self, String) {
        let collector = Self { mood: Arc::new(Mutex::new(Mood::Takes)), taken: Arc::default() };
        let here = collector.clone();
        let take = move |body: String| {
            let here = here.clone();
            async move { here.take(&body).await }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/flows", listener.local_addr().unwrap());
        let router = axum::Router::new().route("/flows", axum::routing::post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (collector, url)
    }

    async fn take(&self, body: &str) -> axum::http::StatusCode {
        let mood = *self.mood.lock().unwrap();
        if mood == Mood::Refuses {
            return axum::http::StatusCode::SERVICE_UNAVAILABLE;
        }
        let lines = body.lines().map(|line| serde_json::from_str(line).unwrap());
        self.taken.lock().unwrap().extend(lines);
        if mood == Mood::TakesInSilence {
            std::future::pending::<()>().await;
        }
        axum::http::StatusCode::OK
    }

    fn set(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    fn seqs(&self) -> Vec<i64> {
        self.taken.lock().unwrap().iter().map(|line| line["seq"].as_i64().unwrap()).collect()
    }
}

/// Reports `count` flows and waits until they are stored.
async fn report(gateway: &mut Gateway, office: &Office, first: u64, count: u64) {
    let client = ClientId::from_uuid(Uuid::from_u128(77));
    let flows = (first..first + count).map(|number| {
        let id = u128::from_be_bytes(*gateway.id().as_uuid().as_bytes()) ^ u128::from(number);
        let mut record = record(0, client, office.resource);
        record.id = Uuid::from_u128(id);
        (number, flow(record))
    });
    send(gateway, flows.collect()).await;
    assert_eq!(stored(gateway).await, first + count - 1);
}

async fn until<T>(what: &str, mut done: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..300 {
        if let Some(found) = done().await {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("never: {what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flow_is_sent_on_whichever_node_took_it_and_whichever_dies() {
    let mut world = World::new().await;
    let office = world.office().await;
    world.stop().await;
    // The node that began first is the one that sends.
    let sender = Program::start(&world);
    let other = serve::start(&options(&world.directory, &world.backend), None).await.unwrap();
    world.address = sender.address;
    let mut here = world.gateway(&office.gateway_token, 1, 1).await;
    world.address = other.addresses()[0];
    let mut there = world.gateway(&office.gateway_token, 2, 2).await;
    let (collector, url) = Collector::start().await;
    world.admin(Method::PUT, "flows/sink", Some(json!({ "url": url }))).await;
    let world = &world;
    let taken = async || world.admin(Method::GET, "flows/sink", None).await["seq"].as_i64().unwrap();

    for round in 0..5 {
        tokio::join!(
            report(&mut here, &office, round * 4 + 1, 4),
            report(&mut there, &office, round * 4 + 1, 4)
        );
    }
    until("both nodes' flows are taken", async || (taken().await == 40).then_some(())).await;
    assert_eq!(collector.seqs(), (1..=40).collect::<Vec<_>>(), "in order, and each once");

    collector.set(Mood::Refuses);
    report(&mut here, &office, 21, 10).await;
    until("the collector refused", async || {
        world.admin(Method::GET, "flows/sink", None).await.get("error").map(|_| ())
    })
    .await;
    collector.set(Mood::TakesInSilence);
    until("the collector has it, and nobody knows", async || (collector.seqs().len() == 50).then_some(()))
        .await;
    sender.kill();
    collector.set(Mood::Takes);
    report(&mut there, &office, 21, 10).await;
    until("the other node sends", async || (taken().await == 60).then_some(())).await;

    let seqs = collector.seqs();
    assert_eq!(seqs[..50], (1..=50).collect::<Vec<_>>());
    assert_eq!(seqs[50..], (41..=60).collect::<Vec<_>>(), "from the last answer on");
    let lines = collector.taken.lock().unwrap();
    let mut kept: BTreeMap<&str, &Value> = BTreeMap::new();
    for line in lines.iter() {
        let before = kept.insert(line["id"].as_str().unwrap(), line);
        assert!(before.is_none_or(|before| before == line), "again, but word for word: {line}");
    }
    assert_eq!(kept.len(), 60, "a collector that keeps the newest report of each has every flow once");
}
