//! `/Groups` (RFC 7643, 4.2).

use adit_policy::{ActorId, GroupId};
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::list::{Asked, question};
use super::patch::Patch;
use super::user::external_id;
use super::{BASE, Directory, Document, Scim, ScimError, instant};
use crate::api::checked_name;
use crate::portal::{Portal, SharedPortal};
use crate::store::{DirectoryFilter, DirectoryGroup, Slice};

const SCHEMA: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";

/// Members of one group.
const MOST_MEMBERS: usize = 50_000;

/// What a directory wants a group to be.
struct Content {
    name: String,
    external_id: Option<String>,
    members: Vec<ActorId>,
}

/// A group in JSON, with its members when `has_members` says so.
async fn resource(portal: &Portal, group: &DirectoryGroup, has_members: bool) -> Result<Value, ScimError> {
    let modified_ms = group.modified_ms.unwrap_or(group.created_ms);
    let mut resource = json!({
        "schemas": [SCHEMA],
        "id": group.id,
        "displayName": group.name,
        "meta": {
            "resourceType": "Group",
            "created": instant(group.created_ms),
            "lastModified": instant(modified_ms),
            "location": format!("{BASE}/Groups/{}", group.id),
        },
    });
    if let Some(external_id) = &group.external_id {
        resource["externalId"] = external_id.as_str().into();
    }
    if has_members {
        let members = portal.store.directory_members(group.id).await?;
        let members =
            members.iter().map(|(id, name)| json!({ "value": id, "display": name, "type": "User" }));
        resource["members"] = members.collect();
    }
    Ok(resource)
}

fn content(resource: &Map<String, Value>) -> Result<Content, ScimError> {
    let find =
        |name: &str| resource.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let name = find("displayName").and_then(Value::as_str).unwrap_or_default();
    let members = match find("members") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(list)) => list.iter().map(member).collect::<Result<_, _>>()?,
        Some(_) => return Err(ScimError::invalid("invalidValue", "`members` is a list")),
    };
    if members.len() > MOST_MEMBERS {
        return Err(ScimError::too_many("a group has at most 50000 members"));
    }
    let external_id = external_id(find("externalId"))?;
    Ok(Content { name: checked_name(name)?.to_owned(), external_id, members })
}

fn member(value: &Value) -> Result<ActorId, ScimError> {
    let text = value.get("value").and_then(Value::as_str);
    let id = text.and_then(|text| text.parse::<Uuid>().ok()).map(ActorId::from_uuid);
    id.ok_or_else(|| ScimError::invalid("invalidValue", "a member's `value` is the id of a user"))
}

async fn find(portal: &Portal, id: &str) -> Result<DirectoryGroup, ScimError> {
    let id: Uuid = id.parse().map_err(|_| ScimError::not_found())?;
    let filter = DirectoryFilter { id: Some(id), ..DirectoryFilter::default() };
    let (_, mut groups) = portal.store.directory_groups(&filter, Slice { skip: 0, count: 1 }).await?;
    groups.pop().ok_or_else(ScimError::not_found)
}

pub(super) async fn list(
    State(portal): State<SharedPortal>,
    _: Directory,
    asked: Asked,
) -> Result<Scim, ScimError> {
    let question = question(asked)?;
    let Some(filter) = question.filter("displayName")? else { return Ok(question.answer(0, Vec::new())) };
    let (total, groups) = portal.store.directory_groups(&filter, question.slice()).await?;
    let mut resources = Vec::with_capacity(groups.len());
    for group in &groups {
        resources.push(question.select(resource(&portal, group, question.wants("members")).await?));
    }
    Ok(question.answer(total, resources))
}

pub(super) async fn show(
    State(portal): State<SharedPortal>,
    _: Directory,
    Path(id): Path<String>,
    asked: Asked,
) -> Result<Scim, ScimError> {
    let question = question(asked)?;
    let group = find(&portal, &id).await?;
    Ok(Scim(StatusCode::OK, question.select(resource(&portal, &group, question.wants("members")).await?)))
}

pub(super) async fn create(
    State(portal): State<SharedPortal>,
    directory: Directory,
    Document(body): Document<Map<String, Value>>,
) -> Result<Scim, ScimError> {
    let content = content(&body)?;
    let mut change = portal.store.change(&directory.by).await?;
    let id = change.create_directory_group(&content.name, content.external_id, &content.members).await?;
    change.commit().await?;
    let group = find(&portal, &id.to_string()).await?;
    Ok(Scim(StatusCode::CREATED, resource(&portal, &group, true).await?))
}

pub(super) async fn replace(
    State(portal): State<SharedPortal>,
    directory: Directory,
    Path(id): Path<String>,
    Document(body): Document<Map<String, Value>>,
) -> Result<Scim, ScimError> {
    let content = content(&body)?;
    let mut change = portal.store.change(&directory.by).await?;
    let group = GroupId::from_uuid(find(&portal, &id).await?.id);
    change.update_directory_group(group, &content.name, content.external_id, &content.members).await?;
    change.commit().await?;
    let group = find(&portal, &id).await?;
    Ok(Scim(StatusCode::OK, resource(&portal, &group, true).await?))
}

pub(super) async fn patch(
    State(portal): State<SharedPortal>,
    directory: Directory,
    Path(id): Path<String>,
    Document(patch): Document<Patch>,
) -> Result<StatusCode, ScimError> {
    // Read while no other change can happen.
    let mut change = portal.store.change(&directory.by).await?;
    let group = find(&portal, &id).await?;
    let Value::Object(mut document) = resource(&portal, &group, true).await? else {
        return Err(ScimError::not_found());
    };
    patch.apply(&mut document)?;
    let content = content(&document)?;
    let id = GroupId::from_uuid(group.id);
    change.update_directory_group(id, &content.name, content.external_id, &content.members).await?;
    change.commit().await?;
    // RFC 7644, 3.5.2 allows it, and nobody wants a list of ten thousand members for each that is added.
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn delete(
    State(portal): State<SharedPortal>,
    directory: Directory,
    Path(id): Path<String>,
) -> Result<StatusCode, ScimError> {
    let group = find(&portal, &id).await?;
    let mut change = portal.store.change(&directory.by).await?;
    change.delete_directory_group(GroupId::from_uuid(group.id)).await?;
    change.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}
