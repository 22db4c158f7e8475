//! Policies: the list, one policy, and the form with its conditions.

use std::collections::HashMap;

use adit_policy::{Among, ClockTime, Conditions, Day, GroupId, PolicyId, Schedule, Window};
use axum::extract::{Path, Query, State};
use axum::response::Response;
use uuid::Uuid;

use super::rehearsal::Rehearsal;
use super::view::{Block, Button, Cell, Empty, Field, Form, Input, Page, Table, Tone, confirmation, query};
use super::visitor::{Edit, Editor, Fields, Visitor};
use super::{ListQuery, Wrong, again, go};
use crate::api::checked_conditions;
use crate::clock;
use crate::portal::SharedPortal;
use crate::store::{Find, Policy, Removal, StoreError};
use crate::web::Refusal;

/// The columns of [`rows`].
pub(super) const COLUMNS: [&str; 5] = ["Group", "May reach", "Conditions", "State", ""];

/// Groups that a form offers.
const MOST_GROUPS: u32 = 500;

const DAYS: [(Day, &str, &str); 7] = [
    (Day::Mon, "day_mon", "Monday"),
    (Day::Tue, "day_tue", "Tuesday"),
    (Day::Wed, "day_wed", "Wednesday"),
    (Day::Thu, "day_thu", "Thursday"),
    (Day::Fri, "day_fri", "Friday"),
    (Day::Sat, "day_sat", "Saturday"),
    (Day::Sun, "day_sun", "Sunday"),
];

/// Conditions as they are stored; damaged ones grant nothing and are said to be so.
fn conditions(policy: &Policy) -> Option<Conditions> {
    serde_json::to_value(&policy.conditions).and_then(serde_json::from_value).ok()
}

/// Conditions in a few words.
fn in_words(conditions: Option<&Conditions>) -> String {
    let Some(conditions) = conditions else { return "damaged: grants nothing".to_owned() };
    let mut words = Vec::new();
    if let Some(among) = &conditions.remote_address {
        let (how, networks) = match among {
            Among::AnyOf(networks) => ("from", networks),
            Among::NoneOf(networks) => ("not from", networks),
        };
        let networks = networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        words.push(format!("{how} {networks}"));
    }
    if conditions.time.is_some() {
        words.push("at certain times".to_owned());
    }
    if conditions.verified_device {
        words.push("on a verified device".to_owned());
    }
    if let Some(age) = conditions.authentication_age {
        words.push(format!("signed in within {} min", age / 60));
    }
    if conditions.region.is_some() {
        words.push("from certain countries".to_owned());
    }
    if conditions.auth_provider.is_some() {
        words.push("by certain sign-in providers".to_owned());
    }
    if words.is_empty() { "none".to_owned() } else { words.join("; ") }
}

fn state(policy: &Policy) -> Cell {
    if policy.enabled { Cell::badge(Tone::Good, "enabled") } else { Cell::badge(Tone::Plain, "disabled") }
}

/// Policies as rows of a table.
pub(super) fn rows(policies: &[Policy]) -> Vec<Vec<Cell>> {
    let row = |policy: &Policy| {
        let about = format!("the policy of {} for {}", policy.group_name, policy.resource_name);
        let open = Button::link("Open", format!("/admin/policies/{}", policy.id)).about(&about);
        vec![
            Cell::Link(format!("/admin/groups/{}", policy.group_id), policy.group_name.clone()),
            Cell::Link(format!("/admin/resources/{}", policy.resource_id), policy.resource_name.clone()),
            Cell::text(in_words(conditions(policy).as_ref())),
            state(policy),
            Cell::Buttons(vec![open]),
        ]
    };
    policies.iter().map(row).collect()
}

pub(super) async fn list(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
    Query(wanted): Query<ListQuery>,
) -> Result<Response, Refusal> {
    let mut policies = portal.store.find_policies(&wanted.find()).await?;
    let next = wanted.cut("/admin/policies", &mut policies, |policy| policy.id);
    let new = Button::change("New policy", "/admin/policies/new", Tone::Primary);
    let empty = if wanted.q.is_empty() {
        Empty::new(
            "No policy yet",
            "A policy lets the members of a group reach a resource, under conditions if you wish.",
        )
        .with(new.clone())
    } else {
        Empty::new("No policy names such a group or resource", "")
    };
    Ok(Page::new(&visitor, "policies", "Policies")
        .lead("Who may reach what. Everything that no policy allows is refused.")
        .action(new)
        .action(Button::link("Explain access", "/admin/explain"))
        .search(&wanted.q, "Find by group or resource")
        .table(Table { next, ..Table::new("Policies", &COLUMNS, rows(&policies), empty) })
        .answer())
}

