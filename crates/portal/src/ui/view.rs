//! What a page consists of, and how it becomes HTML.
//!
//! Every page is a list of blocks, so that all of them look and behave alike, and everything
//! that anybody chose goes through the one template that escapes it. Links are made of ids and
//! of [`query`]; a name never becomes a part of one unencoded.

use std::borrow::Cow;

use adit_policy::Resource;
use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse as _, Response};

use super::assets;
use super::visitor::Visitor;
use crate::api::Failure;
use crate::clock;
use crate::store::{EndingLease, Impact};

/// How a badge or a button is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// Nothing special.
    Plain,
    /// The main thing to do.
    Primary,
    /// All is well.
    Good,
    /// Something to look at.
    Warn,
    /// Something is taken away or is broken.
    Bad,
}

impl Tone {
    /// Its class.
    const fn class(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Primary => "primary",
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
        }
    }
}

/// A link that looks like a button, or a form of one button.
#[derive(Debug, Clone)]
pub(super) struct Button {
    label: String,
    href: String,
    tone: Tone,
    /// Sends a form; else leads to a page.
    is_post: bool,
    /// Leads to a change, so that only those who may make one see it.
    is_change: bool,
    /// Names what it is about, for those who hear the page.
    about: String,
}

impl Button {
    /// Leads to a page that only shows something.
    pub(super) fn link(label: &str, href: impl Into<String>) -> Self {
        let (label, href) = (label.to_owned(), href.into());
        Self { label, href, tone: Tone::Plain, is_post: false, is_change: false, about: String::new() }
    }

    /// Leads to a page on which something is changed.
    pub(super) fn change(label: &str, href: impl Into<String>, tone: Tone) -> Self {
        Self { tone, is_change: true, ..Self::link(label, href) }
    }

    /// Changes something that takes nothing away from anybody.
    pub(super) fn post(label: &str, href: impl Into<String>) -> Self {
        Self { is_post: true, ..Self::change(label, href, Tone::Plain) }
    }

    /// Does not stand out.
    pub(super) fn quiet(self) -> Self {
        Self { tone: Tone::Plain, ..self }
    }

    /// Says what it is about, where many of a kind are on one page.
    pub(super) fn about(self, name: &str) -> Self {
        Self { about: name.to_owned(), ..self }
    }
}

/// A value in a table or a list of facts.
#[derive(Debug, Clone)]
pub(super) enum Cell {
    /// As it is.
    Text(String),
    /// Leads somewhere.
    Link(String, String),
    /// A state.
    Badge(Tone, String),
    /// A moment.
    Time(i64),
    /// An address or the like.
    Code(String),
    /// What can be done.
    Buttons(Vec<Button>),
    /// Nothing is known, or nothing applies; said in a word.
    Muted(String),
}

impl Cell {
    /// As it is.
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Whether something is connected now.
    pub(super) fn online(is_online: bool) -> Self {
        if is_online { Self::badge(Tone::Good, "online") } else { Self::badge(Tone::Plain, "offline") }
    }

    /// A state.
    pub(super) fn badge(tone: Tone, text: impl Into<String>) -> Self {
        Self::Badge(tone, text.into())
    }

    /// A moment that may not have come yet.
    pub(super) fn moment(at_ms: Option<i64>, otherwise: &str) -> Self {
        at_ms.map_or_else(|| Self::Muted(otherwise.to_owned()), Self::Time)
    }
}

/// A moment for people, by the clock of the portal, in UTC.
fn human_time(at_ms: i64) -> String {
    let text = clock::rfc3339(at_ms);
    let (day, time) = text.split_once('T').unwrap_or((&text, ""));
    format!("{day} {}", time.get(..5).unwrap_or(time))
}

/// How far a moment is away.
pub(super) fn distance(at_ms: i64, now_ms: i64) -> String {
    let minutes = (at_ms - now_ms).unsigned_abs() / 60_000;
    let text = match minutes {
        0 => return "now".to_owned(),
        1..60 => format!("{minutes} min"),
        60..1440 => format!("{} h {} min", minutes / 60, minutes % 60),
        _ => format!("{} d", minutes / 1440),
    };
    if at_ms > now_ms { format!("in {text}") } else { format!("{text} ago") }
}

