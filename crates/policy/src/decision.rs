//! The decision: which policy grants a subject a resource, until when; else why not.

use serde::Serialize;

use crate::{ActorId, GroupId, PolicyId, ResourceId};

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
}

/// The answer to "may this subject reach this resource now?", with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Yes, by this policy, until then.
    Granted(Grant),
    /// No.
    Refused(Refusal),
}

/// What a policy granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Grant {
    /// The policy that granted it.
    pub policy: PolicyId,
    /// When the lease ends, in Unix seconds.
    pub expires_at: u64,
}

/// Why nothing was granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, thiserror::Error)]
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
}

/// Decides whether `subject` may reach `resource` at `now` (Unix seconds).
///
/// Of several granting policies the one with the smallest id is named, so that the same
/// question always gets the same answer.
pub fn decide(now: u64, subject: &Subject<'_>, resource: ResourceId, rules: &[PolicyRule]) -> Decision {
    if !subject.enabled {
        return Decision::Refused(Refusal::ActorDisabled);
    }
    if subject.session_expires_at.is_some_and(|end| end <= now) {
        return Decision::Refused(Refusal::SessionEnded);
    }
    let mut refusal = Refusal::NoPolicy;
    let mut granting: Option<PolicyId> = None;
    for rule in rules.iter().filter(|rule| rule.resource == resource) {
        match (subject.groups.contains(&rule.group), rule.enabled) {
            (true, true) => granting = Some(granting.map_or(rule.id, |best| best.min(rule.id))),
            (true, false) => refusal = Refusal::PolicyDisabled { policy: rule.id },
            (false, _) if refusal == Refusal::NoPolicy => refusal = Refusal::NotAMember,
            (false, _) => {}
        }
    }
    let Some(policy) = granting else {
        return Decision::Refused(refusal);
    };
    let longest = now.saturating_add(LONGEST_LEASE);
    let expires_at = subject.session_expires_at.map_or(longest, |end| end.min(longest));
    Decision::Granted(Grant { policy, expires_at })
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
        Subject { actor: ActorId::from_uuid(Uuid::nil()), enabled: true, groups, session_expires_at: None }
    }

    fn rule(enabled: bool) -> PolicyRule {
        PolicyRule { id: POLICY, group: STAFF, resource: WIKI, enabled }
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
    fn policies_of_other_resources_grant_nothing() {
        let elsewhere = PolicyRule { resource: ResourceId::from_uuid(Uuid::from_u128(8)), ..rule(true) };
        let decision = decide(NOW, &subject(&[STAFF]), WIKI, &[elsewhere]);
        assert_eq!(decision, Decision::Refused(Refusal::NoPolicy));
    }

    fn any_rules() -> impl proptest::strategy::Strategy<Value = Vec<PolicyRule>> {
        use proptest::prelude::*;
        let rule =
            (0..4_u128, 0..4_u128, 0..3_u128, any::<bool>()).prop_map(|(id, group, resource, enabled)| {
                PolicyRule {
                    id: PolicyId::from_uuid(Uuid::from_u128(id)),
                    group: GroupId::from_uuid(Uuid::from_u128(group)),
                    resource: ResourceId::from_uuid(Uuid::from_u128(resource)),
                    enabled,
                }
            });
        proptest::collection::vec(rule, 0..8)
    }

    proptest::proptest! {
        #[test]
        fn a_grant_always_rests_on_an_enabled_policy_of_ones_own_group(
            rules in any_rules(), groups in proptest::collection::vec(0..4_u128, 0..4), resource in 0..3_u128,
            enabled in proptest::prelude::any::<bool>(), ends in proptest::option::of(NOW - 10..NOW + 2 * LONGEST_LEASE),
        ) {
            let groups: Vec<GroupId> = groups.into_iter().map(|id| GroupId::from_uuid(Uuid::from_u128(id))).collect();
            let resource = ResourceId::from_uuid(Uuid::from_u128(resource));
            let subject = Subject { enabled, session_expires_at: ends, ..subject(&groups) };
            let grants = |rule: &PolicyRule| rule.enabled && rule.resource == resource && groups.contains(&rule.group);
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
