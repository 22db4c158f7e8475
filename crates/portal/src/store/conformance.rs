//! What both databases must do alike: each test runs on SQLite and on a PostgreSQL server.

use std::collections::HashSet;

use adit_policy::{ActorId, ClientId, Conditions, GatewayId, GroupId, ResourceAddress, ResourceId, SiteId};
use adit_protocol::{EncodedKey, Hello, IceCredentials};
use uuid::Uuid;

use super::*;
use crate::credential::Secrets;

#[path = "../../tests/postgres/server.rs"]
mod server;

/// A database that goes away with its test.
pub(crate) enum Scratch {
    Sqlite(tempfile::TempDir),
    Postgres(server::TestDatabase),
}

impl Scratch {
    pub(crate) fn sqlite() -> Self {
        Self::Sqlite(tempfile::tempdir().unwrap())
    }

    pub(crate) fn postgres() -> Self {
        Self::Postgres(server::TestDatabase::create())
    }

    pub(crate) fn database(&self) -> Database {
        match self {
            Self::Sqlite(directory) => Database::Sqlite(directory.path().join("portal.db")),
            Self::Postgres(database) => Database::Postgres(database.url()),
        }
    }
}

/// Makes two tests of each function that takes a [`Database`].
macro_rules! on_both_databases {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                let scratch = $crate::store::conformance::Scratch::sqlite();
                super::$name(scratch.database()).await;
            })*
        }

        mod postgres {
            $(#[tokio::test]
            async fn $name() {
                let scratch = $crate::store::conformance::Scratch::postgres();
                super::$name(scratch.database()).await;
            })*
        }
    };
}

pub(crate) use on_both_databases;

/// A store with an account, and things in it.
struct Office {
    store: Store,
    group: GroupId,
    actor: ActorId,
    site: SiteId,
    resource: ResourceId,
    policy: adit_policy::PolicyId,
    client_token: TokenId,
    gateway_token: TokenId,
}

use adit_policy::TokenId;

impl Office {
    async fn open(database: &Database) -> Self {
        let store = Store::open(database, true).await.unwrap();
        let mut change = store.change(&By::system()).await.unwrap();
        change.create_account(&account()).await.unwrap();
        let group = GroupId::from_uuid(change.create_group("staff", false).await.unwrap().id);
        let actor = change.create_actor(ActorKind::User, "ana", Role::None).await.unwrap();
        let actor = ActorId::from_uuid(actor.id);
        change.add_member(group, actor).await.unwrap();
        let site = change.create_site("office").await.unwrap().id;
        let address = ResourceAddress::Internet;
        let spec = ResourceSpec { name: "all".to_owned(), address, site, filters: Vec::new() };
        let resource = change.create_resource(&spec).await.unwrap();
        let policy = change.create_policy(group, resource, &Conditions::default()).await.unwrap();
        let client_token = token(&mut change, TokenKind::Client, Some(actor), None).await;
        let gateway_token = token(&mut change, TokenKind::Gateway, None, Some(site)).await;
        change.commit().await.unwrap();
        store.close().await;
        // The account is read when a store is opened.
        let store = Store::open(database, false).await.unwrap();
        Self { store, group, actor, site, resource, policy, client_token, gateway_token }
    }

    async fn change(&self) -> Change {
        self.store.change(&By::system()).await.unwrap()
    }

    async fn device(&self, device: Device, number: u128, key: u8) -> Uuid {
        let mut change = self.change().await;
        let id = sign_in(&mut change, self, device, number, key).await.id;
        change.commit().await.unwrap();
        id
    }

    async fn pair(&self) -> (ClientId, GatewayId) {
        let client = self.device(Device::Client(self.actor), 1, 1).await;
        let gateway = self.device(Device::Gateway(self.site), 2, 2).await;
        (ClientId::from_uuid(client), GatewayId::from_uuid(gateway))
    }

    async fn standing(&self, change: &mut Change, client: ClientId) -> Standing {
        let (actor, token, resource) = (self.actor, self.client_token, self.resource);
        let asked = Asked { client, actor, token, session_expires_ms: None, resource };
        change.standings(&[asked]).await.unwrap().remove(0)
    }

