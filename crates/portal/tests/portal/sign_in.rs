//! Signing in with a browser: link, password, authenticator, session, and what protects them.

use adit_portal::bootstrap::admin_link;
use aws_lc_rs::hmac;
use reqwest::header::{COOKIE, HeaderMap, HeaderValue, LOCATION, SET_COOKIE};
use reqwest::{Client, Method, RequestBuilder};
use serde_json::json;

use crate::world::World;

pub(crate) const PASSWORD: &str = "correct horse battery staple";

/// A browser with one cookie, which follows nothing by itself.
pub(crate) struct Browser {
    pub(crate) http: Client,
    pub(crate) base: String,
    pub(crate) cookie: Option<String>,
}

/// An answer.
pub(crate) struct Page {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Page {
    pub(crate) fn location(&self) -> &str {
        self.headers[LOCATION].to_str().unwrap()
    }

    /// The value of a hidden or visible field.
    pub(crate) fn field(&self, name: &str) -> &str {
        let (_, rest) = self.text.split_once(&format!("name=\"{name}\" value=\"")).unwrap();
        rest.split_once('"').unwrap().0
    }

    /// What stands in `<code>`, one after the other.
    pub(crate) fn codes(&self) -> Vec<String> {
        let parts = self.text.split("<code>").skip(1);
        parts.map(|part| part.split_once("</code>").unwrap().0.to_owned()).collect()
    }
}

impl Browser {
    pub(crate) fn new(world: &World) -> Self {
        let http = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { http, base: format!("http://{}", world.address), cookie: None }
    }

    async fn send(&mut self, mut request: RequestBuilder) -> Page {
        if let Some(cookie) = &self.cookie {
            request = request.header(COOKIE, cookie);
        }
        let response = request.send().await.unwrap();
        for value in response.headers().get_all(SET_COOKIE) {
            let pair = value.to_str().unwrap().split(';').next().unwrap();
            self.cookie = (!pair.ends_with('=')).then(|| pair.to_owned());
        }
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Page { status, headers, text: response.text().await.unwrap() }
    }

    pub(crate) async fn get(&mut self, path: &str) -> Page {
        let request = self.http.get(format!("{}{path}", self.base));
        self.send(request).await
    }

    pub(crate) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Page {
        self.post_with(path, fields, &[("sec-fetch-site", "same-origin")]).await
    }

    pub(crate) async fn post_with(
        &mut self,
        path: &str,
        fields: &[(&str, &str)],
        headers: &[(&'static str, &str)],
    ) -> Page {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let mut request = self.http.post(format!("{}{path}", self.base)).body(body);
        request = request.header("content-type", "application/x-www-form-urlencoded");
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_str(value).unwrap());
        }
        self.send(request).await
    }

    pub(crate) async fn sign_in(&mut self, password: &str, code: &str) -> Page {
        self.post("/sign-in", &[("name", "owner"), ("password", password), ("code", code), ("next", "/x")])
            .await
    }
}

/// What an authenticator app shows for a step, counted from now.
pub(crate) fn code(secret: &str, steps: u64) -> String {
    const ALPHABET: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let bits: String =
        secret.chars().map(|symbol| format!("{:05b}", ALPHABET.find(symbol).unwrap())).collect();
    let key: Vec<u8> = bits
        .as_bytes()
        .chunks(8)
        .map(|byte| u8::from_str_radix(std::str::from_utf8(byte).unwrap(), 2).unwrap())
        .collect();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let step = now / 30 + steps;
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &key), &step.to_be_bytes());
    let offset = usize::from(tag.as_ref()[19] & 0xf);
    let number = u32::from_be_bytes(tag.as_ref()[offset..offset + 4].try_into().unwrap()) & 0x7fff_ffff;
    format!("{:06}", number % 1_000_000)
}

/// The owner has used the link: the browser is signed in. Also the authenticator's secret and
/// the recovery codes.
pub(crate) async fn welcomed(world: &World) -> (Browser, String, Vec<String>) {
    let mut browser = Browser::new(world);
    let page = browser.get(&world.welcome).await;
    assert_eq!(page.status, 200, "{}", page.text);
    let secret = page.codes()[0].clone();
    assert!(page.text.contains("data:image/svg+xml;base64,"));
    let form = [
        ("token", page.field("token")),
        ("password", PASSWORD),
        ("again", PASSWORD),
        ("code", &code(&secret, 0)),
    ];
    let done = browser.post("/welcome", &form).await;
    assert_eq!(done.status, 200, "{}", done.text);
    let recovery = done.codes();
    assert_eq!(recovery.len(), 10);
    (browser, secret, recovery)
}

pub(crate) async fn audited(world: &World, action: &str) -> usize {
    let audit = world.admin(Method::GET, "audit", None).await;
    let rows = audit["items"].as_array().unwrap();
    assert!(!audit.to_string().contains(PASSWORD), "no password in the audit log");
    rows.iter().filter(|row| row["action"] == action).count()
}

