//! The JSON API: what it accepts, what it refuses, and what it leaves in the audit log.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{World, id};

#[tokio::test]
async fn names_are_unique_and_reasonable() {
    let world = World::new().await;
    world.post("sites", json!({ "name": "  office " })).await;
    let (status, answer) = world.call(Method::POST, "sites", Some(json!({ "name": "office" }))).await;
    assert_eq!((status, answer["code"].as_str()), (409, Some("conflict")));
    for name in ["", "   ", "a\u{7}b", &"x".repeat(101)] {
        let (status, answer) = world.call(Method::POST, "sites", Some(json!({ "name": name }))).await;
        assert_eq!((status, answer["code"].as_str()), (422, Some("invalid")), "{name:?}");
    }
}

#[tokio::test]
async fn resources_that_make_no_sense_are_refused_with_the_reason() {
    let world = World::new().await;
    let site = id(&world.post("sites", json!({ "name": "office" })).await);
    for (address, says) in [
        (json!({ "type": "cidr", "network": "0.0.0.0/0" }), "default route"),
        (json!({ "type": "ip", "address": "127.0.0.1" }), "loopback"),
        (json!({ "type": "cidr", "network": "224.0.0.0/8" }), "multicast"),
        (json!({ "type": "ip", "address": "fe80::1" }), "link-local"),
        (json!({ "type": "ip", "address": "100.64.0.9" }), "tunnel addresses"),
        (json!({ "type": "cidr", "network": "100.0.0.0/8" }), "tunnel addresses"),
        (json!({ "type": "dns", "pattern": "corp.*" }), "last label"),
    ] {
        let body = json!({ "name": "x", "site": site, "address": address });
        let (status, answer) = world.call(Method::POST, "resources", Some(body)).await;
        assert_eq!(status, 422, "{address}");
        let detail = answer["detail"].as_str().unwrap();
        assert!(detail.contains(says), "{detail}");
    }
    let address = json!({ "type": "dns", "pattern": "Wiki.Corp." });
    let made = world.post("resources", json!({ "name": "wiki", "site": site, "address": address })).await;
    assert_eq!(made["address"]["pattern"], "wiki.corp");
}

#[tokio::test]
async fn bodies_and_paths_that_cannot_be_read_are_the_callers_fault() {
    let world = World::new().await;
    for (method, path, body) in [
        (Method::POST, "sites", json!({ "nmae": "office" })),
        (Method::POST, "sites", json!({ "name": "a", "extra": 1 })),
        (Method::POST, "sites", json!([])),
        (Method::GET, "sites/not-a-uuid", Value::Null),
        (Method::GET, "sites?limit=many", Value::Null),
        (Method::GET, "sites?limit=0", Value::Null),
        (Method::GET, "sites?limit=501", Value::Null),
        (Method::GET, "explain", Value::Null),
    ] {
        let (status, answer) = world.call(method, path, Some(body).filter(|body| !body.is_null())).await;
        assert_eq!((status, answer["code"].as_str()), (400, Some("bad_request")), "{path} {answer}");
    }
    let (status, answer) = world.call(Method::GET, "nothing", None).await;
    assert_eq!((status, answer["code"].as_str()), (404, Some("not_found")));
    let (status, answer) = world.call(Method::PUT, "sites", None).await;
    assert_eq!((status, answer["code"].as_str()), (405, Some("method_not_allowed")));
    let nowhere = format!("sites/{}", uuid::Uuid::from_u128(1));
    assert_eq!(world.call(Method::DELETE, &nowhere, None).await.0, 404);
    let huge = json!({ "name": "x".repeat(300_000) });
    assert_eq!(world.call(Method::POST, "sites", Some(huge)).await.0, 400);
}

