//! Groups and memberships.

use adit_policy::{ActorId, GroupId};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;

use super::{Admin, Body, Failure, Listed, Params, PathIds, checked_name, listed};
use crate::portal::SharedPortal;
use crate::store::{Actor, Group, Page};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewGroup {
    name: String,
}

pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<Group>>, Failure> {
    Ok(listed(page, portal.store.groups(page).await?, |group| group.id))
}

pub(super) async fn create(
    State(portal): State<SharedPortal>,
    admin: Admin,
    Body(new): Body<NewGroup>,
) -> Result<(StatusCode, Json<Group>), Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    let group = change.create_group(checked_name(&new.name)?, false).await?;
    change.commit().await?;
    Ok((StatusCode::CREATED, Json(group)))
}

pub(super) async fn delete(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<GroupId>,
) -> Result<StatusCode, Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    change.delete_group(id).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn members(
    State(portal): State<SharedPortal>,
    _: Admin,
    PathIds(id): PathIds<GroupId>,
    Params(page): Params<Page>,
) -> Result<Json<Listed<Actor>>, Failure> {
    Ok(listed(page, portal.store.members(id, page).await?, |actor| actor.id))
}

pub(super) async fn add(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds((group, actor)): PathIds<(GroupId, ActorId)>,
) -> Result<StatusCode, Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    change.add_member(group, actor).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn remove(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds((group, actor)): PathIds<(GroupId, ActorId)>,
) -> Result<StatusCode, Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    change.remove_member(group, actor).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
