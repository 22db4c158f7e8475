//! Who may use which route: every operation of the OpenAPI document, by everybody who must not and everybody who may.

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{World, id};

/// Every operation: method, path below `/api/v1/` with ids of nothing in it, and the scope that it needs.
async fn operations(world: &World) -> Vec<(Method, String, String)> {
    let document = world.admin(Method::GET, "openapi.json", None).await;
    let mut operations = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let path = path.strip_prefix("/api/v1/").unwrap().to_owned();
            let path = path.replace("{id}", &Uuid::from_u128(1).to_string());
            let path = path.replace("{actor}", &Uuid::from_u128(2).to_string());
            let scope = operation["security"][0]["token"][0].as_str().unwrap().to_owned();
            operations.push((method, path, scope));
        }
    }
    assert!(operations.len() > 40, "{}", operations.len());
    operations
}

async fn token_of(world: &World, name: &str, role: &str) -> (String, String) {
    let actor = id(&world.post("actors", json!({ "kind": "user", "name": name, "role": role })).await);
    let made = world.post("tokens", json!({ "kind": "api", "actor": actor })).await;
    (actor, made["token"].as_str().unwrap().to_owned())
}

async fn ask(world: &World, token: &str, (method, path, _): &(Method, String, String)) -> (u16, String) {
    let body = (*method != Method::GET && *method != Method::DELETE).then(|| json!({}));
    let (status, answer) = world.call_as(token, method.clone(), path, body).await;
    (status, answer["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn every_route_asks_who_it_is_and_what_they_may() {
    let world = World::new().await;
    let office = world.office().await;
    let (nobody, of_nobody) = token_of(&world, "nobody", "auditor").await;
    world.patch(&format!("actors/{nobody}"), json!({ "role": "none" })).await;
    let (_, of_auditor) = token_of(&world, "auditor", "auditor").await;
    let (_, of_admin) = token_of(&world, "admin", "admin").await;
    let (disabled, of_disabled) = token_of(&world, "disabled", "admin").await;
    world.patch(&format!("actors/{disabled}"), json!({ "enabled": false })).await;
    for operation in &operations(&world).await {
        let writes = operation.2.ends_with("write");
        let asked = |token: String| {
            let world = &world;
            async move { ask(world, &token, operation).await }
        };
        for (who, token, status, code) in [
            ("a stranger", "adit_api_00000000000000000000000000000001_x", 401, "invalid_token"),
            ("no token", "x", 401, "invalid_token"),
            ("a client", office.client_token.as_str(), 403, "wrong_token_kind"),
            ("a gateway", office.gateway_token.as_str(), 403, "wrong_token_kind"),
            ("a relay", world.relay_token.as_str(), 403, "wrong_token_kind"),
            ("nobody", of_nobody.as_str(), 403, "no_role"),
            ("somebody disabled", of_disabled.as_str(), 401, "revoked_token"),
        ] {
            assert_eq!(asked(token.to_owned()).await, (status, code.to_owned()), "{who}: {operation:?}");
        }
        let (status, code) = asked(of_auditor.clone()).await;
        if writes {
            assert_eq!((status, code.as_str()), (403, "role_too_low"), "auditor: {operation:?}");
        } else {
            assert!(![401, 403].contains(&status) && status < 500, "auditor: {operation:?} {status}");
        }
        for token in [&of_admin, &world.admin] {
            let (status, code) = asked(token.clone()).await;
            assert!(![401, 403].contains(&status) && status < 500, "{operation:?} {status} {code}");
            let names_nothing = operation.1.contains("00000000-");
            assert!(!names_nothing || [400, 404, 422].contains(&status), "{operation:?} {status} {code}");
        }
    }
}

#[tokio::test]
async fn a_token_is_good_for_its_scopes_and_hands_out_no_more() {
    let world = World::new().await;
    let owner = world.admin(Method::GET, "actors", None).await["items"][0]["id"].clone();
    let made = world
        .post("tokens", json!({ "kind": "api", "actor": owner, "scopes": ["sites:read", "tokens:write"] }))
        .await;
    let token = made["token"].as_str().unwrap();
    for operation in &operations(&world).await {
        let (status, code) = ask(&world, token, operation).await;
        let is_allowed = ["sites:read", "tokens:read", "tokens:write"].contains(&operation.2.as_str());
        assert_eq!(code == "scope_missing", !is_allowed, "{operation:?} {status} {code}");
    }
    for (scopes, expected) in [
        (json!(["sites:read"]), 201),
        (json!(["sites:write"]), 403),
        (json!(["read"]), 403),
        (Value::Null, 403),
    ] {
        let body = json!({ "kind": "api", "actor": owner, "scopes": scopes });
        let (status, _) = world.call_as(token, Method::POST, "tokens", Some(body)).await;
        assert_eq!(status, expected, "{scopes}");
    }
    for wrong in [json!([]), json!(["sites"]), json!(["sites:own"]), json!("read")] {
        let body = json!({ "kind": "api", "actor": owner, "scopes": wrong });
        let (status, _) = world.call(Method::POST, "tokens", Some(body)).await;
        assert!([400, 422].contains(&status), "{wrong} {status}");
    }
}

#[tokio::test]
async fn only_owners_change_owners_roles_and_the_tokens_of_others() {
    let world = World::new().await;
    let owner = id(&world.admin(Method::GET, "actors", None).await["items"][0]);
    let (admin, of_admin) = token_of(&world, "admin", "admin").await;
    let (other, of_other) = token_of(&world, "other", "admin").await;
    let others_token = World::token_id(&of_other);
    for (method, path, body) in [
        (Method::PATCH, format!("actors/{owner}"), json!({ "enabled": false })),
        (Method::DELETE, format!("actors/{owner}"), Value::Null),
        (Method::PATCH, format!("actors/{admin}"), json!({ "role": "owner" })),
        (Method::PATCH, format!("actors/{other}"), json!({ "role": "none" })),
        (Method::POST, "actors".to_owned(), json!({ "kind": "user", "name": "x", "role": "admin" })),
        (Method::POST, "tokens".to_owned(), json!({ "kind": "api", "actor": owner })),
        (Method::POST, "tokens".to_owned(), json!({ "kind": "scim" })),
        (Method::POST, format!("tokens/{others_token}/rotate"), json!({})),
        (Method::DELETE, format!("tokens/{others_token}"), Value::Null),
    ] {
        let body = Some(body).filter(|body| !body.is_null());
        let (status, answer) = world.call_as(&of_admin, method, &path, body).await;
        assert_eq!((status, answer["code"].as_str()), (403, Some("role_too_low")), "{path} {answer}");
    }
    let body = json!({ "kind": "api", "actor": admin });
    assert_eq!(world.call_as(&of_admin, Method::POST, "tokens", Some(body)).await.0, 201, "one's own");
    let body = json!({ "enabled": false });
    let path = format!("actors/{other}");
    assert_eq!(world.call_as(&of_admin, Method::PATCH, &path, Some(body)).await.0, 200);
}

#[tokio::test]
async fn there_is_always_an_enabled_owner() {
    let world = World::new().await;
    let owner = id(&world.admin(Method::GET, "actors", None).await["items"][0]);
    let path = format!("actors/{owner}");
    for (method, body) in [
        (Method::PATCH, Some(json!({ "enabled": false }))),
        (Method::PATCH, Some(json!({ "role": "admin" }))),
        (Method::DELETE, None),
    ] {
        let (status, answer) = world.call(method, &path, body).await;
        assert_eq!((status, answer["code"].as_str()), (409, Some("conflict")), "{answer}");
    }
    let (second, of_second) = token_of(&world, "second", "owner").await;
    world.patch(&path, json!({ "role": "auditor" })).await;
    let (status, _) = world.call(Method::POST, "sites", Some(json!({ "name": "x" }))).await;
    assert_eq!(status, 403, "the role of this moment counts, not the one when the token was made");
    let body = Some(json!({ "enabled": false }));
    assert_eq!(world.call_as(&of_second, Method::PATCH, &format!("actors/{second}"), body).await.0, 409);
}

#[tokio::test]
async fn a_token_that_is_rotated_stays_good_for_a_while() {
    let world = World::new().await;
    let owner = id(&world.admin(Method::GET, "actors", None).await["items"][0]);
    let body = json!({ "kind": "api", "actor": owner, "scopes": ["sites:read"], "expires_in": 3600 });
    let made = world.post("tokens", body).await;
    let old = made["token"].as_str().unwrap().to_owned();
    let rotate = |overlap: u64, id: Uuid| {
        let world = &world;
        async move {
            world
                .call(Method::POST, &format!("tokens/{id}/rotate"), Some(json!({ "overlap": overlap })))
                .await
        }
    };
    let (status, new) = rotate(600, World::token_id(&old)).await;
    assert_eq!(status, 201, "{new}");
    let new = new["token"].as_str().unwrap().to_owned();
    for token in [&old, &new] {
        assert_eq!(world.call_as(token, Method::GET, "sites", None).await.0, 200);
        assert_eq!(world.call_as(token, Method::GET, "groups", None).await.0, 403, "the scopes stay");
    }
    let shown = world.admin(Method::GET, &format!("tokens/{}", World::token_id(&old)), None).await;
    let left = shown["expires_ms"].as_i64().unwrap() - jiff::Timestamp::now().as_millisecond();
    assert!((1..=600_000).contains(&left), "{left}");
    let (status, newest) = rotate(0, World::token_id(&new)).await;
    assert_eq!(status, 201);
    let (status, answer) = world.call_as(&new, Method::GET, "sites", None).await;
    assert_eq!((status, answer["code"].as_str()), (401, Some("expired_token")));
    let newest = newest["token"].as_str().unwrap();
    assert_eq!(world.call_as(newest, Method::GET, "sites", None).await.0, 200);
    assert_eq!(rotate(600, World::token_id(&new)).await.0, 409, "it has ended");
    assert_eq!(rotate(8 * 86_400, World::token_id(newest)).await.0, 422);
    let office = world.office().await;
    assert_eq!(rotate(600, World::token_id(&office.client_token)).await.0, 422);
}
