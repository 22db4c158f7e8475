//! Several nodes of one installation, over one PostgreSQL database.
//!
//! Events reach every node through the outbox. This task does the rest: it renews the node's
//! lease, tells the other nodes who is connected here, learns who is connected there, and wakes
//! and is woken. Signals only save time; every second it looks at the tables besides.
//!
//! A node that was forgotten (it was cut off from the database for a minute) may have missed
//! events, so it sends all its peers away; they come back and get complete state. One that is cut
//! off for longer than its lease does so too if there are other nodes, which may do better.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use adit_protocol::client::GatewayGone;
use adit_protocol::gateway::ClientGone;
use adit_protocol::{PortalToClient, PortalToGateway};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::clock;
use crate::hub::{Learned, Presence, RETURN_TIME};
use crate::portal::{Portal, SharedPortal};
use crate::store::{NODE_LEASE, PresenceRow, Signal, Signals, StoreError};

/// How often the lease is renewed and the tables are looked at.
const BEAT: Duration = Duration::from_secs(1);

/// How long a node waits for the answer of another one about a session of its.
const ANSWER: Duration = Duration::from_millis(1500);

/// Presence rows that are read at once.
const BATCH: i64 = 1000;

/// This node.
#[derive(Debug)]
pub(crate) struct Node {
    id: Uuid,
    /// Probes of other nodes' sessions that wait for an answer.
    questions: Mutex<HashMap<Uuid, oneshot::Sender<()>>>,
}

impl Node {
    /// A node with a new id; a process that restarts is another node.
    pub(crate) fn new() -> Self {
        Self { id: Uuid::now_v7(), questions: Mutex::default() }
    }

    fn questions(&self) -> std::sync::MutexGuard<'_, HashMap<Uuid, oneshot::Sender<()>>> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this node does what one of them must do: the one that has been here longest, among those whose leases stand.
    /// For a moment there may be two, or none.
    pub(crate) async fn is_first(&self, store: &crate::store::Store) -> Result<bool, StoreError> {
        if !store.is_shared() {
            return Ok(true);
        }
        Ok(store.other_nodes(self.id).await?.into_iter().all(|other| other > self.id))
    }

    /// Whether a device's session at another node answers that node.
    pub(crate) async fn answers(
        &self,
        portal: &Portal,
        node: Uuid,
        device: Uuid,
    ) -> Result<bool, StoreError> {
        let question = Uuid::new_v4();
        let (answer, answered) = oneshot::channel();
        self.questions().insert(question, answer);
        portal.store.signal(Signal::Probe { node, device, question }).await?;
        let answered = matches!(tokio::time::timeout(ANSWER, answered).await, Ok(Ok(())));
        self.questions().remove(&question);
        Ok(answered)
    }
}

/// Enters this node and learns of the others, before anybody connects.
pub(crate) async fn join(portal: &SharedPortal) -> Result<Option<Task>, StoreError> {
    let Some(signals) = portal.store.signals().await? else { return Ok(None) };
    portal.store.register_node(portal.node.id).await?;
    let mut task = Task::new(SharedPortal::clone(portal), signals);
    task.learn().await?;
    Ok(Some(task))
}

/// Takes this node out, so that the others need not wait for its lease to end.
pub(crate) async fn leave(portal: &Portal) -> Result<(), StoreError> {
    if !portal.store.is_shared() {
        return Ok(());
    }
    portal.store.remove_node(portal.node.id).await?;
    portal.store.signal(Signal::Presence).await
}

/// What keeps a node in touch with the others.
pub(crate) struct Task {
    portal: SharedPortal,
    signals: Signals,
    /// This node's changes of presence so far.
    changes: i64,
    /// The other nodes, and which of their changes are known.
    others: BTreeMap<Uuid, i64>,
    renewed: Instant,
    is_cut_off: bool,
}

impl Task {
    fn new(portal: SharedPortal, signals: Signals) -> Self {
        Self {
            portal,
            signals,
            changes: 0,
            others: BTreeMap::new(),
            renewed: Instant::now(),
            is_cut_off: false,
        }
    }

