//! On both databases: retention, and numbers of reports.

use adit_policy::{ActorId, AuthorizationId, ClientId, GatewayId, ResourceId};
use adit_protocol::flow::{FlowRecord, FlowReport, Flows, NumberedFlow};
use uuid::Uuid;

use super::*;
use crate::store::{By, Database, NewAccount, on_both_databases};

async fn opened(database: &Database) -> (Store, Reporter) {
    let store = Store::open(database, true).await.unwrap();
    let mut change = store.change(&By::system()).await.unwrap();
    change
        .create_account(&NewAccount {
            name: "default".to_owned(),
            ipv4_range: "100.64.0.0/11".parse().unwrap(),
            ipv6_range: "fd00::/107".parse().unwrap(),
            ipv4_proxy_range: "100.96.0.0/11".parse().unwrap(),
            ipv6_proxy_range: "fd00::20:0/107".parse().unwrap(),
            dns_upstreams: Vec::new(),
            search_domains: Vec::new(),
        })
        .await
        .unwrap();
    let site = change.create_site("office").await.unwrap().id;
    let token = crate::store::NewToken {
        id: adit_policy::TokenId::from_uuid(Uuid::from_u128(3)),
        kind: crate::store::TokenKind::Gateway,
        name: "gateway".to_owned(),
        hash: [7; 32],
        actor: None,
        site: Some(site),
        expires_ms: None,
    };
    change.create_token(&token).await.unwrap();
    let hello = adit_protocol::Hello {
        revision: 1,
        device_id: Uuid::from_u128(1),
        name: "gateway".to_owned(),
        public_key: adit_protocol::EncodedKey([1; 32]),
        version: "1.0.0".to_owned(),
        capabilities: Vec::new(),
    };
    let device = crate::store::DeviceHello {
        device: crate::store::Device::Gateway(site),
        hello: &hello,
        token: token.id,
        address: String::new(),
        capacity: 1000,
    };
    let gateway = GatewayId::from_uuid(change.sign_in(&device).await.unwrap().id);
    change.commit().await.unwrap();
    store.close().await;
    // The account is read when a store is opened.
    (Store::open(database, false).await.unwrap(), Reporter { gateway, name: "gateway".to_owned() })
}

fn record(number: u64, at_ms: i64) -> FlowRecord {
    let nobody = Uuid::from_u128(9);
    FlowRecord {
        id: Uuid::from_u128(u128::from(number)),
        authorization: AuthorizationId::from_uuid(nobody),
        client: ClientId::from_uuid(nobody),
        resource: ResourceId::from_uuid(nobody),
        protocol: 17,
        source: [100, 64, 0, 2].into(),
        source_port: 1,
        destination: [10, 0, 0, 1].into(),
        destination_port: 2,
        name: None,
        path: None,
        opened_ms: at_ms as u64,
        at_ms: at_ms as u64,
        end: None,
        sent_packets: number,
        sent_bytes: number,
        received_packets: 0,
        received_bytes: 0,
    }
}

async fn store_all(store: &Store, reporter: &Reporter, spool: u128, records: Vec<(u64, FlowRecord)>) -> u64 {
    let flows = records
        .into_iter()
        .map(|(number, record)| NumberedFlow { number, report: FlowReport::Flow(Box::new(record)) })
        .collect();
    let batch = Flows { spool: Uuid::from_u128(spool), flows };
    let mut change = store.change(&By::system()).await.unwrap();
    let stored = change.store_flows(reporter, &batch).await.unwrap();
    change.commit().await.unwrap();
    stored.number
}

async fn forget_all(store: &Store, setting: FlowSetting) -> u64 {
    let mut all = 0;
    let now_ms = crate::clock::now_ms();
    while let Some(horizon) = store.flow_horizon(setting, Some(now_ms)).await.unwrap() {
        let mut change = store.change(&By::system()).await.unwrap();
        let forgotten = change.forget_flows(horizon).await.unwrap();
        change.commit().await.unwrap();
        assert!(forgotten > 0);
        all += forgotten;
    }
    all
}

async fn the_oldest_flows_are_forgotten(database: Database) {
    let (store, reporter) = opened(&database).await;
    let now_ms = crate::clock::now_ms();
    let day = 24 * 60 * 60 * 1000;
    let records = (1..=100).map(|number| (number, record(number, now_ms - (number as i64) * day + 600_000)));
    assert_eq!(store_all(&store, &reporter, 1, records.collect()).await, 100);
    assert_eq!(forget_all(&store, FlowSetting { keep_days: 30, max_rows: 1000 }).await, 70);
    assert_eq!(forget_all(&store, FlowSetting { keep_days: 30, max_rows: 30 }).await, 0);
    assert_eq!(forget_all(&store, FlowSetting { keep_days: 30, max_rows: 12 }).await, 18);
    let left = store.flows_in_order(0, i64::MIN, 1000).await.unwrap();
    assert_eq!(left.iter().map(|row| row.seq).collect::<Vec<_>>(), (19..=30).collect::<Vec<_>>());
    // Numbers go on also when everything is forgotten.
    assert_eq!(forget_all(&store, FlowSetting { keep_days: 0, max_rows: 1000 }).await, 12);
    store_all(&store, &reporter, 1, vec![(101, record(101, now_ms))]).await;
    assert_eq!(store.flows_in_order(0, i64::MIN, 1000).await.unwrap()[0].seq, 101);
}

async fn a_new_numbering_of_a_gateway_begins_anew_and_a_flow_stays_one_row(database: Database) {
    let (store, reporter) = opened(&database).await;
    let now_ms = crate::clock::now_ms();
    store_all(&store, &reporter, 1, vec![(500, record(1, now_ms))]).await;
    assert_eq!(store_all(&store, &reporter, 1, vec![(2, record(2, now_ms))]).await, 500);
    // Several words on one flow in a batch: the last one counts.
    let batch = vec![(2, record(1, now_ms)), (3, record(3, now_ms)), (4, record(1, now_ms + 5))];
    assert_eq!(store_all(&store, &reporter, 2, batch).await, 4);
    let rows = store.flows(Page::FIRST, &FlowFilter::default()).await.unwrap();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().any(|row| row.at_ms == now_ms + 5));
    let find = Find { text: "10.0.0".to_owned(), ..Find::first(10) };
    assert_eq!(store.find_flows(&find).await.unwrap().len(), 2);
    let nothing =
        FlowFilter { actor: Some(ActorId::from_uuid(Uuid::nil()).as_uuid()), ..FlowFilter::default() };
    assert!(store.flows(Page::FIRST, &nothing).await.unwrap().is_empty());
}

on_both_databases! {
    the_oldest_flows_are_forgotten,
    a_new_numbering_of_a_gateway_begins_anew_and_a_flow_stays_one_row,
}