/// What is said instead of an empty table, and what to do next.
#[derive(Debug, Clone, Default)]
pub(super) struct Empty {
    /// What there is none of.
    pub(super) title: String,
    /// What it is good for.
    pub(super) hint: String,
    /// What to do next.
    pub(super) buttons: Vec<Button>,
}

impl Empty {
    /// Says that there is nothing.
    pub(super) fn new(title: &str, hint: &str) -> Self {
        Self { title: title.to_owned(), hint: hint.to_owned(), buttons: Vec::new() }
    }

    /// Adds what to do next.
    pub(super) fn with(mut self, button: Button) -> Self {
        self.buttons.push(button);
        self
    }
}

/// A table, which a narrow screen shows as cards.
#[derive(Debug, Clone)]
pub(super) struct Table {
    /// Heads it; also its name for those who hear it.
    pub(super) title: String,
    /// Whether the title is shown.
    pub(super) is_titled: bool,
    /// The heads of the columns; an empty one is for buttons.
    pub(super) columns: Vec<&'static str>,
    /// As many cells as columns each.
    pub(super) rows: Vec<Vec<Cell>>,
    /// What is said when there is no row.
    pub(super) empty: Empty,
    /// Where the next rows are.
    pub(super) next: Option<String>,
}

impl Table {
    /// A table below a title of its own.
    pub(super) fn titled(title: &str, columns: &[&'static str], rows: Vec<Vec<Cell>>, empty: Empty) -> Self {
        let (title, columns) = (title.to_owned(), columns.to_vec());
        Self { title, is_titled: true, columns, rows, empty, next: None }
    }

    /// The table that a page is all about.
    pub(super) fn new(title: &str, columns: &[&'static str], rows: Vec<Vec<Cell>>, empty: Empty) -> Self {
        Self { is_titled: false, ..Self::titled(title, columns, rows, empty) }
    }

    fn label(&self, index: &usize) -> &'static str {
        self.columns.get(*index).copied().unwrap_or("")
    }
}

/// How a field is filled in.
#[derive(Debug, Clone)]
pub(super) enum Input {
    /// A line of text.
    Text,
    /// Several lines of text.
    Lines,
    /// A secret: never filled in by the portal.
    Secret,
    /// A line of text, with names that the portal suggests from this address.
    Suggested(&'static str),
    /// One of these: value and label.
    Select(Vec<(String, String)>),
    /// Yes or no.
    Check,
    /// Any of these: name, label, and whether it is chosen.
    Checks(Vec<(String, String, bool)>),
    /// Nothing to be seen: sent along as it is.
    Hidden,
}

/// A field of a form.
#[derive(Debug, Clone)]
pub(super) struct Field {
    name: Cow<'static, str>,
    label: String,
    hint: String,
    /// What is wrong with what was filled in.
    error: Option<String>,
    value: String,
    input: Input,
    is_required: bool,
}

impl Field {
    /// A field that is filled in like this.
    pub(super) fn new(name: &'static str, label: &str, input: Input) -> Self {
        let (label, hint, value) = (label.to_owned(), String::new(), String::new());
        Self { name: Cow::Borrowed(name), label, hint, error: None, value, input, is_required: false }
    }

    /// A value that was sent before and is sent again.
    pub(super) fn kept(name: &str, value: &str) -> Self {
        Self { name: Cow::Owned(name.to_owned()), ..Self::new("", "", Input::Hidden).value(value) }
    }

    /// What it holds already; for a check anything but nothing means yes.
    pub(super) fn value(self, value: impl Into<String>) -> Self {
        Self { value: value.into(), ..self }
    }

    /// Says how to fill it in.
    pub(super) fn hint(self, hint: &str) -> Self {
        Self { hint: hint.to_owned(), ..self }
    }

    /// What is wrong with what was filled in, said beside it; of lines of text only.
    pub(super) fn error(self, error: Option<String>) -> Self {
        Self { error, ..self }
    }

    /// What describes it, for those who hear the page.
    fn described(&self) -> String {
        let parts = [("h", !self.hint.is_empty()), ("e", self.error.is_some())];
        let ids =
            parts.iter().filter(|(_, is_there)| *is_there).map(|(part, _)| format!("{part}-{}", self.name));
        ids.collect::<Vec<_>>().join(" ")
    }

