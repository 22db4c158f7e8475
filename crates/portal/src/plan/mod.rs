//! A declaration in YAML, what it would change, and who gains or loses access by it.
//!
//! A file names sites, resources, groups with their members, and policies, each by its name. `file` reads it and says where
//! it is wrong; `model` puts what is there and what is wanted into one form; `difference` compares the two forms, `access`
//! asks `adit_policy` who may reach what in each, and `apply` does the steps in one change.
//!
//! What the file does not name stays, unless it is pruned: then everything of a kind goes that a section of the file could
//! have named and did not. A section that is absent prunes nothing. A group's `members` are complete when they are given.
//! Actors are never made or deleted: people come from sign-in or SCIM.
//!
//! Deliberately absent: renames. A thing with another name is another thing.

mod access;
mod apply;
mod difference;
mod file;
mod model;

#[cfg(test)]
mod tests;

pub(crate) use access::{Access, Reach};
pub(crate) use apply::apply;
pub(crate) use difference::{Described, Step};
pub(crate) use file::File;
pub(crate) use model::{Checks, Model};

/// What leads from one model to another.
#[derive(Debug)]
pub(crate) struct Plan {
    /// In an order in which they can be done.
    pub(crate) steps: Vec<Step>,
    /// The same for people and programs.
    pub(crate) changes: Vec<Described>,
    /// What becomes of access, by resource and actor.
    pub(crate) access: Vec<Access>,
}

impl Plan {
    /// Compares two models.
    pub(crate) fn between(before: &Model, after: &Model) -> Self {
        let steps = difference::steps(before, after);
        let changes = steps.iter().map(|step| step.describe(before, after)).collect();
        Self { steps, changes, access: access::differences(before, after) }
    }
}
