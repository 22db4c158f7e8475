//! Signing in with OpenID Connect: with a real provider, and with one that lies.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use adit_protocol::PortalToClient;
use adit_protocol::client::DisconnectReason;
use reqwest::Method;
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use serde_json::{Value, json};
use url::Url;

use crate::device_sign_in::{device_token, live};
use crate::real_provider::RealProvider;
use crate::scripted_provider::{Mood, ScriptedProvider, Signed};
use crate::world::{World, id};

/// A browser with a jar of cookies for each host, which follows nothing by itself.
struct Browser {
    http: reqwest::Client,
    portal: String,
    jars: BTreeMap<String, BTreeMap<String, String>>,
}

#[derive(Debug)]
struct Page {
    status: u16,
    location: String,
    text: String,
}

impl Browser {
    fn new(world: &World) -> Self {
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        let portal = format!("http://{}", world.address);
        Self { http: http.build().unwrap(), portal, jars: BTreeMap::new() }
    }

    async fn send(&mut self, url: &str, form: Option<&[(&str, &str)]>) -> Page {
        let url = match url.strip_prefix("https://localhost").unwrap_or(url) {
            path if path.starts_with('/') => format!("{}{path}", self.portal),
            url => url.to_owned(),
        };
        let origin = Url::parse(&url).unwrap().origin().ascii_serialization();
        let jar = self.jars.entry(origin).or_default();
        let cookies: Vec<String> = jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = match form {
            None => self.http.get(&url),
            Some(fields) => {
                let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
                let request =
                    self.http.post(&url).header("content-type", "application/x-www-form-urlencoded");
                request.body(body)
            }
        };
        if !cookies.is_empty() {
            request = request.header(COOKIE, cookies.join("; "));
        }
        let response = request.send().await.unwrap();
        for value in response.headers().get_all(SET_COOKIE) {
            let text = value.to_str().unwrap();
            let (name, value) = text.split(';').next().unwrap().split_once('=').unwrap();
            if value.is_empty() {
                jar.remove(name);
            } else {
                jar.insert(name.to_owned(), value.to_owned());
            }
        }
        let location = response.headers().get(LOCATION).map(|value| value.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        Page { status, location: location.unwrap_or_default(), text: response.text().await.unwrap() }
    }

    async fn get(&mut self, url: &str) -> Page {
        self.send(url, None).await
    }

    /// Begins a sign-in; the state and the nonce that the provider is given.
    async fn begin(&mut self, path: &str) -> (String, String) {
        let page = self.get(path).await;
        assert_eq!(page.status, 303, "{}", page.text);
        let url = Url::parse(&page.location).unwrap();
        let query: BTreeMap<_, _> = url.query_pairs().into_owned().collect();
        assert_eq!(query["code_challenge_method"], "S256");
        (query["state"].clone(), query["nonce"].clone())
    }

    /// Walks from the sign-in page through the provider's own pages and back, as `login`, to the portal's last answer.
    /// Also how often the provider asked who it is.
    async fn walk(&mut self, path: &str, login: &str) -> (Page, usize) {
        let mut page = self.get(path).await;
        let mut asked = 0;
        for _ in 0..12 {
            if page.status == 200 && page.text.contains("name=\"prompt\" value=\"login\"") {
                asked += 1;
                let action =
                    page.text.split("action=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
                let form = [("prompt", "login"), ("login", login), ("password", "x")];
                page = self.send(&action, Some(&form)).await;
                continue;
            }
            if page.status != 303 && page.status != 302 {
                break;
            }
            let issuer = self.jars.keys().find(|origin| **origin != self.portal).cloned().unwrap_or_default();
            let is_back = page.location.starts_with("https://localhost/sign-in/with/");
            let next = if page.location.starts_with('/') {
                format!("{issuer}{}", page.location)
            } else {
                page.location
            };
            page = self.get(&next).await;
            if is_back {
                break;
            }
        }
        (page, asked)
    }

    /// The same session in a browser for the portal's pages alone.
    fn at_the_portal(&self, world: &World) -> crate::sign_in::Browser {
        let session = &self.jars[&self.portal]["__Host-adit"];
        let mut browser = crate::sign_in::Browser::new(world);
        browser.cookie = Some(format!("__Host-adit={session}"));
        browser
    }

    fn is_signed_in(&self) -> bool {
        self.jars.get(&self.portal).is_some_and(|jar| jar.contains_key("__Host-adit"))
    }
}

async fn add(world: &World, issuer: &str, more: Value) -> String {
    let mut body = json!({ "name": "corp", "issuer": issuer, "client_id": "adit" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    id(&world.post("providers", body).await)
}

fn callback(code: &str, state: &str) -> String {
    format!("/sign-in/with/corp/callback?code={code}&state={state}")
}

async fn actors(world: &World) -> Vec<Value> {
    world.admin(Method::GET, "actors", None).await["items"].as_array().unwrap().clone()
}

async fn named(world: &World, list: &str, name: &str) -> Option<Value> {
    let items = world.admin(Method::GET, list, None).await["items"].as_array().unwrap().clone();
    items.into_iter().find(|item| item["name"] == name)
}

/// The reasons of refused sign-ins, as the audit log has them.
async fn reasons(world: &World) -> Vec<String> {
    let audit = world.admin(Method::GET, "audit", None).await;
    for secret in [REAL, "secret detail", "secret access"] {
        assert!(!audit.to_string().contains(secret), "no secret in the audit log: {audit}");
    }
    let rows = audit["items"].as_array().unwrap();
    let refused = rows.iter().filter(|row| row["action"] == "sign_in.refused");
    refused.map(|row| row["detail"]["reason"].as_str().unwrap().to_owned()).collect()
}

fn ana(groups: &[&str]) -> Value {
    json!({ "ana": { "preferred_username": "ana@corp.example", "email": "ana@corp.example", "email_verified": true, "groups": groups } })
}

const REAL: &str = "a secret with + and %";

#[tokio::test]
async fn with_a_real_provider_a_person_becomes_a_user_and_groups_come_and_go() {
    let world = World::new().await;
    let office = world.office().await;
    let provider = RealProvider::new(&ana(&["engineers", "staff"])).await;
    let more =
        json!({ "client_secret": REAL, "scopes": "openid profile email groups", "group_claim": "groups" });
    add(&world, &provider.issuer, more).await;

    let mut browser = Browser::new(&world);
    let page = browser.get("/sign-in?next=/x").await;
    assert!(page.text.contains("/sign-in/with/corp?next=%2Fx"), "{}", page.text);
    let (page, asked) = browser.walk("/sign-in/with/corp?next=/x", "ana").await;
    assert_eq!((page.status, page.location.as_str(), asked), (303, "/x", 1), "{}", page.text);
    assert!(browser.is_signed_in());
    let made = named(&world, "actors", "ana@corp.example").await.unwrap();
    assert_eq!((&made["role"], &made["kind"]), (&json!("none"), &json!("user")));
    let sessions = world.admin(Method::GET, "sessions", None).await;
    assert_eq!(sessions["items"][0]["provider"], "corp");

    // The group of this name that an administrator made is another one.
    let theirs = named(&world, "groups", "staff (corp)").await.unwrap();
    assert_eq!(theirs["managed_by"], "oidc");
    let members = world.admin(Method::GET, &format!("groups/{}/members", office.group), None).await;
    assert!(!members.to_string().contains("corp.example"));
    let engineers = id(&named(&world, "groups", "engineers").await.unwrap());
    let by_hand = format!("groups/{engineers}/members/{}", office.actor);
    assert_eq!(world.call(Method::PUT, &by_hand, None).await.0, 409, "members are the provider's business");

    // What the group gives goes with it, at once.
    let policy = json!({ "group": engineers, "resource": office.resource });
    world.post("policies", policy).await;
    let token = world.client_token(&id(&made)).await;
    let mut gateway = world.gateway(&office.gateway_token, 2, 2).await;
    let mut client = world.client(&token, 1, 1).await;
    client.request(1, office.resource).await;
    let granted = client.granted().await;
    gateway.told().await;
    provider.says(&ana(&["staff"]));
    let (page, asked) = browser.walk("/sign-in/with/corp?next=/y", "ana").await;
    assert_eq!((page.location.as_str(), asked), ("/y", 0), "the provider's own session is enough");
    assert_eq!(gateway.revoked().await.id, granted.id);
    assert_eq!(client.revoked().await.id, granted.id);
    assert_eq!(
        actors(&world).await.len(),
        3,
        "the same person is the same user: owner, ana, ana@corp.example"
    );

    // Asked for anew, the provider asks whatever session there is.
    let (page, asked) = browser.walk("/sign-in/with/corp?next=/z&again=1", "ana").await;
    assert_eq!((page.location.as_str(), asked), ("/z", 1), "{}", page.text);
    assert!(reasons(&world).await.is_empty());
}

/// A world with a scripted provider.
async fn scripted(more: Value) -> (World, ScriptedProvider, String) {
    let world = World::new().await;
    let provider = ScriptedProvider::new().await;
    let id = add(&world, &provider.issuer, more).await;
    (world, provider, id)
}

/// Signs `subject` in with more claims than usual.
async fn sign_in(world: &World, provider: &ScriptedProvider, subject: &str, more: Value) -> (Browser, Page) {
    let mut browser = Browser::new(world);
    let (state, nonce) = browser.begin("/sign-in/with/corp").await;
    let mut claims = provider.claims(subject, &nonce);
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    provider.set(|script| script.claims = claims);
    let page = browser.get(&callback("code", &state)).await;
    (browser, page)
}

#[tokio::test]
async fn an_answer_is_good_once_and_only_in_the_browser_that_asked() {
    let (world, provider, _) = scripted(json!({})).await;
    let mut browser = Browser::new(&world);
    let (state, nonce) = browser.begin("/sign-in/with/corp?next=https://evil.example/").await;
    let claims = provider.claims("ana", &nonce);
    provider.set(|script| script.claims = claims);
    let elsewhere = Browser::new(&world).get(&callback("code", &state)).await;
    assert_eq!(elsewhere.status, 400, "a browser that began nothing");
    let mut other = Browser::new(&world);
    other.begin("/sign-in/with/corp").await;
    assert_eq!(other.get(&callback("code", &state)).await.status, 400, "a browser that began another one");
    assert!(!other.is_signed_in());
    let page = browser.get(&callback("code", &state)).await;
    assert_eq!(
        (page.status, page.location.as_str()),
        (303, "/"),
        "and nobody is sent elsewhere: {}",
        page.text
    );
    assert!(browser.is_signed_in());
    assert_eq!(browser.get(&callback("code", &state)).await.status, 400, "a second time");

    let mut browser = Browser::new(&world);
    browser.begin("/sign-in/with/corp").await;
    assert_eq!(browser.get(&callback("code", "wrong")).await.status, 400);
    assert_eq!(browser.get(&callback("code", "wrong")).await.status, 400);
    let all_alike = reasons(&world).await;
    assert!(
        all_alike.iter().all(|reason| reason == "no sign-in is under way in this browser"),
        "{all_alike:?}"
    );
}

#[tokio::test]
async fn answers_of_another_issuer_and_refusals_end_the_sign_in() {
    let (world, provider, _) = scripted(json!({})).await;
    for (more, status, reason) in [
        ("code=x&iss=https://evil.example", 403, "the answer is from another issuer"),
        ("error=access_denied", 403, "the provider declined: access_denied"),
        ("error=%3Cscript%3E", 403, "the provider declined: unknown error"),
        ("", 403, "the answer holds no code"),
    ] {
        let mut browser = Browser::new(&world);
        let (state, nonce) = browser.begin("/sign-in/with/corp").await;
        let claims = provider.claims("ana", &nonce);
        provider.set(|script| script.claims = claims);
        let page = browser.get(&format!("/sign-in/with/corp/callback?state={state}&{more}")).await;
        assert_eq!((page.status, browser.is_signed_in()), (status, false), "{more}");
        assert!(!page.text.contains("<script"), "{}", page.text);
        assert!(reasons(&world).await.contains(&reason.to_owned()), "{reason}");
    }
}

#[tokio::test]
async fn no_forged_token_signs_anybody_in() {
    let (world, provider, _) = scripted(json!({ "client_secret": "secret" })).await;
    let now = 1_000_000;
    let forgeries = [
        json!({ "nonce": "another" }),
        json!({ "nonce": null }),
        json!({ "aud": "another" }),
        json!({ "aud": ["adit", "another"] }),
        json!({ "azp": "another" }),
        json!({ "iss": "https://evil.example" }),
        json!({ "exp": now }),
        json!({ "iat": 4_000_000_000_u64 }),
        json!({ "sub": "" }),
    ];
    for forged in forgeries {
        let (browser, page) = sign_in(&world, &provider, "ana", forged.clone()).await;
        assert_eq!((page.status, browser.is_signed_in()), (403, false), "{forged}");
    }
    for signed in [Signed::WithAnotherKey, Signed::Not, Signed::WithTheSecret, Signed::ThenChanged] {
        provider.set(|script| script.signed = signed);
        let (browser, page) = sign_in(&world, &provider, "ana", json!({})).await;
        assert_eq!((page.status, browser.is_signed_in()), (403, false), "{signed:?}");
    }
    provider.set(|script| script.signed = Signed::Well);
    assert_eq!(actors(&world).await.len(), 1, "nobody was made a user");
    assert_eq!(sign_in(&world, &provider, "ana", json!({})).await.1.status, 303, "and a good one does");
}

#[tokio::test]
async fn new_keys_are_found_and_not_asked_for_all_the_time() {
    let (world, provider, _) = scripted(json!({})).await;
    assert_eq!(sign_in(&world, &provider, "ana", json!({})).await.1.status, 303);
    provider.makes_a_new_key();
    assert_eq!(sign_in(&world, &provider, "ana", json!({})).await.1.status, 303);
    provider.set(|script| script.signed = Signed::WithAnotherKey);
    assert_eq!(sign_in(&world, &provider, "ana", json!({})).await.1.status, 403);
    assert_eq!(provider.script.lock().unwrap().key_fetches, 2);
}

#[tokio::test]
async fn a_provider_that_fails_costs_a_clear_page_and_little_else() {
    let (world, provider, id) = scripted(json!({ "client_secret": "secret" })).await;
    for (mood, most) in [(Mood::Fails, 5), (Mood::NeverStops, 8), (Mood::IsSilent, 14)] {
        provider.set(|script| script.mood = mood);
        let begun = Instant::now();
        let (browser, page) = sign_in(&world, &provider, "ana", json!({})).await;
        assert_eq!((page.status, browser.is_signed_in()), (502, false), "{mood:?}");
        assert!(begun.elapsed() < Duration::from_secs(most), "{mood:?} took {:?}", begun.elapsed());
        assert!(page.text.contains("corp cannot be reached") && !page.text.contains("secret detail"));
    }
    // Documents that lead elsewhere, or that are somebody else's. A change of settings makes the portal look anew.
    for (field, value) in [
        ("issuer", "https://evil.example"),
        ("token_endpoint", "http://evil.example/token"),
        ("authorization_endpoint", "http://evil.example/"),
        ("jwks_uri", "http://192.0.2.1/keys"),
    ] {
        let good = provider.script.lock().unwrap().document.clone();
        provider.set(|script| {
            script.mood = Mood::Answers;
            script.document[field] = value.into();
        });
        world.patch(&format!("providers/{id}"), json!({ "just_in_time": true })).await;
        let mut browser = Browser::new(&world);
        let page = browser.get("/sign-in/with/corp").await;
        if field == "token_endpoint" {
            assert_eq!(sign_in(&world, &provider, "ana", json!({})).await.1.status, 502);
        } else {
            assert_eq!(page.status, 502, "{field}");
        }
        provider.set(|script| script.document = good);
    }
    world.patch(&format!("providers/{id}"), json!({ "just_in_time": true })).await;
    drop(provider);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut browser = Browser::new(&world);
    assert_eq!(browser.get("/sign-in/with/corp").await.status, 502);
    assert_eq!(browser.get("/sign-in").await.status, 200, "who has a password signs in as ever");
}

#[tokio::test]
async fn nobody_becomes_somebody_else() {
    let (world, provider, id) = scripted(json!({ "just_in_time": false })).await;
    let said = json!({ "preferred_username": "owner", "email": "owner", "email_verified": true });
    assert_eq!(sign_in(&world, &provider, "s1", said.clone()).await.1.status, 403, "nobody knows them");
    world.patch(&format!("providers/{id}"), json!({ "just_in_time": true })).await;
    assert_eq!(sign_in(&world, &provider, "s1", said).await.1.status, 303);
    let made = named(&world, "actors", "owner (corp)").await.unwrap();
    assert_eq!(made["role"], "none", "the owner is somebody else");
    world.patch(&format!("actors/{}", made["id"].as_str().unwrap()), json!({ "enabled": false })).await;
    assert_eq!(sign_in(&world, &provider, "s1", json!({})).await.1.status, 403, "disabled");

    // People of the directory: by an address that is verified, if the owner trusts the provider with that.
    let token = world.post("tokens", json!({ "kind": "scim" })).await["token"].as_str().unwrap().to_owned();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let user =
        json!({ "schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": "eva@corp.example" });
    let url = format!("http://{}/scim/v2/Users", world.address);
    assert_eq!(http.post(url).bearer_auth(&token).json(&user).send().await.unwrap().status(), 201);
    let eva = |verified: bool| json!({ "preferred_username": "x", "email": "eva@corp.example", "email_verified": verified });
    let count = actors(&world).await.len();
    assert_eq!(sign_in(&world, &provider, "s2", eva(true)).await.1.status, 303);
    assert_eq!(actors(&world).await.len(), count + 1, "without that trust they are somebody new");
    let change = json!({ "links_directory": true, "just_in_time": false });
    world.patch(&format!("providers/{id}"), change).await;
    assert_eq!(sign_in(&world, &provider, "s3", eva(false)).await.1.status, 403, "not verified");
    assert_eq!(sign_in(&world, &provider, "s4", eva(true)).await.1.status, 303);
    assert_eq!(
        sign_in(&world, &provider, "s5", eva(true)).await.1.status,
        403,
        "the address of somebody before"
    );
    assert_eq!(actors(&world).await.len(), count + 1);
    let domains = json!({ "email_domains": ["other.example"] });
    world.patch(&format!("providers/{id}"), domains).await;
    assert_eq!(
        sign_in(&world, &provider, "s4", eva(true)).await.1.status,
        403,
        "not of a domain that is let in"
    );
}

#[tokio::test]
async fn whoever_disables_or_removes_a_provider_ends_what_rests_on_it() {
    let (world, provider, id) = scripted(json!({ "client_secret": "secret", "group_claim": "groups" })).await;
    let sessions =
        async || world.admin(Method::GET, "sessions", None).await["items"].as_array().unwrap().len();
    let staff = json!({ "groups": ["staff"] });
    let (mut browser, page) = sign_in(&world, &provider, "ana", staff.clone()).await;
    assert_eq!((page.status, sessions().await), (303, 1));
    let shown = world.admin(Method::GET, "providers", None).await;
    assert_eq!(shown["items"][0]["has_secret"], true);
    assert_eq!(shown["items"][0]["links_directory"], false);
    assert!(!shown.to_string().contains("\"secret\""), "{shown}");
    assert_eq!(shown["items"][0]["redirect_uri"], "https://localhost/sign-in/with/corp/callback");

    world.patch(&format!("providers/{id}"), json!({ "enabled": false })).await;
    assert_eq!((sessions().await, browser.get("/").await.status), (0, 303));
    assert_eq!(browser.get("/sign-in/with/corp").await.status, 404);
    assert!(!browser.get("/sign-in").await.text.contains("corp"));
    world.patch(&format!("providers/{id}"), json!({ "enabled": true })).await;
    assert_eq!(sign_in(&world, &provider, "ana", staff).await.1.status, 303);
    let group = named(&world, "groups", "staff").await.unwrap()["id"].as_str().unwrap().to_owned();
    let members = async || {
        let list = world.admin(Method::GET, &format!("groups/{group}/members"), None).await;
        list["items"].as_array().unwrap().len()
    };
    assert_eq!(members().await, 1);
    world.delete(&format!("providers/{id}")).await;
    assert_eq!((sessions().await, members().await), (0, 0));
    let group = named(&world, "groups", "staff").await.unwrap();
    assert!(group.get("managed_by").is_none(), "the administrators' from now on: {group}");
}

#[tokio::test]
async fn devices_of_a_provider_that_is_disabled_are_sent_away_and_others_stay() {
    let (world, provider, id) = scripted(json!({})).await;
    let office = world.office().await;
    let (browser, page) = sign_in(&world, &provider, "ana", json!({})).await;
    assert_eq!(page.status, 303);
    let issued = device_token(&world, &mut browser.at_the_portal(&world), "laptop").await;
    let person = named(&world, "actors", "ana (corp)").await;
    let person = person.unwrap_or_else(|| panic!("no such actor"));
    let path = format!("groups/{}/members/{}", office.group, person["id"].as_str().unwrap());
    world.admin(Method::PUT, &path, None).await;
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = live(&world, &issued.access_token).await.unwrap();
    let mut other = world.client(&office.client_token, 2, 2).await;
    client.request(1, office.resource).await;
    let granted = client.granted().await;
    assert_eq!(gateway.told().await.id, granted.id);

    world.patch(&format!("providers/{id}"), json!({ "enabled": false })).await;
    assert_eq!(gateway.revoked().await.id, granted.id, "the gateway lets nothing through any more");
    let reason = loop {
        match client.peer.next().await {
            PortalToClient::Disconnect(disconnect) => break disconnect.reason,
            PortalToClient::AuthorizationRevoked(revoked) => assert_eq!(revoked.id, granted.id),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(reason, DisconnectReason::RevokedToken);
    let refused = live(&world, &issued.access_token).await.err().unwrap();
    assert_eq!((refused.0, refused.1.as_str()), (401, "revoked_token"));
    other.peer.silent().await;
    // Enabled again, the provider brings nobody back: they sign in anew.
    world.patch(&format!("providers/{id}"), json!({ "enabled": true })).await;
    assert_eq!(live(&world, &issued.access_token).await.err().unwrap().0, 401);
}

#[tokio::test]
async fn providers_are_the_owners_business_and_make_sense() {
    let world = World::new().await;
    let admin = world.post("actors", json!({ "kind": "user", "name": "adam", "role": "admin" })).await;
    let token = world.post("tokens", json!({ "kind": "api", "actor": admin["id"] })).await;
    let token = token["token"].as_str().unwrap();
    let good = json!({ "name": "corp", "issuer": "https://id.corp", "client_id": "adit" });
    assert_eq!(world.call_as(token, Method::POST, "providers", Some(good.clone())).await.0, 403);
    let id = id(&world.post("providers", good.clone()).await);
    let change = Some(json!({ "enabled": false }));
    assert_eq!(world.call_as(token, Method::PATCH, &format!("providers/{id}"), change).await.0, 403);
    assert_eq!(world.call_as(token, Method::DELETE, &format!("providers/{id}"), None).await.0, 403);
    assert_eq!(world.call_as(token, Method::GET, "providers", None).await.0, 200);
    assert_eq!(world.call(Method::POST, "providers", Some(good.clone())).await.0, 409, "the name is taken");
    for (field, value) in [
        ("name", json!("local")),
        ("name", json!("Corp")),
        ("name", json!("")),
        ("issuer", json!("http://id.corp")),
        ("issuer", json!("http://localhost.evil.example")),
        ("issuer", json!("https://id.corp/?a=b")),
        ("issuer", json!("https://user:pass@id.corp")),
        ("client_id", json!(" ")),
        ("ca_pem", json!("nonsense")),
        ("email_domains", json!(["corp example"])),
        ("client_secret", json!("a\nb")),
    ] {
        let mut wrong = good.clone();
        wrong["name"] = "other".into();
        wrong[field] = value;
        assert_eq!(world.call(Method::POST, "providers", Some(wrong.clone())).await.0, 422, "{wrong}");
    }
}