    /// The form cannot be sent without it.
    pub(super) fn required(self) -> Self {
        Self { is_required: true, ..self }
    }
}

/// A form.
#[derive(Debug, Clone)]
pub(super) struct Form {
    /// Where it is sent.
    pub(super) action: String,
    /// Whether it only asks.
    pub(super) is_question: bool,
    /// What its button says.
    pub(super) submit: String,
    /// How its button is meant.
    pub(super) tone: Tone,
    /// Its fields.
    pub(super) fields: Vec<Field>,
    /// What is wrong with what was sent.
    pub(super) error: Option<String>,
    /// Where to go without sending it.
    pub(super) cancel: Option<String>,
}

impl Form {
    /// A form that changes something.
    pub(super) fn new(action: impl Into<String>, submit: &str, fields: Vec<Field>) -> Self {
        Self {
            action: action.into(),
            is_question: false,
            submit: submit.to_owned(),
            tone: Tone::Primary,
            fields,
            error: None,
            cancel: None,
        }
    }

    /// Where to go without sending it.
    pub(super) fn or_back(self, href: impl Into<String>) -> Self {
        Self { cancel: Some(href.into()), ..self }
    }

    /// Says what is wrong with what was sent.
    pub(super) fn with_error(self, error: Option<String>) -> Self {
        Self { error, ..self }
    }
}

/// A number of the overview.
#[derive(Debug, Clone)]
pub(super) struct Figure {
    /// Of what.
    pub(super) label: &'static str,
    /// How many.
    pub(super) value: String,
    /// What else is to be said.
    pub(super) note: String,
    /// Whether that is good.
    pub(super) tone: Tone,
    /// Where they are listed.
    pub(super) href: &'static str,
}

/// A step to take.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// Whether it is done.
    pub(super) is_done: bool,
    /// What to do.
    pub(super) title: &'static str,
    /// What it is good for.
    pub(super) hint: &'static str,
    /// How.
    pub(super) button: Button,
}

/// A part of a page.
#[derive(Debug, Clone)]
pub(super) enum Block {
    /// A table.
    Table(Table),
    /// Names and values.
    Facts(Vec<(&'static str, Cell)>),
    /// A form.
    Form(Form),
    /// Something to know, in its tone.
    Note(Tone, String, String),
    /// Numbers.
    Figures(Vec<Figure>),
    /// What to do first.
    Steps(Vec<Step>),
}

/// The search field of a list.
#[derive(Debug, Clone)]
pub(super) struct Search {
    /// What is searched for now.
    pub(super) text: String,
    /// What can be searched for.
    pub(super) placeholder: &'static str,
}

/// A page.
#[derive(Debug, Clone, Template)]
#[template(path = "ui/page.html")]
pub(super) struct Page {
    title: String,
    /// Which part of the menu it belongs to.
    section: &'static str,
    lead: String,
    parent: Option<(&'static str, String)>,
    actions: Vec<Button>,
    search: Option<Search>,
    /// Where its blocks are fetched anew when something happens.
    live: Option<String>,
    /// Something to copy, which stays when the blocks change: what it is, and the text.
    copy: Option<(String, String)>,
    blocks: Vec<Block>,
    visitor: Visitor,
}

/// A place in the menu: section, address, and label.
type Place = (&'static str, &'static str, &'static str);

/// The menu, in groups.
const MENU: [(&str, &[Place]); 4] = [
    ("", &[("overview", "/admin", "Overview"), ("authorizations", "/admin/authorizations", "Live access")]),
    (
        "Network",
        &[
            ("sites", "/admin/sites", "Sites"),
            ("resources", "/admin/resources", "Resources"),
            ("policies", "/admin/policies", "Policies"),
            ("explain", "/admin/explain", "Explain"),
            ("relays", "/admin/relays", "Relays"),
        ],
    ),
    (
        "Identity",
        &[
            ("people", "/admin/people", "People"),
            ("groups", "/admin/groups", "Groups"),
            ("devices", "/admin/devices", "Devices"),
            ("sessions", "/admin/sessions", "Sessions"),
        ],
    ),
    (
        "Portal",
        &[
            ("tokens", "/admin/tokens", "Tokens"),
            ("audit", "/admin/audit", "Audit log"),
            ("flows", "/admin/flows", "Flow log"),
            ("settings", "/admin/settings", "Settings"),
        ],
    ),
];

#[derive(Template)]
#[template(path = "ui/cell.html")]
struct CellView<'a> {
    cell: &'a Cell,
    csrf: &'a str,
}

#[derive(Template)]
#[template(path = "ui/button.html")]
struct ButtonView<'a> {
    button: &'a Button,
    csrf: &'a str,
}

#[derive(Template)]
#[template(path = "ui/field.html")]
struct FieldView<'a> {
    field: &'a Field,
}

impl CellView<'_> {
    /// A moment for machines.
    fn machine_time(&self, at_ms: &i64) -> String {
        clock::rfc3339(*at_ms)
    }