async fn sessions(world: &World) -> Vec<serde_json::Value> {
    world.admin(Method::GET, "sessions", None).await["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn the_link_is_good_once_and_the_owner_signs_in_with_what_was_chosen() {
    let world = World::new().await;
    let (mut browser, secret, _) = welcomed(&world).await;
    let first = sessions(&world).await;
    assert_eq!((first.len(), &first[0]["actor_name"]), (1, &json!("owner")));
    assert_eq!(Browser::new(&world).get(&world.welcome).await.status, 404, "the link was used");

    let page = browser.sign_in(PASSWORD, &code(&secret, 1)).await;
    assert_eq!((page.status, page.location()), (303, "/x"), "{}", page.text);
    let cookie = page.headers[SET_COOKIE].to_str().unwrap();
    for attribute in ["__Host-adit=", "; Secure", "; HttpOnly", "; SameSite=Lax", "; Path=/"] {
        assert!(cookie.contains(attribute), "{attribute} in {cookie}");
    }
    let second = sessions(&world).await;
    assert_eq!(second.len(), 1, "the session before has ended");
    assert_ne!(first[0]["id"], second[0]["id"]);
    assert!(!second[0].to_string().contains("hash"));
    assert_eq!(browser.get("/sign-in?next=/y").await.location(), "/y", "signed in already");
    assert_eq!(audited(&world, "web_session.begin").await, 2);
}

#[tokio::test]
async fn no_code_is_accepted_twice_and_recovery_codes_once() {
    let world = World::new().await;
    let (_, secret, recovery) = welcomed(&world).await;
    let mut browser = Browser::new(&world);
    let next = code(&secret, 1);
    assert_eq!(browser.sign_in(PASSWORD, &next).await.status, 303);
    assert_eq!(browser.sign_in(PASSWORD, &next).await.status, 401, "a code was accepted twice");
    assert_eq!(browser.sign_in(PASSWORD, &code(&secret, 0)).await.status, 401, "an older code too");
    let typed = recovery[3].to_lowercase().replace('-', " ");
    assert_eq!(browser.sign_in(PASSWORD, &typed).await.status, 303);
    assert_eq!(browser.sign_in(PASSWORD, &typed).await.status, 401, "a recovery code was accepted twice");
    assert_eq!(audited(&world, "recovery_code.use").await, 1);
    assert_eq!(audited(&world, "sign_in.refused").await, 3);
}

#[tokio::test]
async fn whoever_fails_learns_nothing_and_waits_longer_and_longer() {
    let world = World::new().await;
    let (_, secret, _) = welcomed(&world).await;
    let mut browser = Browser::new(&world);
    let wrong = browser.sign_in("wrong password", &code(&secret, 1)).await;
    let unknown = browser
        .post("/sign-in", &[("name", "nobody"), ("password", PASSWORD), ("code", "1"), ("next", "/x")])
        .await;
    assert_eq!((wrong.status, unknown.status), (401, 401));
    assert_eq!(wrong.text.replace("owner", ""), unknown.text.replace("nobody", ""));
    for _ in 0..4 {
        assert_eq!(browser.sign_in("wrong password", "000000").await.status, 401);
    }
    let refused = browser.sign_in(PASSWORD, &code(&secret, 1)).await;
    assert_eq!(refused.status, 429);
    assert!(refused.headers.contains_key("retry-after"));
}

#[tokio::test]
async fn nobody_elses_page_can_change_anything() {
    let world = World::new().await;
    let (mut browser, secret, _) = welcomed(&world).await;
    let next = code(&secret, 1);
    let form = [("name", "owner"), ("password", PASSWORD), ("code", &*next)];
    for headers in [&[][..], &[("sec-fetch-site", "cross-site")], &[("origin", "https://evil.example")]] {
        assert_eq!(browser.post_with("/sign-in", &form, headers).await.status, 403, "{headers:?}");
    }
    // Signed in, from our own page, but without the value that only our forms have.
    for fields in [&[][..], &[("csrf", "")], &[("csrf", "AAAA")]] {
        assert_eq!(browser.post("/sign-out", fields).await.status, 403, "{fields:?}");
    }
    assert_eq!(sessions(&world).await.len(), 1);
    let mine = browser.get("/").await;
    let csrf = mine.field("csrf").to_owned();
    for headers in [&[("sec-fetch-site", "same-site")][..], &[("origin", "null")]] {
        assert_eq!(browser.post_with("/sign-out", &[("csrf", &csrf)], headers).await.status, 403);
    }
    // The value of another session is as good as none.
    let mut other = Browser::new(&world);
    assert_eq!(other.sign_in(PASSWORD, &next).await.status, 303);
    assert_eq!(other.post("/sign-out", &[("csrf", &csrf)]).await.status, 403);
    let out = browser.post("/sign-out", &[("csrf", &csrf)]).await;
    assert_eq!((out.status, out.location()), (303, "/sign-in"));
    assert_eq!(sessions(&world).await.len(), 1);
}

#[tokio::test]
async fn a_cookie_that_was_kept_is_worth_nothing_after_signing_out() {
    let world = World::new().await;
    let (mut browser, secret, _) = welcomed(&world).await;
    let mut elsewhere = Browser::new(&world);
    assert_eq!(elsewhere.sign_in(PASSWORD, &code(&secret, 1)).await.status, 303);
    let kept = browser.cookie.clone();
    let page = browser.get("/").await;
    assert_eq!(page.text.matches("<li>").count(), 2);
    let other = page.text.split("/sessions/").nth(1).unwrap()[..36].to_owned();
    let csrf = page.field("csrf").to_owned();
    let ended = browser.post(&format!("/sessions/{other}/end"), &[("csrf", &csrf)]).await;
    assert_eq!(ended.status, 303, "{}", ended.text);
    assert_eq!(elsewhere.get("/").await.location(), "/sign-in?next=%2F");
    assert_eq!(browser.post("/sign-out", &[("csrf", &csrf)]).await.status, 303);
    assert_eq!(browser.cookie, None);
    browser.cookie = kept;
    assert_eq!(browser.get("/").await.status, 303);
    assert_eq!(audited(&world, "web_session.end").await, 2);
    let script = browser.http.get(format!("{}/", browser.base)).header("hx-request", "true");
    assert_eq!(browser.send(script).await.status, 401);
}

#[tokio::test]
async fn a_link_can_be_made_again_and_ends_what_was_before() {
    let world = World::new().await;
    let (mut browser, _, recovery) = welcomed(&world).await;
    let data = world.directory.path().join("data");
    let link = |name: &'static str| admin_link(data.clone(), world.backend.database(), name, None);
    let first = link("owner").await.unwrap().url;
    let second = link("owner").await.unwrap().url;
    assert!(link("nobody").await.is_err());
    let path = |url: &str| url.strip_prefix("https://localhost").unwrap().to_owned();
    assert_eq!(Browser::new(&world).get(&path(&first)).await.status, 404, "a newer one was made");
    assert_eq!(browser.get("/").await.status, 200, "nothing changes before the link is used");
    let mut fresh = Browser::new(&world);
    let page = fresh.get(&path(&second)).await;
    let secret = page.codes()[0].clone();
    let token = page.field("token").to_owned();
    for (password, again, typed) in
        [("short", "short", &*code(&secret, 0)), (PASSWORD, "x", "1"), (PASSWORD, PASSWORD, "000000")]
    {
        let form = [("token", &*token), ("password", password), ("again", again), ("code", typed)];
        assert_eq!(fresh.post("/welcome", &form).await.status, 422);
    }
    let form =
        [("token", &*token), ("password", PASSWORD), ("again", PASSWORD), ("code", &*code(&secret, 0))];
    assert_eq!(fresh.post("/welcome", &form).await.status, 200);
    assert_eq!(browser.get("/").await.status, 303, "the session from before has ended");
    assert_eq!(browser.sign_in(PASSWORD, &recovery[0]).await.status, 401, "so have the recovery codes");
}

#[tokio::test]
async fn pages_are_headed_and_redirects_stay_here() {
    let world = World::new().await;
    let mut browser = Browser::new(&world);
    let page = browser.get("/sign-in?next=https://evil.example/").await;
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"));
    assert!(page.headers.contains_key("strict-transport-security"));
    assert_eq!(page.headers["cache-control"], "no-store");
    assert_eq!(page.field("next"), "/");
    assert!(!page.text.contains("style=") && !page.text.contains("<script"));
    let echoed = browser.get("/sign-in?next=/%22%3E%3Cb%3E").await;
    assert!(!echoed.text.contains("\"><b>"));
    assert_eq!(browser.get("/assets/adit.css").await.headers["content-type"], "text/css; charset=utf-8");
}

#[tokio::test]
async fn a_session_ends_with_a_word_of_an_administrator_and_with_its_actor() {
    let world = World::new().await;
    let (mut browser, secret, _) = welcomed(&world).await;
    let session = sessions(&world).await[0]["id"].as_str().unwrap().to_owned();
    world.delete(&format!("sessions/{session}")).await;
    assert_eq!(browser.get("/sign-in").await.status, 200, "signed out");
    assert_eq!(world.call(Method::DELETE, &format!("sessions/{session}"), None).await.0, 404);

    assert_eq!(browser.sign_in(PASSWORD, &code(&secret, 1)).await.status, 303);
    let actors = world.admin(Method::GET, "actors", None).await;
    let owner = actors["items"][0]["id"].as_str().unwrap().to_owned();
    let other = world.post("actors", json!({ "kind": "user", "name": "second", "role": "owner" })).await;
    let token = world.post("tokens", json!({ "kind": "api", "actor": other["id"] })).await;
    let token = token["token"].as_str().unwrap();
    let path = format!("actors/{owner}");
    let disabled = world.call_as(token, Method::PATCH, &path, Some(json!({ "enabled": false }))).await;
    assert!(disabled.0 < 300, "{disabled:?}");
    assert_eq!(browser.get("/sign-in").await.status, 200, "signed out");
    let listed = world.call_as(token, Method::GET, "sessions", None).await;
    assert_eq!(listed.1["items"], json!([]));
}
