//! The decision: which policy grants a subject a resource, until when; else why not.
//!
//! [`decide`] answers; [`explain`] says of every policy that names the resource what it does for the subject, and rests
//! on the same judgement, so that the two cannot disagree.

use serde::Serialize;

use crate::{ActorId, Circumstances, Conditions, GroupId, PolicyId, ResourceId, Unmet};

/// Longest time that one authorization may last, in seconds.
///
/// A bound on every revocation that gets lost: a gateway cut off from the portal enforces
/// the lease's end alone.
const LONGEST_LEASE: u64 = 8 * 60 * 60;

/// A policy as the decision sees it: members of `group` may reach `resource`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyRule {
    /// Names the policy.
    pub id: PolicyId,
    /// Whose members it is for.
    pub group: GroupId,
    /// What it lets them reach.
    pub resource: ResourceId,
    /// A disabled policy grants nothing.
    pub enabled: bool,
    /// What must be true besides.
    pub conditions: Conditions,
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Subject<'a> {
    /// The person or service account.
    pub actor: ActorId,
    /// A disabled actor is granted nothing.
    pub enabled: bool,
    /// The groups that the actor is a member of.
    pub groups: &'a [GroupId],
    /// When the session ends, in Unix seconds; no lease outlives it.
    pub session_expires_at: Option<u64>,
    /// What is known of the device and its user.
    pub circumstances: Circumstances<'a>,
}

/// The answer to "may this subject reach this resource now?", with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Yes, by this policy, until then.
    Granted(Grant),
    /// No.
    Refused(Refusal),
}

/// What a policy granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Grant {
    /// The policy that granted it.
    pub policy: PolicyId,
    /// When the lease ends, in Unix seconds.
    pub expires_at: u64,
}

/// Why nothing was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, thiserror::Error)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The actor is disabled.
    #[error("the actor is disabled")]
    ActorDisabled,
    /// The session has ended.
    #[error("the session has ended")]
    SessionEnded,
    /// No policy names the resource.
    #[error("no policy names the resource")]
    NoPolicy,
    /// Policies name the resource, but for groups the actor is not in.
    #[error("the actor is in none of the groups that may reach the resource")]
    NotAMember,
    /// A policy would grant it, but is disabled.
    #[error("the policy that would grant it is disabled")]
    PolicyDisabled {
        /// That policy.
        policy: PolicyId,
    },
    /// A policy would grant it, under conditions that are not met.
    #[error("the policy that would grant it does not do so {unmet}")]
    ConditionUnmet {
        /// That policy.
        policy: PolicyId,
        /// Its first such condition.
        unmet: Unmet,
    },
}

/// What one policy does for a subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It grants, until then (Unix seconds).
    Grants {
        /// When the lease would end.
        until: u64,
    },
    /// It is for a group that the actor is not in.
    NotAMember,
    /// It is disabled.
    Disabled,
    /// Its conditions are not met: these.
    Unmet(Vec<Unmet>),
}

/// Decides whether `subject` may reach `resource` at `now` (Unix seconds).
///
/// Of several granting policies the one that grants longest is named, and of these the one with the smallest id, so that
/// the same question always gets the same answer. Of several refusals the one nearest to a grant is named.
pub fn decide(now: u64, subject: &Subject<'_>, resource: ResourceId, rules: &[PolicyRule]) -> Decision {
    if let Some(refusal) = barred(now, subject) {
        return Decision::Refused(refusal);
    }
    let verdicts = explain(now, subject, resource, rules);
    let grants = verdicts.iter().filter_map(|(policy, verdict)| match verdict {
        Verdict::Grants { until } => Some(Grant { policy: *policy, expires_at: *until }),
        _ => None,
    });
    if let Some(grant) = grants.max_by_key(|grant| (grant.expires_at, std::cmp::Reverse(grant.policy))) {
        return Decision::Granted(grant);
    }
    let refusals = verdicts.iter().map(|(policy, verdict)| refusal(*policy, verdict));
    Decision::Refused(refusals.max_by_key(nearness).unwrap_or(Refusal::NoPolicy))
}

/// What each policy that names `resource` does for `subject` at `now`, in the order of the rules.
///
/// The subject itself may be barred all the same; [`decide`] looks at that first.
pub fn explain(
    now: u64,
    subject: &Subject<'_>,
    resource: ResourceId,
    rules: &[PolicyRule],
) -> Vec<(PolicyId, Verdict)> {
    let rules = rules.iter().filter(|rule| rule.resource == resource);
    rules.map(|rule| (rule.id, judge(now, subject, rule))).collect()
}

/// Why nobody can be granted anything in the name of this subject.
fn barred(now: u64, subject: &Subject<'_>) -> Option<Refusal> {
    if !subject.enabled {
        return Some(Refusal::ActorDisabled);
    }
    let has_ended = subject.session_expires_at.is_some_and(|end| end <= now);
    has_ended.then_some(Refusal::SessionEnded)
}

