//! People and service accounts.

use adit_policy::ActorId;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::device::{DeviceView, views};
use super::{Admin, Body, Failure, Listed, Params, PathIds, checked_name, listed};
use crate::portal::SharedPortal;
use crate::store::{Actor, ActorKind, Page, Role};

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewActor {
    kind: ActorKind,
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// What it may do with the portal itself; only owners give roles.
    #[serde(default)]
    role: Role,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ActorChange {
    enabled: Option<bool>,
    /// Only owners give and take roles.
    role: Option<Role>,
}

/// Lists people and service accounts.
#[utoipa::path(
    get,
    path = "/api/v1/actors",
    tag = "actors",
    params(Page),
    responses((status = 200, description = "Here it is", body = Listed<Actor>)),
    security(("token" = ["actors:read"])),
)]
pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<Actor>>, Failure> {
    Ok(listed(page, portal.store.actors(page).await?, |actor| actor.id))
}

/// Shows an actor.
#[utoipa::path(
    get,
    path = "/api/v1/actors/{id}",
    tag = "actors",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "Here it is", body = Actor)),
    security(("token" = ["actors:read"])),
)]
pub(super) async fn show(
    State(portal): State<SharedPortal>,
    _: Admin,
    PathIds(id): PathIds<ActorId>,
) -> Result<Json<Actor>, Failure> {
    Ok(Json(portal.store.actor(id).await?))
}

/// Creates an actor; only owners give roles.
#[utoipa::path(
    post,
    path = "/api/v1/actors",
    tag = "actors",
    request_body = NewActor,
    responses((status = 201, description = "Created", body = Actor)),
    security(("token" = ["actors:write"])),
)]
pub(super) async fn create(
    State(portal): State<SharedPortal>,
    admin: Admin,
    Body(new): Body<NewActor>,
) -> Result<(StatusCode, Json<Actor>), Failure> {
    if new.role != Role::None {
        admin.owns()?;
    }
    let mut change = portal.store.change(&admin.by).await?;
    let actor = change.create_actor(new.kind, checked_name(&new.name)?, new.role).await?;
    change.commit().await?;
    Ok((StatusCode::CREATED, Json(actor)))
}

/// Enables or disables an actor, or gives it another role.
#[utoipa::path(
    patch,
    path = "/api/v1/actors/{id}",
    tag = "actors",
    params(("id" = Uuid, Path)),
    request_body = ActorChange,
    responses((status = 200, description = "Here it is", body = Actor)),
    security(("token" = ["actors:write"])),
)]
pub(super) async fn update(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<ActorId>,
    Body(wanted): Body<ActorChange>,
) -> Result<Json<Actor>, Failure> {
    if wanted.enabled.is_none() && wanted.role.is_none() {
        return Err(Failure::invalid("nothing is to be changed: name `enabled` or `role`"));
    }
    let mut change = portal.store.change(&admin.by).await?;
    admin.governs(&mut change, id).await?;
    if let Some(role) = wanted.role {
        admin.owns()?;
        change.set_actor_role(id, role).await?;
    }
    if let Some(enabled) = wanted.enabled {
        change.set_actor_enabled(id, enabled).await?;
    }
    change.commit().await?;
    Ok(Json(portal.store.actor(id).await?))
}

/// Lists the clients of an actor.
#[utoipa::path(
    get,
    path = "/api/v1/actors/{id}/devices",
    tag = "actors",
    params(("id" = Uuid, Path), Page),
    responses((status = 200, description = "Here it is", body = Listed<DeviceView>)),
    security(("token" = ["devices:read"])),
)]
pub(super) async fn devices(
    State(portal): State<SharedPortal>,
    _: Admin,
    PathIds(id): PathIds<ActorId>,
    Params(page): Params<Page>,
) -> Result<Json<Listed<DeviceView>>, Failure> {
    portal.store.actor(id).await?;
    let rows = portal.store.devices_of(id, page).await?;
    Ok(views(&portal, page, rows))
}

/// A link with which a person chooses password and authenticator.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SignInLink {
    /// To be opened in a browser, once, within an hour.
    url: String,
    /// When it ends.
    expires_ms: i64,
}

/// Makes a link with which a person chooses password and authenticator.
///
/// Whoever holds it becomes that person: only owners make one for somebody who has a role.
#[utoipa::path(
    post,
    path = "/api/v1/actors/{id}/sign-in-link",
    tag = "actors",
    params(("id" = Uuid, Path)),
    responses((status = 201, description = "Here it is", body = SignInLink)),
    security(("token" = ["actors:write"])),
)]
pub(super) async fn sign_in_link(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<ActorId>,
) -> Result<(StatusCode, Json<SignInLink>), Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    if change.actor_role(id).await? != Role::None {
        admin.owns()?;
    }
    let (path, expires_ms) = crate::web::make_link(&portal, &mut change, id).await?;
    change.commit().await?;
    let url = portal.store.sign_in_setting().await?.public_url.unwrap_or_default() + &path;
    Ok((StatusCode::CREATED, Json(SignInLink { url, expires_ms })))
}

/// Deletes an actor with its tokens and devices.
#[utoipa::path(
    delete,
    path = "/api/v1/actors/{id}",
    tag = "actors",
    params(("id" = Uuid, Path)),
    responses((status = 204, description = "Done")),
    security(("token" = ["actors:write"])),
)]
pub(super) async fn delete(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<ActorId>,
) -> Result<StatusCode, Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    admin.governs(&mut change, id).await?;
    change.delete_actor(id).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