    /// Runs until the task is aborted.
    pub(crate) async fn run(mut self) {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let done = tokio::select! {
                _ = beat.tick() => self.beat().await,
                () = self.portal.hub.unannounced() => self.announce().await,
                () = self.portal.store.committed_here() => self.portal.store.signal(Signal::Events).await,
                signal = self.signals.next() => match signal {
                    Ok(signal) => self.heard(signal).await,
                    Err(error) => Err(error),
                },
            };
            match done {
                Ok(()) => {}
                Err(error) => {
                    tracing::error!(%error, "this node cannot reach the others");
                    self.is_cut_off = true;
                    self.fail_over();
                    tokio::time::sleep(BEAT / 2).await;
                }
            }
        }
    }

    async fn beat(&mut self) -> Result<(), StoreError> {
        let store = &self.portal.store;
        if !store.renew_node(self.portal.node.id).await? {
            tracing::warn!("the other nodes have forgotten this one; its peers are sent away to come back");
            store.register_node(self.portal.node.id).await?;
            self.portal.hub.resynchronise();
            self.is_cut_off = true;
        }
        self.renewed = Instant::now();
        if std::mem::take(&mut self.is_cut_off) {
            // The database may have forgotten who is here.
            self.portal.hub.announce_all();
        }
        store.sweep_nodes().await?;
        self.learn().await
    }

    /// Sends peers away when another node is likely to do better.
    fn fail_over(&mut self) {
        if self.renewed.elapsed() > NODE_LEASE && !self.others.is_empty() {
            tracing::warn!("the database is out of reach; peers are sent to other nodes");
            self.portal.hub.resynchronise();
            // Once more for whoever is left after another lease.
            self.renewed = Instant::now();
        }
    }

    async fn heard(&mut self, signal: Signal) -> Result<(), StoreError> {
        match signal {
            Signal::Events => self.portal.store.wake_dispatcher(),
            Signal::Presence => self.learn().await?,
            Signal::Probe { node, device, question } => {
                if node == self.portal.node.id {
                    self.probe(device, question);
                }
            }
            Signal::Alive { question } => {
                if let Some(answer) = self.portal.node.questions().remove(&question) {
                    let _ = answer.send(());
                }
            }
            Signal::Gap => {
                self.portal.store.wake_dispatcher();
                self.learn().await?;
            }
        }
        Ok(())
    }

    fn probe(&self, device: Uuid, question: Uuid) {
        let portal = SharedPortal::clone(&self.portal);
        let Some(incumbent) = portal.hub.incumbent(device) else { return };
        tokio::spawn(async move {
            if incumbent.answers().await
                && let Err(error) = portal.store.signal(Signal::Alive { question }).await
            {
                tracing::error!(%error, "another node's question could not be answered");
            }
        });
    }

    /// Tells the other nodes what they do not know of this one's peers.
    async fn announce(&mut self) -> Result<(), StoreError> {
        let news = self.portal.hub.take_unannounced();
        if news.is_empty() {
            return Ok(());
        }
        let peers: Vec<Uuid> = news.iter().map(|(peer, _)| *peer).collect();
        let mut rows = Vec::with_capacity(news.len());
        for (peer, presence) in news {
            self.changes += 1;
            let detail = presence.map(|presence| self.encode(presence)).transpose()?;
            rows.push(PresenceRow { peer, change: self.changes, detail });
        }
        let store = &self.portal.store;
        if let Err(error) = store.write_presence(self.portal.node.id, &rows).await {
            self.portal.hub.announce_again(peers.into_iter());
            return Err(error);
        }
        store.signal(Signal::Presence).await
    }

    fn encode(&self, presence: Presence) -> Result<String, StoreError> {
        let presence = match presence {
            Presence::Relay { mut details, is_draining } => {
                details.secret = self.portal.secrets.seal(&details.secret).map_err(invalid)?;
                Presence::Relay { details, is_draining }
            }
            other => other,
        };
        serde_json::to_string(&presence).map_err(invalid)
    }

    fn decode(&self, text: &str) -> Option<Presence> {
        match serde_json::from_str(text).ok()? {
            Presence::Relay { mut details, is_draining } => {
                details.secret = self.portal.secrets.open(&details.secret)?;
                Some(Presence::Relay { details, is_draining })
            }
            other => Some(other),
        }
    }

    /// Learns what the other nodes have to tell.
    async fn learn(&mut self) -> Result<(), StoreError> {
        let portal = SharedPortal::clone(&self.portal);
        let alive = portal.store.other_nodes(portal.node.id).await?;
        let dead: Vec<Uuid> = self.others.keys().filter(|id| !alive.contains(id)).copied().collect();
        for node in dead {
            self.others.remove(&node);
            tracing::warn!(%node, "another node is gone");
            for learned in portal.hub.forget_node(node) {
                pass_on(&portal, learned).await?;
            }
        }
        for node in alive {
            self.learn_of(node).await?;
        }
        Ok(())
    }

    async fn learn_of(&mut self, node: Uuid) -> Result<(), StoreError> {
        let portal = SharedPortal::clone(&self.portal);
        let mut known = self.others.get(&node).copied().unwrap_or(0);
        self.others.insert(node, known);
        loop {
            let rows = portal.store.read_presence(node, known, BATCH).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            known = last.change;
            for row in rows {
                let presence = match row.detail.map(|text| self.decode(&text)) {
                    Some(None) => {
                        tracing::error!(peer = %row.peer, "what another node says of a peer cannot be read");
                        continue;
                    }
                    presence => presence.flatten(),
                };
                pass_on(&portal, portal.hub.learn(node, row.peer, presence)).await?;
            }
            self.others.insert(node, known);
        }
    }
}

fn invalid(error: impl std::fmt::Display) -> StoreError {
    StoreError::Invalid(error.to_string())
}

/// Tells the peers of this node what happened at another one.
async fn pass_on(portal: &SharedPortal, learned: Learned) -> Result<(), StoreError> {
    let (store, hub, now_ms) = (&portal.store, &portal.hub, clock::now_ms());
    match learned {
        Learned::Nothing => {}
        Learned::ClientCandidates(id, update) => {
            hub.pass_client_candidates(id, &store.gateways_of(id, now_ms).await?, &update);
        }
        Learned::GatewayCandidates(id, update) => {
            hub.pass_gateway_candidates(id, &store.clients_of(id, now_ms).await?, &update);
        }
        Learned::ClientGone(id) => {
            for gateway in store.gateways_of(id, now_ms).await? {
                hub.tell_gateway(gateway, None, PortalToGateway::ClientGone(ClientGone { client: id }));
            }
        }
        Learned::GatewayGone(id) => {
            for client in store.clients_of(id, now_ms).await? {
                hub.tell_client(client, None, PortalToClient::GatewayGone(GatewayGone { gateway: id }));
            }
        }
        Learned::RelayGone(id) => {
            let portal = SharedPortal::clone(portal);
            tokio::spawn(async move {
                tokio::time::sleep(RETURN_TIME).await;
                portal.hub.forget_relay(id);
            });
        }
    }
    Ok(())
}
