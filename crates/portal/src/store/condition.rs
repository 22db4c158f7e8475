//! Conditions of policies, and the facts that they are judged by.
//!
//! What is known of a client is in the rows of the device and of the token that it presented last. Decisions,
//! explanations and reviews read it there, so that they cannot disagree. A change of such a fact, or of the conditions
//! themselves, reviews the leases that rest on it: those that would not be granted any more, or not for so long, end in
//! the same change. What time alone changes needs no review, because no lease is longer than its conditions.
//!
//! Deliberately absent: countries. Nothing here knows them yet, and what is not known is not met.

use std::collections::BTreeMap;
use std::net::IpAddr;

use adit_policy::{AuthorizationId, Circumstances, ClientId, Conditions, PolicyId};
use serde::Serialize;
use sqlx::FromRow;
use uuid::Uuid;

use super::{Change, Revoke, StoreError, sql};
use crate::clock;

/// Conditions as they are stored, for lists.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub(crate) struct Written(serde_json::Value);

impl Written {
    /// The conditions themselves, of the policy with this id.
    pub(crate) fn parsed(&self, policy: Uuid) -> Result<Conditions, StoreError> {
        serde_json::from_value(self.0.clone()).map_err(|error| {
            StoreError::Invalid(format!("the conditions of policy {policy} are damaged: {error}"))
        })
    }
}

impl From<String> for Written {
    fn from(text: String) -> Self {
        Self(serde_json::from_str(&text).unwrap_or(serde_json::Value::String(text)))
    }
}

/// What is known of a client.
#[derive(Debug, Clone, Default, FromRow)]
pub(super) struct Known {
    remote_address: String,
    verified_ms: Option<i64>,
    authenticated_ms: Option<i64>,
    provider: Option<String>,
}

#[derive(FromRow)]
struct KnownRow {
    id: Uuid,
    #[sqlx(flatten)]
    known: Known,
}

impl Known {
    /// What conditions are judged by; nothing is known without a row of a device. How old a sign-in from
    /// the future is, nobody knows.
    pub(super) fn circumstances(&self, now: u64) -> Circumstances<'_> {
        let latest = now.saturating_add(clock::seconds(clock::TOLERANCE_MS));
        let authenticated_at = self.authenticated_ms.map(clock::seconds).filter(|at| *at <= latest);
        Circumstances {
            remote_address: self.remote_address.parse().ok().map(|address: IpAddr| address.to_canonical()),
            is_device_verified: self.verified_ms.is_some(),
            authenticated_at,
            auth_provider: self.provider.as_deref(),
            ..Circumstances::default()
        }
    }
}

/// What is known of clients and their users; nothing of those that do not exist.
pub(super) async fn known(
    tx: &mut sql::Transaction,
    clients: &[ClientId],
) -> Result<BTreeMap<ClientId, Known>, StoreError> {
    const SELECT: sql::Statement = sql::listed!(
        asked ("$1" client: uuid),
        "SELECT device.id, device.remote_address, device.verified_ms, token.provider,
                coalesce(token.authenticated_ms, token.created_ms) AS authenticated_ms
         FROM asked
         JOIN device ON device.id = asked.client
         LEFT JOIN token ON token.id = device.token_id
         WHERE device.kind = 'client'"
    );
    if clients.is_empty() {
        return Ok(BTreeMap::new());
    }
    let ids: Vec<Uuid> = clients.iter().map(|client| client.as_uuid()).collect();
    let rows: Vec<KnownRow> = sql::query_as(SELECT).bind(ids).fetch_all(tx).await?;
    Ok(rows.into_iter().map(|row| (ClientId::from_uuid(row.id), row.known)).collect())
}

/// The conditions of a policy. One whose conditions cannot be read grants nothing.
pub(super) fn read(policy: Uuid, text: &str) -> Option<Conditions> {
    let conditions = serde_json::from_str(text);
    conditions.inspect_err(|error| tracing::error!(%policy, %error, "conditions cannot be read")).ok()
}

/// The text that [`read`] reads.
pub(super) fn write(conditions: &Conditions) -> Result<String, StoreError> {
    serde_json::to_string(conditions).map_err(|error| StoreError::Invalid(error.to_string()))
}

/// Whose leases are looked at again.
#[derive(Debug, Clone, Copy)]
pub(super) enum Review {
    /// Those of a client, of which something else is known now.
    Client(ClientId),
    /// Those by a policy, which has other conditions now.
    Policy(PolicyId),
}

impl Review {
    const fn statement(self) -> (&'static str, Uuid) {
        macro_rules! select {
            ($condition:literal) => {
                concat!(
                    "SELECT lease.id, lease.expires_ms, lease.policy_id, policy.conditions,
                            device.remote_address, device.verified_ms, token.provider,
                            coalesce(token.authenticated_ms, token.created_ms) AS authenticated_ms
                     FROM lease
                     JOIN policy ON policy.id = lease.policy_id
                     JOIN device ON device.id = lease.client_id
                     LEFT JOIN token ON token.id = device.token_id
                     WHERE policy.conditions <> '{}' AND ",
                    $condition
                )
            };
        }
        match self {
            Self::Client(id) => (select!("lease.client_id = $1"), id.as_uuid()),
            Self::Policy(id) => (select!("lease.policy_id = $1"), id.as_uuid()),
        }
    }
}

/// A lease, the conditions that it rests on, and what is known of its client.
#[derive(Debug, FromRow)]
struct Conditional {
    id: Uuid,
    expires_ms: i64,
    policy_id: Uuid,
    conditions: String,
    #[sqlx(flatten)]
    known: Known,
}

