//! What an operator relies on: limits, proxies, a successor, the exported log, and `doctor`.

use std::process::Command;
use std::time::Duration;

use adit_portal::serve;
use reqwest::Method;
use serde_json::Value;

use crate::world::{World, options};

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_listens_before_the_portal_has_stopped() {
    let mut world = World::new().await;
    let office = world.office().await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    let mut successor = options(&world.directory, &world.backend);
    successor.listen = vec![world.address];
    // Without being asked to, nobody shares an address.
    let error = serve::start(&successor, None).await.unwrap_err();
    assert!(format!("{error:#}").contains("cannot listen on"), "{error:#}");
    successor.take_over = true;
    let starting = tokio::spawn(async move { serve::start(&successor, None).await });
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.stop().await;
    while client.peer.try_next().await.is_some() {}
    // The address is never without a listener: whoever comes back is served by the successor.
    let back = world.client(&office.client_token, 2, 2).await;
    assert_eq!(back.id(), client.id());
    starting.await.unwrap().unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_asks_too_often_is_told_when_to_come_back() {
    let mut world = World::new().await;
    world.stop().await;
    let slow = serve::Options { api_rate: 1, ..options(&world.directory, &world.backend) };
    let running = serve::start(&slow, None).await.unwrap();
    world.address = running.addresses()[0];
    let mut refused = None;
    for _ in 0..30 {
        let (status, body) = world.call(Method::GET, "sites", None).await;
        if status == 429 {
            refused = Some(body);
            break;
        }
    }
    assert_eq!(refused.unwrap()["code"], "too_many_requests");
    running.stop().await;
}

/// The log names the address that a declared proxy speaks for, and no other.
#[tokio::test(flavor = "multi_thread")]
async fn a_declared_proxy_says_where_requests_come_from() {
    for (proxies, seen) in [(vec!["127.0.0.0/8".parse().unwrap()], "198.51.100.7"), (Vec::new(), "127.0.0.1")]
    {
        let mut world = World::new().await;
        world.stop().await;
        let behind = serve::Options { behind_proxy: proxies, ..options(&world.directory, &world.backend) };
        let running = serve::start(&behind, None).await.unwrap();
        world.address = running.addresses()[0];
        let answer = reqwest::Client::new()
            .post(format!("http://{}/api/v1/sites", world.address))
            .bearer_auth(&world.admin)
            .header("X-Forwarded-For", "203.0.113.9, 198.51.100.7")
            .json(&serde_json::json!({ "name": "here" }))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 201);
        let log = world.admin(Method::GET, "audit?action=site.create", None).await;
        assert_eq!(log["items"][0]["address"], seen);
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_exported_from_where_somebody_left_off() {
    let world = World::new().await;
    world.office().await;
    let export = async |after: i64| {
        let url = format!("http://{}/api/v1/audit/export?after_seq={after}", world.address);
        let answer = reqwest::Client::new().get(url).bearer_auth(&world.admin).send().await.unwrap();
        assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
        let text = answer.text().await.unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
    };
    let all = export(0).await;
    let numbers: Vec<i64> = all.iter().map(|entry| entry["seq"].as_i64().unwrap()).collect();
    assert_eq!(numbers, (1..=i64::try_from(all.len()).unwrap()).collect::<Vec<_>>());
    assert_eq!(export(numbers[numbers.len() - 2]).await, all[all.len() - 1..]);
    let filtered = world.admin(Method::GET, "audit?action=policy&who=owner", None).await;
    assert_eq!(filtered["items"].as_array().unwrap().len(), 1);
    assert_eq!(filtered["items"][0]["after"]["conditions"], serde_json::json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_what_is_wrong() {
    let world = World::new().await;
    world.office().await;
    let url = format!("http://{}", world.address);
    let data = world.directory.path().join("data");
    let examine = |more: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_adit-portal"))
            .args(["doctor", "--json", "--url", &url, "--data-dir"])
            .arg(&data)
            .args(world.backend.arguments())
            .args(more)
            .output()
            .unwrap();
        let found: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(output.status.success(), found["ok"] == true, "{found}");
        found
    };
    let state = |found: &Value, name: &str| {
        let checks = found["checks"].as_array().unwrap();
        let check =
            checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}: {found}"));
        (check["state"].as_str().unwrap().to_owned(), check["detail"].as_str().unwrap().to_owned())
    };
    let found = examine(&[]);
    assert_eq!(found["ok"], true, "{found}");
    for name in ["files", "certificate", "schema", "database", "clock", "secrets", "audit", "reachable"] {
        assert_eq!(state(&found, name).0, "ok", "{found}");
    }
    assert_eq!(state(&found, "relays").0, "warning");
    let noted = state(&found, "audit").1.rsplit(' ').next().unwrap().to_owned();
    assert_eq!(examine(&["--noted-entry", &noted])["ok"], true);
    let cut_off = format!("9999:{}", noted.split_once(':').unwrap().1);
    assert!(state(&examine(&["--noted-entry", &cut_off]), "audit").1.contains("is missing"));

    use std::os::unix::fs::PermissionsExt as _;
    let key = data.join("secrets/portal.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(state(&examine(&[]), "files").1.contains("portal.key"));
    // Other secrets: nothing fits any more.
    std::fs::write(&key, std::fs::read(data.join("secrets/token-pepper.key")).unwrap()).unwrap();
    let found = examine(&[]);
    assert_eq!(
        (state(&found, "secrets").0.as_str(), state(&found, "audit").0.as_str()),
        ("failed", "failed")
    );
}
