//! Sessions of people in a browser.

use axum::extract::{Path, Query, State};
use axum::response::Response;
use uuid::Uuid;

use super::view::{Button, Cell, Empty, Form, Page, Table, Tone, confirmation, distance};
use super::visitor::{Edit, Editor, Visitor};
use super::{ListQuery, go};
use crate::clock;
use crate::portal::SharedPortal;
use crate::store::{Impact, Page as Part, WebSessionRow};
use crate::web::Refusal;

const COLUMNS: [&str; 6] = ["Who", "Signed in by", "From", "Began", "Ends", ""];

pub(super) async fn list(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
    Query(wanted): Query<ListQuery>,
) -> Result<Response, Refusal> {
    let part = Part { after: wanted.after, limit: Some(super::ROWS + 1) };
    let mut sessions = portal.store.web_sessions(part).await?;
    let next = wanted.cut("/admin/sessions", &mut sessions, |row| row.session.id);
    let now_ms = clock::now_ms();
    let row = |row: &WebSessionRow| {
        let session = &row.session;
        let end = Button::change("End", format!("/admin/sessions/{}/end", session.id), Tone::Bad);
        let last = if visitor.is_session(session.id) {
            Cell::badge(Tone::Good, "this session")
        } else {
            Cell::Buttons(vec![end.about(&format!("the session of {}", row.actor_name))])
        };
        vec![
            Cell::Link(format!("/admin/people/{}", session.actor_id), row.actor_name.clone()),
            Cell::text(&session.provider),
            Cell::Code(session.address.clone()),
            Cell::Time(session.created_ms),
            Cell::text(distance(session.expires_ms, now_ms)),
            last,
        ]
    };
    let rows = sessions.iter().map(row).collect();
    Ok(Page::new(&visitor, "sessions", "Sessions")
        .lead("Who is signed in to this portal with a browser. Devices have sessions of their own.")
        .live("/admin/sessions")
        .table(Table { next, ..Table::new("Sessions", &COLUMNS, rows, Empty::new("No session", "")) })
        .answer())
}

pub(super) async fn confirm(Editor(visitor): Editor, Path(id): Path<Uuid>) -> Response {
    let page = Page::new(&visitor, "sessions", "End the session?")
        .lead("Whoever uses it must sign in again. Devices stay connected.")
        .below("Sessions", "/admin/sessions");
    let form = Form::new(format!("/admin/sessions/{id}/end"), "End the session", Vec::new());
    confirmation(page, &Impact::default(), form.or_back("/admin/sessions")).answer()
}

pub(super) async fn end(
    State(portal): State<SharedPortal>,
    Path(id): Path<Uuid>,
    Edit(visitor, _): Edit,
) -> Result<Response, Refusal> {
    let mut change = portal.store.change(&visitor.by()).await?;
    change.end_web_session(id).await?;
    change.commit().await?;
    Ok(go("/admin/sessions"))
}