#[tokio::test]
async fn things_that_refer_to_nothing_are_refused() {
    let world = World::new().await;
    let office = world.office().await;
    let nothing = uuid::Uuid::from_u128(1);
    for (path, body) in [
        ("policies", json!({ "group": office.group, "resource": nothing })),
        ("policies", json!({ "group": nothing, "resource": office.resource })),
        ("resources", json!({ "name": "x", "site": nothing, "address": { "type": "internet" } })),
        ("tokens", json!({ "kind": "client", "actor": nothing })),
    ] {
        assert_eq!(world.call(Method::POST, path, Some(body)).await.0, 404, "{path}");
    }
    let (status, _) = world
        .call(Method::POST, "policies", Some(json!({ "group": office.group, "resource": office.resource })))
        .await;
    assert_eq!(status, 409, "the same policy twice");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let world = World::new().await;
    for n in 0..5 {
        world.post("sites", json!({ "name": format!("site-{n}") })).await;
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = world.admin(Method::GET, &format!("sites?limit=2{after}"), None).await;
        seen.extend(page["items"].as_array().unwrap().iter().map(|site| site["name"].clone()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(seen, ["site-0", "site-1", "site-2", "site-3", "site-4"]);
}

#[tokio::test]
async fn everyone_is_in_the_group_of_everyone() {
    let world = World::new().await;
    let office = world.office().await;
    let groups = world.admin(Method::GET, "groups", None).await;
    let everyone =
        id(groups["items"].as_array().unwrap().iter().find(|group| group["everyone"] == true).unwrap());
    let members = world.admin(Method::GET, &format!("groups/{everyone}/members"), None).await;
    assert!(members["items"].as_array().unwrap().iter().any(|actor| actor["id"] == office.actor.as_str()));
    let path = format!("groups/{everyone}/members/{}", office.actor);
    assert_eq!(world.call(Method::DELETE, &path, None).await.0, 409);
    assert_eq!(world.call(Method::DELETE, &format!("groups/{everyone}"), None).await.0, 409);
}

#[tokio::test]
async fn a_token_is_only_for_whom_its_kind_allows() {
    let world = World::new().await;
    let office = world.office().await;
    for body in [
        json!({ "kind": "client" }),
        json!({ "kind": "client", "site": office.site }),
        json!({ "kind": "gateway", "actor": office.actor }),
        json!({ "kind": "relay", "site": office.site }),
        json!({ "kind": "api", "actor": office.actor }),
    ] {
        let (status, answer) = world.call(Method::POST, "tokens", Some(body.clone())).await;
        assert_eq!(status, 422, "{body} {answer}");
    }
    let list = world.admin(Method::GET, "tokens", None).await.to_string();
    assert!(!list.contains("hash") && !list.contains("adit_"), "secrets are never listed");
}

#[tokio::test]
async fn explain_says_why() {
    let world = World::new().await;
    let office = world.office().await;
    let ask = format!("explain?actor={}&resource={}", office.actor, office.resource);
    let text = |answer: Value| answer["text"].as_str().unwrap().to_owned();
    assert!(text(world.admin(Method::GET, &ask, None).await).contains("no gateway of office is online"));
    let _gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let answer = world.admin(Method::GET, &ask, None).await;
    assert_eq!(answer["decision"]["granted"]["policy"], office.policy.as_str());
    world.patch(&format!("policies/{}", office.policy), json!({ "enabled": false })).await;
    assert!(text(world.admin(Method::GET, &ask, None).await).contains("disabled"));
    world.delete(&format!("groups/{}/members/{}", office.group, office.actor)).await;
    assert!(text(world.admin(Method::GET, &ask, None).await).contains("none of the groups"));
}

#[tokio::test]
async fn every_change_and_every_sign_in_is_in_the_audit_log() {
    let world = World::new().await;
    let office = world.office().await;
    let _gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let _client = world.client(&office.client_token, 2, 2).await;
    world.patch(&format!("policies/{}", office.policy), json!({ "enabled": false })).await;
    world.delete(&format!("tokens/{}", World::token_id(&office.client_token))).await;
    // A change that fails leaves no trace of having happened.
    world.call(Method::POST, "sites", Some(json!({ "name": "office" }))).await;
    let log = world.admin(Method::GET, "audit", None).await;
    let entries: Vec<(&str, &str)> = log["items"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|entry| (entry["who"].as_str().unwrap(), entry["action"].as_str().unwrap()))
        .collect();
    let after_bootstrap = entries.iter().position(|entry| *entry == ("owner", "site.create")).unwrap();
    assert_eq!(
        entries[after_bootstrap..],
        [
            ("owner", "site.create"),
            ("owner", "resource.create"),
            ("owner", "group.create"),
            ("owner", "actor.create"),
            ("owner", "membership.add"),
            ("owner", "policy.create"),
            ("owner", "token.create"),
            ("owner", "token.create"),
            ("device-1", "gateway.sign_in"),
            ("device-2", "client.sign_in"),
            ("owner", "policy.disable"),
            ("owner", "token.revoke"),
        ]
    );
}

#[tokio::test]
async fn devices_show_who_is_online() {
    let world = World::new().await;
    let office = world.office().await;
    let client = world.client(&office.client_token, 2, 2).await;
    let online = |list: &Value| list["items"][0]["online"].as_bool().unwrap();
    let list = world.admin(Method::GET, "devices", None).await;
    assert!(online(&list));
    assert_eq!(list["items"][0]["ipv4"], client.init.interface.ipv4.to_string());
    drop(client);
    for _ in 0..100 {
        if !online(&world.admin(Method::GET, "devices", None).await) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("still online");
}

#[tokio::test]
async fn clients_come_back_for_new_settings() {
    let world = World::new().await;
    let office = world.office().await;
    let mut client = world.client(&office.client_token, 1, 1).await;
    assert!(client.init.interface.dns_upstreams.is_empty());
    let wanted = json!({ "dns_upstreams": ["192.0.2.53:53"], "search_domains": ["Corp.Example."] });
    let settings = world.patch("settings", wanted).await;
    assert_eq!(settings["search_domains"], json!(["corp.example"]));
    while client.peer.try_next().await.is_some() {}
    let client = world.client(&office.client_token, 1, 1).await;
    assert_eq!(client.init.interface.dns_upstreams, ["192.0.2.53:53".parse().unwrap()]);
    assert_eq!(client.init.interface.search_domains, ["corp.example"]);
    world.patch("settings", json!({ "dns_upstreams": [] })).await;
    let shown = world.admin(Method::GET, "settings", None).await;
    assert_eq!((&shown["dns_upstreams"], &shown["search_domains"]), (&json!([]), &json!(["corp.example"])));
    for wrong in [
        json!({}),
        json!({ "search_domains": ["*.corp"] }),
        json!({ "search_domains": ["a b"] }),
        json!({ "dns_upstreams": ["192.0.2.53"] }),
    ] {
        let (status, _) = world.call(Method::PATCH, "settings", Some(wrong.clone())).await;
        assert!([400, 422].contains(&status), "{wrong} {status}");
    }
}
