//! SCIM, with requests of the shapes that Entra and Okta are documented to send.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::World;

const ENTERPRISE: &str = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User";

struct Directory<'a> {
    world: &'a World,
    token: String,
    http: reqwest::Client,
}

impl<'a> Directory<'a> {
    async fn new(world: &'a World) -> Self {
        let made = world.post("tokens", json!({ "kind": "scim", "name": "entra" })).await;
        let token = made["token"].as_str().unwrap().to_owned();
        assert!(token.starts_with("adit_scim_"));
        Self { world, token, http: reqwest::Client::builder().no_proxy().build().unwrap() }
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let url = format!("http://{}/scim/v2/{path}", self.world.address);
        let mut request = self.http.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.header("content-type", "application/scim+json").body(body.to_string());
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let kind = response.headers().get("content-type").cloned();
        let text = response.text().await.unwrap();
        assert!(text.is_empty() || kind.unwrap() == "application/scim+json", "{text}");
        (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() })
    }

    async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.call(Method::GET, path, None).await;
        assert_eq!(status, 200, "{path} {answer}");
        answer
    }

    async fn patch(&self, path: &str, operations: Value) -> (u16, Value) {
        let schema = "urn:ietf:params:scim:api:messages:2.0:PatchOp";
        let body = json!({ "schemas": [schema], "Operations": operations });
        self.call(Method::PATCH, path, Some(body)).await
    }

    /// As Entra creates a user.
    async fn user(&self, name: &str) -> String {
        let body = json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User", ENTERPRISE],
            "externalId": format!("ext-{name}"),
            "userName": name,
            "active": true,
            "emails": [{ "primary": true, "type": "work", "value": format!("{name}@corp.example") }],
            "meta": { "resourceType": "User" },
            "name": { "formatted": "Given Family", "familyName": "Family", "givenName": "Given" },
            "roles": [],
        });
        let (status, made) = self.call(Method::POST, "Users", Some(body)).await;
        assert_eq!(status, 201, "{made}");
        made["id"].as_str().unwrap().to_owned()
    }

    async fn group(&self, name: &str, members: &[&str]) -> String {
        let members: Vec<Value> = members.iter().map(|id| json!({ "value": id })).collect();
        let body = json!({
            "schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"],
            "externalId": format!("ext-{name}"), "displayName": name, "members": members,
        });
        let (status, made) = self.call(Method::POST, "Groups", Some(body)).await;
        assert_eq!(status, 201, "{made}");
        made["id"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_user_is_found_created_changed_and_deleted() {
    let world = World::new().await;
    let directory = Directory::new(&world).await;
    let none = directory.get("Users?filter=userName%20eq%20%22ana%22").await;
    assert_eq!((&none["totalResults"], &none["Resources"]), (&json!(0), &json!([])));
    let id = directory.user("ana").await;
    for filter in ["userName eq \"ANA\"", "externalId eq \"ext-ana\"", &format!("id eq \"{id}\"")] {
        let found = directory.get(&format!("Users?filter={}", filter.replace(' ', "%20"))).await;
        assert_eq!(
            (&found["totalResults"], &found["Resources"][0]["id"]),
            (&json!(1), &json!(id)),
            "{filter}"
        );
    }
    let shown = directory.get(&format!("Users/{id}")).await;
    assert_eq!((&shown["name"]["familyName"], &shown["active"]), (&json!("Family"), &json!(true)));
    assert_eq!(shown["meta"]["location"], format!("/scim/v2/Users/{id}"));
    let (status, answer) = directory
        .patch(
            &format!("Users/{id}"),
            json!([
                { "op": "Replace", "path": "userName", "value": "ana.new" },
                { "op": "Add", "path": format!("{ENTERPRISE}:department"), "value": "Mines" },
                { "op": "Replace", "path": "emails[type eq \"work\"].value", "value": "new@corp.example" },
                { "op": "Replace", "path": "active", "value": "False" },
            ]),
        )
        .await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!((&answer["userName"], &answer["active"]), (&json!("ana.new"), &json!(false)));
    assert_eq!(
        (&answer[ENTERPRISE]["department"], &answer["emails"][0]["value"]),
        (&json!("Mines"), &json!("new@corp.example"))
    );
    let actor = world.admin(Method::GET, &format!("actors/{id}"), None).await;
    assert_eq!(
        (&actor["name"], &actor["enabled"], &actor["managed_by"]),
        (&json!("ana.new"), &json!(false), &json!("scim"))
    );
    // As Okta replaces a user.
    let body =
        json!({ "schemas": [], "id": id, "userName": "ana", "active": true, "password": "geheim-geheim" });
    let (status, answer) = directory.call(Method::PUT, &format!("Users/{id}"), Some(body)).await;
    assert_eq!((status, &answer["active"]), (200, &json!(true)), "{answer}");
    assert!(!answer.to_string().contains("geheim") && answer.get("emails").is_none(), "{answer}");
    assert_eq!(directory.call(Method::DELETE, &format!("Users/{id}"), None).await.0, 204);
    let (status, answer) = directory.call(Method::GET, &format!("Users/{id}"), None).await;
    assert_eq!((status, &answer["status"]), (404, &json!("404")));
    let audit = world.admin(Method::GET, "audit", None).await.to_string();
    assert!(audit.contains("scim: entra") && !audit.contains("geheim"));
}

#[tokio::test]
async fn whoever_is_deactivated_or_leaves_a_group_loses_access_at_once() {
    let world = World::new().await;
    let office = world.office().await;
    let directory = Directory::new(&world).await;
    let (ana, ben) = (directory.user("a@corp").await, directory.user("b@corp").await);
    let group = directory.group("miners", &[&ana, &ben]).await;
    world.post("policies", json!({ "group": group, "resource": office.resource })).await;
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut one = world.client(&world.client_token(&ana).await, 2, 2).await;
    let mut two = world.client(&world.client_token(&ben).await, 3, 3).await;
    for client in [&mut one, &mut two] {
        client.request(1, office.resource).await;
        gateway.told().await;
        client.granted().await;
    }
    let path = format!("members[value eq \"{ana}\"]");
    let (status, _) =
        directory.patch(&format!("Groups/{group}"), json!([{ "op": "remove", "path": path }])).await;
    assert_eq!(status, 204);
    assert_eq!(gateway.revoked().await.client, one.id());
    assert_eq!(one.revoked().await.resource, office.resource);
    two.peer.silent().await;
    let operations = json!([{ "op": "replace", "value": { "active": false } }]);
    assert_eq!(directory.patch(&format!("Users/{ben}"), operations).await.0, 200);
    assert_eq!(gateway.revoked().await.client, two.id());
    while two.peer.try_next().await.is_some() {}
    let members = directory.get(&format!("Groups/{group}")).await["members"].clone();
    assert_eq!(members, json!([{ "value": ben, "display": "b@corp", "type": "User" }]));
}

#[tokio::test]
async fn groups_change_in_the_forms_of_both_directories() {
    let world = World::new().await;
    let directory = Directory::new(&world).await;
    let (ana, ben) = (directory.user("ana").await, directory.user("ben").await);
    let group = directory.group("staff", &[]).await;
    let path = format!("Groups/{group}");
    let members = async || {
        let shown = directory.get(&path).await;
        let members = shown["members"].as_array().unwrap().iter();
        members.map(|member| member["display"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for (operations, expected) in [
        (json!([{ "op": "Add", "path": "members", "value": [{ "value": ana }] }]), vec!["ana"]),
        (
            json!([{ "op": "add", "path": "members", "value": [{ "value": ben, "display": "Ben" }] }]),
            vec!["ana", "ben"],
        ),
        (json!([{ "op": "Remove", "path": "members", "value": [{ "value": ana }] }]), vec!["ben"]),
        (
            json!([{ "op": "replace", "path": "members", "value": [{ "value": ana }, { "value": ben }] }]),
            vec!["ana", "ben"],
        ),
        (json!([{ "op": "replace", "value": { "id": group, "displayName": "crew" } }]), vec!["ana", "ben"]),
        (json!([{ "op": "remove", "path": format!("members[value eq \"{ben}\"]") }]), vec!["ana"]),
        (json!([{ "op": "remove", "path": "members" }]), vec![]),
    ] {
        let (status, answer) = directory.patch(&path, operations.clone()).await;
        assert_eq!(status, 204, "{operations} {answer}");
        assert_eq!(members().await, expected, "{operations}");
    }
    let found = directory.get("Groups?filter=displayName%20eq%20%22crew%22&excludedAttributes=members").await;
    assert_eq!((&found["totalResults"], found["Resources"][0].get("members")), (&json!(1), None));
    let nobody =
        json!([{ "op": "add", "path": "members", "value": [{ "value": uuid::Uuid::from_u128(1) }] }]);
    assert_eq!(directory.patch(&path, nobody).await.0, 400);
    // Administrators leave what the directory manages to it.
    let member = format!("groups/{group}/members/{ana}");
    assert_eq!(world.call(Method::PUT, &member, None).await.0, 409);
    assert_eq!(
        world.call(Method::PATCH, &format!("groups/{group}"), Some(json!({ "name": "x" }))).await.0,
        409
    );
    let file = "groups: [{name: crew, members: [ana]}]";
    let (status, answer) = world.call(Method::POST, "plan", Some(json!({ "file": file }))).await;
    assert!(status == 422 && answer["detail"].as_str().unwrap().contains("SCIM manages"), "{answer}");
    assert_eq!(directory.call(Method::DELETE, &path, None).await.0, 204);
}

#[tokio::test]
async fn a_directory_takes_over_whom_nobody_manages_and_nobody_with_power() {
    let world = World::new().await;
    let office = world.office().await;
    let directory = Directory::new(&world).await;
    assert_eq!(directory.get("Users").await["totalResults"], 0, "it sees only what it manages");
    assert_eq!(directory.user("ana").await, office.actor);
    for name in ["owner", "ana", "OWNER"] {
        let body = json!({ "userName": name });
        let (status, answer) = directory.call(Method::POST, "Users", Some(body)).await;
        assert_eq!((status, &answer["scimType"]), (409, &json!("uniqueness")), "{name}");
    }
    let body = json!({ "displayName": "staff" });
    assert_eq!(directory.call(Method::POST, "Groups", Some(body)).await.0, 409, "it has policies already");
    let owner = world.admin(Method::GET, "actors", None).await["items"][0]["id"].as_str().unwrap().to_owned();
    for (method, path, body) in [
        (Method::DELETE, format!("Users/{owner}"), None),
        (Method::PUT, format!("Users/{owner}"), Some(json!({ "userName": "x", "active": false }))),
        (Method::PATCH, format!("Users/{owner}"), Some(json!({ "Operations": [] }))),
        (Method::DELETE, format!("Groups/{}", office.group), None),
        (Method::PATCH, format!("Groups/{}", office.group), Some(json!({ "Operations": [] }))),
    ] {
        assert_eq!(directory.call(method, &path, body).await.0, 404, "{path}");
    }
}

#[tokio::test]
async fn lists_have_pages_and_wrong_requests_are_named() {
    let world = World::new().await;
    let directory = Directory::new(&world).await;
    for name in ["a", "b", "c", "d", "e"] {
        directory.user(name).await;
    }
    let page = directory.get("Users?startIndex=2&count=2").await;
    let users = page["Resources"].as_array().unwrap().iter();
    let names: Vec<&str> = users.map(|user| user["userName"].as_str().unwrap()).collect();
    assert_eq!((names, &page["totalResults"], &page["startIndex"]), (vec!["b", "c"], &json!(5), &json!(2)));
    let counted = directory.get("Users?count=0").await;
    assert_eq!((&counted["totalResults"], &counted["Resources"]), (&json!(5), &json!([])));
    assert_eq!(directory.get("Users?startIndex=-3&count=100000").await["itemsPerPage"], 5);
    for (method, path, body, status, kind) in [
        (Method::GET, "Users?filter=userName%20sw%20%22a%22", None, 400, "invalidFilter"),
        (Method::GET, "Users?filter=title%20eq%20%22a%22", None, 400, "invalidFilter"),
        (Method::GET, "Users?count=many", None, 400, "invalidValue"),
        (Method::POST, "Users", Some(json!([])), 400, "invalidSyntax"),
        (Method::POST, "Users", Some(json!({ "userName": "" })), 400, "invalidValue"),
        (Method::POST, "Users", Some(json!({ "userName": "x\u{7}" })), 400, "invalidValue"),
        (Method::POST, "Users", Some(json!({ "userName": "x", "active": "perhaps" })), 400, "invalidValue"),
        (Method::POST, "Users", Some(json!({ "userName": "x", "title": "t".repeat(40_000) })), 413, ""),
        (Method::POST, "Users", Some(json!({ "userName": "x", "externalId": "ext-a" })), 409, "uniqueness"),
    ] {
        let (got, answer) = directory.call(method, path, body).await;
        assert_eq!((got, answer["scimType"].as_str().unwrap_or_default()), (status, kind), "{path} {answer}");
        assert_eq!(answer["status"], status.to_string());
    }
    for path in [
        "ServiceProviderConfig",
        "ResourceTypes",
        "ResourceTypes/User",
        "Schemas",
        "Schemas/urn:ietf:params:scim:schemas:core:2.0:Group",
    ] {
        directory.get(path).await;
    }
}

#[tokio::test]
async fn only_a_scim_token_is_good_here_and_it_is_good_for_nothing_else() {
    let world = World::new().await;
    let mut directory = Directory::new(&world).await;
    let (status, answer) = world.call_as(&directory.token, Method::GET, "sites", None).await;
    assert_eq!((status, answer["code"].as_str()), (403, Some("wrong_token_kind")));
    for (token, status) in [(world.admin.clone(), 403), ("x".to_owned(), 401)] {
        directory.token = token;
        for (method, path) in [
            (Method::GET, "Users"),
            (Method::POST, "Users"),
            (Method::PUT, "Users/1"),
            (Method::PATCH, "Users/1"),
            (Method::DELETE, "Users/1"),
            (Method::GET, "Groups"),
            (Method::POST, "Groups"),
            (Method::PATCH, "Groups/1"),
            (Method::DELETE, "Groups/1"),
            (Method::GET, "ServiceProviderConfig"),
            (Method::GET, "Schemas"),
            (Method::GET, "ResourceTypes"),
        ] {
            assert_eq!(directory.call(method.clone(), path, None).await.0, status, "{method} {path}");
        }
    }
}
