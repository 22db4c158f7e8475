//! Why an actor can or cannot reach a resource.

use adit_policy::{ActorId, Decision, ResourceId};
use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};

use super::{Admin, Failure, Params};
use crate::clock;
use crate::portal::SharedPortal;

#[derive(Debug, Deserialize)]
pub(super) struct Question {
    actor: ActorId,
    resource: ResourceId,
}

#[derive(Debug, Serialize)]
pub(super) struct Answer {
    actor: String,
    resource: String,
    decision: Decision,
    /// One sentence for people.
    text: String,
    /// Gateways of the resource's site that are online now.
    gateways_online: usize,
}

pub(super) async fn explain(
    State(portal): State<SharedPortal>,
    _: Admin,
    Params(question): Params<Question>,
) -> Result<Json<Answer>, Failure> {
    let actor = portal.store.actor(question.actor).await?;
    let resource = portal.store.resource(question.resource).await?;
    let decision = portal.store.explain(clock::now_ms(), question.actor, question.resource).await?;
    let gateways = portal.hub.gateways_of_site(resource.site.id);
    let gateways_online = gateways.iter().filter(|gateway| !gateway.is_draining).count();
    let (who, what) = (&actor.name, &resource.name);
    let text = match &decision {
        Decision::Granted(grant) if gateways_online == 0 => format!(
            "{who} may reach {what} by policy {}, but no gateway of {} is online.",
            grant.policy, resource.site.name
        ),
        Decision::Granted(grant) => format!("{who} may reach {what} by policy {}.", grant.policy),
        Decision::Refused(refusal) => format!("{who} may not reach {what}: {refusal}."),
    };
    Ok(Json(Answer { actor: actor.name, resource: resource.name, decision, text, gateways_online }))
}
