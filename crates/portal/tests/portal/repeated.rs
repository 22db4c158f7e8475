//! Requests with an idempotency key, sent more than once.

use reqwest::header::HeaderMap;
use serde_json::{Value, json};

use crate::world::World;

async fn post(world: &World, key: &str, path: &str, body: &Value) -> (u16, Value, HeaderMap) {
    let url = format!("http://{}/api/v1/{path}", world.address);
    let request = reqwest::Client::builder().no_proxy().build().unwrap().post(url);
    let request = request.bearer_auth(&world.admin).header("Idempotency-Key", key).json(body);
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await.unwrap();
    (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() }, headers)
}

#[tokio::test]
async fn a_request_that_is_repeated_is_done_once() {
    let world = World::new().await;
    let body = json!({ "name": "office" });
    let (status, first, headers) = post(&world, "a", "sites", &body).await;
    assert_eq!((status, headers.contains_key("idempotency-replayed")), (201, false));
    let (status, second, headers) = post(&world, "a", "sites", &body).await;
    assert_eq!((status, headers["idempotency-replayed"].to_str().unwrap()), (201, "true"));
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(first, second);
    let (status, answer, _) = post(&world, "b", "sites", &body).await;
    assert_eq!((status, answer["code"].as_str()), (409, Some("conflict")), "another key is another request");
    let (status, answer, headers) = post(&world, "b", "sites", &body).await;
    assert_eq!((status, answer["code"].as_str()), (409, Some("conflict")), "refusals are repeated too");
    assert_eq!(headers["content-type"], "application/problem+json");
    let (status, answer, _) = post(&world, "a", "sites", &json!({ "name": "other" })).await;
    assert_eq!((status, answer["code"].as_str()), (422, Some("idempotency_key_reused")));
    let (status, answer, _) = post(&world, "a", "groups", &body).await;
    assert_eq!((status, answer["code"].as_str()), (422, Some("idempotency_key_reused")), "another path");
}

#[tokio::test]
async fn a_new_tokens_text_is_repeated_and_not_stored_readable() {
    let world = World::new().await;
    let body = json!({ "kind": "relay" });
    let (_, first, _) = post(&world, "a", "tokens", &body).await;
    let (_, second, _) = post(&world, "a", "tokens", &body).await;
    let text = first["token"].as_str().unwrap();
    assert_eq!(second["token"], text);
    let secret = text.rsplit('_').next().unwrap().as_bytes();
    for entry in std::fs::read_dir(world.directory.path().join("data")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            assert!(!bytes.windows(secret.len()).any(|part| part == secret), "{}", path.display());
        }
    }
}

#[tokio::test]
async fn at_the_same_time_one_is_done_and_the_others_wait_or_are_told() {
    let world = World::new().await;
    let body = json!({ "name": "office" });
    let answers = futures_util::future::join_all((0..8).map(|_| post(&world, "a", "sites", &body))).await;
    let made: Vec<&Value> =
        answers.iter().filter(|(status, ..)| *status == 201).map(|(_, answer, _)| &answer["id"]).collect();
    assert!(!made.is_empty() && made.iter().all(|id| *id == made[0]), "{answers:?}");
    let others = answers.iter().filter(|(status, ..)| *status != 201);
    for (status, answer, _) in others {
        assert_eq!((*status, answer["code"].as_str()), (409, Some("in_progress")));
    }
}

#[tokio::test]
async fn keys_are_bounded() {
    let world = World::new().await;
    let body = json!({ "name": "office" });
    for key in ["", "a b", "ä", &"x".repeat(201)] {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.post(format!("http://{}/api/v1/sites", world.address)).bearer_auth(&world.admin);
        let value = reqwest::header::HeaderValue::from_bytes(key.as_bytes()).unwrap();
        let response = request.header("Idempotency-Key", value).json(&body).send().await.unwrap();
        assert_eq!(response.status().as_u16(), 400, "{key:?}");
    }
}
