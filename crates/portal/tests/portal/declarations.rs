//! Declarations: planned, applied and exported by a real portal.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::World;

fn steps(planned: &Value) -> Vec<String> {
    let changes = planned["changes"].as_array().unwrap().iter();
    changes.map(|one| format!("{} {} {}", one["action"], one["kind"], one["name"]).replace('"', "")).collect()
}

#[tokio::test]
async fn what_is_exported_plans_to_no_change() {
    let world = World::new().await;
    world.office().await;
    let file = world.admin(Method::GET, "export", None).await["file"].clone();
    assert!(file.as_str().unwrap().contains("wiki.corp"));
    let planned = world.post("plan", json!({ "file": file, "prune": true })).await;
    assert_eq!((planned["changes"].clone(), planned["access"].clone()), (json!([]), json!([])), "{file}");
}

#[tokio::test]
async fn a_plan_changes_nothing_and_applying_it_ends_what_is_lost_at_once() {
    let world = World::new().await;
    let office = world.office().await;
    world.post("actors", json!({ "kind": "user", "name": "ben" })).await;
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    client.request(1, office.resource).await;
    gateway.told().await;
    client.granted().await;
    let file = "
groups:
  - {name: staff, members: [ben]}
resources:
  - {name: git, site: office, type: ip, address: 192.0.2.7, filters: ['tcp/22']}
  - {name: wiki, site: office, type: dns, address: wiki.corp}
policies:
  - {group: staff, resource: git, conditions: {verified_device: true}}
";
    let body = json!({ "file": file });
    let planned = world.post("plan", body.clone()).await;
    let expected = [
        "create resource git",
        "create member staff: ben",
        "create policy staff → git",
        "delete member staff: ana",
    ];
    assert_eq!(steps(&planned), expected);
    assert_eq!(
        planned["access"],
        json!([
            { "actor": "ben", "resource": "git", "before": "never", "after": "under_conditions" },
            { "actor": "ana", "resource": "wiki", "before": "always", "after": "never" },
            { "actor": "ben", "resource": "wiki", "before": "never", "after": "always" },
        ])
    );
    client.peer.silent().await;
    let applied = world.post("apply", body.clone()).await;
    assert_eq!((steps(&applied), &applied["applied"]), (steps(&planned), &json!(true)));
    assert_eq!(gateway.revoked().await.resource, office.resource);
    assert_eq!(steps(&world.post("apply", body).await), [""; 0], "twice is once");
}

#[tokio::test]
async fn applying_is_all_or_nothing_and_what_was_planned() {
    let world = World::new().await;
    world.office().await;
    let file = "sites: [{name: hall}]";
    let planned = world.post("plan", json!({ "file": file })).await;
    world.post("sites", json!({ "name": "hall" })).await;
    let body = json!({ "file": file, "digest": planned["digest"] });
    let (status, answer) = world.call(Method::POST, "apply", Some(body)).await;
    assert_eq!((status, answer["code"].as_str()), (409, Some("plan_changed")));
    let wrong = "sites: [{name: attic}]\npolicies: [{group: staff, resource: nothing}]";
    let (status, answer) = world.call(Method::POST, "apply", Some(json!({ "file": wrong }))).await;
    assert_eq!((status, answer["code"].as_str()), (422, Some("invalid_file")));
    assert!(answer["detail"].as_str().unwrap().starts_with("line 2, column 37: "), "{answer}");
    let sites = world.admin(Method::GET, "sites", None).await.to_string();
    assert!(!sites.contains("attic"), "{sites}");
    let own = "resources: [{name: a, site: office, type: ip, address: 100.64.0.9}]";
    let (_, answer) = world.call(Method::POST, "plan", Some(json!({ "file": own }))).await;
    assert!(answer["detail"].as_str().unwrap().contains("tunnel addresses"), "{answer}");
}

#[tokio::test]
async fn a_portal_can_be_made_from_a_file_and_emptied_by_one() {
    let world = World::new().await;
    let file = "
sites: [{name: a}, {name: b}]
resources:
  - {name: all, site: a, type: internet}
  - {name: net, site: b, type: cidr, address: 10.1.0.0/16}
groups: [{name: g, members: [owner]}, {name: h}]
policies:
  - {group: g, resource: net, enabled: false}
  - {group: Everyone, resource: all}
";
    let applied = world.post("apply", json!({ "file": file })).await;
    assert_eq!(applied["changes"].as_array().unwrap().len(), 9, "{applied}");
    assert_eq!(applied["access"].as_array().unwrap().len(), 1, "a disabled policy grants nothing");
    assert_eq!(steps(&world.post("plan", json!({ "file": file, "prune": true })).await), [""; 0]);
    let nothing = json!({ "file": "sites: []\ngroups: []\npolicies: []\nresources: []", "prune": true });
    world.post("apply", nothing).await;
    let left = world.admin(Method::GET, "export", None).await["file"].as_str().unwrap().to_owned();
    assert!(left.contains("Everyone") && !left.contains("net"), "{left}");
}
