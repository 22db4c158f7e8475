//! Declarations as they are written.

use adit_policy::Conditions;
use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;

use super::model::Model;

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {reason}")]
pub(crate) struct FileError {
    line: u64,
    column: u64,
    reason: String,
}

impl FileError {
    /// Something is wrong with this value.
    pub(super) fn at<T>(value: &Spanned<T>, reason: impl Into<String>) -> Self {
        let location = value.referenced;
        Self { line: location.line(), column: location.column(), reason: reason.into() }
    }
}

/// A declaration. A section that is absent says nothing of what is there.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(super) sites: Option<Vec<SiteEntry>>,
    pub(super) resources: Option<Vec<ResourceEntry>>,
    pub(super) groups: Option<Vec<GroupEntry>>,
    pub(super) policies: Option<Vec<PolicyEntry>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SiteEntry {
    pub(super) name: Spanned<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResourceEntry {
    pub(super) name: Spanned<String>,
    pub(super) site: Spanned<String>,
    #[serde(rename = "type")]
    pub(super) kind: Spanned<String>,
    pub(super) address: Option<Spanned<String>>,
    #[serde(default)]
    pub(super) filters: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupEntry {
    pub(super) name: Spanned<String>,
    /// All of them; who is a member stays as it is when absent.
    pub(super) members: Option<Vec<Spanned<String>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyEntry {
    pub(super) group: Spanned<String>,
    pub(super) resource: Spanned<String>,
    #[serde(default = "yes")]
    pub(super) enabled: bool,
    pub(super) conditions: Option<Spanned<Conditions>>,
}

const fn yes() -> bool {
    true
}

impl File {
    /// Reads a file.
    pub(crate) fn read(text: &str) -> Result<Self, FileError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        serde_saphyr::from_str(text).map_err(|error| {
            let (line, column) = error.location().map_or((1, 1), |at| (at.line(), at.column()));
            FileError { line, column, reason: reason(&error) }
        })
    }
}

/// The first line of what the parser says, without the excerpt that it adds.
fn reason(error: &serde_saphyr::Error) -> String {
    let text = error.without_snippet().to_string();
    let first = text.lines().next().unwrap_or("this cannot be read");
    first.split(" at line ").next().unwrap_or(first).chars().take(300).collect()
}

#[derive(Serialize)]
struct WrittenFile<'a> {
    sites: Vec<WrittenName<'a>>,
    resources: Vec<WrittenResource<'a>>,
    groups: Vec<WrittenGroup<'a>>,
    policies: Vec<WrittenPolicy<'a>>,
}

#[derive(Serialize)]
struct WrittenName<'a> {
    name: &'a str,
}

#[derive(Serialize)]
struct WrittenResource<'a> {
    name: &'a str,
    site: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    filters: Vec<String>,
}

#[derive(Serialize)]
struct WrittenGroup<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<Vec<&'a str>>,
}

#[derive(Serialize)]
struct WrittenPolicy<'a> {
    group: &'a str,
    resource: &'a str,
    #[serde(skip_serializing_if = "Clone::clone")]
    enabled: bool,
    #[serde(skip_serializing_if = "Conditions::is_empty")]
    conditions: &'a Conditions,
}

/// A file that declares exactly what is there.
pub(super) fn write(model: &Model) -> Result<String, String> {
    let resources = model.resources.iter().map(|(name, resource)| WrittenResource {
        name,
        site: &resource.site,
        kind: resource.address.kind(),
        address: Some(resource.address.to_string()).filter(|_| resource.address.kind() != "internet"),
        filters: resource.filters.iter().map(ToString::to_string).collect(),
    });
    let groups = model.groups.iter().map(|(name, group)| WrittenGroup {
        name,
        members: (!group.is_fixed()).then(|| group.members.iter().map(String::as_str).collect()),
    });
    let policies = model.policies.iter().map(|((group, resource), policy)| WrittenPolicy {
        group,
        resource,
        enabled: policy.enabled,
        conditions: &policy.conditions,
    });
    let file = WrittenFile {
        sites: model.sites.iter().map(|name| WrittenName { name }).collect(),
        resources: resources.collect(),
        groups: groups.collect(),
        policies: policies.collect(),
    };
    serde_saphyr::to_string(&file).map_err(|error| error.to_string())
}
