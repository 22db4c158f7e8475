//! Declarations: what a file would change, doing it, and the file that declares what is there.

use aws_lc_rs::digest;
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Admin, Body, Failure, checked_name, policy, resource};
use crate::plan::{self, Access, Checks, Described, File, Model, Plan};
use crate::portal::{Portal, SharedPortal};

/// A declaration and what to do with it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Declaration {
    /// The file, in YAML.
    #[schema(example = "sites:\n  - name: office\n")]
    file: String,
    /// Whether what the sections of the file do not name is deleted.
    #[serde(default)]
    prune: bool,
    /// Apply only if the plan is the one with this digest.
    digest: Option<String>,
}

/// What a declaration changes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Planned {
    /// In the order in which they are done.
    changes: Vec<Described>,
    /// Who gains or loses access to what, or has it under other conditions.
    access: Vec<Access>,
    /// Names this plan; another plan has another digest.
    digest: String,
    /// Whether it was done.
    applied: bool,
}

/// A file that declares what is there.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Exported {
    /// The file, in YAML.
    file: String,
}

impl Planned {
    fn new(plan: Plan, applied: bool) -> Result<Self, Failure> {
        let Plan { changes, access, .. } = plan;
        let text = serde_json::to_vec(&(&changes, &access)).map_err(Failure::internal)?;
        let digest = digest::digest(&digest::SHA256, &text);
        let digest = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { changes, access, digest, applied })
    }
}

/// What the declaration makes of `now`.
fn wanted(portal: &Portal, now: &Model, declaration: &Declaration) -> Result<Model, Failure> {
    let reason = |failure: Failure| failure.reason();
    let checks = Checks {
        name: &|name| checked_name(name).map(str::to_owned).map_err(reason),
        address: &|address| resource::checked_address(portal, address).map_err(reason),
        conditions: &|conditions| policy::check(conditions).map_err(reason),
        most_filters: resource::MAX_FILTERS,
    };
    let file = File::read(&declaration.file).map_err(|error| Failure::file(&error.to_string()))?;
    now.declared(&file, declaration.prune, checks).map_err(|error| Failure::file(&error.to_string()))
}

/// Says what a declaration would change, and who would gain or lose access.
#[utoipa::path(
    post,
    path = "/api/v1/plan",
    tag = "declarations",
    request_body = Declaration,
    responses((status = 200, description = "Nothing was changed", body = Planned)),
    security(("token" = ["read"])),
)]
pub(super) async fn plan(
    State(portal): State<SharedPortal>,
    _: Admin,
    Body(declaration): Body<Declaration>,
) -> Result<Json<Planned>, Failure> {
    let now = Model::of(&portal.store.inventory().await?)?;
    let wanted = wanted(&portal, &now, &declaration)?;
    Ok(Json(Planned::new(Plan::between(&now, &wanted), false)?))
}

/// Does what a declaration says, all of it or nothing.
#[utoipa::path(
    post,
    path = "/api/v1/apply",
    tag = "declarations",
    request_body = Declaration,
    responses((status = 200, description = "It was done", body = Planned)),
    security(("token" = ["write"])),
)]
pub(super) async fn apply(
    State(portal): State<SharedPortal>,
    admin: Admin,
    Body(declaration): Body<Declaration>,
) -> Result<Json<Planned>, Failure> {
    let mut change = portal.store.change(&admin.by).await?;
    let inventory = change.inventory().await?;
    let now = Model::of(&inventory)?;
    let wanted = wanted(&portal, &now, &declaration)?;
    let plan = Plan::between(&now, &wanted);
    let steps = plan.steps.clone();
    let planned = Planned::new(plan, true)?;
    if declaration.digest.as_ref().is_some_and(|digest| *digest != planned.digest) {
        return Err(Failure::conflict(
            "plan_changed",
            "Something was changed since the plan was made; plan again",
        ));
    }
    plan::apply(&mut change, inventory, &wanted, &steps).await?;
    if !steps.is_empty() {
        change.commit().await?;
    }
    Ok(Json(planned))
}

/// Writes the declaration of what is there; planning it changes nothing.
#[utoipa::path(
    get,
    path = "/api/v1/export",
    tag = "declarations",
    responses((status = 200, description = "Here it is", body = Exported)),
    security(("token" = ["read"])),
)]
pub(super) async fn export(State(portal): State<SharedPortal>, _: Admin) -> Result<Json<Exported>, Failure> {
    let now = Model::of(&portal.store.inventory().await?)?;
    Ok(Json(Exported { file: now.write().map_err(Failure::internal)? }))
}