    async fn lease(&self, client: ClientId, gateway: GatewayId, expires_ms: i64) -> AuthorizationId {
        let mut change = self.change().await;
        let id = change
            .authorize(&[NewAuthorization {
                client,
                gateway,
                resource: self.resource,
                policy: self.policy,
                token: self.client_token,
                request_id: u64::MAX,
                expires_ms,
            }])
            .await
            .unwrap()[0];
        change.commit().await.unwrap();
        id
    }

    /// Every event since the last call.
    async fn events(&self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let batch = self.store.undelivered().await.unwrap();
            let Some((last, _)) = batch.last() else { return events };
            self.store.mark_delivered(*last);
            events.extend(batch.into_iter().map(|(_, event)| event.unwrap()));
        }
    }
}

use adit_policy::AuthorizationId;

fn account() -> NewAccount {
    NewAccount {
        name: "default".to_owned(),
        ipv4_range: "100.64.0.0/11".parse().unwrap(),
        ipv6_range: "fd00::/107".parse().unwrap(),
        ipv4_proxy_range: "100.96.0.0/11".parse().unwrap(),
        ipv6_proxy_range: "fd00::20:0/107".parse().unwrap(),
        dns_upstreams: vec!["192.0.2.53:53".parse().unwrap()],
        search_domains: vec!["corp.example".to_owned()],
    }
}

async fn token(
    change: &mut Change,
    kind: TokenKind,
    actor: Option<ActorId>,
    site: Option<SiteId>,
) -> TokenId {
    let minted = Secrets::new(&[1; 32], &[2; 32]).mint(kind).unwrap();
    let (id, hash) = (minted.id, minted.hash);
    let token = NewToken { id, kind, name: "t".to_owned(), hash, actor, site, expires_ms: None };
    change.create_token(&token).await.unwrap();
    id
}

async fn sign_in(
    change: &mut Change,
    office: &Office,
    device: Device,
    number: u128,
    key: u8,
) -> super::device::SignedIn {
    let hello = Hello {
        revision: 1,
        device_id: Uuid::from_u128(number),
        name: "device".to_owned(),
        public_key: EncodedKey([key; 32]),
        version: "1.0.0".to_owned(),
        capabilities: Vec::new(),
    };
    let token = match device {
        Device::Client(_) => office.client_token,
        Device::Gateway(_) => office.gateway_token,
    };
    let address = "192.0.2.1".to_owned();
    change.sign_in(&DeviceHello { device, hello: &hello, token, address, capacity: 1 << 21 }).await.unwrap()
}

fn ice() -> ConnectionIce {
    let credentials = || IceCredentials { ufrag: "ufrag".to_owned(), password: "password".to_owned() };
    ConnectionIce { client: credentials(), gateway: credentials() }
}

async fn everything_is_read_as_it_was_written(database: Database) {
    let office = Office::open(&database).await;
    let store = &office.store;
    let read = store.account().await.unwrap().settings;
    assert_eq!(format!("{read:?}"), format!("{:?}", account()));
    assert_eq!(store.actor(office.actor).await.unwrap().name, "ana");
    assert!(store.actor(office.actor).await.unwrap().enabled);
    assert_eq!(store.resource(office.resource).await.unwrap().address, ResourceAddress::Internet);
    let token = store.token(office.client_token).await.unwrap().unwrap();
    assert_eq!((token.hash.len(), token.expires_ms, token.site_id), (32, None, None));
    let (client, gateway) = office.pair().await;
    let mut change = office.change().await;
    change.begin_epochs(&[NewEpoch { client, gateway, ice: ice() }]).await.unwrap();
    change.commit().await.unwrap();
    let until = crate::clock::now_ms() + 60_000;
    let id = office.lease(client, gateway, until).await;
    let lease = store.leases(&[id], until - 1).await.unwrap().remove(0);
    assert_eq!((lease.expires_ms, lease.connection.epoch, lease.client.public_key), (until, 1, [1; 32]));
    let mut change = office.change().await;
    let standing = office.standing(&mut change, client).await;
    assert_eq!((standing.is_token_good, standing.leases), (true, 1));
    assert_eq!((standing.site, standing.admitted), (Some(office.site), vec![gateway]));
    assert_eq!(standing.held[0].request_id.cast_unsigned(), u64::MAX, "all 64 bits of a request id");
    assert_eq!(change.gateway_loads(office.site).await.unwrap(), [(gateway, 1)]);
    assert_eq!(standing.open[0].0, gateway);
    drop(change);
    let audit = store.audit(Page::FIRST).await.unwrap();
    assert!(audit.windows(2).all(|pair| pair[0].id > pair[1].id), "newest first");
    assert_eq!(store.authorizations(Page::FIRST, until - 1).await.unwrap()[0].actor_name, "ana");
    let devices = store.devices("client", Page::FIRST).await.unwrap();
    assert_eq!((devices.len(), devices[0].remote_address.as_str()), (1, "192.0.2.1"));
}