    /// A moment for people, in UTC.
    fn human_time(&self, at_ms: &i64) -> String {
        human_time(*at_ms)
    }

    fn button<'a>(&'a self, button: &'a Button) -> ButtonView<'a> {
        ButtonView { button, csrf: self.csrf }
    }
}

impl Page {
    /// An empty page of a section.
    pub(super) fn new(visitor: &Visitor, section: &'static str, title: &str) -> Self {
        Self {
            title: title.to_owned(),
            section,
            lead: String::new(),
            parent: None,
            actions: Vec::new(),
            search: None,
            live: None,
            copy: None,
            blocks: Vec::new(),
            visitor: visitor.clone(),
        }
    }

    /// Says what the page is about.
    pub(super) fn lead(self, lead: impl Into<String>) -> Self {
        Self { lead: lead.into(), ..self }
    }

    /// Leads back.
    pub(super) fn below(self, label: &'static str, href: impl Into<String>) -> Self {
        Self { parent: Some((label, href.into())), ..self }
    }

    /// Adds a button beside the title.
    pub(super) fn action(mut self, button: Button) -> Self {
        self.actions.push(button);
        self
    }

    /// Adds buttons that are there for some only.
    pub(super) fn actions(mut self, buttons: impl IntoIterator<Item = Button>) -> Self {
        self.actions.extend(buttons);
        self
    }

    /// Adds a search field.
    pub(super) fn search(self, text: &str, placeholder: &'static str) -> Self {
        Self { search: Some(Search { text: text.to_owned(), placeholder }), ..self }
    }

    /// Has the blocks fetched from here whenever something happens.
    pub(super) fn live(self, from: impl Into<String>) -> Self {
        Self { live: Some(from.into()), ..self }
    }

    /// Adds something to copy.
    pub(super) fn copy(self, label: &str, text: String) -> Self {
        Self { copy: Some((label.to_owned(), text)), ..self }
    }

    /// Adds parts that may be there or not.
    pub(super) fn blocks(self, blocks: impl IntoIterator<Item = Block>) -> Self {
        blocks.into_iter().fold(self, Self::block)
    }

    /// Adds a part.
    pub(super) fn block(mut self, block: Block) -> Self {
        self.blocks.push(block);
        self
    }

    /// Adds a table.
    pub(super) fn table(self, table: Table) -> Self {
        self.block(Block::Table(table))
    }

    /// Answers with the page.
    pub(super) fn answer(self) -> Response {
        self.answer_with(StatusCode::OK)
    }

    /// Answers with the page and a status.
    pub(super) fn answer_with(mut self, status: StatusCode) -> Response {
        if !self.visitor.may_change {
            self.drop_changes();
        }
        match self.render() {
            Ok(text) => (status, Html(text)).into_response(),
            Err(error) => Failure::internal(error).into_response(),
        }
    }

    /// Leaves out every control that changes something. The server refuses them all the same.
    fn drop_changes(&mut self) {
        let keep = |buttons: &mut Vec<Button>| buttons.retain(|button| !button.is_change);
        keep(&mut self.actions);
        self.blocks.retain(|block| match block {
            Block::Form(form) => form.is_question,
            _ => true,
        });
        for block in &mut self.blocks {
            match block {
                Block::Table(table) => {
                    keep(&mut table.empty.buttons);
                    for cell in table.rows.iter_mut().flatten() {
                        if let Cell::Buttons(buttons) = cell {
                            keep(buttons);
                        }
                    }
                }
                Block::Steps(steps) => steps.retain(|step| !step.button.is_change),
                _ => {}
            }
        }
    }

