//! Answering a client's request for access: decide, choose a gateway, store the lease.
//!
//! It all happens inside one transaction, so that a policy that is disabled at the same moment
//! either is seen or revokes the lease that was just stored. Nobody hears of a lease before it
//! is stored. Requests that wait for that transaction together are answered together, by as many
//! statements as one of them takes (see [`waiting`]).

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Instant;

use adit_policy::{ActorId, AuthorizationId, ClientId, Decision, GatewayId, Grant, SiteId, TokenId};
use adit_protocol::client::{FailureReason, RequestAuthorization};

use crate::credential;
use crate::hub::OnlineGateway;
use crate::portal::{Portal, SharedPortal};
use crate::store::{
    Asked, Change, ConnectionIce, Event, HeldAuthorization, NewAuthorization, NewEpoch, Standing, StoreError,
};

pub(crate) use self::waiting::Waiting;

mod waiting;

/// Leases that one client may hold at a time.
const MAX_LEASES: i64 = 4096;

/// When to ask again after all gateways were offline, in milliseconds.
pub(crate) const OFFLINE_PATIENCE: u64 = 250;

/// When to ask again while the only gateway restarts, in milliseconds.
const RETURN_PATIENCE: u64 = 100;

/// When to ask again after the portal could not answer, in milliseconds.
const UNAVAILABLE_PATIENCE: u64 = 2_000;

/// For this long after an introduction a client may not have heard of it yet, in milliseconds.
///
/// A client asks for several resources at once, so requests arrive that cannot know the
/// connection which the first of them has just opened. They share it; without this grace each
/// would begin a new epoch and end the one before.
const INTRODUCTION_GRACE: i64 = 10_000;

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Requester {
    /// The client.
    pub(crate) client: ClientId,
    /// Whose it is.
    pub(crate) actor: ActorId,
    /// The token of its session.
    pub(crate) token: TokenId,
    /// When that token ends.
    pub(crate) session_expires_ms: Option<i64>,
    /// When its session began.
    pub(crate) session_began_ms: i64,
}

/// No, and when to ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Denied {
    /// Why.
    pub(crate) reason: FailureReason,
    /// In milliseconds.
    pub(crate) retry_after_ms: Option<u64>,
}

impl Denied {
    const fn new(reason: FailureReason, retry_after_ms: Option<u64>) -> Self {
        Self { reason, retry_after_ms }
    }

    /// The portal could not answer.
    pub(crate) const UNAVAILABLE: Self = Self::new(FailureReason::Unavailable, Some(UNAVAILABLE_PATIENCE));

    /// The only gateway restarts: packets wait for it.
    const RETURNING: Self = Self::new(FailureReason::Unavailable, Some(RETURN_PATIENCE));

    const OFFLINE: Self = Self::new(FailureReason::Offline, Some(OFFLINE_PATIENCE));
}

/// A request and who makes it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    who: Requester,
    what: RequestAuthorization,
}

impl Request {
    const fn asked(&self) -> Asked {
        let Requester { client, actor, token, session_expires_ms, .. } = self.who;
        Asked { client, actor, token, session_expires_ms, resource: self.what.resource }
    }
}

/// Granted means that the lease is stored and both peers are being told.
type Answer = Result<AuthorizationId, Denied>;

/// Answers a request, together with others that wait.
pub(crate) async fn authorize(portal: &SharedPortal, who: Requester, what: RequestAuthorization) -> Answer {
    portal.requests.answer(portal, Request { who, what }).await
}

/// What a request comes to.
enum Outcome {
    Denied(Denied),
    /// A lease that answers it already.
    Held(AuthorizationId),
    New(NewAuthorization),
    /// A lease on a connection that is yet to begin.
    Opening(NewAuthorization, ConnectionIce),
}

