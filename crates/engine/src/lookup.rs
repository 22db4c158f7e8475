//! Names of DNS resources, resolved where the gateway is, by its system's resolver.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

/// Look-ups on their way at once; one more fails at once.
const MOST_LOOKUPS: usize = 128;

/// How long the resolver may take.
const LOOKUP_LIMIT: Duration = Duration::from_secs(8);

/// Addresses of one name that are used.
const MOST_ADDRESSES: usize = 16;

/// Why a name has no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LookupFailure {
    /// The resolver says that the name has none.
    NotFound,
    /// The resolver did not answer.
    Unavailable,
}

/// What came of a look-up.
pub(crate) type Outcome = Result<Vec<IpAddr>, LookupFailure>;

/// Resolves names without keeping anybody waiting.
#[derive(Debug)]
pub(crate) struct Lookups<Id> {
    results: mpsc::Sender<(Id, Outcome)>,
    slots: Arc<Semaphore>,
}

impl<Id: Copy + Send + 'static> Lookups<Id> {
    /// Results arrive at the returned receiver.
    pub(crate) fn new() -> (Self, mpsc::Receiver<(Id, Outcome)>) {
        let (results, receiver) = mpsc::channel(MOST_LOOKUPS);
        (Self { results, slots: Arc::new(Semaphore::new(MOST_LOOKUPS)) }, receiver)
    }

    /// Starts to resolve `name`. A look-up too many is dropped: the machine's own timer ends it.
    pub(crate) fn start(&self, id: Id, name: String) {
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            tracing::debug!("too many names are being resolved: dropped one");
            return;
        };
        let results = self.results.clone();
        tokio::spawn(async move {
            let _slot = slot;
            let outcome = tokio::time::timeout(LOOKUP_LIMIT, resolve(&name))
                .await
                .unwrap_or(Err(LookupFailure::Unavailable));
            // Nobody waits for results any more when the engine stops.
            let _ = results.send((id, outcome)).await;
        });
    }
}

async fn resolve(name: &str) -> Outcome {
    match tokio::net::lookup_host((name, 0)).await {
        Ok(addresses) => {
            let mut unique: Vec<IpAddr> = Vec::new();
            for address in addresses.map(|address| address.ip()) {
                if !unique.contains(&address) && unique.len() < MOST_ADDRESSES {
                    unique.push(address);
                }
            }
            if unique.is_empty() { Err(LookupFailure::NotFound) } else { Ok(unique) }
        }
        // The resolver's error carries no code, only this sentence for EAI_AGAIN.
        Err(error) if error.to_string().contains("Temporary failure") => Err(LookupFailure::Unavailable),
        Err(_) => Err(LookupFailure::NotFound),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_hosts_file_counts() {
        let (lookups, mut results) = Lookups::new();
        lookups.start(1, "localhost".to_owned());
        let (id, outcome) = results.recv().await.unwrap();
        assert_eq!(id, 1);
        assert!(outcome.unwrap().iter().all(IpAddr::is_loopback));
    }
}
