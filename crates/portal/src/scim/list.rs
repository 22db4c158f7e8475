//! Lists: filters, pages, and leaving attributes out (RFC 7644, 3.4.2).

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::filter::Comparison;
use super::{Scim, ScimError};
use crate::store::{DirectoryFilter, Slice};

/// The longest page.
pub(super) const LONGEST_PAGE: i64 = 200;

/// What a list is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Question {
    filter: Option<String>,
    start_index: Option<i64>,
    count: Option<i64>,
    attributes: Option<String>,
    excluded_attributes: Option<String>,
}

/// The query string, with errors in SCIM's form.
pub(super) type Asked = Result<Query<Question>, QueryRejection>;

pub(super) fn question(asked: Asked) -> Result<Question, ScimError> {
    let wrong = |error: QueryRejection| ScimError::invalid("invalidValue", &error.body_text());
    asked.map(|Query(question)| question).map_err(wrong)
}

impl Question {
    /// What the list is limited to; `None` when nothing can match. `name` is the attribute that is the name.
    pub(super) fn filter(&self, name: &str) -> Result<Option<DirectoryFilter>, ScimError> {
        let Some(text) = &self.filter else { return Ok(Some(DirectoryFilter::default())) };
        let wrong = || {
            let detail = format!("filters are {name}, externalId or id, eq, and a text");
            ScimError::invalid("invalidFilter", &detail)
        };
        let Comparison { attribute, value } = Comparison::parse(text).ok_or_else(wrong)?;
        let none = DirectoryFilter::default();
        Ok(match attribute {
            attribute if attribute.eq_ignore_ascii_case(name) => {
                Some(DirectoryFilter { name: Some(value), ..none })
            }
            attribute if attribute.eq_ignore_ascii_case("externalId") => {
                Some(DirectoryFilter { external_id: Some(value), ..none })
            }
            attribute if attribute.eq_ignore_ascii_case("id") => {
                value.parse().ok().map(|id| DirectoryFilter { id: Some(id), ..none })
            }
            _ => return Err(wrong()),
        })
    }

    /// Which part of the list.
    pub(super) fn slice(&self) -> Slice {
        let skip = self.start_index.unwrap_or(1).clamp(1, i64::from(i32::MAX)) - 1;
        Slice { skip, count: self.count.unwrap_or(100).clamp(0, LONGEST_PAGE) }
    }

    /// Whether an attribute is wanted.
    pub(super) fn wants(&self, attribute: &str) -> bool {
        let names = |list: &Option<String>| {
            list.as_ref().map(|list| list.split(',').any(|name| name.trim().eq_ignore_ascii_case(attribute)))
        };
        names(&self.attributes).unwrap_or(true) && !names(&self.excluded_attributes).unwrap_or(false)
    }

    /// A resource with the attributes that are wanted; `schemas` and `id` always are.
    pub(super) fn select(&self, resource: Value) -> Value {
        let Value::Object(resource) = resource else { return resource };
        let wanted = |key: &String| key == "schemas" || key == "id" || self.wants(key);
        Value::Object(resource.into_iter().filter(|(key, _)| wanted(key)).collect::<Map<_, _>>())
    }

    /// A page of a list.
    pub(super) fn answer(&self, total: i64, resources: Vec<Value>) -> Scim {
        let body = json!({
            "schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"],
            "totalResults": total,
            "startIndex": self.slice().skip + 1,
            "itemsPerPage": resources.len(),
            "Resources": resources,
        });
        Scim(StatusCode::OK, body)
    }
}
