//! What must be done to come from one model to another.

use serde::Serialize;
use serde_json::{Value, json};

use super::model::{Model, PolicyModel, ResourceModel};

/// One thing to do. The order of a list of steps is one in which they can be done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    CreateSite(String),
    CreateGroup(String),
    CreateResource(String),
    UpdateResource(String),
    /// Group and actor.
    AddMember(String, String),
    /// Group and resource.
    CreatePolicy(String, String),
    /// Group and resource.
    UpdatePolicy(String, String),
    /// Group and resource.
    DeletePolicy(String, String),
    /// Group and actor.
    RemoveMember(String, String),
    DeleteResource(String),
    DeleteGroup(String),
    DeleteSite(String),
}

/// A step for people and programs.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(crate) struct Described {
    /// `create`, `update` or `delete`.
    action: &'static str,
    /// `site`, `resource`, `group`, `member` or `policy`.
    kind: &'static str,
    /// What it is called; a member or policy begins with the name of its group.
    name: String,
    /// What was there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    before: Option<Value>,
    /// What will be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    after: Option<Value>,
}

/// What must be done, in an order in which it can be.
pub(super) fn steps(before: &Model, after: &Model) -> Vec<Step> {
    let mut steps = Vec::new();
    steps.extend(after.sites.difference(&before.sites).cloned().map(Step::CreateSite));
    steps.extend(before.sites.difference(&after.sites).cloned().map(Step::DeleteSite));
    for (name, resource) in &after.resources {
        match before.resources.get(name) {
            None => steps.push(Step::CreateResource(name.clone())),
            Some(other) if other != resource => steps.push(Step::UpdateResource(name.clone())),
            Some(_) => {}
        }
    }
    let gone = before.resources.keys().filter(|name| !after.resources.contains_key(*name));
    steps.extend(gone.cloned().map(Step::DeleteResource));
    group_steps(before, after, &mut steps);
    for (name, policy) in &after.policies {
        let (group, resource) = name.clone();
        match before.policies.get(name) {
            None => steps.push(Step::CreatePolicy(group, resource)),
            Some(other) if other != policy => steps.push(Step::UpdatePolicy(group, resource)),
            Some(_) => {}
        }
    }
    let gone = before.policies.keys().filter(|name| !after.policies.contains_key(*name));
    steps.extend(gone.cloned().map(|(group, resource)| Step::DeletePolicy(group, resource)));
    steps.sort();
    steps
}

fn group_steps(before: &Model, after: &Model, steps: &mut Vec<Step>) {
    let none = std::collections::BTreeSet::new();
    for (name, group) in &after.groups {
        let known = before.groups.get(name);
        if known.is_none() {
            steps.push(Step::CreateGroup(name.clone()));
        }
        let had = known.map_or(&none, |group| &group.members);
        let added = group.members.difference(had);
        steps.extend(added.map(|actor| Step::AddMember(name.clone(), actor.clone())));
        let removed = had.difference(&group.members);
        steps.extend(removed.map(|actor| Step::RemoveMember(name.clone(), actor.clone())));
    }
    let gone = before.groups.keys().filter(|name| !after.groups.contains_key(*name));
    steps.extend(gone.cloned().map(Step::DeleteGroup));
}

impl Step {
    /// For people and programs.
    pub(crate) fn describe(&self, before: &Model, after: &Model) -> Described {
        let resource = |model: &Model, name: &String| model.resources.get(name).map(ResourceModel::describe);
        let policy = |model: &Model, group: &String, resource: &String| {
            model.policies.get(&(group.clone(), resource.clone())).map(PolicyModel::describe)
        };
        let (action, kind, name, contents) = match self {
            Self::CreateSite(name) => ("create", "site", name.clone(), (None, None)),
            Self::DeleteSite(name) => ("delete", "site", name.clone(), (None, None)),
            Self::CreateGroup(name) => ("create", "group", name.clone(), (None, None)),
            Self::DeleteGroup(name) => ("delete", "group", name.clone(), (None, None)),
            Self::CreateResource(name) => ("create", "resource", name.clone(), (None, resource(after, name))),
            Self::UpdateResource(name) => {
                ("update", "resource", name.clone(), (resource(before, name), resource(after, name)))
            }
            Self::DeleteResource(name) => {
                ("delete", "resource", name.clone(), (resource(before, name), None))
            }
            Self::AddMember(group, actor) => ("create", "member", format!("{group}: {actor}"), (None, None)),
            Self::RemoveMember(group, actor) => {
                ("delete", "member", format!("{group}: {actor}"), (None, None))
            }
            Self::CreatePolicy(group, to) => {
                ("create", "policy", format!("{group} → {to}"), (None, policy(after, group, to)))
            }
            Self::UpdatePolicy(group, to) => {
                let contents = (policy(before, group, to), policy(after, group, to));
                ("update", "policy", format!("{group} → {to}"), contents)
            }
            Self::DeletePolicy(group, to) => {
                ("delete", "policy", format!("{group} → {to}"), (policy(before, group, to), None))
            }
        };
        let (before, after) = contents;
        Described { action, kind, name, before, after }
    }
}

impl ResourceModel {
    fn describe(&self) -> Value {
        let filters: Vec<String> = self.filters.iter().map(ToString::to_string).collect();
        json!({
            "site": self.site, "type": self.address.kind(),
            "address": self.address.to_string(), "filters": filters,
        })
    }
}

impl PolicyModel {
    fn describe(&self) -> Value {
        json!({ "enabled": self.enabled, "conditions": self.conditions })
    }
}
