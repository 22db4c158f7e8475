//! Many requests in one turn: each is answered as if it were alone.

use adit_policy::{ActorId, AuthorizationId, ClientId, GatewayId};
use adit_protocol::PortalToGateway;
use adit_protocol::client::{FailureReason, RequestAuthorization};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::*;
use crate::authorize::{Requester, authorize};
use crate::clock;
use crate::dispatcher::tests::{device, portal, request, with_lease};
use crate::hub::Receiver;
use crate::store::{Database, Device, Lease, on_both_databases};

/// Clients of one person, and a gateway that is here.
struct Office {
    portal: SharedPortal,
    clients: Vec<ClientId>,
    who: Requester,
    what: RequestAuthorization,
    _gateway: Receiver<PortalToGateway>,
}

impl Office {
    async fn open(database: &Database, clients: u8) -> Self {
        let (first, gateway, _): (_, GatewayId, _) = with_lease(database).await;
        let portal = Arc::new(portal(database).await);
        let (who, what, line) = request(&portal, first, gateway).await;
        let mut change = portal.store.change(&By::system()).await.unwrap();
        let mut all = vec![first];
        for key in 3..clients + 2 {
            let id = device(&mut change, Device::Client(who.actor), key, who.token).await;
            all.push(ClientId::from_uuid(id));
        }
        change.commit().await.unwrap();
        Self { portal, clients: all, who, what, _gateway: line }
    }

    fn ask(&self, who: Requester, request_id: u64) -> JoinHandle<Answer> {
        let what = RequestAuthorization { request_id, ..self.what.clone() };
        let portal = Arc::clone(&self.portal);
        tokio::spawn(async move { authorize(&portal, who, what).await })
    }

    fn of(&self, client: ClientId) -> Requester {
        Requester { client, ..self.who }
    }

    /// Until so many wait, while somebody else has the turn.
    async fn waiting(&self, count: usize) {
        while self.portal.requests.lock().requests.len() < count {
            tokio::task::yield_now().await;
        }
    }

    async fn lease(&self, id: AuthorizationId) -> Lease {
        self.portal.store.leases(&[id], clock::now_ms()).await.unwrap().remove(0)
    }
}

async fn everybody_gets_a_lease_of_its_own(database: Database) {
    // More than share a turn.
    let office = Office::open(&database, 100).await;
    let holder = office.portal.store.change(&By::system()).await.unwrap();
    let asked: Vec<_> = office.clients.iter().map(|client| office.ask(office.of(*client), 7)).collect();
    office.waiting(100).await;
    drop(holder);
    let mut ids = BTreeSet::new();
    for (client, answer) in office.clients.iter().zip(asked) {
        let id = answer.await.unwrap().unwrap();
        assert_eq!(office.lease(id).await.client.id, client.as_uuid());
        ids.insert(id);
    }
    assert_eq!(ids.len(), 100);
}

/// The second request rests on the connection that the first one opens.
async fn requests_of_one_client_share_a_connection(database: Database) {
    let office = Office::open(&database, 2).await;
    let holder = office.portal.store.change(&By::system()).await.unwrap();
    let who = office.of(office.clients[1]);
    let (first, second) = (office.ask(who, 7), office.ask(who, 8));
    office.waiting(2).await;
    drop(holder);
    let (first, second) = (first.await.unwrap().unwrap(), second.await.unwrap().unwrap());
    assert_eq!(first, second, "the lease of the first one answers the second, too");
    assert_eq!(office.lease(first).await.connection.epoch, 1);
}

async fn a_denial_is_its_own(database: Database) {
    let office = Office::open(&database, 3).await;
    let holder = office.portal.store.change(&By::system()).await.unwrap();
    let good = office.ask(office.of(office.clients[0]), 7);
    let nobody = ActorId::from_uuid(Uuid::from_u128(1));
    let stranger = office.ask(Requester { actor: nobody, ..office.of(office.clients[1]) }, 7);
    let also_good = office.ask(office.of(office.clients[2]), 7);
    office.waiting(3).await;
    drop(holder);
    assert_eq!(stranger.await.unwrap().unwrap_err().reason, FailureReason::Forbidden);
    good.await.unwrap().unwrap();
    also_good.await.unwrap().unwrap();
}

/// A client without a row: the database refuses its lease, and with it the statement for all.
async fn damage_that_one_has_met_denies_nothing_to_others(database: Database) {
    let office = Office::open(&database, 3).await;
    let holder = office.portal.store.change(&By::system()).await.unwrap();
    let mut asked: Vec<_> = office.clients.iter().map(|client| office.ask(office.of(*client), 7)).collect();
    let damaged = office.ask(office.of(ClientId::from_uuid(Uuid::from_u128(1))), 7);
    office.waiting(4).await;
    drop(holder);
    assert_eq!(damaged.await.unwrap(), Err(Denied::UNAVAILABLE));
    for answer in asked.drain(..) {
        let id = answer.await.unwrap().unwrap();
        office.lease(id).await;
    }
}

async fn who_stops_waiting_gets_nothing(database: Database) {
    let office = Office::open(&database, 2).await;
    let holder = office.portal.store.change(&By::system()).await.unwrap();
    let (gone, here) =
        (office.ask(office.of(office.clients[1]), 7), office.ask(office.of(office.clients[0]), 7));
    office.waiting(2).await;
    gone.abort();
    let _ = gone.await;
    drop(holder);
    here.await.unwrap().unwrap();
    let held = office.portal.store.authorizations(crate::store::Page::FIRST, clock::now_ms()).await.unwrap();
    assert!(held.iter().all(|lease| lease.client_id == office.clients[0].as_uuid()), "{held:?}");
}

async fn without_a_database_everybody_is_told(database: Database) {
    let office = Office::open(&database, 2).await;
    office.portal.store.close().await;
    for client in &office.clients {
        assert_eq!(office.ask(office.of(*client), 7).await.unwrap(), Err(Denied::UNAVAILABLE));
    }
}

on_both_databases! {
    everybody_gets_a_lease_of_its_own,
    requests_of_one_client_share_a_connection,
    a_denial_is_its_own,
    damage_that_one_has_met_denies_nothing_to_others,
    who_stops_waiting_gets_nothing,
    without_a_database_everybody_is_told,
}