/// Decides requests of different clients and stores what is granted; the answers are in their order.
async fn decide(
    portal: &Portal,
    change: &mut Change,
    requests: &[&Request],
) -> Result<Vec<Answer>, StoreError> {
    let asked: Vec<Asked> = requests.iter().map(|request| request.asked()).collect();
    let standings = change.standings(&asked).await?;
    let decisions = change.decide(&asked).await?;
    let mut outcomes = Vec::with_capacity(requests.len());
    for ((request, standing), decision) in requests.iter().zip(&standings).zip(decisions) {
        outcomes.push(outcome(portal, change, request, standing, decision).await?);
    }
    store(change, requests, outcomes).await
}

async fn outcome(
    portal: &Portal,
    change: &mut Change,
    Request { who, what }: &Request,
    standing: &Standing,
    decision: Decision,
) -> Result<Outcome, StoreError> {
    let denied = |denied| Ok(Outcome::Denied(denied));
    // The session of a revoked token ends a moment after the revocation. What it asks for in
    // that moment would rest on nothing, and nobody would take it back.
    if !standing.is_token_good {
        return denied(Denied::UNAVAILABLE);
    }
    let Some(site) = standing.site else { return denied(Denied::new(FailureReason::NotFound, None)) };
    let grant = match decision {
        Decision::Granted(grant) => grant,
        Decision::Refused(refusal) => {
            tracing::info!(client = %who.client, resource = %what.resource, %refusal, "access refused");
            return denied(Denied::new(FailureReason::Forbidden, None));
        }
    };
    if standing.leases >= MAX_LEASES {
        return denied(Denied::UNAVAILABLE);
    }
    let open = usable_connections(standing, change.at_ms(), who, what);
    let online = portal.hub.gateways_of_site(site);
    let loads = loads(portal, change, site, &online, &open).await?;
    let Some(gateway) = choose(&online, &open, &Wishes::of(what), &loads) else {
        let is_returning = portal.hub.is_gateway_returning(site);
        return denied(if is_returning { Denied::RETURNING } else { Denied::OFFLINE });
    };
    // The same moment in the life of a gateway.
    if !standing.admitted.contains(&gateway) {
        return denied(Denied::OFFLINE);
    }
    let lease = new_lease(who, what, gateway, grant);
    if !open.contains_key(&gateway) {
        let Ok(ice) = new_ice() else { return denied(Denied::UNAVAILABLE) };
        portal.hub.loads.add(site, gateway);
        return Ok(Outcome::Opening(lease, ice));
    }
    let held = reusable(&standing.held, what.request_id, gateway, grant, change.at_ms());
    Ok(held.map_or(Outcome::New(lease), Outcome::Held))
}

/// Stores what was decided: all connections at once, and all leases.
async fn store(
    change: &mut Change,
    requests: &[&Request],
    outcomes: Vec<Outcome>,
) -> Result<Vec<Answer>, StoreError> {
    let (mut epochs, mut leases) = (Vec::new(), Vec::new());
    for outcome in &outcomes {
        match outcome {
            Outcome::Denied(_) | Outcome::Held(_) => {}
            Outcome::New(lease) => leases.push(*lease),
            Outcome::Opening(lease, ice) => {
                epochs.push(NewEpoch { client: lease.client, gateway: lease.gateway, ice: ice.clone() });
                leases.push(*lease);
            }
        }
    }
    change.begin_epochs(&epochs).await?;
    let mut stored = change.authorize(&leases).await?.into_iter();
    let mut answers = Vec::with_capacity(outcomes.len());
    for (outcome, request) in outcomes.into_iter().zip(requests) {
        answers.push(match outcome {
            Outcome::Denied(denied) => Err(denied),
            Outcome::Held(id) => {
                change.tell(&Event::AuthorizationCreated { id, request_id: request.what.request_id })?;
                Ok(id)
            }
            Outcome::New(_) | Outcome::Opening(..) => stored.next().ok_or(Denied::UNAVAILABLE),
        });
    }
    Ok(answers)
}