async fn names_may_hold_any_text(database: Database) {
    let office = Office::open(&database).await;
    for name in ["'; DROP TABLE actor; --", "$1", "?", "\u{1F980} Ünïcödé", "%_\\", "\"lease\""] {
        let mut change = office.change().await;
        let made = change.create_actor(ActorKind::ServiceAccount, name, Role::Admin).await.unwrap();
        change.commit().await.unwrap();
        let read = office.store.actor(ActorId::from_uuid(made.id)).await.unwrap();
        assert_eq!((read.name.as_str(), read.role), (name, Role::Admin));
    }
}

async fn what_exists_already_is_a_conflict_and_what_is_missing_is_not_found(database: Database) {
    let office = Office::open(&database).await;
    let mut change = office.change().await;
    let again = change.create_site("office").await;
    assert!(matches!(again, Err(StoreError::Conflict(_))), "{again:?}");
    drop(change);
    let mut change = office.change().await;
    let nobody = change.add_member(office.group, ActorId::from_uuid(Uuid::from_u128(7))).await;
    assert!(matches!(nobody, Err(StoreError::NotFound(_))), "{nobody:?}");
    drop(change);
    let nothing = office.store.site(SiteId::from_uuid(Uuid::nil())).await;
    assert!(matches!(nothing, Err(StoreError::NotFound("site"))), "{nothing:?}");
    let mut change = office.change().await;
    let nothing = change.delete_site(SiteId::from_uuid(Uuid::nil())).await;
    assert!(matches!(nothing, Err(StoreError::NotFound("site"))), "{nothing:?}");
}

async fn lists_are_cut_into_pages(database: Database) {
    let office = Office::open(&database).await;
    let mut change = office.change().await;
    for number in 0..7 {
        change.create_site(&format!("site {number}")).await.unwrap();
    }
    change.commit().await.unwrap();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = office.store.sites(Page { after, limit: Some(3) }).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id.as_uuid());
        seen.extend(page.into_iter().map(|site| site.name));
    }
    assert_eq!(seen.len(), 8);
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), 8);
    assert_eq!((seen[0].as_str(), seen[7].as_str()), ("office", "site 6"));
}

/// Each way to take access away names the lease in an event and leaves no row behind.
async fn every_revocation_takes_its_leases_along(database: Database) {
    let office = Office::open(&database).await;
    let (client, gateway) = office.pair().await;
    let until = crate::clock::now_ms() + 60_000;
    let ways = [
        Revoke::Policy(office.policy),
        Revoke::Membership { group: office.group, actor: office.actor },
        Revoke::Group(office.group),
        Revoke::Actor(office.actor),
        Revoke::Resource(office.resource),
        Revoke::Site(office.site),
        Revoke::Client(client),
        Revoke::Gateway(gateway),
        Revoke::Token(office.client_token),
        Revoke::Token(office.gateway_token),
        Revoke::Pair { client, gateway },
    ];
    for way in ways {
        let id = office.lease(client, gateway, until).await;
        office.events().await;
        let mut change = office.change().await;
        assert_eq!(change.revoke(way).await.unwrap(), 1, "{way:?}");
        change.commit().await.unwrap();
        let resource = office.resource;
        assert_eq!(
            office.events().await,
            [Event::AuthorizationRevoked { id, client, gateway, resource }],
            "{way:?}"
        );
        assert!(office.store.authorizations(Page::FIRST, 0).await.unwrap().is_empty(), "{way:?}");
    }
    let mut change = office.change().await;
    let nobody = ActorId::from_uuid(Uuid::from_u128(9));
    assert_eq!(change.revoke(Revoke::Actor(nobody)).await.unwrap(), 0);
}