impl Conditional {
    /// Whether it would be granted now, and for as long.
    fn holds(&self, now_ms: i64) -> bool {
        let Some(conditions) = read(self.policy_id, &self.conditions) else { return false };
        let (now, circumstances) = (clock::seconds(now_ms), self.known.circumstances(clock::seconds(now_ms)));
        let left = clock::seconds(self.expires_ms).saturating_sub(now);
        let is_met = conditions.unmet(now, &circumstances).is_empty();
        // An end at the very end of the lease is within the horizon, and no reason.
        let ends = conditions.end(now, left, &circumstances);
        is_met && ends.is_none_or(|end| end >= now + left)
    }
}

impl Change {
    /// Ends leases whose conditions are met no longer, or not for as long as was granted.
    pub(super) async fn review(&mut self, what: Review) -> Result<usize, StoreError> {
        let (statement, id) = what.statement();
        let rows: Vec<Conditional> = sql::query_as(statement).bind(id).fetch_all(self.sql()).await?;
        let at = self.at_ms();
        let mut ended = 0;
        for lease in rows.iter().filter(|lease| !lease.holds(at)) {
            ended += self.revoke(Revoke::One(AuthorizationId::from_uuid(lease.id))).await?;
        }
        Ok(ended)
    }
}

#[cfg(test)]
mod tests {
    use adit_policy::{
        ActorId, Among, ClockTime, Day, GroupId, PolicyRule, ResourceId, Schedule, Subject, Verdict, Window,
        explain,
    };
    use proptest::prelude::*;

    use super::*;

    const HOUR: u64 = 60 * 60;

    /// A Friday, eight in the morning by UTC.
    const NOW: u64 = 1_800_000_000;

    fn any_schedule() -> impl Strategy<Value = Schedule> {
        (0..24_u8, 0..24_u8).prop_filter_map("empty", |(from, to)| {
            let hour = |hour: u8| format!("{hour:02}:00").parse::<ClockTime>().ok();
            let window = Window { days: vec![Day::Thu, Day::Fri], from: hour(from)?, to: hour(to)? };
            Schedule::new("Europe/Berlin", vec![window]).ok()
        })
    }

    fn any_conditions() -> impl Strategy<Value = Conditions> {
        let networks = prop::sample::select(vec!["192.0.2.0/24", "2001:db8::/32"]);
        let among = (networks, any::<bool>()).prop_map(|(network, is_inside)| {
            let networks = vec![network.parse().unwrap()];
            if is_inside { Among::AnyOf(networks) } else { Among::NoneOf(networks) }
        });
        let age = prop::option::of(60..12 * HOUR);
        let provider = any::<bool>().prop_map(|is_inside| {
            let names = vec!["corp".parse().unwrap()];
            if is_inside { Among::AnyOf(names) } else { Among::NoneOf(names) }
        });
        let (among, schedule) = (prop::option::of(among), prop::option::of(any_schedule()));
        (among, schedule, any::<bool>(), age, prop::option::of(provider)).prop_map(
            |(remote_address, time, verified_device, authentication_age, auth_provider)| Conditions {
                remote_address,
                time,
                verified_device,
                authentication_age,
                auth_provider,
                ..Conditions::default()
            },
        )
    }

    fn any_known() -> impl Strategy<Value = Known> {
        let address =
            prop::sample::select(vec!["192.0.2.7", "::ffff:192.0.2.7", "198.51.100.1", "2001:db8::1", ""]);
        let authenticated = prop::option::of(NOW - 12 * HOUR..=NOW);
        let provider = prop::option::of(prop::sample::select(vec!["local", "corp"]));
        let all = (address, any::<bool>(), authenticated, provider);
        all.prop_map(|(address, is_verified, authenticated, provider)| Known {
            remote_address: address.to_owned(),
            verified_ms: is_verified.then_some(1),
            authenticated_ms: authenticated.map(|at| i64::try_from(at * 1000).unwrap()),
            provider: provider.map(str::to_owned),
        })
    }

    proptest! {
        /// A review keeps what a decision would grant, and nothing else.
        #[test]
        fn a_lease_stays_exactly_when_it_would_be_granted_for_as_long(
            conditions in any_conditions(), known in any_known(), left in 1..=8 * HOUR,
        ) {
            let id = Uuid::nil();
            let (group, resource) = (GroupId::from_uuid(id), ResourceId::from_uuid(id));
            let subject = Subject {
                actor: ActorId::from_uuid(id),
                enabled: true,
                groups: &[group],
                session_expires_at: None,
                circumstances: known.circumstances(NOW),
            };
            let policy = PolicyId::from_uuid(id);
            let rule = PolicyRule { id: policy, group, resource, enabled: true, conditions: conditions.clone() };
            let granted = match &explain(NOW, &subject, resource, &[rule])[0].1 {
                Verdict::Grants { until } => *until >= NOW + left,
                _ => false,
            };
            let lease = Conditional {
                id,
                expires_ms: i64::try_from((NOW + left) * 1000).unwrap(),
                policy_id: id,
                conditions: write(&conditions).unwrap(),
                known,
            };
            prop_assert_eq!(lease.holds(i64::try_from(NOW * 1000).unwrap()), granted);
        }
    }

    #[test]
    fn conditions_that_cannot_be_read_grant_nothing() {
        let known = Known::default();
        let (id, expires_ms) = (Uuid::nil(), i64::MAX);
        let lease = |conditions: &str| Conditional {
            id,
            expires_ms,
            policy_id: id,
            conditions: conditions.to_owned(),
            known: known.clone(),
        };
        assert!(lease("{}").holds(0));
        for damaged in ["", "null", r#"{"from_the_future":true}"#] {
            assert!(!lease(damaged).holds(0), "{damaged}");
        }
    }
}
