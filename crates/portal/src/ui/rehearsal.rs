//! What an edit would take away, and from whom, before it is made.
//!
//! The edit of a form is rehearsed first. If it takes nothing away it is made at once; otherwise a page says who
//! loses what, with a form that holds what was sent and makes the edit. Access is what a plan says of it
//! ([`Plan`]); the connections that end are those that the change itself ends, in a transaction that is undone.

use adit_policy::{Conditions, Filter, PolicyId, Resource};

use super::Wrong;
use super::view::{self, Block, Cell, Empty, Field, Form, Page, Table, Tone, count, ending, ports};
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

    /// Another place for a resource: whoever may reach it reaches the old one no longer. Or less traffic to it: what is
    /// not let through any more ends, but not the leases.
    pub(super) async fn of_resource(
        portal: &Portal,
        before: &Resource,
        wanted: &ResourceSpec,
    ) -> Result<Self, Wrong> {
        let moves = before.address != wanted.address || before.site.id != wanted.site;
        let narrows = !covers(&wanted.filters, &before.filters);
        if !moves && !narrows {
            return Ok(Self::default());
        }
        let impact = portal.store.impact(Removal::Resource(before.id), clock::now_ms()).await?;
        let site = portal.store.site(wanted.site).await?;
        let (address, filters) = (wanted.address.clone(), wanted.filters.clone());
        let after = Resource { address, site, filters, ..before.clone() };
        let place = |resource: &Resource| format!("{} at {}", view::address(resource), resource.site.name);
        let words = |resource: &Resource| match (moves, narrows) {
            (true, false) => place(resource),
            (true, true) => format!("{}: {}", place(resource), ports(resource)),
            (false, _) => ports(resource),
        };
        let row = |(who, what): (String, String)| [who, what, words(before), words(&after)];
        let leases = if moves { impact.leases } else { Vec::new() };
        Ok(Self { losses: impact.losses.into_iter().map(row).collect(), leases })
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

/// Whether `after` lets through everything that `before` does.
fn covers(after: &[Filter], before: &[Filter]) -> bool {
    after.is_empty() || (!before.is_empty() && before.iter().all(|filter| is_covered(after, filter)))
}

fn is_covered(filters: &[Filter], wanted: &Filter) -> bool {
    let (ports, is_tcp) = match wanted {
        Filter::Icmp => return filters.contains(&Filter::Icmp),
        Filter::Tcp { ports } => (ports, true),
        Filter::Udp { ports } => (ports, false),
    };
    let same = |filter: &Filter| match filter {
        Filter::Tcp { ports } if is_tcp => Some(ports.bounds()),
        Filter::Udp { ports } if !is_tcp => Some(ports.bounds()),
        Filter::Tcp { .. } | Filter::Udp { .. } | Filter::Icmp => None,
    };
    let mut ranges: Vec<(u16, u16)> = filters.iter().filter_map(same).collect();
    ranges.sort_unstable();
    let (first, last) = ports.bounds();
    // The first port that is not known to be covered.
    let mut open = u32::from(first);
    for (begin, end) in ranges {
        if u32::from(begin) <= open {
            open = open.max(u32::from(end) + 1);
        }
    }
    open > u32::from(last)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_cover_what_they_let_through() {
        let read = |text: &str| -> Vec<Filter> {
            text.split_whitespace().flat_map(|part| Filter::parse_list(part).unwrap()).collect()
        };
        for (after, before, is_covered) in [
            ("", "tcp/443", true),
            ("", "", true),
            ("tcp udp icmp", "", false),
            ("tcp/443", "tcp/443", true),
            ("tcp/400-500", "tcp/443 tcp/450-460", true),
            ("tcp/1-100 tcp/50-200 tcp/201", "tcp/1-201", true),
            ("tcp/1-100 tcp/102-200", "tcp/1-200", false),
            ("tcp/50-200 tcp/1-10", "tcp/1-200", false),
            ("tcp", "tcp/0-65535", true),
            ("tcp/0-65534", "tcp", false),
            ("udp/53", "tcp/53", false),
            ("tcp/53", "tcp/53 icmp", false),
            ("icmp tcp/53", "tcp/53 icmp", true),
        ] {
            assert_eq!(covers(&read(after), &read(before)), is_covered, "{after:?} for {before:?}");
        }
    }
}
