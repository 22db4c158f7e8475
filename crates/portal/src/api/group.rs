//! Groups and memberships.

use adit_policy::{ActorId, GroupId};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{Admin, Body, Failure, Listed, Params, PathIds, checked_name, listed};
use crate::portal::SharedPortal;
use crate::store::{Actor, Group, Page};

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct GroupBody {
    #[schema(min_length = 1, max_length = 100)]
    name: String,
}

/// Lists groups.
#[utoipa::path(
    get,
    path = "/api/v1/groups",
    tag = "groups",
    params(Page),
    responses((status = 200, description = "Here it is", body = Listed<Group>)),
    security(("token" = ["groups:read"])),
)]
pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<Group>>, Failure> {
    Ok(listed(page, portal.store.groups(page).await?, |group| group.id))
}

/// Creates a group.
#[utoipa::path(
    post,
    path = "/api/v1/groups",
    tag = "groups",
    request_body = GroupBody,
    responses((status = 201, description = "Created", body = Group)),
    security(("token" = ["groups:write"])),
)]
pub(super) async fn create(
    State(portal): State<SharedPortal>,
    admin: Admin,
    Body(new): Body<GroupBody>,
) -> Result<(StatusCode, Json<Group>), Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    let group = change.create_group(checked_name(&new.name)?, false).await?;
    change.commit().await?;
    Ok((StatusCode::CREATED, Json(group)))
}

/// Shows a group.
#[utoipa::path(
    get,
    path = "/api/v1/groups/{id}",
    tag = "groups",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "Here it is", body = Group)),
    security(("token" = ["groups:read"])),
)]
pub(super) async fn show(
    State(portal): State<SharedPortal>,
    _: Admin,
    PathIds(id): PathIds<GroupId>,
) -> Result<Json<Group>, Failure> {
    Ok(Json(portal.store.group(id).await?))
}

/// Renames a group.
#[utoipa::path(
    patch,
    path = "/api/v1/groups/{id}",
    tag = "groups",
    params(("id" = Uuid, Path)),
    request_body = GroupBody,
    responses((status = 200, description = "Here it is", body = Group)),
    security(("token" = ["groups:write"])),
)]
pub(super) async fn update(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<GroupId>,
    Body(wanted): Body<GroupBody>,
) -> Result<Json<Group>, Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    change.rename_group(id, checked_name(&wanted.name)?).await?;
    change.commit().await?;
    Ok(Json(portal.store.group(id).await?))
}

/// Deletes a group with its policies.
#[utoipa::path(
    delete,
    path = "/api/v1/groups/{id}",
    tag = "groups",
    params(("id" = Uuid, Path)),
    responses((status = 204, description = "Done")),
    security(("token" = ["groups:write"])),
)]
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

/// Lists the members of a group.
#[utoipa::path(
    get,
    path = "/api/v1/groups/{id}/members",
    tag = "groups",
    params(("id" = Uuid, Path), Page),
    responses((status = 200, description = "Here it is", body = Listed<Actor>)),
    security(("token" = ["groups:read"])),
)]
pub(super) async fn members(
    State(portal): State<SharedPortal>,
    _: Admin,
    PathIds(id): PathIds<GroupId>,
    Params(page): Params<Page>,
) -> Result<Json<Listed<Actor>>, Failure> {
    portal.store.group(id).await?;
    Ok(listed(page, portal.store.members(id, page).await?, |actor| actor.id))
}

/// Makes an actor a member; twice is no error.
#[utoipa::path(
    put,
    path = "/api/v1/groups/{id}/members/{actor}",
    tag = "groups",
    params(("id" = Uuid, Path), ("actor" = Uuid, Path)),
    responses((status = 204, description = "Done")),
    security(("token" = ["groups:write"])),
)]
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

/// Takes an actor out of a group, and ends what the group granted it.
#[utoipa::path(
    delete,
    path = "/api/v1/groups/{id}/members/{actor}",
    tag = "groups",
    params(("id" = Uuid, Path), ("actor" = Uuid, Path)),
    responses((status = 204, description = "Done")),
    security(("token" = ["groups:write"])),
)]
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
