//! What this service provider can (RFC 7643, 5 to 7).

use axum::extract::Path;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::list::LONGEST_PAGE;
use super::{Directory, Scim, ScimError};

const USER: &str = "urn:ietf:params:scim:schemas:core:2.0:User";
const GROUP: &str = "urn:ietf:params:scim:schemas:core:2.0:Group";

pub(super) async fn provider(_: Directory) -> Scim {
    let no = json!({ "supported": false });
    let body = json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "patch": { "supported": true },
        "bulk": { "supported": false, "maxOperations": 0, "maxPayloadSize": 0 },
        "filter": { "supported": true, "maxResults": LONGEST_PAGE },
        "changePassword": no,
        "sort": no,
        "etag": no,
        "authenticationSchemes": [{
            "type": "oauthbearertoken",
            "name": "Bearer token",
            "description": "A token of the kind scim",
        }],
        "meta": { "resourceType": "ServiceProviderConfig", "location": "/scim/v2/ServiceProviderConfig" },
    });
    Scim(StatusCode::OK, body)
}

fn types() -> [Value; 2] {
    [("User", "/Users", USER), ("Group", "/Groups", GROUP)].map(|(name, endpoint, schema)| {
        json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"],
            "id": name,
            "name": name,
            "endpoint": endpoint,
            "schema": schema,
            "meta": { "resourceType": "ResourceType", "location": format!("/scim/v2/ResourceTypes/{name}") },
        })
    })
}

fn attribute(name: &str, kind: &str, is_required: bool, uniqueness: &str) -> Value {
    json!({
        "name": name, "type": kind, "multiValued": false, "required": is_required, "caseExact": false,
        "mutability": "readWrite", "returned": "default", "uniqueness": uniqueness,
    })
}

fn complex(name: &str, is_list: bool, parts: &[&str]) -> Value {
    let parts: Vec<Value> = parts.iter().map(|part| attribute(part, "string", false, "none")).collect();
    json!({
        "name": name, "type": "complex", "multiValued": is_list, "required": false,
        "mutability": "readWrite", "returned": "default", "subAttributes": parts,
    })
}

fn known() -> [Value; 2] {
    let user = [
        attribute("userName", "string", true, "server"),
        attribute("active", "boolean", false, "none"),
        attribute("displayName", "string", false, "none"),
        complex("name", false, &["formatted", "givenName", "familyName"]),
        complex("emails", true, &["value", "type"]),
    ];
    let group = [
        attribute("displayName", "string", true, "server"),
        complex("members", true, &["value", "display", "type"]),
    ];
    [schema(USER, "User", &user), schema(GROUP, "Group", &group)]
}

fn schema(id: &str, name: &str, attributes: &[Value]) -> Value {
    json!({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Schema"],
        "id": id,
        "name": name,
        "attributes": attributes,
        "meta": { "resourceType": "Schema", "location": format!("/scim/v2/Schemas/{id}") },
    })
}

fn all(resources: &[Value]) -> Scim {
    let body = json!({
        "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
        "totalResults": resources.len(),
        "startIndex": 1,
        "itemsPerPage": resources.len(),
        "Resources": resources,
    });
    Scim(StatusCode::OK, body)
}

fn one(resources: impl IntoIterator<Item = Value>, id: &str) -> Result<Scim, ScimError> {
    let found = resources.into_iter().find(|resource| resource["id"] == id);
    found.map(|resource| Scim(StatusCode::OK, resource)).ok_or_else(ScimError::not_found)
}

pub(super) async fn resource_types(_: Directory) -> Scim {
    all(&types())
}

pub(super) async fn resource_type(_: Directory, Path(id): Path<String>) -> Result<Scim, ScimError> {
    one(types(), &id)
}

pub(super) async fn schemas(_: Directory) -> Scim {
    all(&known())
}

pub(super) async fn schema_of(_: Directory, Path(id): Path<String>) -> Result<Scim, ScimError> {
    one(known(), &id)
}
