//! Who may use which route.
//!
//! Every operation of the OpenAPI document names the one scope that it needs, and what the document says is what is
//! enforced: the table of permissions is made from it when the portal starts. Before any handler runs, the token is
//! verified, its actor must be enabled and have a role that reads or writes, and the token's scopes must cover the route's.
//! A route that the document does not know needs a scope for everything, so that forgetting one opens nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use adit_policy::ActorId;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::Method;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use utoipa::openapi::path::Operation;
use utoipa::openapi::{OpenApi, PathItem};

use super::scope::{Scope, Scopes};
use super::{Failure, Remote, authenticate};
use crate::clock;
use crate::portal::SharedPortal;
use crate::store::{By, Change, Role, Token, TokenKind};

/// The name of the way to authenticate in the OpenAPI document.
pub(super) const SCHEME: &str = "token";

/// What each route needs.
#[derive(Debug)]
pub(super) struct Permissions(HashMap<(Method, String), Scope>);

impl Permissions {
    /// What the operations of a document say.
    pub(super) fn of(document: &OpenApi) -> Self {
        let operations = document.paths.paths.iter().flat_map(|(path, item)| {
            operations(item).into_iter().map(move |(method, operation)| (method, path, operation))
        });
        let needs = operations
            .filter_map(|(method, path, operation)| Some(((method, path.clone()), scope_of(operation)?)));
        Self(needs.collect())
    }

    fn need(&self, method: &Method, path: Option<&str>) -> Scope {
        // HEAD is answered as GET is.
        let method = if method == Method::HEAD { Method::GET } else { method.clone() };
        let writes = method != Method::GET;
        let known = path.and_then(|path| self.0.get(&(method, path.to_owned())));
        known.cloned().unwrap_or(Scope::new(None, writes))
    }
}

/// The operations of a path with their methods.
pub(super) fn operations(item: &PathItem) -> Vec<(Method, &Operation)> {
    let all = [
        (Method::GET, &item.get),
        (Method::POST, &item.post),
        (Method::PUT, &item.put),
        (Method::PATCH, &item.patch),
        (Method::DELETE, &item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_ref()?))).collect()
}

/// The scope that an operation names.
pub(super) fn scope_of(operation: &Operation) -> Option<Scope> {
    let security = serde_json::to_value(operation.security.as_ref()?).ok()?;
    security.as_array()?.iter().find_map(|way| way.get(SCHEME)?.get(0)?.as_str()?.parse().ok())
}

/// Who makes a request that was let through.
#[derive(Debug, Clone)]
pub(super) struct Admin {
    pub(super) by: By,
    pub(super) role: Role,
    pub(super) actor: ActorId,
    pub(super) token: Token,
    pub(super) scopes: Scopes,
}

impl Admin {
    /// For what only owners may do.
    pub(super) fn owns(&self) -> Result<(), Failure> {
        if self.role.owns() {
            return Ok(());
        }
        Err(Failure::forbidden(
            "role_too_low",
            "Only owners change owners, roles, and the API tokens of others",
        ))
    }

    /// A token hands out no more than it has: otherwise a narrow one would be as good as a wide one.
    pub(super) fn may_hand_out(&self, scopes: &Scopes) -> Result<(), Failure> {
        if self.scopes.cover(scopes) {
            return Ok(());
        }
        Err(Failure::forbidden("scope_missing", "A token cannot make another one that may be used for more"))
    }

    /// Inside a change that disables, enables or deletes `actor`.
    pub(super) async fn governs(&self, change: &mut Change, actor: ActorId) -> Result<(), Failure> {
        let role = change.actor_role(actor).await?;
        if self.role.governs(role) { Ok(()) } else { self.owns() }
    }
}

impl<S: Sync> FromRequestParts<S> for Admin {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parts
            .extensions
            .get()
            .cloned()
            .ok_or_else(|| Failure::internal("a route that asks nobody who they are"))
    }
}

/// Lets a request through to its handler, or not.
pub(super) async fn enforce(
    State((portal, permissions)): State<(SharedPortal, Arc<Permissions>)>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    match admit(&portal, &permissions, &mut parts).await {
        Ok(admin) => {
            parts.extensions.insert(admin);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(failure) => failure.into_response(),
    }
}

async fn admit(
    portal: &SharedPortal,
    permissions: &Permissions,
    parts: &mut Parts,
) -> Result<Admin, Failure> {
    let remote = Remote::from_request_parts(parts, portal).await?;
    let token = authenticate(portal, &parts.headers, TokenKind::Api).await?;
    portal.limit.request_with(Instant::now(), token.token_id()).map_err(Failure::too_many)?;
    let actor = token.actor_id.ok_or_else(|| Failure::internal("an API token without actor"))?;
    let actor = portal.store.actor(ActorId::from_uuid(actor)).await?;
    let need =
        permissions.need(&parts.method, parts.extensions.get::<MatchedPath>().map(MatchedPath::as_str));
    let role = if actor.enabled { actor.role } else { Role::None };
    if !role.reads() {
        return Err(Failure::forbidden(
            "no_role",
            "Only owners, administrators and auditors may use the API",
        ));
    }
    if need.writes() && !role.writes() {
        return Err(Failure::forbidden("role_too_low", "Auditors change nothing"));
    }
    let scopes = Scopes::stored(token.scopes.as_deref());
    if !scopes.allow(&need) {
        let title = format!("The token may not be used for this: it needs the scope {need}");
        return Err(Failure::forbidden("scope_missing", &title));
    }
    note_use(portal, &token).await?;
    let by = By { who: actor.name, address: remote.0.ip().to_string() };
    Ok(Admin { by, role, actor: ActorId::from_uuid(actor.id), token, scopes })
}

/// Notes to the minute when a token was used, so that those that nobody needs are found.
async fn note_use(portal: &SharedPortal, token: &Token) -> Result<(), Failure> {
    const MINUTE: i64 = 60_000;
    let age_ms = token.last_used_ms.map(|at_ms| clock::now_ms() - at_ms);
    if age_ms.is_some_and(|age_ms| (0..MINUTE).contains(&age_ms)) {
        return Ok(());
    }
    let mut change = portal.store.change(&By::system()).await?;
    change.touch_token(token.token_id()).await?;
    Ok(change.commit().await?)
}
