//! Where flows are sent besides, and for owners how to change it.
//!
//! The secret is taken and never shown. A field that is left empty keeps it as long as the address stays at the same server:
//! what was given for one is not sent to another.

use std::collections::HashMap;

use axum::extract::State;
use axum::response::Response;
use url::Url;

use super::view::{Block, Button, Cell, Field, Form, Input, Page, Tone};
use super::visitor::{Edit, Editor, Fields, Visitor};
use super::{Wrong, again, go};
use crate::api::WantedSink;
use crate::portal::{Portal, SharedPortal};
use crate::store::FlowSink;
use crate::web::Refusal;

/// What others are told.
const ONLY_OWNERS: &str = "decide where flows are sent: what people reach leaves the portal";

const PATH: &str = "/admin/flows/sink";

async fn current(portal: &Portal) -> Result<Option<(String, FlowSink)>, Refusal> {
    let sink = portal.store.flow_sink().await?;
    Ok(sink.and_then(|sink| Some((sink.sink_url.clone()?, sink))))
}

fn facts(sink: Option<&(String, FlowSink)>) -> Block {
    let Some((url, sink)) = sink else {
        let text = "Every report can be sent on to an address besides, as JSON Lines.".to_owned();
        return Block::Note(Tone::Plain, "Flows are sent nowhere.".to_owned(), text);
    };
    let state = match (&sink.sink_error, sink.sink_at_ms) {
        (Some(trouble), _) => Cell::badge(Tone::Bad, trouble),
        (None, Some(_)) => Cell::badge(Tone::Good, "good"),
        (None, None) => Cell::Muted("nothing was sent yet".to_owned()),
    };
    let secret = if sink.sink_sealed.is_some() { "set, and never shown" } else { "none" };
    Block::Facts(vec![
        ("Address", Cell::Code(url.clone())),
        ("Secret", Cell::text(secret)),
        ("Last report taken there", Cell::text(sink.sink_seq.to_string())),
        ("Something was taken last", Cell::moment(sink.sink_at_ms, "never")),
        ("State", state),
    ])
}

fn edit_form(sink: Option<&(String, FlowSink)>, fields: &Fields) -> Form {
    let has_secret = sink.is_some_and(|(_, sink)| sink.sink_sealed.is_some());
    let hint = match has_secret {
        true => "Empty: the one that is set stays, at the same server.",
        false => "The value of the Authorization header, such as Bearer …. Empty: none.",
    };
    let mut all = vec![
        Field::new("url", "Address", Input::Text)
            .value(fields.get("url"))
            .required()
            .hint("https://HOST/PATH. With http: no secret, except to this machine."),
        Field::new("authorization", "Secret", Input::Secret).hint(hint),
    ];
    if has_secret {
        let none = Field::new("no_secret", "Without a secret", Input::Check);
        all.push(none.value(fields.get("no_secret")));
    }
    let submit = if sink.is_some() { "Save" } else { "Send flows there" };
    Form::new(PATH, submit, all).or_back("/admin/settings")
}

fn page(visitor: &Visitor, sink: Option<&(String, FlowSink)>) -> Page {
    let remove = Button::change("Send nowhere", format!("{PATH}/remove"), Tone::Bad);
    Page::new(visitor, "settings", "Where flows are sent")
        .below("Settings", "/admin/settings")
        .lead("What is reported from then on is POSTed there, at least once and in order.")
        .actions(sink.filter(|_| visitor.owns()).map(|_| remove))
        .block(facts(sink))
}

pub(super) async fn show(State(portal): State<SharedPortal>, visitor: Visitor) -> Result<Response, Refusal> {
    let sink = current(&portal).await?;
    let mut page = page(&visitor, sink.as_ref());
    if visitor.owns() {
        let url = sink.as_ref().map(|(url, _)| url.clone()).unwrap_or_default();
        let fields = Fields(HashMap::from([("url".to_owned(), url)]));
        page = page.block(Block::Form(edit_form(sink.as_ref(), &fields)));
    }
    Ok(page.answer())
}

/// Whether two addresses lead to the same server.
fn is_same_server(before: &str, now: &Url) -> bool {
    before.parse::<Url>().is_ok_and(|before| before.origin() == now.origin())
}

async fn save(
    portal: &Portal,
    visitor: &Visitor,
    before: Option<&(String, FlowSink)>,
    fields: &Fields,
) -> Result<(), Wrong> {
    let secret = fields.get("authorization");
    let authorization = (!secret.is_empty()).then(|| secret.to_owned());
    let (url, mut sealed) =
        WantedSink { url: fields.get("url").to_owned(), authorization }.checked(portal)?;
    let kept = before.and_then(|(url, sink)| Some((url, sink.sink_sealed.clone()?)));
    if let Some((old, kept)) = kept.filter(|_| sealed.is_none() && !fields.has("no_secret")) {
        if !is_same_server(old, &url) {
            return Err(Wrong::said("This is another server: give it a secret of its own, or none."));
        }
        sealed = Some(kept);
    }
    let mut change = portal.store.change(&visitor.by()).await?;
    change.set_flow_sink(Some(url.as_str()), sealed).await?;
    Ok(change.commit().await?)
}

pub(super) async fn update(
    State(portal): State<SharedPortal>,
    Edit(visitor, fields): Edit,
) -> Result<Response, Refusal> {
    visitor.must_own(ONLY_OWNERS)?;
    let sink = current(&portal).await?;
    match save(&portal, &visitor, sink.as_ref(), &fields).await {
        Ok(()) => Ok(go(PATH)),
        Err(wrong) => again(wrong, page(&visitor, sink.as_ref()), |error| {
            edit_form(sink.as_ref(), &fields).with_error(error)
        }),
    }
}

pub(super) async fn confirm(Editor(visitor): Editor) -> Result<Response, Refusal> {
    visitor.must_own(ONLY_OWNERS)?;
    let form = Form::new(format!("{PATH}/remove"), "Send nowhere", Vec::new()).or_back(PATH);
    let text = "What was not taken there yet stays in the flow log here. The secret is forgotten.";
    Ok(Page::new(&visitor, "settings", "Send flows nowhere any more?")
        .below("Back", PATH)
        .block(Block::Note(Tone::Bad, "Nobody loses access.".to_owned(), text.to_owned()))
        .block(Block::Form(Form { tone: Tone::Bad, ..form }))
        .answer())
}

pub(super) async fn remove(
    State(portal): State<SharedPortal>,
    Edit(visitor, _): Edit,
) -> Result<Response, Refusal> {
    visitor.must_own(ONLY_OWNERS)?;
    let mut change = portal.store.change(&visitor.by()).await?;
    change.set_flow_sink(None, None).await?;
    change.commit().await?;
    Ok(go("/admin/settings"))
}