    /// The list that a page of a section searches.
    fn list(&self) -> &'static str {
        let mut items = MENU.iter().flat_map(|(_, items)| items.iter());
        items.find(|(section, ..)| *section == self.section).map_or("/admin", |(_, path, _)| path)
    }

    fn cell<'a>(&'a self, cell: &'a Cell) -> CellView<'a> {
        CellView { cell, csrf: &self.visitor.csrf }
    }

    fn button<'a>(&'a self, button: &'a Button) -> ButtonView<'a> {
        ButtonView { button, csrf: &self.visitor.csrf }
    }
}

/// Makes the query part of a link; empty values are left out.
pub(super) fn query(path: &str, pairs: &[(&str, &str)]) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in pairs.iter().filter(|(_, value)| !value.is_empty()) {
        query.append_pair(name, value);
    }
    match query.finish() {
        text if text.is_empty() => path.to_owned(),
        text => format!("{path}?{text}"),
    }
}

/// Where a resource is, in words.
pub(super) fn address(resource: &Resource) -> String {
    use adit_policy::ResourceAddress::{Cidr, Dns, Internet, Ip};
    match &resource.address {
        Dns { pattern } => pattern.clone(),
        Ip { address } => address.to_string(),
        Cidr { network } => network.to_string(),
        Internet => "the Internet".to_owned(),
    }
}

/// The traffic that a resource lets through, in words.
pub(super) fn ports(resource: &Resource) -> String {
    if resource.filters.is_empty() {
        return "everything".to_owned();
    }
    resource.filters.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// `1 thing` or `2 things`.
pub(super) fn count(number: i64, one: &str) -> String {
    match (number, one.strip_suffix('y')) {
        (1, _) => format!("1 {one}"),
        (_, Some(stem)) => format!("{number} {stem}ies"),
        (_, None) => format!("{number} {one}s"),
    }
}

/// Shows what a change takes away, and asks whether it is meant.
pub(super) fn confirmation(page: Page, impact: &Impact, form: Form) -> Page {
    let most = crate::store::MOST_LOSSES;
    let more = |length: usize| if length >= most { "at least " } else { "" };
    let (people, ends) = (impact.losses.len(), impact.leases.len());
    let note = if people + ends == 0 {
        Block::Note(Tone::Plain, "Nobody loses access.".to_owned(), "No live connection ends.".to_owned())
    } else {
        let lost = count(i64::try_from(people).unwrap_or(i64::MAX), "permission");
        let ended = count(i64::try_from(ends).unwrap_or(i64::MAX), "live connection");
        let text =
            format!("{}{lost} will be taken away and {}{ended} will end at once.", more(people), more(ends));
        Block::Note(Tone::Bad, "This takes access away.".to_owned(), text)
    };
    let mut page = page.block(note);
    if !impact.losses.is_empty() {
        let row = |(who, what): &(String, String)| vec![Cell::text(who), Cell::text(what)];
        let rows = impact.losses.iter().map(row).collect();
        let columns = ["Who", "Can no longer reach"];
        page = page.table(Table::titled("Who loses what", &columns, rows, Empty::default()));
    }
    if !impact.leases.is_empty() {
        page = page.table(ending(&impact.leases));
    }
    page.block(Block::Form(Form { tone: Tone::Bad, ..form }))
}

/// Live connections that a change ends.
pub(super) fn ending(leases: &[EndingLease]) -> Table {
    let now_ms = clock::now_ms();
    let row = |(who, device, what, until): &EndingLease| {
        vec![Cell::text(who), Cell::text(device), Cell::text(what), Cell::text(distance(*until, now_ms))]
    };
    let rows = leases.iter().map(row).collect();
    let columns = ["Who", "Device", "Connected to", "Would end"];
    Table::titled("Connections that end", &columns, rows, Empty::default())
}
