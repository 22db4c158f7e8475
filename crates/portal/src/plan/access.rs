//! Who may reach what in a model, by `adit_policy` itself.
//!
//! A plan knows nothing of devices, so conditions can be judged for nobody: access is either always, or under conditions.
//! An actor's access to a resource is the set of conditions under which some policy grants it; when the sets of two models
//! differ, the access does.

use std::collections::{BTreeMap, BTreeSet};

use adit_policy::{
    ActorId, Circumstances, GroupId, PolicyId, PolicyRule, ResourceId, Subject, Verdict, explain,
};
use serde::Serialize;
use uuid::Uuid;

use super::model::Model;

/// How an actor may reach a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reach {
    /// Not at all.
    Never,
    /// Only when conditions are met.
    UnderConditions,
    /// Always.
    Always,
}

/// What becomes of one actor's access to one resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub(crate) struct Access {
    /// Who.
    pub(crate) actor: String,
    /// To what.
    pub(crate) resource: String,
    /// As it is.
    pub(crate) before: Reach,
    /// As it will be.
    pub(crate) after: Reach,
}

impl Access {
    /// Whether there may be moments at which the actor had access and will have none.
    pub(crate) fn may_lose(&self) -> bool {
        self.before != Reach::Never && self.after != Reach::Always
    }
}

/// The conditions under which an actor may reach a resource, as texts; `{}` asks for nothing.
type Ways = BTreeSet<String>;

/// Every access that differs between two models, by resource and actor.
pub(super) fn differences(before: &Model, after: &Model) -> Vec<Access> {
    let resources: BTreeSet<&String> = before.resources.keys().chain(after.resources.keys()).collect();
    resources.into_iter().flat_map(|resource| of_resource(before, after, resource)).collect()
}

fn of_resource(before: &Model, after: &Model, resource: &str) -> Vec<Access> {
    if inputs(before, resource) == inputs(after, resource) {
        return Vec::new();
    }
    let (had, has) = (ways(before, resource), ways(after, resource));
    let actors: BTreeSet<&&str> = had.keys().chain(has.keys()).collect();
    let none = Ways::new();
    let access = actors.into_iter().filter_map(|actor| {
        let (had, has) = (had.get(actor).unwrap_or(&none), has.get(actor).unwrap_or(&none));
        (had != has).then(|| Access {
            actor: (*actor).to_owned(),
            resource: resource.to_owned(),
            before: reach(had),
            after: reach(has),
        })
    });
    access.collect()
}

/// Everything that decides about a resource: comparing it saves asking for every actor.
fn inputs<'a>(
    model: &'a Model,
    resource: &str,
) -> Vec<(&'a String, &'a super::model::PolicyModel, &'a super::model::GroupModel)> {
    let policies = model.policies.iter().filter(|((_, to), _)| to == resource);
    policies.filter_map(|((group, _), policy)| Some((group, policy, model.groups.get(group)?))).collect()
}

fn reach(ways: &Ways) -> Reach {
    match ways {
        ways if ways.is_empty() => Reach::Never,
        ways if ways.contains("{}") => Reach::Always,
        _ => Reach::UnderConditions,
    }
}

/// The ways in which each member of a group that has a policy may reach a resource.
fn ways<'a>(model: &'a Model, resource: &str) -> BTreeMap<&'a str, Ways> {
    let id = |number: usize| Uuid::from_u128(number as u128 + 1);
    let to = ResourceId::from_uuid(id(0));
    let inputs = inputs(model, resource);
    let rules: Vec<PolicyRule> = inputs
        .iter()
        .enumerate()
        .map(|(number, (_, policy, _))| PolicyRule {
            id: PolicyId::from_uuid(id(number)),
            group: GroupId::from_uuid(id(number)),
            resource: to,
            enabled: policy.enabled,
            conditions: policy.conditions.clone(),
        })
        .collect();
    let mut groups: BTreeMap<&str, Vec<GroupId>> = BTreeMap::new();
    for (number, (_, _, group)) in inputs.iter().enumerate() {
        for member in &group.members {
            groups.entry(member).or_default().push(GroupId::from_uuid(id(number)));
        }
    }
    let asked = groups.into_iter().map(|(actor, groups)| {
        let enabled = model.actors.get(actor).copied().unwrap_or(false);
        (actor, ways_of(enabled, &groups, to, &rules))
    });
    asked.collect()
}

fn ways_of(enabled: bool, groups: &[GroupId], to: ResourceId, rules: &[PolicyRule]) -> Ways {
    let subject = Subject {
        actor: ActorId::from_uuid(Uuid::nil()),
        enabled,
        groups,
        session_expires_at: None,
        circumstances: Circumstances::default(),
    };
    if !enabled {
        return Ways::new();
    }
    // The moment has nothing to say: conditions count as such, met or not.
    let verdicts = explain(0, &subject, to, rules);
    let granting = verdicts
        .into_iter()
        .filter(|(_, verdict)| matches!(verdict, Verdict::Grants { .. } | Verdict::Unmet(_)));
    let conditions = granting.filter_map(|(id, _)| {
        let rule = rules.iter().find(|rule| rule.id == id)?;
        serde_json::to_string(&rule.conditions).ok()
    });
    conditions.collect()
}
