//! Requests that wait together are answered together.
//!
//! Changes happen one after the other, so under load requests for access wait for their turn. They do not stand in that
//! queue themselves: the first of them sends a task that waits for a turn on behalf of all, and takes with it whoever
//! has come until the turn begins. Who comes after that is the first of the next ones. So nobody waits *for* others to
//! come, and a request that is alone is answered at once.
//!
//! ```text
//! requests:  a      b c d           e f
//! turns:     [a]────┐ [b c d]───────┐ [e f]──
//! ```
//!
//! They share a transaction anyway (see the store); what they also share here is its statements. Should one of these be
//! refused by the database, each request is answered alone, so that damage that one of them has met denies nothing to
//! the others.
//!
//! A client has one request in a turn at most, because its second may rest on the connection that the first one opens.
//!
//! Deliberately absent: priorities, and a limit of how many may wait. Each session has one request at a time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::{Answer, Denied, Request, decide};
use crate::portal::{Portal, SharedPortal};
use crate::store::{By, Change, StoreError};

/// Requests that share a turn at most: other changes wait for it.
const LARGEST: usize = 64;

/// Requests that wait for a turn.
#[derive(Debug, Default)]
pub(crate) struct Waiting(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    /// The first to come is the first in it.
    requests: VecDeque<Pending>,
    /// A task waits for a turn on their behalf.
    has_leader: bool,
}

/// A request whose session waits for the answer.
#[derive(Debug)]
struct Pending {
    request: Request,
    answer: oneshot::Sender<Answer>,
}

impl Waiting {
    /// Waits for the answer. A request whose session ends meanwhile is not asked, or done all the same.
    pub(super) async fn answer(&self, portal: &SharedPortal, request: Request) -> Answer {
        let (answer, answered) = oneshot::channel();
        {
            let mut queue = self.lock();
            queue.requests.push_back(Pending { request, answer });
            if !queue.has_leader {
                queue.has_leader = true;
                tokio::spawn(lead(Arc::clone(portal)));
            }
        }
        answered.await.unwrap_or(Err(Denied::UNAVAILABLE))
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// The longest waiting, of different clients.
    fn take(&mut self) -> Vec<Pending> {
        let (mut taken, mut others, mut clients) = (Vec::new(), VecDeque::new(), BTreeSet::new());
        while taken.len() < LARGEST
            && let Some(pending) = self.requests.pop_front()
        {
            if pending.answer.is_closed() {
                // Nobody waits for it any more.
            } else if clients.insert(pending.request.who.client) {
                taken.push(pending);
            } else {
                others.push_back(pending);
            }
        }
        others.append(&mut self.requests);
        self.requests = others;
        taken
    }
}

/// Whoever still waits when its task ends, however it ends, is told that there is no answer.
struct Leader {
    portal: SharedPortal,
    has_taken: bool,
}

impl Drop for Leader {
    fn drop(&mut self) {
        if self.has_taken {
            return;
        }
        let mut queue = self.portal.requests.lock();
        queue.has_leader = false;
        queue.requests.clear();
    }
}

impl Leader {
    /// Takes the requests of this turn and leaves the others to the next one.
    fn take(mut self) -> Vec<Pending> {
        self.has_taken = true;
        let mut queue = self.portal.requests.lock();
        let taken = queue.take();
        queue.has_leader = !queue.requests.is_empty();
        if queue.has_leader {
            tokio::spawn(lead(Arc::clone(&self.portal)));
        }
        taken
    }
}

async fn lead(portal: SharedPortal) {
    let leader = Leader { portal: Arc::clone(&portal), has_taken: false };
    match portal.store.change(&By::system()).await {
        Ok(change) => answer_together(&portal, change, leader.take()).await,
        Err(error) => tracing::error!(%error, "requests for access have no turn"),
    }
}

async fn answer_together(portal: &Portal, mut change: Change, pending: Vec<Pending>) {
    let requests: Vec<&Request> = pending.iter().map(|pending| &pending.request).collect();
    match decide(portal, &mut change, &requests).await {
        Ok(answers) => settle(change, pending, answers).await,
        Err(error) if pending.len() > 1 && is_of_one(&error) => {
            tracing::warn!(%error, "requests for access are answered one by one");
            drop(change);
            for pending in pending {
                answer_alone(portal, pending).await;
            }
        }
        Err(error) => tracing::error!(%error, "requests for access cannot be answered"),
    }
}

/// Whether other requests may fare better; not where the database is away.
fn is_of_one(error: &StoreError) -> bool {
    match error {
        StoreError::Database(error) => error.as_database_error().is_some(),
        StoreError::NotCommitted(_) => false,
        StoreError::NotFound(_)
        | StoreError::Conflict(_)
        | StoreError::Invalid(_)
        | StoreError::NewerSchema { .. } => true,
    }
}

async fn answer_alone(portal: &Portal, pending: Pending) {
    let answer = async {
        let mut change = portal.store.change(&By::system()).await?;
        let answers = decide(portal, &mut change, &[&pending.request]).await?;
        Ok::<_, StoreError>((change, answers))
    };
    match answer.await {
        Ok((change, answers)) => settle(change, vec![pending], answers).await,
        Err(error) => {
            let client = pending.request.who.client;
            tracing::error!(%client, %error, "a request for access cannot be answered");
        }
    }
}

/// Denials are told at once, what is granted when it is durable.
async fn settle(change: Change, pending: Vec<Pending>, answers: Vec<Answer>) {
    let mut granted = Vec::new();
    for (pending, answer) in pending.into_iter().zip(answers) {
        match answer {
            Err(_) => tell(pending.answer, answer),
            Ok(_) => granted.push((pending.answer, answer)),
        }
    }
    if granted.is_empty() {
        return;
    }
    match change.commit().await {
        Ok(()) => granted.into_iter().for_each(|(waits, answer)| tell(waits, answer)),
        Err(error) => tracing::error!(%error, "requests for access cannot be answered"),
    }
}

/// Tells a session, unless it has ended.
fn tell(session: oneshot::Sender<Answer>, answer: Answer) {
    let _ = session.send(answer);
}

#[cfg(test)]
mod tests;
