//! Why somebody can or cannot reach something.

use adit_policy::{ClientId, ConditionKind, Decision, Unmet, Verdict};
use axum::extract::{Query, State};
use axum::response::Response;
use serde::Deserialize;
use uuid::Uuid;

use super::view::{Block, Cell, Empty, Field, Form, Input, Page, Table, Tone, distance};
use super::visitor::Visitor;
use crate::clock;
use crate::portal::SharedPortal;
use crate::store::{Actor, Asker, Find, Policy, StoreError};
use crate::web::Refusal;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Question {
    person: String,
    resource: String,
    /// One of the person's devices; the one that signed in last when empty.
    device: String,
}

/// Devices of a person that are offered.
const MOST_DEVICES: u32 = 50;

async fn form(portal: &SharedPortal, question: &Question, actor: Option<&Actor>) -> Result<Form, Refusal> {
    let mut devices = vec![(String::new(), "the one that signed in last".to_owned())];
    if let Some(actor) = actor {
        let found = portal.store.find_devices("client", &Find::of(actor.id, MOST_DEVICES)).await?;
        devices.extend(found.into_iter().map(|device| (device.id.to_string(), device.name)));
    }
    let fields = vec![
        Field::new("person", "Who", Input::Suggested("/admin/suggest/people"))
            .value(&question.person)
            .required(),
        Field::new("resource", "Reaches what", Input::Suggested("/admin/suggest/resources"))
            .value(&question.resource)
            .required(),
        Field::new("device", "On which device", Input::Select(devices)).value(&question.device),
    ];
    Ok(Form { is_question: true, ..Form::new("/admin/explain", "Explain", fields) })
}

/// A condition that is not met, in words.
fn unmet(unmet: &Unmet) -> String {
    let what = match unmet.condition {
        ConditionKind::RemoteAddress => "the address that the device connects from",
        ConditionKind::Region => "the country of the address",
        ConditionKind::AuthProvider => "the sign-in provider",
        ConditionKind::Time => "the time of week",
        ConditionKind::VerifiedDevice => "the device is not verified",
        ConditionKind::AuthenticationAge => "the time since signing in",
    };
    if unmet.is_unknown { format!("{what} (not known)") } else { what.to_owned() }
}

fn verdict(verdict: &Verdict, now_ms: i64) -> (Cell, String) {
    match verdict {
        Verdict::Grants { until } => {
            let until_ms = i64::try_from(until.saturating_mul(1000)).unwrap_or(i64::MAX);
            (
                Cell::badge(Tone::Good, "grants"),
                format!("a connection would end {}", distance(until_ms, now_ms)),
            )
        }
        Verdict::NotAMember => {
            (Cell::badge(Tone::Plain, "not for them"), "not a member of the group".to_owned())
        }
        Verdict::Disabled => (Cell::badge(Tone::Plain, "disabled"), "the policy is disabled".to_owned()),
        Verdict::Unmet(conditions) => {
            let why = conditions.iter().map(unmet).collect::<Vec<_>>().join("; ");
            (Cell::badge(Tone::Bad, "refuses"), format!("not met: {why}"))
        }
    }
}

/// The answer, as blocks.
async fn answer(
    portal: &SharedPortal,
    page: Page,
    question: &Question,
    actor: &Actor,
) -> Result<Page, Refusal> {
    let resource = portal.store.resource_named(&question.resource).await?;
    let (actor_id, now_ms) = (adit_policy::ActorId::from_uuid(actor.id), clock::now_ms());
    let device = portal.store.client_of(actor_id, question.device.parse::<Uuid>().ok()).await?;
    let client = device.as_ref().map(|(id, _)| ClientId::from_uuid(*id));
    let asker = Asker { actor: actor_id, client, session_expires_ms: None };
    let explained = portal.store.explain(now_ms, &asker, resource.id).await?;
    let policies = portal.store.find_policies(&Find::of(resource.id.as_uuid(), 500)).await?;
    let gateways = portal.hub.gateways_of_site(resource.site.id);
    let is_served = gateways.iter().any(|gateway| !gateway.is_draining);
    let who = match &device {
        Some((_, name)) => format!("{} on {name}", actor.name),
        None => format!("{} (who has no device)", actor.name),
    };
    let named = |id: Uuid| policies.iter().find(|policy| policy.id == id).map(|policy| &policy.group_name);
    let note = match &explained.decision {
        Decision::Granted(_) if !is_served => Block::Note(
            Tone::Warn,
            format!("{who} may reach {}, but cannot now.", resource.name),
            format!("No gateway of {} is online.", resource.site.name),
        ),
        Decision::Granted(grant) => Block::Note(
            Tone::Good,
            format!("{who} may reach {}.", resource.name),
            match named(grant.policy.as_uuid()) {
                Some(group) => format!("The policy for {group} grants it."),
                None => String::new(),
            },
        ),
        Decision::Refused(refusal) => Block::Note(
            Tone::Bad,
            format!("{who} may not reach {}.", resource.name),
            format!("Because {refusal}."),
        ),
    };
    let row = |(id, given): &(adit_policy::PolicyId, Verdict)| {
        let policy: Option<&Policy> = policies.iter().find(|policy| policy.id == id.as_uuid());
        let group = policy.map_or_else(|| id.to_string(), |policy| policy.group_name.clone());
        let (state, why) = verdict(given, now_ms);
        vec![Cell::Link(format!("/admin/policies/{id}"), group), state, Cell::text(why)]
    };
    let rows = explained.verdicts.iter().map(row).collect();
    let empty = Empty::new("No policy names this resource", "So nobody may reach it.");
    let columns = ["Policy for", "What it does", "Why"];
    Ok(page.block(note).table(Table::titled("Every policy that names it", &columns, rows, empty)))
}

pub(super) async fn show(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
    Query(question): Query<Question>,
) -> Result<Response, Refusal> {
    let page = Page::new(&visitor, "explain", "Explain access")
        .lead("Why somebody can or cannot reach something, by the same decision as a real request.");
    let is_asked = !question.person.is_empty() && !question.resource.is_empty();
    let actor = match portal.store.actor_named(question.person.trim()).await {
        Ok(actor) => Some(actor),
        Err(StoreError::NotFound(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let form = form(&portal, &question, actor.as_ref()).await?;
    let page = page.block(Block::Form(form.clone()));
    match actor {
        Some(actor) if is_asked => match answer(&portal, page.clone(), &question, &actor).await {
            Ok(page) => Ok(page.answer()),
            Err(refusal) => Err(refusal),
        },
        None if is_asked => {
            let text = "Nobody is called exactly so. Choose one of the suggested names.".to_owned();
            Ok(page.block(Block::Note(Tone::Warn, "There is no such person.".to_owned(), text)).answer())
        }
        _ => Ok(page.answer()),
    }
}
