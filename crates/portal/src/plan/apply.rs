//! Does the steps of a plan inside one change.

use std::collections::BTreeMap;

use adit_policy::{ActorId, GroupId, PolicyId, Resource, ResourceId, SiteId};

use super::difference::Step;
use super::model::Model;
use crate::store::{Change, Inventory, ResourceSpec, StoreError};

/// What names stand for, kept up to date while steps are done.
struct Names {
    actors: BTreeMap<String, ActorId>,
    sites: BTreeMap<String, SiteId>,
    groups: BTreeMap<String, GroupId>,
    resources: BTreeMap<String, ResourceId>,
    policies: BTreeMap<(String, String), PolicyId>,
    known: BTreeMap<String, Resource>,
}

impl Names {
    fn of(inventory: Inventory) -> Self {
        let policies = inventory.policies.into_iter();
        let actors = inventory.actors.into_iter();
        let groups = inventory.groups.into_iter();
        Self {
            actors: actors.map(|actor| (actor.name, ActorId::from_uuid(actor.id))).collect(),
            sites: inventory.sites.into_iter().map(|site| (site.name, site.id)).collect(),
            groups: groups.map(|group| (group.name, GroupId::from_uuid(group.id))).collect(),
            resources: inventory.resources.iter().map(|one| (one.name.clone(), one.id)).collect(),
            policies: policies
                .map(|policy| ((policy.group_name, policy.resource_name), PolicyId::from_uuid(policy.id)))
                .collect(),
            known: inventory.resources.into_iter().map(|one| (one.name.clone(), one)).collect(),
        }
    }
}

fn id<K: Ord + ?Sized, Q, V: Copy>(
    map: &BTreeMap<Q, V>,
    name: &K,
    what: &'static str,
) -> Result<V, StoreError>
where
    Q: Ord + std::borrow::Borrow<K>,
{
    map.get(name).copied().ok_or(StoreError::NotFound(what))
}

/// Does `steps`, which lead from the inventory to `wanted`.
pub(crate) async fn apply(
    change: &mut Change,
    inventory: Inventory,
    wanted: &Model,
    steps: &[Step],
) -> Result<(), StoreError> {
    let mut names = Names::of(inventory);
    for step in steps {
        take(change, &mut names, wanted, step).await?;
    }
    Ok(())
}

async fn take(change: &mut Change, names: &mut Names, wanted: &Model, step: &Step) -> Result<(), StoreError> {
    match step {
        Step::CreateSite(name) => {
            let site = change.create_site(name).await?;
            names.sites.insert(name.clone(), site.id);
        }
        Step::CreateGroup(name) => {
            let group = change.create_group(name, false).await?;
            names.groups.insert(name.clone(), GroupId::from_uuid(group.id));
        }
        Step::CreateResource(name) => {
            let made = change.create_resource(&spec(names, wanted, name)?).await?;
            names.resources.insert(name.clone(), made);
        }
        Step::UpdateResource(name) => {
            let spec = spec(names, wanted, name)?;
            let before = names.known.get(name).ok_or(StoreError::NotFound("resource"))?;
            change.update_resource(before, &spec).await?;
        }
        Step::AddMember(group, actor) => {
            let actor = id(&names.actors, actor.as_str(), "actor")?;
            change.add_member(id(&names.groups, group.as_str(), "group")?, actor).await?;
        }
        Step::RemoveMember(group, actor) => {
            let actor = id(&names.actors, actor.as_str(), "actor")?;
            change.remove_member(id(&names.groups, group.as_str(), "group")?, actor).await?;
        }
        Step::CreatePolicy(..) | Step::UpdatePolicy(..) | Step::DeletePolicy(..) => {
            take_policy(change, names, wanted, step).await?;
        }
        Step::DeleteResource(name) => {
            change.delete_resource(id(&names.resources, name.as_str(), "resource")?).await?;
        }
        Step::DeleteGroup(name) => change.delete_group(id(&names.groups, name.as_str(), "group")?).await?,
        Step::DeleteSite(name) => change.delete_site(id(&names.sites, name.as_str(), "site")?).await?,
    }
    Ok(())
}

async fn take_policy(
    change: &mut Change,
    names: &Names,
    wanted: &Model,
    step: &Step,
) -> Result<(), StoreError> {
    let (Step::CreatePolicy(group, resource)
    | Step::UpdatePolicy(group, resource)
    | Step::DeletePolicy(group, resource)) = step
    else {
        return Ok(());
    };
    let name = (group.clone(), resource.clone());
    if matches!(step, Step::DeletePolicy(..)) {
        return change.delete_policy(id(&names.policies, &name, "policy")?).await;
    }
    let content = wanted.policies.get(&name).ok_or(StoreError::NotFound("policy"))?;
    let policy = if matches!(step, Step::CreatePolicy(..)) {
        let group = id(&names.groups, group.as_str(), "group")?;
        let resource = id(&names.resources, resource.as_str(), "resource")?;
        let made = change.create_policy(group, resource, &content.conditions).await?;
        if content.enabled {
            return Ok(());
        }
        made
    } else {
        let policy = id(&names.policies, &name, "policy")?;
        change.set_policy_conditions(policy, &content.conditions).await?;
        policy
    };
    change.set_policy_enabled(policy, content.enabled).await
}

fn spec(names: &Names, wanted: &Model, name: &str) -> Result<ResourceSpec, StoreError> {
    let content = wanted.resources.get(name).ok_or(StoreError::NotFound("resource"))?;
    Ok(ResourceSpec {
        name: name.to_owned(),
        address: content.address.clone(),
        site: id(&names.sites, content.site.as_str(), "site")?,
        filters: content.filters.clone(),
    })
}
