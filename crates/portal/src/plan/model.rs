//! One form for what is there and for what is wanted: everything by its name.

use std::collections::{BTreeMap, BTreeSet};

use adit_policy::{Conditions, Filter, ResourceAddress};
use serde_saphyr::Spanned;

use super::file::{self, File, FileError, GroupEntry, PolicyEntry, ResourceEntry};
use crate::store::{Inventory, StoreError};

/// Sites, resources, groups and policies by their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Model {
    /// Whether each actor is enabled.
    pub(super) actors: BTreeMap<String, bool>,
    pub(super) sites: BTreeSet<String>,
    pub(super) resources: BTreeMap<String, ResourceModel>,
    pub(super) groups: BTreeMap<String, GroupModel>,
    /// By group and resource.
    pub(super) policies: BTreeMap<(String, String), PolicyModel>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ResourceModel {
    pub(super) site: String,
    pub(super) address: ResourceAddress,
    pub(super) filters: Vec<Filter>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct GroupModel {
    /// It holds everybody, always.
    pub(super) everyone: bool,
    /// Its members come from a directory.
    pub(super) managed: bool,
    pub(super) members: BTreeSet<String>,
}

impl GroupModel {
    /// Whether nobody but the portal decides who is a member.
    pub(super) const fn is_fixed(&self) -> bool {
        self.everyone || self.managed
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PolicyModel {
    pub(super) enabled: bool,
    pub(super) conditions: Conditions,
}

/// What only the portal can judge of a declaration.
#[derive(Clone, Copy)]
pub(crate) struct Checks<'a> {
    /// A name, trimmed.
    pub(crate) name: &'a dyn Fn(&str) -> Result<String, String>,
    /// An address in its stored form.
    pub(crate) address: &'a dyn Fn(ResourceAddress) -> Result<ResourceAddress, String>,
    /// Conditions that somebody can meet.
    pub(crate) conditions: &'a dyn Fn(&Conditions) -> Result<(), String>,
    /// How many filters a resource may have.
    pub(crate) most_filters: usize,
}

impl Model {
    /// What is there.
    pub(crate) fn of(inventory: &Inventory) -> Result<Self, StoreError> {
        let mut model = Self::default();
        let actors: BTreeMap<_, _> = inventory.actors.iter().map(|actor| (actor.id, actor)).collect();
        model.actors = actors.values().map(|actor| (actor.name.clone(), actor.enabled)).collect();
        model.sites = inventory.sites.iter().map(|site| site.name.clone()).collect();
        for resource in &inventory.resources {
            let content = ResourceModel {
                site: resource.site.name.clone(),
                address: resource.address.clone(),
                filters: resource.filters.clone(),
            };
            model.resources.insert(resource.name.clone(), content);
        }
        for group in &inventory.groups {
            let members = inventory.memberships.iter().filter(|(of, _)| *of == group.id);
            let members = members.filter_map(|(_, actor)| Some(actors.get(actor)?.name.clone())).collect();
            let content = GroupModel { everyone: group.everyone, managed: group.is_managed(), members };
            model.groups.insert(group.name.clone(), content);
        }
        for policy in &inventory.policies {
            let content =
                PolicyModel { enabled: policy.enabled, conditions: policy.conditions.parsed(policy.id)? };
            model.policies.insert((policy.group_name.clone(), policy.resource_name.clone()), content);
        }
        Ok(model)
    }

    /// The same with other conditions for the policy of a group and a resource.
    pub(crate) fn with_conditions(&self, group: &str, resource: &str, conditions: &Conditions) -> Self {
        let mut changed = self.clone();
        if let Some(policy) = changed.policies.get_mut(&(group.to_owned(), resource.to_owned())) {
            policy.conditions = conditions.clone();
        }
        changed
    }

    /// A file that declares exactly this.
    pub(crate) fn write(&self) -> Result<String, String> {
        file::write(self)
    }

    /// What a file makes of this.
    pub(crate) fn declared(&self, file: &File, prune: bool, checks: Checks<'_>) -> Result<Self, FileError> {
        let mut wanted = self.clone();
        wanted.declare_sites(file, prune, checks)?;
        wanted.declare_resources(file, prune, checks)?;
        wanted.declare_groups(file, prune, checks)?;
        wanted.drop_loose();
        wanted.declare_policies(file, prune, checks)?;
        Ok(wanted)
    }

    fn declare_sites(&mut self, file: &File, prune: bool, checks: Checks<'_>) -> Result<(), FileError> {
        let Some(entries) = &file.sites else { return Ok(()) };
        let mut names = BTreeSet::new();
        for entry in entries {
            let name = checked(&entry.name, checks)?;
            if !names.insert(name) {
                return Err(FileError::at(&entry.name, "this site is declared twice"));
            }
        }
        if prune {
            self.sites.clear();
        }
        self.sites.extend(names);
        Ok(())
    }

    fn declare_resources(&mut self, file: &File, prune: bool, checks: Checks<'_>) -> Result<(), FileError> {
        let Some(entries) = &file.resources else { return Ok(()) };
        let mut names = BTreeSet::new();
        for entry in entries {
            let name = checked(&entry.name, checks)?;
            if !names.insert(name.clone()) {
                return Err(FileError::at(&entry.name, "this resource is declared twice"));
            }
            let content = self.resource(entry, checks)?;
            self.resources.insert(name, content);
        }
        if prune {
            self.resources.retain(|name, _| names.contains(name));
        }
        Ok(())
    }

    fn resource(&self, entry: &ResourceEntry, checks: Checks<'_>) -> Result<ResourceModel, FileError> {
        let site = entry.site.value.trim().to_owned();
        if !self.sites.contains(&site) {
            return Err(FileError::at(&entry.site, format!("there is no site `{}`", entry.site.value)));
        }
        let text = entry.address.as_ref().map_or("", |address| address.value.as_str());
        let place = entry.address.as_ref().unwrap_or(&entry.kind);
        let address = ResourceAddress::parse(&entry.kind.value, text).map_err(|error| error.to_string());
        let address = address.and_then(|address| (checks.address)(address));
        let address = address.map_err(|reason| FileError::at(place, reason))?;
        let mut filters = Vec::new();
        for filter in &entry.filters {
            let parsed = Filter::parse_list(&filter.value);
            filters.extend(parsed.map_err(|error| FileError::at(filter, error.to_string()))?);
            if filters.len() > checks.most_filters {
                return Err(FileError::at(filter, format!("at most {} filters", checks.most_filters)));
            }
        }
        Ok(ResourceModel { site, address, filters })
    }

    fn declare_groups(&mut self, file: &File, prune: bool, checks: Checks<'_>) -> Result<(), FileError> {
        let Some(entries) = &file.groups else { return Ok(()) };
        let mut names = BTreeSet::new();
        for entry in entries {
            let name = checked(&entry.name, checks)?;
            if !names.insert(name.clone()) {
                return Err(FileError::at(&entry.name, "this group is declared twice"));
            }
            self.declare_group(entry, name)?;
        }
        if prune {
            self.groups.retain(|name, group| group.is_fixed() || names.contains(name));
        }
        Ok(())
    }

    fn declare_group(&mut self, entry: &GroupEntry, name: String) -> Result<(), FileError> {
        let group = self.groups.entry(name).or_default();
        let Some(members) = &entry.members else { return Ok(()) };
        if group.everyone {
            return Err(FileError::at(&entry.name, "this group always holds everybody: leave `members` out"));
        }
        if group.managed {
            return Err(FileError::at(
                &entry.name,
                "an identity provider or SCIM manages the members of this group: leave `members` out",
            ));
        }
        group.members.clear();
        for member in members {
            if !self.actors.contains_key(&member.value) {
                return Err(FileError::at(member, format!("there is no actor `{}`", member.value)));
            }
            if !group.members.insert(member.value.clone()) {
                return Err(FileError::at(member, "this member is named twice"));
            }
        }
        Ok(())
    }

    fn declare_policies(&mut self, file: &File, prune: bool, checks: Checks<'_>) -> Result<(), FileError> {
        let Some(entries) = &file.policies else { return Ok(()) };
        let mut names = BTreeSet::new();
        for entry in entries {
            let (name, content) = self.policy(entry, checks)?;
            if !names.insert(name.clone()) {
                return Err(FileError::at(
                    &entry.group,
                    "the policy of this group and resource is declared twice",
                ));
            }
            self.policies.insert(name, content);
        }
        if prune {
            self.policies.retain(|name, _| names.contains(name));
        }
        Ok(())
    }

    fn policy(
        &self,
        entry: &PolicyEntry,
        checks: Checks<'_>,
    ) -> Result<((String, String), PolicyModel), FileError> {
        let (group, resource) = (entry.group.value.trim(), entry.resource.value.trim());
        if !self.groups.contains_key(group) {
            return Err(FileError::at(&entry.group, format!("there is no group `{group}`")));
        }
        if !self.resources.contains_key(resource) {
            return Err(FileError::at(&entry.resource, format!("there is no resource `{resource}`")));
        }
        let mut conditions = Conditions::default();
        if let Some(written) = &entry.conditions {
            (checks.conditions)(&written.value).map_err(|reason| FileError::at(written, reason))?;
            conditions = written.value.clone();
        }
        Ok(((group.to_owned(), resource.to_owned()), PolicyModel { enabled: entry.enabled, conditions }))
    }

    /// Resources go with their site, policies with the group or the resource that they join.
    fn drop_loose(&mut self) {
        let Self { sites, groups, resources, policies, .. } = self;
        resources.retain(|_, resource| sites.contains(&resource.site));
        policies
            .retain(|(group, resource), _| groups.contains_key(group) && resources.contains_key(resource));
    }
}

fn checked(name: &Spanned<String>, checks: Checks<'_>) -> Result<String, FileError> {
    (checks.name)(&name.value).map_err(|reason| FileError::at(name, reason))
}
