//! PATCH (RFC 7644, 3.5.2) on the JSON form of a resource.
//!
//! Directories differ from the letter of the RFC, and are understood: operations in any case, a `remove` of members with
//! the members as value, dotted names and URNs as keys of a value without path, booleans as text. A value path that matches
//! nothing makes what it names, for `replace` as for `add`.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::ScimError;
use super::filter::{Comparison, Path};

/// Operations in one request.
const MOST_OPERATIONS: usize = 1000;

/// A request to change a resource in part.
#[derive(Debug, Deserialize)]
pub(super) struct Patch {
    #[serde(alias = "operations", rename = "Operations")]
    operations: Vec<Operation>,
}

#[derive(Debug, Deserialize)]
struct Operation {
    op: String,
    path: Option<String>,
    #[serde(default)]
    value: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Add,
    Replace,
    Remove,
}

impl Patch {
    /// Does all operations on `resource`.
    pub(super) fn apply(self, resource: &mut Map<String, Value>) -> Result<(), ScimError> {
        if self.operations.len() > MOST_OPERATIONS {
            return Err(ScimError::too_many("a request has at most 1000 operations"));
        }
        for operation in self.operations {
            operation.apply(resource)?;
        }
        Ok(())
    }
}

impl Operation {
    fn apply(self, resource: &mut Map<String, Value>) -> Result<(), ScimError> {
        let kind = match self.op.to_ascii_lowercase().as_str() {
            "add" => Kind::Add,
            "replace" => Kind::Replace,
            "remove" => Kind::Remove,
            _ => return Err(ScimError::invalid("invalidSyntax", "an operation is add, replace or remove")),
        };
        if let Some(path) = &self.path {
            return change(resource, kind, &read_path(path)?, self.value);
        }
        let Value::Object(values) = self.value else {
            return Err(ScimError::invalid("noTarget", "without a path the value is an object"));
        };
        if kind == Kind::Remove {
            return Err(ScimError::invalid("noTarget", "a removal needs a path"));
        }
        for (key, value) in values {
            merge(resource, kind, &key, value)?;
        }
        Ok(())
    }
}

fn read_path(text: &str) -> Result<Path, ScimError> {
    Path::parse(text).ok_or_else(|| ScimError::invalid("invalidPath", "the path cannot be read"))
}

/// One member of a value without path: its name is a path, or the URN of an extension.
fn merge(resource: &mut Map<String, Value>, kind: Kind, key: &str, value: Value) -> Result<(), ScimError> {
    let is_schema = key.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("urn:")) && value.is_object();
    if let (true, Value::Object(values)) = (is_schema, &value) {
        let extension = object(resource, key);
        for (key, value) in values {
            set(extension, kind, key, value.clone());
        }
        return Ok(());
    }
    change(resource, kind, &read_path(key)?, value)
}

fn change(resource: &mut Map<String, Value>, kind: Kind, path: &Path, value: Value) -> Result<(), ScimError> {
    let holder = match &path.extension {
        Some(schema) => object(resource, schema),
        None => resource,
    };
    match (&path.only, &path.part) {
        (None, None) => whole(holder, kind, &path.attribute, value),
        (None, Some(part)) => {
            let inner = object(holder, &path.attribute);
            set(inner, kind, part, value);
        }
        (Some(only), part) => matching(holder, kind, &path.attribute, only, part.as_deref(), value)?,
    }
    Ok(())
}

/// The name under which a map holds an attribute: names are compared without case (RFC 7643, 2.1).
fn key_of(map: &Map<String, Value>, name: &str) -> String {
    map.keys().find(|key| key.eq_ignore_ascii_case(name)).cloned().unwrap_or_else(|| name.to_owned())
}

/// The object under a name, made if need be.
fn object<'a>(map: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    let key = key_of(map, name);
    let value = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(inner) => inner,
        _ => unreachable!("it was just made one"),
    }
}

fn set(map: &mut Map<String, Value>, kind: Kind, name: &str, value: Value) {
    let key = key_of(map, name);
    if kind == Kind::Remove || value.is_null() {
        map.remove(&key);
    } else {
        map.insert(key, value);
    }
}

/// An attribute as a whole; lists grow by `add` and lose what a `remove` names.
fn whole(map: &mut Map<String, Value>, kind: Kind, name: &str, value: Value) {
    let key = key_of(map, name);
    let present = map.get_mut(&key);
    match (kind, present, value) {
        (Kind::Add, Some(Value::Array(list)), value) => {
            let values = if let Value::Array(values) = value { values } else { vec![value] };
            for value in values {
                list.retain(|known| !is_same(known, &value));
                list.push(value);
            }
        }
        (Kind::Remove, Some(Value::Array(list)), Value::Array(values)) if !values.is_empty() => {
            list.retain(|known| !values.iter().any(|value| is_same(known, value)));
        }
        (Kind::Add | Kind::Replace, Some(Value::Object(inner)), Value::Object(values)) => {
            for (key, value) in values {
                set(inner, kind, &key, value);
            }
        }
        (kind, _, value) => set(map, kind, name, value),
    }
}

/// Whether two values of a list mean the same: their `value` decides if they have one.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one.get("value"), other.get("value").or_else(|| other.is_string().then_some(other))) {
        (Some(one), Some(other)) => one == other,
        _ => one == other,
    }
}

/// The values of a list that a comparison picks.
fn matching(
    map: &mut Map<String, Value>,
    kind: Kind,
    name: &str,
    only: &Comparison,
    part: Option<&str>,
    value: Value,
) -> Result<(), ScimError> {
    let key = key_of(map, name);
    let list = map.entry(key).or_insert_with(|| Value::Array(Vec::new()));
    let Value::Array(list) = list else {
        return Err(ScimError::invalid("invalidPath", "only lists are picked from"));
    };
    let is_picked = |entry: &Value| entry.as_object().is_some_and(|entry| is_equal(entry, only));
    if kind == Kind::Remove && part.is_none() {
        list.retain(|entry| !is_picked(entry));
        return Ok(());
    }
    if kind != Kind::Remove && !list.iter().any(is_picked) {
        list.push(json!({ only.attribute.clone(): only.value.clone() }));
    }
    for entry in list.iter_mut().filter(|entry| is_picked(entry)) {
        let Value::Object(entry) = entry else { continue };
        match (part, &value) {
            (Some(part), value) => set(entry, kind, part, value.clone()),
            (None, Value::Object(values)) => {
                values.iter().for_each(|(key, value)| set(entry, kind, key, value.clone()));
            }
            (None, _) => return Err(ScimError::invalid("invalidValue", "the value is an object here")),
        }
    }
    Ok(())
}

fn is_equal(entry: &Map<String, Value>, only: &Comparison) -> bool {
    match entry.get(&key_of(entry, &only.attribute)) {
        Some(Value::String(text)) => text.eq_ignore_ascii_case(&only.value),
        Some(Value::Bool(value)) => value.to_string().eq_ignore_ascii_case(&only.value),
        _ => false,
    }
}
