//! `/Users` (RFC 7643, 4.1).

use adit_policy::ActorId;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::list::{Asked, question};
use super::patch::Patch;
use super::{BASE, Directory, Document, Scim, ScimError, instant};
use crate::api::checked_name;
use crate::portal::{Portal, SharedPortal};
use crate::store::{DirectoryFilter, DirectoryUser, Slice, UserContent};

const SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:User";

/// Attributes that the portal itself says, or that must not be kept.
const OWN: [&str; 9] =
    ["schemas", "id", "externalId", "userName", "active", "meta", "groups", "password", "roles"];

/// Bytes of further attributes that are kept of one user.
const LONGEST_ATTRIBUTES: usize = 32 * 1024;

/// A user in JSON.
fn resource(user: &DirectoryUser) -> Value {
    let mut resource: Map<String, Value> =
        user.attributes.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let extensions = resource.keys().filter(|key| key.starts_with("urn:")).cloned();
    let schemas: Vec<String> = std::iter::once(SCHEMA.to_owned()).chain(extensions).collect();
    let modified_ms = user.modified_ms.unwrap_or(user.created_ms);
    let own = json!({
        "schemas": schemas,
        "id": user.id,
        "userName": user.name,
        "active": user.enabled,
        "meta": {
            "resourceType": "User",
            "created": instant(user.created_ms),
            "lastModified": instant(modified_ms),
            "location": format!("{BASE}/Users/{}", user.id),
        },
    });
    if let Value::Object(own) = own {
        resource.extend(own);
    }
    if let Some(external_id) = &user.external_id {
        resource.insert("externalId".to_owned(), external_id.as_str().into());
    }
    Value::Object(resource)
}

/// What a user in JSON asks for.
fn content(resource: Map<String, Value>) -> Result<UserContent, ScimError> {
    let find =
        |name: &str| resource.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let name = find("userName").and_then(Value::as_str).unwrap_or_default();
    let name = checked_name(name)?.to_owned();
    let enabled = match find("active") {
        None | Some(Value::Null) => true,
        Some(value) => boolean(value)?,
    };
    let external_id = external_id(find("externalId"))?;
    let mut attributes: Map<String, Value> = resource
        .iter()
        .filter(|(key, _)| !OWN.iter().any(|own| own.eq_ignore_ascii_case(key)))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    attributes.retain(|_, value| !value.is_null());
    let attributes = Value::Object(attributes).to_string();
    if attributes.len() > LONGEST_ATTRIBUTES {
        return Err(ScimError::too_many("a user has at most 32 KiB of attributes"));
    }
    Ok(UserContent { name, enabled, external_id, attributes })
}

/// Entra writes `"True"` and `"False"`.
fn boolean(value: &Value) -> Result<bool, ScimError> {
    match value {
        Value::Bool(value) => Ok(*value),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(ScimError::invalid("invalidValue", "`active` is true or false")),
    }
}

/// What the directory calls something.
pub(super) fn external_id(value: Option<&Value>) -> Result<Option<String>, ScimError> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.is_empty() && text.len() <= 500 => Ok(Some(text.clone())),
        Some(_) => Err(ScimError::invalid("invalidValue", "`externalId` is a text of at most 500 bytes")),
    }
}

async fn find(portal: &Portal, id: &str) -> Result<DirectoryUser, ScimError> {
    let id: Uuid = id.parse().map_err(|_| ScimError::not_found())?;
    let filter = DirectoryFilter { id: Some(id), ..DirectoryFilter::default() };
    let (_, mut users) = portal.store.directory_users(&filter, Slice { skip: 0, count: 1 }).await?;
    users.pop().ok_or_else(ScimError::not_found)
}

pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Directory,
    asked: Asked,
) -> Result<Scim, ScimError> {
    let question = question(asked)?;
    let Some(filter) = question.filter("userName")? else { return Ok(question.answer(0, Vec::new())) };
    let (total, users) = portal.store.directory_users(&filter, question.slice()).await?;
    let users = users.iter().map(|user| question.select(resource(user))).collect();
    Ok(question.answer(total, users))
}

pub(super) async fn show(
    State(portal): State<SharedPortal>,
    _: Directory,
    Path(id): Path<String>,
    asked: Asked,
) -> Result<Scim, ScimError> {
    let question = question(asked)?;
    Ok(Scim(StatusCode::OK, question.select(resource(&find(&portal, &id).await?))))
}

pub(super) async fn create(
    State(portal): State<SharedPortal>,
    directory: Directory,
    Document(body): Document<Map<String, Value>>,
) -> Result<Scim, ScimError> {
    let content = content(body)?;
    let mut change = portal.store.change(&directory.by).await?;
    let id = change.create_directory_user(&content).await?;
    change.commit().await?;
    Ok(Scim(StatusCode::CREATED, resource(&find(&portal, &id.to_string()).await?)))
}

pub(super) async fn replace(
    State(portal): State<SharedPortal>,
    directory: Directory,
    Path(id): Path<String>,
    Document(body): Document<Map<String, Value>>,
) -> Result<Scim, ScimError> {
    let content = content(body)?;
    let mut change = portal.store.change(&directory.by).await?;
    let user = find(&portal, &id).await?;
    change.update_directory_user(ActorId::from_uuid(user.id), &content).await?;
    change.commit().await?;
    Ok(Scim(StatusCode::OK, resource(&find(&portal, &id).await?)))
}

pub(super) async fn patch(
    State(portal): State<SharedPortal>,
    directory: Directory,
    Path(id): Path<String>,
    Document(patch): Document<Patch>,
) -> Result<Scim, ScimError> {
    // Read while no other change can happen.
    let mut change = portal.store.change(&directory.by).await?;
    let user = find(&portal, &id).await?;
    let Value::Object(mut document) = resource(&user) else { return Err(ScimError::not_found()) };
    patch.apply(&mut document)?;
    change.update_directory_user(ActorId::from_uuid(user.id), &content(document)?).await?;
    change.commit().await?;
    Ok(Scim(StatusCode::OK, resource(&find(&portal, &id).await?)))
}

pub(super) async fn delete(
    State(portal): State<SharedPortal>,
    directory: Directory,
    Path(id): Path<String>,
) -> Result<StatusCode, ScimError> {
    let user = find(&portal, &id).await?;
    let mut change = portal.store.change(&directory.by).await?;
    change.delete_directory_user(ActorId::from_uuid(user.id)).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
