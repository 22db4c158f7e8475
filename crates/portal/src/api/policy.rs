//! Policies.

use adit_policy::{Conditions, GroupId, PolicyId, ResourceId};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Admin, Body, Failure, Listed, Params, PathIds, listed};
use crate::portal::SharedPortal;
use crate::store::{Page, Policy};

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPolicy {
    group: GroupId,
    resource: ResourceId,
    #[serde(default)]
    conditions: Conditions,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyChange {
    enabled: Option<bool>,
    /// All of them: those that are not named are gone.
    conditions: Option<Conditions>,
}

#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CreatedPolicy {
    id: PolicyId,
}

/// Refuses conditions that nobody could meet.
pub(crate) fn check(conditions: &Conditions) -> Result<(), Failure> {
    conditions.check().map_err(|error| Failure::invalid(&error.to_string()))?;
    if conditions.region.is_some() {
        return Err(Failure::invalid("this portal does not know which country an address is in"));
    }
    Ok(())
}

/// Lists policies.
#[utoipa::path(
    get,
    path = "/api/v1/policies",
    tag = "policies",
    params(Page),
    responses((status = 200, description = "Here it is", body = Listed<Policy>)),
    security(("token" = ["policies:read"])),
)]
pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<Policy>>, Failure> {
    Ok(listed(page, portal.store.policies(page).await?, |policy| policy.id))
}

/// Shows a policy.
#[utoipa::path(
    get,
    path = "/api/v1/policies/{id}",
    tag = "policies",
    params(("id" = Uuid, Path)),
    responses((status = 200, description = "Here it is", body = Policy)),
    security(("token" = ["policies:read"])),
)]
pub(super) async fn show(
    State(portal): State<SharedPortal>,
    _: Admin,
    PathIds(id): PathIds<PolicyId>,
) -> Result<Json<Policy>, Failure> {
    Ok(Json(portal.store.policy(id).await?))
}

/// Lets a group reach a resource.
#[utoipa::path(
    post,
    path = "/api/v1/policies",
    tag = "policies",
    request_body = NewPolicy,
    responses((status = 201, description = "Created", body = CreatedPolicy)),
    security(("token" = ["policies:write"])),
)]
pub(super) async fn create(
    State(portal): State<SharedPortal>,
    admin: Admin,
    Body(new): Body<NewPolicy>,
) -> Result<(StatusCode, Json<CreatedPolicy>), Failure> {
    check(&new.conditions)?;
    let mut change = portal.store.change(&admin.by).await?;
    let id = change.create_policy(new.group, new.resource, &new.conditions).await?;
    change.commit().await?;
    Ok((StatusCode::CREATED, Json(CreatedPolicy { id })))
}

/// Enables or disables a policy, or gives it other conditions.
#[utoipa::path(
    patch,
    path = "/api/v1/policies/{id}",
    tag = "policies",
    params(("id" = Uuid, Path)),
    request_body = PolicyChange,
    responses((status = 204, description = "Done")),
    security(("token" = ["policies:write"])),
)]
pub(super) async fn update(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<PolicyId>,
    Body(wanted): Body<PolicyChange>,
) -> Result<StatusCode, Failure> {
    if wanted.enabled.is_none() && wanted.conditions.is_none() {
        return Err(Failure::invalid("nothing is to be changed: name `enabled` or `conditions`"));
    }
    let mut change = portal.store.change(&admin.by).await?;
    if let Some(conditions) = &wanted.conditions {
        check(conditions)?;
        change.set_policy_conditions(id, conditions).await?;
    }
    if let Some(enabled) = wanted.enabled {
        change.set_policy_enabled(id, enabled).await?;
    }
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes a policy and ends what it granted.
#[utoipa::path(
    delete,
    path = "/api/v1/policies/{id}",
    tag = "policies",
    params(("id" = Uuid, Path)),
    responses((status = 204, description = "Done")),
    security(("token" = ["policies:write"])),
)]
pub(super) async fn delete(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<PolicyId>,
) -> Result<StatusCode, Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    change.delete_policy(id).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
