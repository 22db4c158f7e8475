//! Policies.

use adit_policy::{GroupId, PolicyId, ResourceId};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{Admin, Body, Failure, Listed, Params, PathIds, listed};
use crate::portal::SharedPortal;
use crate::store::{Page, Policy};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPolicy {
    group: GroupId,
    resource: ResourceId,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyChange {
    enabled: bool,
}

#[derive(Debug, Serialize)]
pub(super) struct Created {
    id: PolicyId,
}

pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(page): Params<Page>,
) -> Result<Json<Listed<Policy>>, Failure> {
    Ok(listed(page, portal.store.policies(page).await?, |policy| policy.id))
}

pub(super) async fn create(
    State(portal): State<SharedPortal>,
    admin: Admin,
    Body(new): Body<NewPolicy>,
) -> Result<(StatusCode, Json<Created>), Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    let id = change.create_policy(new.group, new.resource).await?;
    change.commit().await?;
    Ok((StatusCode::CREATED, Json(Created { id })))
}

pub(super) async fn update(
    State(portal): State<SharedPortal>,
    admin: Admin,
    PathIds(id): PathIds<PolicyId>,
    Body(wanted): Body<PolicyChange>,
) -> Result<StatusCode, Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    change.set_policy_enabled(id, wanted.enabled).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

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