fn judge(now: u64, subject: &Subject<'_>, rule: &PolicyRule) -> Verdict {
    if !subject.groups.contains(&rule.group) {
        return Verdict::NotAMember;
    }
    if !rule.enabled {
        return Verdict::Disabled;
    }
    let unmet = rule.conditions.unmet(now, &subject.circumstances);
    if !unmet.is_empty() {
        return Verdict::Unmet(unmet);
    }
    let longest = now.saturating_add(LONGEST_LEASE);
    let ends = rule.conditions.end(now, LONGEST_LEASE, &subject.circumstances);
    let until = [subject.session_expires_at, ends].into_iter().flatten().fold(longest, u64::min);
    Verdict::Grants { until }
}

fn refusal(policy: PolicyId, verdict: &Verdict) -> Refusal {
    match verdict {
        Verdict::Unmet(unmet) => match unmet.first() {
            Some(unmet) => Refusal::ConditionUnmet { policy, unmet: *unmet },
            None => Refusal::NotAMember,
        },
        Verdict::Disabled => Refusal::PolicyDisabled { policy },
        Verdict::NotAMember | Verdict::Grants { .. } => Refusal::NotAMember,
    }
}

/// How little is missing, and among equals the smallest id.
fn nearness(refusal: &Refusal) -> (u8, Option<std::cmp::Reverse<PolicyId>>) {
    match refusal {
        Refusal::ConditionUnmet { policy, .. } => (3, Some(std::cmp::Reverse(*policy))),
        Refusal::PolicyDisabled { policy } => (2, Some(std::cmp::Reverse(*policy))),
        Refusal::NotAMember => (1, None),
        Refusal::NoPolicy | Refusal::ActorDisabled | Refusal::SessionEnded => (0, None),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const NOW: u64 = 1_000_000;
    const STAFF: GroupId = GroupId::from_uuid(Uuid::from_u128(1));
    const OTHERS: GroupId = GroupId::from_uuid(Uuid::from_u128(2));
    const WIKI: ResourceId = ResourceId::from_uuid(Uuid::from_u128(3));
    const POLICY: PolicyId = PolicyId::from_uuid(Uuid::from_u128(4));

    fn subject(groups: &[GroupId]) -> Subject<'_> {
        Subject {
            actor: ActorId::from_uuid(Uuid::nil()),
            enabled: true,
            groups,
            session_expires_at: None,
            circumstances: Circumstances::default(),
        }
    }

    fn rule(enabled: bool) -> PolicyRule {
        PolicyRule { id: POLICY, group: STAFF, resource: WIKI, enabled, conditions: Conditions::default() }
    }

    #[test]
    fn a_member_is_granted_the_longest_lease() {
        let decision = decide(NOW, &subject(&[OTHERS, STAFF]), WIKI, &[rule(true)]);
        assert_eq!(decision, Decision::Granted(Grant { policy: POLICY, expires_at: NOW + LONGEST_LEASE }));
    }

    #[test]
    fn no_lease_outlives_the_session() {
        let subject = Subject { session_expires_at: Some(NOW + 60), ..subject(&[STAFF]) };
        let decision = decide(NOW, &subject, WIKI, &[rule(true)]);
        assert_eq!(decision, Decision::Granted(Grant { policy: POLICY, expires_at: NOW + 60 }));
    }

    #[test]
    fn every_refusal_says_why() {
        let refused = |subject: &Subject<'_>, rules: &[PolicyRule]| match decide(NOW, subject, WIKI, rules) {
            Decision::Refused(reason) => reason,
            Decision::Granted(grant) => panic!("granted by {grant:?}"),
        };
        assert_eq!(refused(&subject(&[STAFF]), &[]), Refusal::NoPolicy);
        assert_eq!(refused(&subject(&[OTHERS]), &[rule(true)]), Refusal::NotAMember);
        assert_eq!(refused(&subject(&[STAFF]), &[rule(false)]), Refusal::PolicyDisabled { policy: POLICY });
        let disabled = Subject { enabled: false, ..subject(&[STAFF]) };
        assert_eq!(refused(&disabled, &[rule(true)]), Refusal::ActorDisabled);
        let ended = Subject { session_expires_at: Some(NOW), ..subject(&[STAFF]) };
        assert_eq!(refused(&ended, &[rule(true)]), Refusal::SessionEnded);
    }

    #[test]
    fn of_several_granting_policies_the_same_one_is_always_named() {
        let later = PolicyRule { id: PolicyId::from_uuid(Uuid::from_u128(9)), group: OTHERS, ..rule(true) };
        for rules in [[rule(true), later.clone()], [later.clone(), rule(true)]] {
            let decision = decide(NOW, &subject(&[STAFF, OTHERS]), WIKI, &rules);
            assert!(matches!(decision, Decision::Granted(grant) if grant.policy == POLICY));
        }
    }

    #[test]
    fn the_policy_that_grants_longest_is_named() {
        let hour = Conditions { authentication_age: Some(3600), ..Conditions::default() };
        let short = PolicyRule { conditions: hour, ..rule(true) };
        let long = PolicyRule { id: PolicyId::from_uuid(Uuid::from_u128(9)), ..rule(true) };
        let circumstances = Circumstances { authenticated_at: Some(NOW - 600), ..Circumstances::default() };
        let subject = Subject { circumstances, ..subject(&[STAFF]) };
        let only = decide(NOW, &subject, WIKI, std::slice::from_ref(&short));
        assert_eq!(only, Decision::Granted(Grant { policy: POLICY, expires_at: NOW + 3000 }));
        let both = decide(NOW, &subject, WIKI, &[short, long.clone()]);
        assert_eq!(both, Decision::Granted(Grant { policy: long.id, expires_at: NOW + LONGEST_LEASE }));
    }

    #[test]
    fn the_refusal_nearest_to_a_grant_is_named() {
        let conditions = Conditions { verified_device: true, ..Conditions::default() };
        let unmet = PolicyRule { id: PolicyId::from_uuid(Uuid::from_u128(9)), conditions, ..rule(true) };
        let decision = decide(NOW, &subject(&[STAFF]), WIKI, &[rule(false), unmet.clone()]);
        let Decision::Refused(Refusal::ConditionUnmet { policy, unmet: which }) = decision else {
            panic!("{decision:?}");
        };
        assert_eq!((policy, which.condition), (unmet.id, crate::ConditionKind::VerifiedDevice));
        let all = explain(NOW, &subject(&[STAFF]), WIKI, &[rule(false), unmet]);
        assert!(matches!(&all[..], [(_, Verdict::Disabled), (_, Verdict::Unmet(unmet))] if unmet.len() == 1));
    }

    #[test]
    fn policies_of_other_resources_grant_nothing() {
        let elsewhere = PolicyRule { resource: ResourceId::from_uuid(Uuid::from_u128(8)), ..rule(true) };
        let decision = decide(NOW, &subject(&[STAFF]), WIKI, &[elsewhere]);
        assert_eq!(decision, Decision::Refused(Refusal::NoPolicy));
    }

    fn any_rules() -> impl proptest::strategy::Strategy<Value = Vec<PolicyRule>> {
        use proptest::prelude::*;
        let rule = (0..4_u128, 0..4_u128, 0..3_u128, any::<bool>(), any::<bool>()).prop_map(
            |(id, group, resource, enabled, conditional)| PolicyRule {
                id: PolicyId::from_uuid(Uuid::from_u128(id)),
                group: GroupId::from_uuid(Uuid::from_u128(group)),
                resource: ResourceId::from_uuid(Uuid::from_u128(resource)),
                enabled,
                conditions: Conditions { verified_device: conditional, ..Conditions::default() },
            },
        );
        proptest::collection::vec(rule, 0..8)
    }

    proptest::proptest! {
        #[test]
        fn a_grant_always_rests_on_an_enabled_policy_of_ones_own_group(
            rules in any_rules(), groups in proptest::collection::vec(0..4_u128, 0..4), resource in 0..3_u128,
            enabled in proptest::prelude::any::<bool>(), verified in proptest::prelude::any::<bool>(), ends in proptest::option::of(NOW - 10..NOW + 2 * LONGEST_LEASE),
        ) {
            let groups: Vec<GroupId> = groups.into_iter().map(|id| GroupId::from_uuid(Uuid::from_u128(id))).collect();
            let resource = ResourceId::from_uuid(Uuid::from_u128(resource));
            let circumstances = Circumstances { is_device_verified: verified, ..Circumstances::default() };
            let subject = Subject { enabled, session_expires_at: ends, circumstances, ..subject(&groups) };
            let grants = |rule: &PolicyRule| {
                let is_met = verified || rule.conditions.is_empty();
                rule.enabled && rule.resource == resource && groups.contains(&rule.group) && is_met
            };
            let should = enabled && ends.is_none_or(|end| end > NOW) && rules.iter().any(grants);
            match decide(NOW, &subject, resource, &rules) {
                Decision::Granted(grant) => {
                    proptest::prop_assert!(should);
                    proptest::prop_assert!(rules.iter().any(|rule| rule.id == grant.policy && grants(rule)));
                    proptest::prop_assert!(grant.expires_at > NOW && grant.expires_at <= NOW + LONGEST_LEASE);
                    proptest::prop_assert!(ends.is_none_or(|end| grant.expires_at <= end));
                }
                Decision::Refused(_) => proptest::prop_assert!(!should),
            }
        }
    }
}