/// The fields for conditions.
fn condition_fields(fields: &Fields) -> Vec<Field> {
    let days = DAYS.map(|(_, name, label)| (name.to_owned(), label.to_owned(), fields.has(name))).to_vec();
    vec![
        Field::new("from", "Only from these networks", Input::Text)
            .value(fields.get("from"))
            .hint("The address that the device connects from, such as 192.0.2.0/24 2001:db8::/32. Empty: from anywhere."),
        Field::new("verified", "Only on devices that an administrator has verified", Input::Check)
            .value(fields.get("verified")),
        Field::new("age", "Longest time since signing in, in minutes", Input::Text)
            .value(fields.get("age"))
            .hint("Empty: as long as the session lasts."),
        Field::new("day", "Only on these days", Input::Checks(days)).hint("None: at any time."),
        Field::new("begin", "From", Input::Text)
            .value(fields.get("begin"))
            .hint("Such as 08:00. A window whose end is before its beginning runs over midnight."),
        Field::new("end", "Until", Input::Text).value(fields.get("end")).hint("Such as 18:00; 24:00 is the end of the day."),
        Field::new("zone", "Time zone", Input::Text).value(fields.get("zone")).hint("Such as Europe/Berlin."),
    ]
}

/// The conditions that were filled in. What a form does not show is kept from `before`.
fn read_conditions(fields: &Fields, before: Conditions) -> Result<Conditions, Wrong> {
    let mut networks = Vec::new();
    for part in fields.get("from").split([' ', ',', ';']).filter(|part| !part.is_empty()) {
        let network = part
            .parse::<ipnet::IpNet>()
            .or_else(|_| part.parse::<std::net::IpAddr>().map(ipnet::IpNet::from));
        networks.push(network.map_err(|_| Wrong::said(format!("`{part}` is no network.")))?);
    }
    let remote_address = match before.remote_address {
        Some(Among::NoneOf(kept)) if networks.is_empty() => Some(Among::NoneOf(kept)),
        _ => (!networks.is_empty()).then_some(Among::AnyOf(networks)),
    };
    let age = match fields.get("age") {
        "" => None,
        text => {
            Some(text.parse::<u64>().map_err(|_| Wrong::said("The time since signing in is in minutes."))?)
        }
    };
    let days: Vec<Day> = DAYS.iter().filter(|(_, name, _)| fields.has(name)).map(|(day, ..)| *day).collect();
    let time = match (days.is_empty(), &before.time) {
        // More windows than one cannot be shown in the form and stay as they are.
        (true, Some(kept)) if window(kept).is_none() => Some(kept.clone()),
        (true, _) => None,
        (false, _) => Some(read_window(fields, days)?),
    };
    let conditions = Conditions {
        remote_address,
        time,
        verified_device: fields.has("verified"),
        authentication_age: age.map(|minutes| minutes.saturating_mul(60)),
        ..before
    };
    checked_conditions(&conditions)?;
    Ok(conditions)
}

fn read_window(fields: &Fields, days: Vec<Day>) -> Result<Schedule, Wrong> {
    let or = |name, default| Some(fields.get(name)).filter(|text| !text.is_empty()).unwrap_or(default);
    let time = |text: &str| text.parse::<ClockTime>().map_err(|error| Wrong::said(error.to_string()));
    let window = Window { days, from: time(or("begin", "00:00"))?, to: time(or("end", "24:00"))? };
    Schedule::new(or("zone", "UTC"), vec![window]).map_err(|error| Wrong::said(error.to_string()))
}

/// The only window of a schedule, with its zone, as its JSON says.
fn window(schedule: &Schedule) -> Option<(String, Window)> {
    let value = serde_json::to_value(schedule).ok()?;
    let windows: Vec<Window> = serde_json::from_value(value.get("windows")?.clone()).ok()?;
    let [window] = <[Window; 1]>::try_from(windows).ok()?;
    Some((value.get("time_zone")?.as_str()?.to_owned(), window))
}