/// A Friday by UTC, eight in the morning until six in the evening.
async fn what_time_brings_is_known_before(database: Database) {
    let office = Office::open(&database).await;
    let (client, _) = office.pair().await;
    let windows = r#"[{"days":["fri"],"from":"08:00","to":"18:00"}]"#;
    let text = format!(r#"{{"time":{{"time_zone":"UTC","windows":{windows}}}}}"#);
    let mut change = office.change().await;
    change.set_policy_conditions(office.policy, &serde_json::from_str(&text).unwrap()).await.unwrap();
    change.commit().await.unwrap();
    let look = async |seconds: i64| {
        let visible = office.store.visible_resources(office.actor, client, seconds * 1000).await.unwrap();
        (visible.resources.len(), visible.look_again_ms.map(|at_ms| at_ms / 1000 - seconds))
    };
    let eight = 1_800_000_000;
    assert_eq!(look(eight - 86_400).await, (0, Some(3600)), "within the hour nothing happens");
    assert_eq!(look(eight - 600).await, (0, Some(600)));
    assert_eq!(look(eight).await, (1, Some(3600)));
    assert_eq!(look(eight + 36_000 - 60).await, (1, Some(60)));
    assert_eq!(look(eight + 36_000).await.0, 0);
    let mut change = office.change().await;
    let conditions = Conditions { verified_device: true, ..Conditions::default() };
    change.set_policy_conditions(office.policy, &conditions).await.unwrap();
    change.commit().await.unwrap();
    assert_eq!(look(eight).await, (0, None), "time has nothing to do with it");
    let mut change = office.change().await;
    change.set_device_verified(client, true).await.unwrap();
    change.commit().await.unwrap();
    assert_eq!(look(eight).await, (1, None));
}

/// Their holders end leases by themselves; only a clock that was set makes their timers wrong.
async fn the_end_of_a_lease_is_told_only_after_a_jump_of_the_clock(database: Database) {
    const HOUR: i64 = 60 * 60 * 1000;
    let office = Office::open(&database).await;
    let (client, gateway) = office.pair().await;
    let now = crate::clock::now_ms();
    let mut ids = Vec::new();
    for until in [now + HOUR, now + 8 * HOUR, now - 1000, now - HOUR, now + 9 * HOUR] {
        ids.push(office.lease(client, gateway, until).await);
    }
    office.events().await;
    let mut change = office.change().await;
    assert_eq!(change.delete_expired().await.unwrap(), 3);
    change.commit().await.unwrap();
    let mut told: Vec<AuthorizationId> = Vec::new();
    for event in office.events().await {
        match event {
            Event::AuthorizationRevoked { id, .. } => told.push(id),
            other => panic!("{other:?}"),
        }
    }
    told.sort();
    let mut expected = vec![ids[3], ids[4]];
    expected.sort();
    assert_eq!(told, expected);
    assert_eq!(office.store.lease_ends().await.unwrap(), Some((now + HOUR, now + 8 * HOUR)));
}

async fn deleting_takes_everything_below_along(database: Database) {
    let office = Office::open(&database).await;
    let (client, gateway) = office.pair().await;
    office.lease(client, gateway, crate::clock::now_ms() + 60_000).await;
    let mut change = office.change().await;
    change.delete_site(office.site).await.unwrap();
    change.commit().await.unwrap();
    let store = &office.store;
    assert!(store.resources(Page::FIRST).await.unwrap().is_empty());
    assert!(store.policies(Page::FIRST).await.unwrap().is_empty());
    assert!(store.devices("gateway", Page::FIRST).await.unwrap().is_empty());
    assert!(store.token(office.gateway_token).await.unwrap().is_none());
    assert_eq!(store.lease_ends().await.unwrap(), None);
    let mut change = office.change().await;
    change.delete_actor(office.actor).await.unwrap();
    change.commit().await.unwrap();
    assert!(store.devices("client", Page::FIRST).await.unwrap().is_empty());
    assert!(store.token(office.client_token).await.unwrap().is_none());
}

async fn a_key_belongs_to_one_device(database: Database) {
    let office = Office::open(&database).await;
    let first = office.device(Device::Client(office.actor), 1, 5).await;
    let second = office.device(Device::Client(office.actor), 2, 5).await;
    assert_ne!(first, second);
    assert_eq!(office.store.devices_with_key(&[5; 32]).await.unwrap(), [second]);
    assert_eq!(office.device(Device::Client(office.actor), 1, 6).await, first, "the same device again");
}

async fn an_epoch_only_grows(database: Database) {
    let office = Office::open(&database).await;
    let (client, gateway) = office.pair().await;
    for epoch in 1..=3 {
        let mut change = office.change().await;
        change.begin_epochs(&[NewEpoch { client, gateway, ice: ice() }]).await.unwrap();
        change.commit().await.unwrap();
        office.lease(client, gateway, crate::clock::now_ms() + 60_000).await;
        let mut change = office.change().await;
        let standing = office.standing(&mut change, client).await;
        assert_eq!(standing.open[0].1, epoch);
        let of_before = u64::try_from(epoch).unwrap() - 1;
        assert!(!change.close_connection(client, gateway, of_before).await.unwrap());
        assert!(change.close_connection(client, gateway, of_before + 1).await.unwrap());
        change.commit().await.unwrap();
    }
}

/// Many at once, each through a store of its own, as so many nodes: nobody gets the address of
/// another, and no event is lost or out of order.
async fn concurrent_changes_wait_for_each_other(database: Database) {
    const WRITERS: u8 = 8;
    let office = Office::open(&database).await;
    office.events().await;
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (database, actor) = (database.clone(), office.actor);
        let token = office.client_token;
        tasks.spawn(async move {
            let store = Store::open(&database, false).await.unwrap();
            for round in 0..10_u8 {
                let mut change = store.change(&By::system()).await.unwrap();
                let hello = Hello {
                    revision: 1,
                    device_id: Uuid::from_u128(u128::from(writer) << 8 | u128::from(round)),
                    name: "device".to_owned(),
                    public_key: EncodedKey([writer + 1; 32].map(|byte| byte ^ (round << 4))),
                    version: "1.0.0".to_owned(),
                    capabilities: Vec::new(),
                };
                // So few addresses that most first tries fail.
                let capacity = u32::from(WRITERS) * 10 + 40;
                let address = String::new();
                let device = Device::Client(actor);
                change
                    .sign_in(&DeviceHello { device, hello: &hello, token, address, capacity })
                    .await
                    .unwrap();
                change.tell(&Event::VisibilityChanged { actors: vec![actor] }).unwrap();
                change.commit().await.unwrap();
            }
            store.close().await;
        });
    }
    let mut events = 0;
    let mut last = 0;
    while !tasks.is_empty() {
        let _ = tokio::time::timeout(std::time::Duration::from_millis(5), tasks.join_next())
            .await
            .map(|done| done.unwrap().unwrap());
        for (seq, _) in office.store.undelivered().await.unwrap() {
            assert!(seq > last);
            (last, events) = (seq, events + 1);
            office.store.mark_delivered(seq);
        }
    }
    events += office.events().await.len();
    assert_eq!(events, usize::from(WRITERS) * 10);
    let devices = office.store.devices("client", Page::FIRST).await.unwrap();
    let indices: HashSet<i64> = devices.iter().map(|device| device.address_index).collect();
    assert_eq!((devices.len(), indices.len()), (80, 80));
}