/// How many clients the gateways serve; counted only where it may decide.
async fn loads(
    portal: &Portal,
    change: &mut Change,
    site: SiteId,
    online: &[OnlineGateway],
    open: &BTreeMap<GatewayId, i64>,
) -> Result<Vec<(GatewayId, i64)>, StoreError> {
    let candidates = online.iter().filter(|gateway| !gateway.is_draining);
    if candidates.clone().count() < 2
        || candidates.filter(|gateway| open.contains_key(&gateway.id)).count() == 1
    {
        return Ok(Vec::new());
    }
    let now = Instant::now();
    if let Some(known) = portal.hub.loads.of(now, site) {
        return Ok(known);
    }
    let counted = change.gateway_loads(site).await?;
    portal.hub.loads.counted(now, site, &counted);
    Ok(counted)
}

fn new_ice() -> Result<ConnectionIce, credential::NoRandomness> {
    Ok(ConnectionIce { client: credential::ice_credentials()?, gateway: credential::ice_credentials()? })
}

fn new_lease(
    who: &Requester,
    what: &RequestAuthorization,
    gateway: GatewayId,
    grant: Grant,
) -> NewAuthorization {
    NewAuthorization {
        client: who.client,
        gateway,
        resource: what.resource,
        policy: grant.policy,
        token: who.token,
        request_id: what.request_id,
        expires_ms: lease_end_ms(grant),
    }
}

fn lease_end_ms(grant: Grant) -> i64 {
    i64::try_from(grant.expires_at.saturating_mul(1000)).unwrap_or(i64::MAX)
}

/// The connections that another lease may rest on: those that the client says it has, and
/// those it may not have heard of yet.
fn usable_connections(
    standing: &Standing,
    now_ms: i64,
    who: &Requester,
    request: &RequestAuthorization,
) -> BTreeMap<GatewayId, i64> {
    let said: BTreeMap<GatewayId, u64> =
        request.connected_gateways.iter().map(|gateway| (gateway.id, gateway.epoch)).collect();
    let usable = |gateway: &GatewayId, epoch: i64, began_ms: i64| match said.get(gateway) {
        Some(said) => *said == u64::try_from(epoch).unwrap_or(0) || began_ms + INTRODUCTION_GRACE > now_ms,
        None => began_ms >= who.session_began_ms && began_ms + INTRODUCTION_GRACE > now_ms,
    };
    standing
        .open
        .iter()
        .filter(|(gateway, epoch, began_ms)| usable(gateway, *epoch, *began_ms))
        .map(|(gateway, epoch, _)| (*gateway, *epoch))
        .collect()
}

/// What a client says of gateways.
#[derive(Debug, Clone, Copy, Default)]
struct Wishes<'a> {
    /// The worst first.
    avoid: &'a [GatewayId],
    /// It carries flows to the resource.
    prefer: Option<GatewayId>,
}

impl<'a> Wishes<'a> {
    fn of(request: &'a RequestAuthorization) -> Self {
        Self { avoid: &request.avoid_gateways, prefer: request.prefer_gateway }
    }
}

/// Chooses a gateway: the preferred one, else one already connected, else the newest, else the least loaded. One that is
/// draining is never chosen, one to avoid only if there is no other, and then the last in the list.
fn choose(
    online: &[OnlineGateway],
    open: &BTreeMap<GatewayId, i64>,
    wishes: &Wishes<'_>,
    loads: &[(GatewayId, i64)],
) -> Option<GatewayId> {
    let load = |id: GatewayId| loads.iter().find(|(other, _)| *other == id).map_or(0, |(_, load)| *load);
    online
        .iter()
        .filter(|gateway| !gateway.is_draining)
        .min_by_key(|gateway| {
            (
                wishes.avoid.iter().position(|avoided| *avoided == gateway.id).map(Reverse),
                wishes.prefer != Some(gateway.id),
                !open.contains_key(&gateway.id),
                Reverse(gateway.version.clone()),
                load(gateway.id),
                gateway.id,
            )
        })
        .map(|gateway| gateway.id)
}