/// What the form holds for conditions.
fn filled(conditions: &Conditions) -> Fields {
    let mut fields = HashMap::new();
    let mut set = |name: &str, value: String| fields.insert(name.to_owned(), value);
    if let Some(Among::AnyOf(networks)) = &conditions.remote_address {
        set("from", networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
    }
    if conditions.verified_device {
        set("verified", "yes".to_owned());
    }
    if let Some(age) = conditions.authentication_age {
        set("age", (age / 60).to_string());
    }
    if let Some((zone, window)) = conditions.time.as_ref().and_then(window) {
        for (day, name, _) in DAYS.iter().filter(|(day, ..)| window.days.contains(day)) {
            let _ = day;
            set(name, "yes".to_owned());
        }
        set("begin", window.from.to_string());
        set("end", window.to.to_string());
        set("zone", zone);
    }
    Fields(fields)
}

fn new_page(visitor: &Visitor) -> Page {
    Page::new(visitor, "policies", "New policy")
        .below("Policies", "/admin/policies")
        .lead("Members of the group may reach the resource when all conditions are met.")
}

async fn create_form(portal: &SharedPortal, fields: &Fields) -> Result<Form, Refusal> {
    let groups = portal.store.find_groups(&Find::first(MOST_GROUPS)).await?;
    let groups = groups.into_iter().map(|row| (row.group.id.to_string(), row.group.name)).collect();
    let mut all = vec![
        Field::new("group", "Group", Input::Select(groups)).value(fields.get("group")).required(),
        Field::new("resource", "Resource", Input::Suggested("/admin/suggest/resources"))
            .value(fields.get("resource"))
            .required()
            .hint("Begin to type its name."),
    ];
    all.extend(condition_fields(fields));
    Ok(Form::new("/admin/policies/new", "Create policy", all).or_back("/admin/policies"))
}

pub(super) async fn form(
    State(portal): State<SharedPortal>,
    Editor(visitor): Editor,
    Query(wanted): Query<HashMap<String, String>>,
) -> Result<Response, Refusal> {
    let form = create_form(&portal, &Fields(wanted)).await?;
    Ok(new_page(&visitor).block(Block::Form(form)).answer())
}

pub(super) async fn create(
    State(portal): State<SharedPortal>,
    Edit(visitor, fields): Edit,
) -> Result<Response, Refusal> {
    let created = async {
        let group = fields.get("group").parse::<GroupId>().map_err(|_| Wrong::said("Choose a group."))?;
        let resource = portal.store.resource_named(fields.get("resource")).await?;
        let conditions = read_conditions(&fields, Conditions::default())?;
        let mut change = portal.store.change(&visitor.by()).await?;
        let id =
            change.create_policy(group, resource.id, &conditions).await.map_err(|error| match error {
                StoreError::Conflict(_) => Wrong::said("This group has a policy for this resource already."),
                other => other.into(),
            })?;
        change.commit().await?;
        Ok::<_, Wrong>(id)
    };
    match created.await {
        Ok(id) => Ok(go(format!("/admin/policies/{id}"))),
        Err(wrong) => {
            let form = create_form(&portal, &fields).await?;
            again(wrong, new_page(&visitor), |error| form.with_error(error))
        }
    }
}

async fn one(portal: &SharedPortal, id: Uuid) -> Result<Policy, StoreError> {
    let found = portal.store.find_policies(&Find::of(id, 100)).await?;
    found.into_iter().find(|policy| policy.id == id).ok_or(StoreError::NotFound("policy"))
}

fn title(policy: &Policy) -> String {
    format!("{} → {}", policy.group_name, policy.resource_name)
}

pub(super) async fn show(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
    Path(id): Path<Uuid>,
) -> Result<Response, Refusal> {
    let policy = one(&portal, id).await?;
    let facts = vec![
        ("Group", Cell::Link(format!("/admin/groups/{}", policy.group_id), policy.group_name.clone())),
        (
            "May reach",
            Cell::Link(format!("/admin/resources/{}", policy.resource_id), policy.resource_name.clone()),
        ),
        ("Conditions", Cell::text(in_words(conditions(&policy).as_ref()))),
        ("State", state(&policy)),
        ("Created", Cell::Time(policy.created_ms)),
    ];
    let toggle = if policy.enabled {
        Button::change("Disable", format!("/admin/policies/{id}/disable"), Tone::Bad)
    } else {
        Button::post("Enable", format!("/admin/policies/{id}/enable"))
    };
    Ok(Page::new(&visitor, "policies", &title(&policy))
        .below("Policies", "/admin/policies")
        .action(Button::link(
            "Explain access",
            query("/admin/explain", &[("resource", &policy.resource_name)]),
        ))
        .action(Button::change("Edit conditions", format!("/admin/policies/{id}/edit"), Tone::Plain))
        .action(toggle)
        .action(Button::change("Delete", format!("/admin/policies/{id}/delete"), Tone::Bad))
        .block(Block::Facts(facts))
        .answer())
}

fn edit_page(visitor: &Visitor, policy: &Policy) -> Page {
    Page::new(visitor, "policies", &format!("Conditions of {}", title(policy)))
        .below("Back to the policy", format!("/admin/policies/{}", policy.id))
        .lead("Live connections that the new conditions would not allow end at once.")
}

fn edit_form(id: Uuid, fields: &Fields) -> Form {
    let back = format!("/admin/policies/{id}");
    Form::new(format!("{back}/edit"), "Save conditions", condition_fields(fields)).or_back(back)
}

pub(super) async fn edit(
    State(portal): State<SharedPortal>,
    Editor(visitor): Editor,
    Path(id): Path<Uuid>,
) -> Result<Response, Refusal> {
    let policy = one(&portal, id).await?;
    let fields = filled(&conditions(&policy).unwrap_or_default());
    Ok(edit_page(&visitor, &policy).block(Block::Form(edit_form(id, &fields))).answer())
}

pub(super) async fn update(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    Edit(visitor, fields): Edit,
) -> Result<Response, Refusal> {
    let policy = one(&portal, id).await?;
    let updated = async {
        let conditions = read_conditions(&fields, conditions(&policy).unwrap_or_default())?;
        let rehearsal = Rehearsal::of_conditions(&portal, &visitor, &policy, &conditions).await?;
        if !rehearsal.is_harmless(&fields) {
            return Ok(Some(rehearsal));
        }
        let mut change = portal.store.change(&visitor.by()).await?;
        change.set_policy_conditions(PolicyId::from_uuid(id), &conditions).await?;
        change.commit().await?;
        Ok::<_, Wrong>(None)
    };
    match updated.await {
        Ok(None) => Ok(go(format!("/admin/policies/{id}"))),
        Ok(Some(rehearsal)) => {
            let path = format!("/admin/policies/{id}/edit");
            let title = format!("Change the conditions of {}?", title(&policy));
            let page = Page::new(&visitor, "policies", &title).below("Back to the conditions", path.clone());
            let form = Form::new(path.clone(), "Change the conditions", Vec::new()).or_back(path);
            Ok(rehearsal.page(page, &fields, form).answer())
        }
        Err(wrong) => {
            again(wrong, edit_page(&visitor, &policy), |error| edit_form(id, &fields).with_error(error))
        }
    }
}

async fn set_enabled(
    portal: &SharedPortal,
    visitor: &Visitor,
    id: Uuid,
    is_enabled: bool,
) -> Result<Response, Refusal> {
    let mut change = portal.store.change(&visitor.by()).await?;
    change.set_policy_enabled(PolicyId::from_uuid(id), is_enabled).await?;
    change.commit().await?;
    Ok(go(format!("/admin/policies/{id}")))
}

pub(super) async fn enable(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    Edit(visitor, _): Edit,
) -> Result<Response, Refusal> {
    set_enabled(&portal, &visitor, id, true).await
}

pub(super) async fn disable(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    Edit(visitor, _): Edit,
) -> Result<Response, Refusal> {
    set_enabled(&portal, &visitor, id, false).await
}

async fn confirm(
    portal: &SharedPortal,
    visitor: &Visitor,
    id: Uuid,
    verb: (&str, &str),
) -> Result<Response, Refusal> {
    let policy = one(portal, id).await?;
    let impact = portal.store.impact(Removal::Policy(id), clock::now_ms()).await?;
    let back = format!("/admin/policies/{id}");
    let page = Page::new(visitor, "policies", &format!("{} {}?", verb.0, title(&policy)))
        .below("Back to the policy", back.clone());
    let submit = format!("{} the policy", verb.0);
    let form = Form::new(format!("{back}/{}", verb.1), &submit, Vec::new()).or_back(back);
    Ok(confirmation(page, &impact, form).answer())
}

pub(super) async fn confirm_disable(
    State(portal): State<SharedPortal>,
    Editor(visitor): Editor,
    Path(id): Path<Uuid>,
) -> Result<Response, Refusal> {
    confirm(&portal, &visitor, id, ("Disable", "disable")).await
}

pub(super) async fn confirm_delete(
    State(portal): State<SharedPortal>,
    Editor(visitor): Editor,
    Path(id): Path<Uuid>,
) -> Result<Response, Refusal> {
    confirm(&portal, &visitor, id, ("Delete", "delete")).await
}

pub(super) async fn delete(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    Edit(visitor, _): Edit,
) -> Result<Response, Refusal> {
    let mut change = portal.store.change(&visitor.by()).await?;
    change.delete_policy(PolicyId::from_uuid(id)).await?;
    change.commit().await?;
    Ok(go("/admin/policies"))
}
