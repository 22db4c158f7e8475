//! Sessions: the three WebSocket endpoints.
//!
//! A session begins with a token in the HTTP request, a hello within five seconds, and an init
//! that holds the peer's complete state. The line to the hub is opened before that state is
//! read, and what the hub says of events that the state includes already is skipped: nothing
//! can fall between.
//!
//! The same device twice. A new connection with the same key is the same process, whose old
//! connection is dead or dying: it takes over. With another key it is a restarted process or a
//! copied device: it takes over when the older session does not answer a ping within a second,
//! and is sent away as superseded when it does. A draining gateway's successor takes over at
//! once.

mod client;
mod gateway;
mod link;
mod relay;
mod upgrade;

use std::time::Duration;

use adit_policy::TokenId;
use adit_protocol::client::DisconnectReason;
use adit_protocol::{Hello, REVISION};
use semver::Version;
use tokio::time::Instant;
use uuid::Uuid;

pub(crate) use upgrade::router;

use crate::clock;
use crate::credential;
use crate::hub::{Attendee, GivenRelays};
use crate::portal::Portal;
use crate::presentable::device_name;
use crate::store::{By, Device, DeviceHello};
use link::{Ended, Link};

/// The longest list that is looked at in a peer's message; the rest is cut off.
const MAX_ENTRIES: usize = 256;

/// Whoever presented a token, and from where.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The token.
    pub(crate) token: TokenId,
    /// When it ends.
    pub(crate) expires_ms: Option<i64>,
    /// Where the connection comes from.
    pub(crate) address: String,
}

/// A device that has said hello and may stay.
struct Admitted {
    id: Uuid,
    address_index: u32,
    name: String,
    version: Version,
}

impl Admitted {
    fn by(&self, caller: &Caller) -> By {
        By { who: self.name.clone(), address: caller.address.clone() }
    }
}

/// A version that cannot be read counts as older than every other.
fn clean_version(version: &str) -> Version {
    Version::parse(version).unwrap_or(Version::new(0, 0, 0))
}

/// Looks at a hello, makes room for its device and signs it in.
async fn admit(portal: &Portal, caller: &Caller, device: Device, hello: &Hello) -> Result<Admitted, Ended> {
    if hello.revision == 0 {
        return Err(Ended::Misbehaved("revision 0 does not exist"));
    }
    if hello.revision > REVISION {
        tracing::debug!(revision = hello.revision, "the peer speaks a newer revision");
    }
    if !credential::is_usable_key(&hello.public_key) {
        return Err(Ended::Misbehaved("the public key is empty"));
    }
    make_room(portal, caller, device, hello).await?;
    let version = clean_version(&hello.version);
    let name = device_name(&hello.name);
    let hello = Hello { name: name.clone(), version: version.to_string(), ..hello.clone() };
    let by = By { who: name.clone(), address: caller.address.clone() };
    let mut change = portal.store.change(&by).await?;
    let signed_in = change
        .sign_in(&DeviceHello {
            device,
            hello: &hello,
            token: caller.token,
            address: caller.address.clone(),
            capacity: portal.account().tunnel_capacity(),
        })
        .await?;
    change.commit().await?;
    Ok(Admitted { id: signed_in.id, address_index: signed_in.address_index, name, version })
}

/// Decides between a newcomer and a live session of the same device, or of the same key.
async fn make_room(portal: &Portal, caller: &Caller, device: Device, hello: &Hello) -> Result<(), Ended> {
    let own = portal.store.known_device(device, hello).await?;
    if let Some(incumbent) = own.and_then(|id| portal.hub.incumbent(id))
        && incumbent.key != hello.public_key
    {
        let other = incumbent.address.clone();
        if incumbent.answers().await {
            tracing::warn!(
                device = %hello.device_id,
                "two machines claim to be the same device; the second one is refused"
            );
            tracing::debug!(device = %hello.device_id, first = other, second = caller.address, "where they are");
            return Err(Ended::Disconnected(DisconnectReason::Superseded));
        }
    }
    if let Some((id, (node, key, other))) = own.and_then(|id| Some((id, portal.hub.remote_incumbent(id)?)))
        && key != hello.public_key
        && portal.node.answers(portal, node, id).await?
    {
        tracing::warn!(
            device = %hello.device_id,
            "two machines claim to be the same device, at two nodes; the second one is refused"
        );
        tracing::debug!(device = %hello.device_id, first = other, second = caller.address, "where they are");
        return Err(Ended::Disconnected(DisconnectReason::Superseded));
    }
    let same_key = portal.store.devices_with_key(&hello.public_key.0).await?;
    if same_key.into_iter().any(|id| Some(id) != own && portal.hub.is_online(id)) {
        tracing::warn!(device = %hello.device_id, "a peer claims the key of another live peer; it is refused");
        return Err(Ended::Disconnected(DisconnectReason::Superseded));
    }
    Ok(())
}

/// Looks at the token once more, after the line to the hub is open: it may have been revoked
/// between the HTTP request and now.
async fn still_valid(portal: &Portal, caller: &Caller) -> Result<(), Ended> {
    match portal.store.token(caller.token).await? {
        Some(token) if token.revoked_ms.is_none() => Ok(()),
        _ => Err(Ended::Disconnected(DisconnectReason::RevokedToken)),
    }
}

fn attendee(caller: &Caller, hello: &Hello) -> Attendee {
    Attendee { token: caller.token, key: hello.public_key, address: caller.address.clone() }
}

/// When the given relays' credentials must be renewed.
fn renewal(relays: &GivenRelays) -> Option<Instant> {
    // Long sleeps are cut, so that a clock that was set forward is noticed.
    relays.renew_ms().map(|at_ms| Instant::now() + clock::until(at_ms).min(Duration::from_secs(60 * 60)))
}

/// How often one session may ask for the same expensive thing: `rate` a second after a burst.
#[derive(Debug)]
struct Pace {
    left: f64,
    at: Instant,
    rate: f64,
    burst: f64,
}

impl Pace {
    const fn new(now: Instant, rate: f64, burst: f64) -> Self {
        Self { left: burst, at: now, rate, burst }
    }

    fn allows(&mut self, now: Instant) -> bool {
        self.left = (self.left + (now - self.at).as_secs_f64() * self.rate).min(self.burst);
        self.at = now;
        let allowed = self.left >= 1.0;
        if allowed {
            self.left -= 1.0;
        }
        allowed
    }
}

/// Logs and counts the end of a session.
fn note_end(kind: &'static str, id: &dyn std::fmt::Display, ended: &Ended) {
    metrics::counter!("adit_portal_sessions_ended_total", "kind" => kind, "reason" => ended.label())
        .increment(1);
    match ended {
        Ended::Failed(error) => tracing::error!(kind, %id, error, "a session failed"),
        _ => tracing::info!(kind, %id, reason = %ended, "session ended"),
    }
}

/// Closes a link whose session never began.
async fn turn_away<O: link::Outbound>(link: Link, kind: &'static str, ended: &Ended) {
    note_end(kind, &"none", ended);
    link.close::<O>(ended).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_asks_without_end_is_slowed_down() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 50.0, 200.0);
        assert_eq!((0..1000).filter(|_| pace.allows(start)).count(), 200);
        let later = start + Duration::from_secs(1);
        assert_eq!((0..1000).filter(|_| pace.allows(later)).count(), 50);
    }

    #[test]
    fn a_version_that_cannot_be_read_is_the_oldest() {
        assert!(clean_version("banana") < clean_version("0.0.1"));
    }
}
