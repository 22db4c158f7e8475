//! Front ends that wait until a resource is reached.

use std::time::{Duration, Instant};

use adit_tunnel::ResourceState;
use tokio::sync::oneshot;

use super::Control;
use crate::client::{PingFailure, PingResult, lookup};

/// How often a waiting ping looks again, and what it shows is refreshed.
const PING_PAUSE: Duration = Duration::from_millis(5);

/// How long a ping may wait.
const PING_LIMIT: Duration = Duration::from_secs(30);

pub(super) struct PendingPing {
    resource: adit_policy::ResourceId,
    name: String,
    since: Instant,
    reply: oneshot::Sender<Result<PingResult, PingFailure>>,
}

impl Control<'_> {
    pub(super) fn ping(&mut self, wanted: &str, reply: oneshot::Sender<Result<PingResult, PingFailure>>) {
        let resources = self.driver.machine.resources(Instant::now());
        let Some(found) = lookup::named(&resources, wanted) else {
            // Whoever asked may have gone away.
            return drop(reply.send(Err(PingFailure::UnknownResource)));
        };
        let (resource, name) = (found.id, found.name.clone());
        self.pings.push(PendingPing { resource, name, since: Instant::now(), reply });
        self.settle_pings();
    }

    pub(super) fn settle_pings(&mut self) {
        let now = Instant::now();
        for ping in std::mem::take(&mut self.pings) {
            let state = self.driver.machine.ping(now, ping.resource);
            let result = match state {
                Err(_) => Err(PingFailure::UnknownResource),
                Ok(answer) => match answer.state {
                    ResourceState::Connected { gateway, path } => {
                        let connections = self.driver.machine.connections();
                        let connection =
                            connections.into_iter().find(|connection| connection.gateway == gateway);
                        Ok(PingResult {
                            resource: ping.name.clone(),
                            gateway: connection
                                .map_or_else(|| gateway.to_string(), |connection| connection.name),
                            path,
                            handshake_age: answer.handshake_age_ms.map(Duration::from_millis),
                            connected_in: now.duration_since(ping.since),
                        })
                    }
                    ResourceState::Forbidden => Err(PingFailure::Forbidden),
                    ResourceState::Offline => Err(PingFailure::Offline),
                    _ if now.duration_since(ping.since) > PING_LIMIT => Err(PingFailure::Timeout),
                    _ if ping.reply.is_closed() => continue,
                    _ => {
                        self.pings.push(ping);
                        continue;
                    }
                },
            };
            // Whoever asked may have gone away.
            let _ = ping.reply.send(result);
        }
    }

    /// When to look again without any input.
    pub(super) fn wake(&self) -> tokio::time::Instant {
        let deadline = self.driver.deadline();
        if self.pings.is_empty() { deadline } else { deadline.min(tokio::time::Instant::now() + PING_PAUSE) }
    }
}
