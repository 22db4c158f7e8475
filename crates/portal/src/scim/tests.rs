//! PATCH as Entra and Okta are documented to send it, on the JSON form of a resource.

use serde_json::{Map, Value, json};

use super::patch::Patch;

fn patched(resource: Value, operations: Value) -> Result<Value, String> {
    let Value::Object(mut resource) = resource else { panic!("no object") };
    let request =
        json!({ "schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": operations });
    let patch: Patch = serde_json::from_value(request).map_err(|error| error.to_string())?;
    patch.apply(&mut resource).map_err(|error| format!("{:?}", error.kind))?;
    Ok(Value::Object(resource))
}

#[test]
fn members_come_and_go_in_every_form() {
    let group = json!({ "displayName": "g", "members": [{ "value": "1" }, { "value": "2" }] });
    for (operations, expected) in [
        (json!([{ "op": "Add", "path": "members", "value": [{ "value": "3" }] }]), vec!["1", "2", "3"]),
        (json!([{ "op": "add", "path": "members", "value": [{ "value": "2" }] }]), vec!["1", "2"]),
        (json!([{ "op": "add", "value": { "members": [{ "value": "3" }] } }]), vec!["1", "2", "3"]),
        (json!([{ "op": "Remove", "path": "members", "value": [{ "value": "1" }] }]), vec!["2"]),
        (json!([{ "op": "remove", "path": "members[value eq \"2\"]" }]), vec!["1"]),
        (json!([{ "op": "remove", "path": "members[value eq \"9\"]" }]), vec!["1", "2"]),
        (json!([{ "op": "replace", "path": "members", "value": [{ "value": "7" }] }]), vec!["7"]),
        (json!([{ "op": "replace", "value": { "id": "x", "displayName": "h" } }]), vec!["1", "2"]),
        (
            json!([
                { "op": "remove", "path": "members[value eq \"1\"]" },
                { "op": "add", "path": "members", "value": [{ "value": "5" }] },
            ]),
            vec!["2", "5"],
        ),
    ] {
        let done = patched(group.clone(), operations.clone()).unwrap();
        let members: Vec<&str> =
            done["members"].as_array().unwrap().iter().map(|one| one["value"].as_str().unwrap()).collect();
        assert_eq!(members, expected, "{operations}");
    }
    let all = patched(group.clone(), json!([{ "op": "remove", "path": "members" }])).unwrap();
    assert_eq!(all.get("members"), None);
    let missing = json!([{ "op": "add", "path": "members", "value": [{ "value": "1" }] }]);
    assert_eq!(patched(json!({}), missing).unwrap()["members"], json!([{ "value": "1" }]));
}

#[test]
fn attributes_are_set_whatever_their_names_are_written_like() {
    let enterprise = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";
    let user = json!({ "userName": "a", "active": true, "emails": [{ "type": "work", "value": "a@x" }] });
    for (operation, pointer, expected) in [
        (json!({ "op": "Replace", "path": "active", "value": "False" }), "/active", json!("False")),
        (json!({ "op": "replace", "value": { "active": false } }), "/active", json!(false)),
        (json!({ "op": "replace", "path": "ACTIVE", "value": false }), "/active", json!(false)),
        (json!({ "op": "Add", "path": "name.givenName", "value": "A" }), "/name/givenName", json!("A")),
        (json!({ "op": "Add", "value": { "name.familyName": "B" } }), "/name/familyName", json!("B")),
        (
            json!({ "op": "Replace", "path": "emails[type eq \"work\"].value", "value": "b@x" }),
            "/emails/0/value",
            json!("b@x"),
        ),
        (
            json!({ "op": "Add", "path": "phoneNumbers[type eq \"mobile\"].value", "value": "1" }),
            "/phoneNumbers/0",
            json!({ "type": "mobile", "value": "1" }),
        ),
        (
            json!({ "op": "Add", "path": format!("{enterprise}:department"), "value": "D" }),
            "/urn:ietf:params:scim:schemas:extension:enterprise:2.0:User/department",
            json!("D"),
        ),
        (
            json!({ "op": "replace", "value": { enterprise: { "department": "E" } } }),
            "/urn:ietf:params:scim:schemas:extension:enterprise:2.0:User/department",
            json!("E"),
        ),
    ] {
        let done = patched(user.clone(), json!([operation])).unwrap();
        assert_eq!(done.pointer(pointer), Some(&expected), "{operation} {done}");
    }
    let gone =
        patched(user.clone(), json!([{ "op": "remove", "path": "emails[type eq \"work\"]" }])).unwrap();
    assert_eq!(gone["emails"], json!([]));
}

#[test]
fn what_cannot_be_done_is_named() {
    for (operation, kind) in [
        (json!({ "op": "move", "path": "active" }), "invalidSyntax"),
        (json!({ "op": "remove" }), "noTarget"),
        (json!({ "op": "add", "value": "x" }), "noTarget"),
        (json!({ "op": "add", "path": "members[value", "value": "x" }), "invalidPath"),
        (json!({ "op": "add", "path": "active[value eq \"x\"]", "value": {} }), "invalidPath"),
    ] {
        let error = patched(json!({ "active": true }), json!([operation])).unwrap_err();
        assert!(error.contains(kind), "{operation} {error}");
    }
}

proptest::proptest! {
    #[test]
    fn no_operation_makes_patching_panic(
        op in "(add|replace|remove)", path in "[a-z]{0,3}(\\[[a-z]{1,2} eq \"[a-z]\"\\])?(\\.[a-z])?", start in 0..4_usize,
    ) {
        let starts = [json!({}), json!({ "a": 1 }), json!({ "a": [1, { "b": "c" }] }), json!({ "a": { "b": [] } })];
        let Value::Object(start) = starts[start].clone() else { unreachable!() };
        for value in [json!(null), json!("x"), json!([1]), json!({ "a": { "b": 1 } })] {
            let mut resource: Map<String, Value> = start.clone();
            let request = json!({ "Operations": [{ "op": op, "path": path, "value": value }] });
            let patch: Patch = serde_json::from_value(request).unwrap();
            let _ = patch.apply(&mut resource);
        }
    }
}
