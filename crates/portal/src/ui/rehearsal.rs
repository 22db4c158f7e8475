//! What an edit would take away, and from whom, before it is made.
//!
//! The edit of a form is rehearsed first. If it takes nothing away it is made at once; otherwise a page says who
//! loses what, with a form that holds what was sent and makes the edit. Access is what a plan says of it
//! ([`Plan`]); the connections that end are those that the change itself ends, in a transaction that is undone.

use adit_policy::{Conditions, PolicyId, Resource};

use super::Wrong;
use super::view::{Block, Cell, Empty, Field, Form, Page, Table, Tone, address, count, ending};
use super::visitor::{Fields, Visitor};
use crate::clock;
use crate::plan::{Access, Model, Plan, Reach};
use crate::portal::Portal;
use crate::store::{EndingLease, MOST_LOSSES, Policy, Removal, ResourceSpec};

/// The field that says that somebody has seen the page.
const CONFIRMED: &str = "confirmed";

/// What an edit would take away.
#[derive(Debug, Default)]
pub(super) struct Rehearsal {
    /// Who, what, how it is and how it will be.
    losses: Vec<[String; 4]>,
    /// Live connections that end.
    leases: Vec<EndingLease>,
}

impl Rehearsal {
    /// Whether the edit is made without a word.
    pub(super) fn is_harmless(&self, fields: &Fields) -> bool {
        fields.has(CONFIRMED) || (self.losses.is_empty() && self.leases.is_empty())
    }

    /// Other conditions for a policy.
    pub(super) async fn of_conditions(
        portal: &Portal,
        visitor: &Visitor,
        policy: &Policy,
        conditions: &Conditions,
    ) -> Result<Self, Wrong> {
        let before = Model::of(&portal.store.inventory().await?)?;
        let after = before.with_conditions(&policy.group_name, &policy.resource_name, conditions);
        let access = Plan::between(&before, &after).access;
        let removal = Removal::Policy(policy.id);
        let mut change = portal.store.change(&visitor.by()).await?;
        let mut leases = change.live_leases(removal).await?;
        change.set_policy_conditions(PolicyId::from_uuid(policy.id), conditions).await?;
        let left = change.live_leases(removal).await?;
        // What stays: the rest ends. Nothing of it was done.
        drop(change);
        leases.retain(|lease| !left.contains(lease));
        Ok(Self { losses: access.iter().filter(|access| access.may_lose()).map(loss).collect(), leases })
    }

    /// Another place for a resource: whoever may reach it reaches the old one no longer.
    pub(super) async fn of_resource(
        portal: &Portal,
        before: &Resource,
        wanted: &ResourceSpec,
    ) -> Result<Self, Wrong> {
        if before.address == wanted.address && before.site.id == wanted.site {
            return Ok(Self::default());
        }
        let impact = portal.store.impact(Removal::Resource(before.id), clock::now_ms()).await?;
        let site = portal.store.site(wanted.site).await?;
        let after = Resource { address: wanted.address.clone(), site, ..before.clone() };
        let place = |resource: &Resource| format!("{} at {}", address(resource), resource.site.name);
        let row = |(who, what): (String, String)| [who, what, place(before), place(&after)];
        Ok(Self { losses: impact.losses.into_iter().map(row).collect(), leases: impact.leases })
    }

    /// Says it, and asks whether it is meant. `fields` are what was sent, `form` is where to.
    pub(super) fn page(&self, page: Page, fields: &Fields, form: Form) -> Page {
        let number = |things: usize| i64::try_from(things).unwrap_or(i64::MAX);
        let at_least = if self.losses.len() >= MOST_LOSSES { "at least " } else { "" };
        let text = format!(
            "{at_least}{} will change and {} will end at once.",
            count(number(self.losses.len()), "permission"),
            count(number(self.leases.len()), "live connection"),
        );
        let mut page =
            page.block(Block::Note(Tone::Bad, "This takes access away.".to_owned(), capitalized(&text)));
        if !self.losses.is_empty() {
            let rows = self.losses.iter().take(MOST_LOSSES).map(|row| row.iter().map(Cell::text).collect());
            let columns = ["Who", "May reach", "Now", "Then"];
            page = page.table(Table::titled("Who loses what", &columns, rows.collect(), Empty::default()));
        }
        if !self.leases.is_empty() {
            page = page.table(ending(&self.leases[..self.leases.len().min(MOST_LOSSES)]));
        }
        let sent = fields.0.iter().filter(|(name, _)| *name != "csrf" && *name != CONFIRMED);
        let mut kept: Vec<Field> = sent.map(|(name, value)| Field::kept(name, value)).collect();
        kept.push(Field::kept(CONFIRMED, "yes"));
        page.block(Block::Form(Form { tone: Tone::Bad, fields: kept, ..form }))
    }
}

fn loss(access: &Access) -> [String; 4] {
    let words = |reach| match reach {
        Reach::Never => "never",
        Reach::UnderConditions => "under conditions",
        Reach::Always => "always",
    };
    let after = match (access.before, access.after) {
        (Reach::UnderConditions, Reach::UnderConditions) => "under other conditions",
        (_, after) => words(after),
    };
    [access.actor.clone(), access.resource.clone(), words(access.before).to_owned(), after.to_owned()]
}

fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