/// A lease that answers the request already: the same request once more, or one by the same
/// policy with more than half of its time left.
fn reusable(
    held: &[HeldAuthorization],
    request_id: u64,
    gateway: GatewayId,
    grant: Grant,
    now_ms: i64,
) -> Option<AuthorizationId> {
    let half = now_ms + (lease_end_ms(grant) - now_ms) / 2;
    held.iter()
        .filter(|lease| lease.gateway_id == gateway.as_uuid())
        .find(|lease| {
            let repeated = lease.request_id.cast_unsigned() == request_id;
            repeated || (lease.policy_id == grant.policy.as_uuid() && lease.expires_ms >= half)
        })
        .map(|lease| AuthorizationId::from_uuid(lease.id))
}

#[cfg(test)]
mod tests {
    use semver::Version;
    use uuid::Uuid;

    use super::*;

    const fn id(n: u128) -> GatewayId {
        GatewayId::from_uuid(Uuid::from_u128(n))
    }

    fn gateway(n: u128, version: &str) -> OnlineGateway {
        OnlineGateway { id: id(n), version: Version::parse(version).unwrap(), is_draining: false }
    }

    fn avoid(gateways: &[GatewayId]) -> Wishes<'_> {
        Wishes { avoid: gateways, prefer: None }
    }

    #[test]
    fn a_renewed_lease_stays_where_its_flows_are() {
        let online = [gateway(1, "1.0.0"), gateway(2, "2.0.0")];
        let open = BTreeMap::from([(id(1), 1), (id(2), 1)]);
        let prefer = Wishes { avoid: &[], prefer: Some(id(1)) };
        assert_eq!(choose(&online, &open, &prefer, &[(id(1), 9)]), Some(id(1)));
        let gone_bad = Wishes { avoid: &[id(1)], prefer: Some(id(1)) };
        assert_eq!(choose(&online, &open, &gone_bad, &[]), Some(id(2)));
    }

    #[test]
    fn an_open_connection_is_worth_more_than_a_newer_version() {
        let online = [gateway(1, "1.4.9"), gateway(2, "1.4.18")];
        let open = BTreeMap::from([(id(1), 1)]);
        assert_eq!(choose(&online, &open, &Wishes::default(), &[]), Some(id(1)));
        assert_eq!(
            choose(&online, &BTreeMap::new(), &Wishes::default(), &[]),
            Some(id(2)),
            "1.4.18 is newer than 1.4.9"
        );
    }

    #[test]
    fn the_least_loaded_of_equals_is_chosen() {
        let online = [gateway(1, "1.0.0"), gateway(2, "1.0.0")];
        assert_eq!(
            choose(&online, &BTreeMap::new(), &Wishes::default(), &[(id(1), 3), (id(2), 2)]),
            Some(id(2))
        );
        assert_eq!(choose(&online, &BTreeMap::new(), &Wishes::default(), &[(id(1), 3)]), Some(id(2)));
    }

    #[test]
    fn one_to_avoid_is_the_last_choice_and_a_draining_one_is_none() {
        let mut online = vec![gateway(1, "2.0.0"), gateway(2, "1.0.0")];
        let open = BTreeMap::from([(id(1), 1)]);
        assert_eq!(choose(&online, &open, &avoid(&[id(1)]), &[]), Some(id(2)));
        assert_eq!(
            choose(&online, &open, &avoid(&[id(1), id(2)]), &[]),
            Some(id(2)),
            "the worst comes first"
        );
        assert_eq!(choose(&online, &open, &avoid(&[id(2), id(1)]), &[]), Some(id(1)));
        online.pop();
        assert_eq!(choose(&online, &open, &avoid(&[id(1)]), &[]), Some(id(1)));
        online[0].is_draining = true;
        assert_eq!(choose(&online, &open, &Wishes::default(), &[]), None);
    }
}