/// What a snapshot includes is not told again, and what it does not include is.
async fn a_snapshot_knows_which_events_it_includes(database: Database) {
    let office = Office::open(&database).await;
    let (client, gateway) = office.pair().await;
    office.events().await;
    let now_ms = crate::clock::now_ms();
    office.lease(client, gateway, now_ms + 60_000).await;
    let snapshot = office.store.client_snapshot(client, office.actor, now_ms).await.unwrap();
    assert_eq!(snapshot.authorizations.len(), 1);
    let waiting = office.store.undelivered().await.unwrap();
    assert_eq!((waiting.len(), waiting[0].0), (1, snapshot.seq));
    office.events().await;
    let later = office.store.gateway_snapshot(gateway, now_ms).await.unwrap();
    assert_eq!(later.seq, snapshot.seq);
    office.lease(client, gateway, now_ms + 60_000).await;
    assert!(office.store.undelivered().await.unwrap()[0].0 > later.seq);
}

/// Another account in the same database: its things are not there for us, not even to refer to.
async fn things_of_another_account_do_not_exist(database: Database) {
    let office = Office::open(&database).await;
    let mut change = office.change().await;
    change.create_account(&account()).await.unwrap();
    let group = GroupId::from_uuid(change.create_group("theirs", false).await.unwrap().id);
    let actor = change.create_actor(ActorKind::User, "theirs", Role::Owner).await.unwrap();
    let actor = ActorId::from_uuid(actor.id);
    let site = change.create_site("theirs").await.unwrap().id;
    let address = ResourceAddress::Internet;
    let spec = ResourceSpec { name: "theirs".to_owned(), address, site, filters: Vec::new() };
    let resource = change.create_resource(&spec).await.unwrap();
    let policy = change.create_policy(group, resource, &Conditions::default()).await.unwrap();
    let token = token(&mut change, TokenKind::Api, Some(actor), None).await;
    change.commit().await.unwrap();
    let store = &office.store;
    assert!(matches!(store.site(site).await, Err(StoreError::NotFound(_))));
    assert!(matches!(store.resource(resource).await, Err(StoreError::NotFound(_))));
    assert!(matches!(store.group(group).await, Err(StoreError::NotFound(_))));
    assert!(matches!(store.actor(actor).await, Err(StoreError::NotFound(_))));
    assert!(matches!(store.policy(policy).await, Err(StoreError::NotFound(_))));
    assert!(store.token(token).await.unwrap().is_none());
    let inventory = store.inventory().await.unwrap();
    assert_eq!((inventory.actors.len(), inventory.groups.len(), inventory.memberships.len()), (1, 1, 1));
    macro_rules! missing {
        ($($call:ident($($argument:expr),*);)*) => {$(
            let mut change = office.change().await;
            let done = change.$call($($argument),*).await;
            assert!(matches!(done, Err(StoreError::NotFound(_))), concat!(stringify!($call), " {:?}"), done.err());
            drop(change);
        )*};
    }
    let none = Conditions::default();
    let ours = ResourceSpec {
        name: "ours".to_owned(),
        address: ResourceAddress::Internet,
        site,
        filters: Vec::new(),
    };
    let before = store.resource(office.resource).await.unwrap();
    missing! {
        rename_site(site, "x");
        delete_site(site);
        create_resource(&ours);
        update_resource(&before, &ours);
        delete_resource(resource);
        rename_group(group, "x");
        delete_group(group);
        add_member(group, office.actor);
        add_member(office.group, actor);
        remove_member(group, actor);
        create_policy(group, office.resource, &none);
        create_policy(office.group, resource, &none);
        set_policy_enabled(policy, false);
        set_policy_conditions(policy, &none);
        delete_policy(policy);
        set_actor_enabled(actor, false);
        set_actor_role(actor, Role::None);
        delete_actor(actor);
        revoke_token(token);
        delete_directory_user(actor);
        delete_directory_group(group);
    }
}

async fn a_newer_schema_is_refused(database: Database) {
    let office = Office::open(&database).await;
    sql::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES ($1, 'from the future', TRUE, $2, 0)",
    )
    .bind(9999_i64)
    .bind([0_u8; 4].as_slice())
    .execute(&office.store.writer)
    .await
    .unwrap();
    office.store.close().await;
    let error = Store::open(&database, false).await.unwrap_err().to_string();
    assert!(error.contains("newer adit-portal (schema 9999"), "{error}");
}

on_both_databases! {
    everything_is_read_as_it_was_written,
    names_may_hold_any_text,
    what_exists_already_is_a_conflict_and_what_is_missing_is_not_found,
    lists_are_cut_into_pages,
    every_revocation_takes_its_leases_along,
    what_time_brings_is_known_before,
    the_end_of_a_lease_is_told_only_after_a_jump_of_the_clock,
    deleting_takes_everything_below_along,
    a_key_belongs_to_one_device,
    an_epoch_only_grows,
    concurrent_changes_wait_for_each_other,
    a_snapshot_knows_which_events_it_includes,
    things_of_another_account_do_not_exist,
    a_newer_schema_is_refused,
}
