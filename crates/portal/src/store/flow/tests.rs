//! On both databases: retention, and numbers of reports.

use adit_policy::{ActorId, AuthorizationId, ClientId, GatewayId, ResourceId};
use adit_protocol::flow::{FlowPath, FlowRecord, FlowReport, Flows, NumberedFlow};
use uuid::Uuid;

use super::*;
use crate::store::{
    ActorKind, By, ConnectionIce, Database, Device, NewAccount, NewAuthorization, NewEpoch, ResourceSpec,
    Role, on_both_databases,
};

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
    (
        Store::open(database, false).await.unwrap(),
        Reporter::Gateway { id: gateway, name: "gateway".to_owned() },
    )
}

fn record(number: u64, at_ms: i64) -> FlowRecord {
    let nobody = Uuid::from_u128(9);
    FlowRecord {
        id: Uuid::from_u128(u128::from(number)),
        authorization: AuthorizationId::from_uuid(nobody),
        client: Some(ClientId::from_uuid(nobody)),
        gateway: None,
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

fn kept(keep_days: i64, max_rows: i64) -> FlowSetting {
    FlowSetting { keep_days, max_rows, ..FlowSetting::default() }
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
    assert_eq!(forget_all(&store, kept(30, 1000)).await, 70);
    assert_eq!(forget_all(&store, kept(30, 30)).await, 0);
    assert_eq!(forget_all(&store, kept(30, 12)).await, 18);
    let left = store.flows_in_order(0, i64::MIN, 1000).await.unwrap();
    assert_eq!(left.iter().map(|row| row.seq).collect::<Vec<_>>(), (19..=30).collect::<Vec<_>>());
    // Numbers go on also when everything is forgotten.
    assert_eq!(forget_all(&store, kept(0, 1000)).await, 12);
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

/// Two leases of a client through the gateway, begun at a time.
async fn two_leases(store: &Store, gateway: GatewayId) -> [(ClientId, ResourceId, AuthorizationId); 2] {
    let site = store.sites(Page::FIRST).await.unwrap()[0].id;
    let mut change = store.change(&By::system()).await.unwrap();
    let group = adit_policy::GroupId::from_uuid(change.create_group("everyone", true).await.unwrap().id);
    let actor = change.create_actor(ActorKind::User, "ana", Role::None).await.unwrap().id;
    let device = crate::dispatcher::tests::device;
    let gateway_token = adit_policy::TokenId::from_uuid(Uuid::from_u128(3));
    let actor = Device::Client(ActorId::from_uuid(actor));
    let client = ClientId::from_uuid(device(&mut change, actor, 9, gateway_token).await);
    let credentials = || adit_protocol::IceCredentials { ufrag: "u".to_owned(), password: "p".to_owned() };
    let ice = ConnectionIce { client: credentials(), gateway: credentials() };
    change.begin_epochs(&[NewEpoch { client, gateway, ice }]).await.unwrap();
    let mut leases = Vec::new();
    for name in ["wiki", "git"] {
        let address = adit_policy::ResourceAddress::Internet;
        let spec = ResourceSpec { name: name.to_owned(), address, site, filters: Vec::new() };
        let resource = change.create_resource(&spec).await.unwrap();
        let policy =
            change.create_policy(group, resource, &adit_policy::Conditions::default()).await.unwrap();
        let expires_ms = crate::clock::now_ms() + 60_000;
        let token = gateway_token;
        let new = NewAuthorization { client, gateway, resource, policy, token, request_id: 1, expires_ms };
        leases.push((client, resource, change.authorize(&[new]).await.unwrap()[0]));
    }
    change.commit().await.unwrap();
    leases.try_into().unwrap()
}

async fn live_access_adds_up_what_its_gateway_reported_since(database: Database) {
    let (store, reporter) = opened(&database).await;
    let Reporter::Gateway { id: gateway, .. } = reporter else { unreachable!() };
    let [(client, resource, with), (_, other, without)] = two_leases(&store, gateway).await;
    let later = crate::clock::now_ms() + 1_000;
    let flow = |number, resource, at_ms, path| {
        let client = Some(client);
        (
            number,
            FlowRecord { client, resource, path: Some(path), received_bytes: 10, ..record(number, at_ms) },
        )
    };
    let flows = vec![
        flow(1, resource, later, FlowPath::Relayed),
        flow(2, resource, later, FlowPath::Direct),
        flow(4, other, later - 60_000, FlowPath::Relayed),
    ];
    store_all(&store, &reporter, 1, flows).await;
    let now_ms = crate::clock::now_ms();
    for rows in [
        store.authorizations(Page::FIRST, now_ms).await.unwrap(),
        store.find_authorizations(&Find::of(gateway.as_uuid(), 10), now_ms).await.unwrap(),
    ] {
        let seen: Vec<_> = rows.iter().map(|row| (row.id, row.path.as_deref(), row.sent_bytes)).collect();
        assert_eq!(seen, [(with.as_uuid(), Some("direct"), 3), (without.as_uuid(), None, 0)]);
        assert_eq!((rows[0].received_bytes, rows[1].received_bytes), (20, 0));
    }
    let latest = store.latest_access(1, now_ms).await.unwrap();
    assert_eq!((latest[0].actor_name.as_str(), latest[0].resource_name.as_str()), ("ana", "git"));
}

on_both_databases! {
    live_access_adds_up_what_its_gateway_reported_since,
    the_oldest_flows_are_forgotten,
    a_new_numbering_of_a_gateway_begins_anew_and_a_flow_stays_one_row,
}
