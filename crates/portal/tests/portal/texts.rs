//! Texts that would mean something elsewhere: in pages, terminals, headers, SQL and YAML. Here they are texts.

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::world::{World, id};

const TEXTS: [&str; 8] = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "'; DROP TABLE actor; --",
    "{{7*7}} ${7*7} %s%n",
    "name: [&a, *a] # no",
    "\u{202e}gnp.exe",
    "= cmd|' /C calc'!A0",
    "日本語 \u{1f600}",
];

#[tokio::test]
async fn names_come_back_as_they_were_given_through_every_list() {
    let world = World::new().await;
    for text in TEXTS {
        let site = id(&world.post("sites", json!({ "name": text })).await);
        let address = json!({ "type": "dns", "pattern": "wiki.corp" });
        let body = json!({ "name": text, "site": site, "address": address });
        let resource = id(&world.post("resources", body).await);
        let group = id(&world.post("groups", json!({ "name": text })).await);
        let actor = id(&world.post("actors", json!({ "kind": "user", "name": text })).await);
        world.admin(Method::PUT, &format!("groups/{group}/members/{actor}"), None).await;
        world.post("policies", json!({ "group": group, "resource": resource })).await;
        world.post("tokens", json!({ "kind": "relay", "name": text })).await;
        let why = world.admin(Method::GET, &format!("explain?actor={actor}&resource={resource}"), None).await;
        assert!(why["text"].as_str().unwrap().contains(text));
    }
    for (list, name) in [
        ("sites", "name"),
        ("resources", "name"),
        ("groups", "name"),
        ("actors", "name"),
        ("tokens", "name"),
        ("policies", "group_name"),
        ("policies", "resource_name"),
    ] {
        let items = world.admin(Method::GET, list, None).await["items"].clone();
        let names: Vec<&Value> = items.as_array().unwrap().iter().map(|item| &item[name]).collect();
        assert!(TEXTS.iter().all(|text| names.iter().any(|name| **name == *text)), "{list}: {names:?}");
    }
    let file = world.admin(Method::GET, "export", None).await["file"].clone();
    let planned = world.post("plan", json!({ "file": file, "prune": true })).await;
    assert_eq!(planned["changes"], json!([]), "{file}");
}

/// What the portal answers to bytes.
async fn answer(world: &World, request: &str) -> String {
    let mut stream = TcpStream::connect(world.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    tokio::time::timeout(std::time::Duration::from_secs(20), read).await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn nothing_that_a_request_says_becomes_a_header_of_the_answer() {
    let world = World::new().await;
    let head = format!("Host: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\n", world.admin);
    for request in [
        format!("GET /api/v1/sites/%0d%0aX-Evil:%201 HTTP/1.1\r\n{head}\r\n"),
        format!("GET /api/v1/sites?after=%0d%0aX-Evil:%201 HTTP/1.1\r\n{head}\r\n"),
        format!("GET /scim/v2/Users/%0d%0aX-Evil:%201 HTTP/1.1\r\n{head}\r\n"),
        format!(
            "POST /api/v1/sites HTTP/1.1\r\n{head}Idempotency-Key: a%0d%0aX-Evil: 1\r\nContent-Length: 0\r\n\r\n"
        ),
    ] {
        let answer = answer(&world, &request).await;
        let (head, _) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 4") && !head.to_lowercase().contains("\r\nx-evil"), "{answer}");
    }
    let body = json!({ "userName": "a\r\nX-Evil: 1" }).to_string();
    let made = world.post("tokens", json!({ "kind": "scim" })).await;
    let request = format!(
        "POST /scim/v2/Users HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{body}",
        made["token"].as_str().unwrap(),
        body.len()
    );
    assert!(answer(&world, &request).await.starts_with("HTTP/1.1 400"));
}

#[tokio::test]
async fn a_body_that_is_too_long_or_says_so_is_refused() {
    let world = World::new().await;
    for (path, token) in [
        ("/api/v1/sites", world.admin.clone()),
        ("/api/v1/plan", world.admin.clone()),
        (
            "/scim/v2/Users",
            world.post("tokens", json!({ "kind": "scim" })).await["token"].as_str().unwrap().to_owned(),
        ),
    ] {
        let body = format!("{{\"name\":\"{}\"}}", "x".repeat(3 * 1024 * 1024));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.post(format!("http://{}{path}", world.address)).bearer_auth(&token);
        let request = request.header("content-type", "application/json").body(body);
        // The portal may close before all is sent.
        if let Ok(response) = request.send().await {
            assert!([400, 413].contains(&response.status().as_u16()), "{path} {}", response.status());
        }
    }
    let deep = format!("{{\"file\":{}{}}}", "[".repeat(50_000), "]".repeat(50_000));
    let (status, _) = world.call(Method::POST, "plan", Some(json!({ "file": deep }))).await;
    assert_eq!(status, 422, "deep YAML is an error like another");
    assert_eq!(world.call(Method::GET, "sites", None).await.0, 200);
}
