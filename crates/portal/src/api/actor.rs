//! People and service accounts.

use adit_policy::ActorId;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;

use super::{Admin, Body, Failure, Listed, Params, PathIds, checked_name, listed};
use crate::portal::SharedPortal;
use crate::store::{Actor, ActorKind, Page};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewActor {
    kind: ActorKind,
    name: String,
    #[serde(default)]
    admin: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActorChange {
    enabled: bool,
}

pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<Actor>>, Failure> {
    Ok(listed(page, portal.store.actors(page).await?, |actor| actor.id))
}

pub(super) async fn show(
    State(portal): State<SharedPortal>,
    _: Admin,
    PathIds(id): PathIds<ActorId>,
) -> Result<Json<Actor>, Failure> {
    Ok(Json(portal.store.actor(id).await?))
}

pub(super) async fn create(
    State(portal): State<SharedPortal>,
    admin: Admin,
    Body(new): Body<NewActor>,
) -> Result<(StatusCode, Json<Actor>), Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    let actor = change.create_actor(new.kind, checked_name(&new.name)?, new.admin).await?;
    change.commit().await?;
    Ok((StatusCode::CREATED, Json(actor)))
}

pub(super) async fn update(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<ActorId>,
    Body(wanted): Body<ActorChange>,
) -> Result<Json<Actor>, Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    change.set_actor_enabled(id, wanted.enabled).await?;
    change.commit().await?;
    Ok(Json(portal.store.actor(id).await?))
}

pub(super) async fn delete(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<ActorId>,
) -> Result<StatusCode, Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    change.delete_actor(id).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
