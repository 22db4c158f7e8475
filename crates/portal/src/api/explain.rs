//! Why an actor can or cannot reach a resource.

use adit_policy::{ActorId, ClientId, Decision, PolicyId, ResourceId, Verdict};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Admin, Failure, Params};
use crate::clock;
use crate::portal::SharedPortal;
use crate::store::Asker;

#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Question {
    actor: ActorId,
    resource: ResourceId,
    /// One of the actor's clients; the one that signed in last when absent.
    device: Option<Uuid>,
}

#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Explanation)]
pub(super) struct Answer {
    actor: String,
    resource: String,
    /// The client whose address, age of sign-in and so on were judged; absent when the actor has none.
    device: Option<Judged>,
    decision: Decision,
    /// What each policy that names the resource does for the actor.
    policies: Vec<PolicyVerdict>,
    /// One sentence for people.
    text: String,
    /// Gateways of the resource's site that are online now.
    gateways_online: usize,
}

#[derive(Debug, Serialize, ToSchema)]
struct Judged {
    id: Uuid,
    name: String,
}

#[derive(Debug, Serialize, ToSchema)]
struct PolicyVerdict {
    policy: PolicyId,
    verdict: Verdict,
}

/// Says why an actor can or cannot reach a resource.
#[utoipa::path(
    get,
    path = "/api/v1/explain",
    tag = "explain",
    params(Question),
    responses((status = 200, description = "Here it is", body = Answer)),
    security(("token" = ["explain:read"])),
)]
pub(super) async fn explain(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(question): Params<Question>,
) -> Result<Json<Answer>, Failure> {
    let actor = portal.store.actor(question.actor).await?;
    let resource = portal.store.resource(question.resource).await?;
    let device = portal.store.client_of(question.actor, question.device).await?;
    let device = device.map(|(id, name)| Judged { id, name });
    let asker = Asker {
        actor: question.actor,
        client: device.as_ref().map(|device| ClientId::from_uuid(device.id)),
        session_expires_ms: None,
    };
    let explained = portal.store.explain(clock::now_ms(), &asker, question.resource).await?;
    let gateways = portal.hub.gateways_of_site(resource.site.id);
    let gateways_online = gateways.iter().filter(|gateway| !gateway.is_draining).count();
    let who = match &device {
        Some(device) => format!("{} on {}", actor.name, device.name),
        None => actor.name.clone(),
    };
    let what = &resource.name;
    let text = match &explained.decision {
        Decision::Granted(grant) if gateways_online == 0 => format!(
            "{who} may reach {what} by policy {}, but no gateway of {} is online.",
            grant.policy, resource.site.name
        ),
        Decision::Granted(grant) => format!("{who} may reach {what} by policy {}.", grant.policy),
        Decision::Refused(refusal) => format!("{who} may not reach {what}: {refusal}."),
    };
    let policies =
        explained.verdicts.into_iter().map(|(policy, verdict)| PolicyVerdict { policy, verdict }).collect();
    Ok(Json(Answer {
        actor: actor.name,
        resource: resource.name,
        device,
        decision: explained.decision,
        policies,
        text,
        gateways_online,
    }))
}
