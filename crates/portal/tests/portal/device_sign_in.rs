//! Devices that sign in through a browser: both grants, what protects them, and what a renewal keeps.

use adit_protocol::PortalToClient;
use adit_protocol::client::{DisconnectReason, SignIn};
use adit_protocol::sign_in::{
    AUTHORIZE_PATH, CHALLENGE_METHOD, CLIENT_ID, DEVICE_PATH, DeviceCode, GRANT_CODE, GRANT_DEVICE_CODE,
    IssuedToken, SignInError, SignInFailure, TOKEN_PATH,
};
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};

use crate::conditions::run_sql;
use crate::sign_in::{Browser, PASSWORD, Page, audited, code, welcomed};
use crate::world::{ClientPeer, World, id};

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const REDIRECT: &str = "http://127.0.0.1:49152/back";

fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}

/// What a device asks, without a browser around it.
pub(crate) async fn ask(world: &World, path: &str, fields: &[(&str, &str)]) -> (u16, Value) {
    let page = Browser::new(world).post_with(path, fields, &[]).await;
    assert_eq!(page.headers["cache-control"], "no-store");
    (page.status, serde_json::from_str(&page.text).unwrap())
}

pub(crate) async fn begin(world: &World, name: &str) -> DeviceCode {
    let (status, body) = ask(world, DEVICE_PATH, &[("client_id", CLIENT_ID), ("device_name", name)]).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_value(body).unwrap()
}

pub(crate) fn poll(device_code: &str) -> Vec<(&str, &str)> {
    vec![("grant_type", GRANT_DEVICE_CODE), ("client_id", CLIENT_ID), ("device_code", device_code)]
}

pub(crate) async fn token(world: &World, fields: &[(&str, &str)]) -> IssuedToken {
    let (status, body) = ask(world, TOKEN_PATH, fields).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(body["token_type"], "Bearer");
    serde_json::from_value(body).unwrap()
}

pub(crate) async fn refused(world: &World, fields: &[(&str, &str)]) -> SignInError {
    let (status, body) = ask(world, TOKEN_PATH, fields).await;
    assert_eq!(status, 400, "{body}");
    serde_json::from_value::<SignInFailure>(body).unwrap().error
}

/// Types the code, reads the approval page, and presses a button.
pub(crate) async fn decide(browser: &mut Browser, user_code: &str, decision: &str) -> Page {
    let form = browser.get(&format!("/device?code={user_code}")).await;
    assert_eq!((form.status, form.field("code")), (200, user_code), "{}", form.text);
    let csrf = form.field("csrf").to_owned();
    let asks = browser.post("/device", &[("csrf", &csrf), ("code", user_code)]).await;
    assert_eq!(asks.status, 200, "{}", asks.text);
    assert!(asks.text.contains("Only approve if you started this yourself"));
    let fields = [("csrf", asks.field("csrf")), ("code", asks.field("code")), ("decision", decision)];
    browser.post("/device/decide", &fields).await
}

pub(crate) async fn device_token(world: &World, browser: &mut Browser, name: &str) -> IssuedToken {
    let begun = begin(world, name).await;
    assert_eq!(decide(browser, &begun.user_code, "approve").await.status, 200);
    token(world, &poll(&begun.device_code)).await
}

fn authorize_query(redirect: &str, state: &str, name: &str) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new())
        .append_pair("response_type", "code")
        .append_pair("client_id", CLIENT_ID)
        .append_pair("redirect_uri", redirect)
        .append_pair("code_challenge", &challenge(VERIFIER))
        .append_pair("code_challenge_method", CHALLENGE_METHOD)
        .append_pair("state", state)
        .append_pair("device_name", name)
        .finish();
    format!("{AUTHORIZE_PATH}?{query}")
}

/// Where the browser is sent after a decision in the loopback flow.
async fn loopback(browser: &mut Browser, decision: &str) -> url::Url {
    let page = browser.get(&authorize_query(REDIRECT, "a state", "laptop")).await;
    assert_eq!(page.status, 200, "{}", page.text);
    let names = ["csrf", "response_type", "client_id", "redirect_uri", "code_challenge"];
    let names = names.into_iter().chain(["code_challenge_method", "state", "device_name"]);
    let mut fields: Vec<(&str, &str)> = names.map(|name| (name, page.field(name))).collect();
    fields.push(("decision", decision));
    let sent = browser.post(AUTHORIZE_PATH, &fields).await;
    assert_eq!(sent.status, 200, "{}", sent.text);
    let (_, rest) = sent.text.split_once("content=\"0; url=").unwrap();
    let address = rest.split_once('"').unwrap().0.replace("&#38;", "&").replace("&amp;", "&");
    assert!(sent.text.contains("You may close this window"));
    url::Url::parse(&address).unwrap()
}

fn answer(url: &url::Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
}

fn exchange<'a>(code: &'a str, verifier: &'a str, redirect: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("grant_type", GRANT_CODE),
        ("client_id", CLIENT_ID),
        ("code", code),
        ("code_verifier", verifier),
        ("redirect_uri", redirect),
    ]
}

/// A person without a role, signed in in a browser: by the link that an administrator has made.
pub(crate) async fn person(world: &World, name: &str) -> (Browser, String) {
    let actor = id(&world.post("actors", json!({ "kind": "user", "name": name })).await);
    (person_of(world, &actor).await, actor)
}

pub(crate) async fn person_of(world: &World, actor: &str) -> Browser {
    let link = world.post(&format!("actors/{actor}/sign-in-link"), json!({})).await;
    let path = link["url"].as_str().unwrap().strip_prefix("https://localhost").unwrap().to_owned();
    let mut browser = Browser::new(world);
    let page = browser.get(&path).await;
    let secret = page.codes()[0].clone();
    let code = code(&secret, 0);
    let form =
        [("token", page.field("token")), ("password", PASSWORD), ("again", PASSWORD), ("code", &*code)];
    assert_eq!(browser.post("/welcome", &form).await.status, 200);
    browser
}

pub(crate) async fn live(world: &World, token: &str) -> Result<crate::world::Client, (u16, String)> {
    let mut peer = ClientPeer::connect(world.address, "client", token).await?;
    peer.send(&adit_protocol::ClientToPortal::Hello(crate::world::hello(9, 9))).await;
    Ok(crate::world::Client::new(peer).await)
}

#[tokio::test]
async fn a_device_without_a_browser_gets_a_token_when_its_code_is_approved() {
    let world = World::new().await;
    let (mut browser, actor) = person(&world, "ana").await;
    let begun = begin(&world, "build server").await;
    assert_eq!((begun.expires_in, begun.interval), (600, 5));
    assert_eq!(begun.verification_uri, "https://localhost/device");
    assert!(begun.verification_uri_complete.as_ref().unwrap().ends_with(&begun.user_code));
    assert_eq!(refused(&world, &poll(&begun.device_code)).await, SignInError::AuthorizationPending);
    assert_eq!(refused(&world, &poll(&begun.device_code)).await, SignInError::SlowDown);
    // However it is typed.
    let typed = begun.user_code.to_lowercase().replace('-', " ");
    let csrf = browser.get("/device").await.field("csrf").to_owned();
    let asks = browser.post("/device", &[("csrf", &csrf), ("code", &typed)]).await;
    for shown in ["build server", "127.0.0.1", "ana", &begun.user_code] {
        assert!(asks.text.contains(shown), "{shown} in {}", asks.text);
    }
    assert_eq!(refused(&world, &poll(&begun.device_code)).await, SignInError::SlowDown, "only looked at");
    assert_eq!(decide(&mut browser, &begun.user_code, "approve").await.status, 200);
    let issued = token(&world, &poll(&begun.device_code)).await;
    assert_eq!(issued.actor_name, "ana");
    assert!((29 * 86_400..=30 * 86_400).contains(&issued.expires_in.unwrap()));
    let client = live(&world, &issued.access_token).await.unwrap();
    assert_eq!(client.init.actor_name, "ana");
    let SignIn { authenticated_at_ms, expires_at_ms, is_too_old } = client.sign_in;
    assert!(
        authenticated_at_ms.is_some() && expires_at_ms == client.init.session_expires_at_ms && !is_too_old
    );
    let stored =
        world.admin(Method::GET, &format!("tokens/{}", World::token_id(&issued.access_token)), None).await;
    assert_eq!((&stored["provider"], &stored["actor_id"]), (&json!("local"), &json!(actor)));
    assert_eq!(stored["name"], "build server");
    assert_eq!(audited(&world, "device_sign_in.approve").await, 1);
    // Decided once: the code is not there any more.
    let again = browser.post("/device", &[("csrf", &csrf), ("code", &begun.user_code)]).await;
    assert_eq!(again.status, 404);
    let audit = world.admin(Method::GET, "audit", None).await.to_string();
    for secret in [&begun.device_code, &begun.user_code, &issued.access_token] {
        assert!(!audit.contains(secret.as_str()), "a secret is in the audit log");
    }
}

#[tokio::test]
async fn a_device_with_a_browser_gets_a_token_for_a_code_and_its_verifier() {
    let world = World::new().await;
    let (mut browser, _) = person(&world, "ana").await;
    let back = loopback(&mut browser, "approve").await;
    assert_eq!(answer(&back, "state").as_deref(), Some("a state"));
    assert_eq!(back.as_str().split('?').next(), Some(REDIRECT));
    let code = answer(&back, "code").unwrap();
    let issued = token(&world, &exchange(&code, VERIFIER, REDIRECT)).await;
    let mut client = live(&world, &issued.access_token).await.unwrap();
    // The code again: somebody has copied it, and nobody knows who was first.
    let again = refused(&world, &exchange(&code, VERIFIER, REDIRECT)).await;
    assert_eq!(again, SignInError::InvalidGrant);
    let PortalToClient::Disconnect(goodbye) = client.peer.next().await else { panic!("not ended") };
    assert_eq!(goodbye.reason, DisconnectReason::RevokedToken);
    let denied = live(&world, &issued.access_token).await.err().unwrap();
    assert_eq!(denied, (401, "revoked_token".to_owned()));
}

#[tokio::test]
async fn a_code_is_worth_nothing_without_what_it_was_made_for() {
    let world = World::new().await;
    let (mut browser, _) = person(&world, "ana").await;
    let other = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    for (verifier, redirect) in [
        (other, REDIRECT),
        ("", REDIRECT),
        (VERIFIER, "http://127.0.0.1:49153/back"),
        (VERIFIER, "http://127.0.0.1:49152/"),
    ] {
        let code = answer(&loopback(&mut browser, "approve").await, "code").unwrap();
        assert_eq!(refused(&world, &exchange(&code, verifier, redirect)).await, SignInError::InvalidGrant);
        // It is used up: whoever tried does not get a second try.
        assert_eq!(refused(&world, &exchange(&code, VERIFIER, REDIRECT)).await, SignInError::InvalidGrant);
    }
}

#[tokio::test]
async fn whoever_says_no_sends_the_device_away() {
    let world = World::new().await;
    let (mut browser, _) = person(&world, "ana").await;
    let begun = begin(&world, "printer").await;
    let page = decide(&mut browser, &begun.user_code, "deny").await;
    assert!(page.text.contains("Denied"));
    assert_eq!(refused(&world, &poll(&begun.device_code)).await, SignInError::AccessDenied);
    let back = loopback(&mut browser, "deny").await;
    assert_eq!(answer(&back, "error").as_deref(), Some("access_denied"));
    assert_eq!((answer(&back, "state").as_deref(), answer(&back, "code")), (Some("a state"), None));
    assert_eq!(audited(&world, "device_sign_in.deny").await, 2);
}

#[tokio::test]
async fn codes_and_approvals_end() {
    let world = World::new().await;
    let (mut browser, _) = person(&world, "ana").await;
    let begun = begin(&world, "laptop").await;
    let late = begin(&world, "phone").await;
    assert_eq!(decide(&mut browser, &begun.user_code, "approve").await.status, 200);
    let code = answer(&loopback(&mut browser, "approve").await, "code").unwrap();
    run_sql(&world, "UPDATE device_sign_in SET expires_ms = expires_ms - 60000 WHERE kind = 'loopback'")
        .await;
    assert_eq!(refused(&world, &exchange(&code, VERIFIER, REDIRECT)).await, SignInError::InvalidGrant);
    run_sql(&world, "UPDATE device_sign_in SET expires_ms = expires_ms - 600000 WHERE kind = 'device'").await;
    assert_eq!(refused(&world, &poll(&begun.device_code)).await, SignInError::ExpiredToken);
    let csrf = browser.get("/device").await.field("csrf").to_owned();
    assert_eq!(browser.post("/device", &[("csrf", &csrf), ("code", &late.user_code)]).await.status, 404);
    // What is long over is forgotten when the next one begins.
    run_sql(&world, "UPDATE device_sign_in SET expires_ms = expires_ms - 600000").await;
    begin(&world, "other").await;
    assert_eq!(refused(&world, &poll(&begun.device_code)).await, SignInError::InvalidGrant);
    // A session that is older than ten minutes is asked to sign in again, and comes back.
    run_sql(&world, "UPDATE web_session SET authenticated_ms = authenticated_ms - 600000").await;
    let old = browser.get("/device?code=BCDF-GHJK").await;
    assert_eq!(old.location(), "/sign-in?next=%2Fdevice%3Fcode%3DBCDF-GHJK&again=1");
    let fields = [("csrf", &*csrf), ("code", "BCDF-GHJK"), ("decision", "approve")];
    let old = browser.post("/device/decide", &fields);
    assert_eq!(old.await.location(), "/sign-in?next=%2Fdevice%3Fcode%3DBCDF-GHJK&again=1");
    assert!(browser.get(&authorize_query(REDIRECT, "s", "x")).await.location().ends_with("&again=1"));
}

#[tokio::test]
async fn requests_that_are_wrong_are_answered_as_the_standards_say() {
    let world = World::new().await;
    let made_up = format!("{}.AAAA", uuid::Uuid::now_v7().simple());
    for (fields, error) in [
        (vec![("client_id", CLIENT_ID)], SignInError::InvalidRequest),
        (vec![("grant_type", "password"), ("client_id", CLIENT_ID)], SignInError::UnsupportedGrantType),
        (vec![("grant_type", GRANT_CODE), ("client_id", "other")], SignInError::InvalidClient),
        (vec![("grant_type", GRANT_CODE), ("client_id", CLIENT_ID)], SignInError::InvalidRequest),
        (poll("nonsense"), SignInError::InvalidGrant),
        (poll(&made_up), SignInError::InvalidGrant),
        (exchange(&made_up, VERIFIER, REDIRECT), SignInError::InvalidGrant),
    ] {
        assert_eq!(refused(&world, &fields).await, error, "{fields:?}");
    }
    // A code of one grant is none of the other.
    let begun = begin(&world, "x").await;
    let crossed = exchange(&begun.device_code, VERIFIER, REDIRECT);
    assert_eq!(refused(&world, &crossed).await, SignInError::InvalidGrant);
    let (status, body) = ask(&world, DEVICE_PATH, &[("client_id", "other")]).await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_client")));
    let (status, body) = ask(&world, DEVICE_PATH, &[]).await;
    assert_eq!((status, &body["error"]), (400, &json!("invalid_request")));
}

#[tokio::test]
async fn no_browser_is_sent_elsewhere() {
    let world = World::new().await;
    let (mut browser, _) = person(&world, "ana").await;
    for redirect in [
        "http://127.0.0.1.evil/",
        "http://127.0.0.1:1@evil/",
        "http://x@127.0.0.1:1/",
        "http://127.0.0.1:1/#x",
        "https://127.0.0.1:1/",
        "http://localhost:1/",
        "javascript:alert(1)",
        "",
    ] {
        let page = browser.get(&authorize_query(redirect, "s", "laptop")).await;
        assert_eq!(page.status, 400, "{redirect}");
        assert!(!page.text.contains("evil"), "{redirect}");
        let csrf = browser.get("/").await.field("csrf").to_owned();
        let fields = [
            ("csrf", &*csrf),
            ("response_type", "code"),
            ("client_id", CLIENT_ID),
            ("redirect_uri", redirect),
            ("code_challenge", &challenge(VERIFIER)),
            ("code_challenge_method", CHALLENGE_METHOD),
            ("state", "s"),
            ("decision", "approve"),
        ];
        assert_eq!(browser.post(AUTHORIZE_PATH, &fields).await.status, 400, "{redirect}");
    }
    let plain = authorize_query(REDIRECT, "s", "x").replace("S256", "plain");
    assert_eq!(browser.get(&plain).await.status, 400);
    assert_eq!(browser.get(&authorize_query(REDIRECT, "", "x")).await.status, 400, "without state");
}

#[tokio::test]
async fn a_devices_name_is_text_and_nothing_else() {
    let world = World::new().await;
    let (mut browser, _) = person(&world, "ana").await;
    let name = "\"><script>alert(1)</script>\u{202e}";
    let begun = begin(&world, name).await;
    let csrf = browser.get("/device").await.field("csrf").to_owned();
    let asks = browser.post("/device", &[("csrf", &csrf), ("code", &begun.user_code)]).await;
    let authorize = browser.get(&authorize_query(REDIRECT, "\"><b>", name)).await;
    let decided = decide(&mut browser, &begun.user_code, "approve").await;
    token(&world, &poll(&begun.device_code)).await;
    let start = browser.get("/").await;
    for page in [asks, authorize, decided, start] {
        assert_eq!(page.status, 200);
        assert!(page.text.contains("alert(1)") && !page.text.contains("<script"), "{}", page.text);
        assert!(!page.text.contains('\u{202e}') && !page.text.contains("<b>"));
    }
}

#[tokio::test]
async fn an_approval_needs_our_own_form_and_a_fresh_sign_in() {
    let world = World::new().await;
    let (mut browser, _) = person(&world, "ana").await;
    let begun = begin(&world, "laptop").await;
    let stranger = Browser::new(&world).get(&format!("/device?code={}", begun.user_code)).await;
    assert_eq!(stranger.status, 303);
    assert_eq!(stranger.location(), format!("/sign-in?next=%2Fdevice%3Fcode%3D{}", begun.user_code));
    let query = authorize_query(REDIRECT, "s", "laptop");
    let stranger = Browser::new(&world).get(&query).await;
    let next = url::Url::parse(&format!("http://x{}", stranger.location())).unwrap();
    assert_eq!(next.query_pairs().next().unwrap().1, query, "and comes back");
    let csrf = browser.get("/device").await.field("csrf").to_owned();
    let good = [("csrf", &*csrf), ("code", &begun.user_code), ("decision", "approve")];
    for (fields, headers) in [
        (&good[1..], &[("sec-fetch-site", "same-origin")][..]),
        (&good[..], &[("sec-fetch-site", "cross-site")]),
        (&good[..], &[]),
    ] {
        for path in ["/device", "/device/decide", AUTHORIZE_PATH] {
            assert_eq!(browser.post_with(path, fields, headers).await.status, 403, "{path}");
        }
    }
    assert_eq!(refused(&world, &poll(&begun.device_code)).await, SignInError::AuthorizationPending);
    // The same person, asked to prove it again although they are signed in.
    let form = browser.get("/sign-in?next=/device&again=1").await;
    assert_eq!((form.status, form.field("next")), (200, "/device"));
}

#[tokio::test]
async fn codes_cannot_be_guessed() {
    let world = World::new().await;
    let (mut browser, _) = person(&world, "ana").await;
    let csrf = browser.get("/device").await.field("csrf").to_owned();
    let mut statuses = Vec::new();
    for _ in 0..7 {
        let guess = [("csrf", &*csrf), ("code", "BCDF-GHJK"), ("decision", "approve")];
        statuses.push(browser.post("/device", &guess).await.status);
    }
    assert_eq!(statuses, [404, 404, 404, 404, 404, 429, 429]);
    let begun = begin(&world, "laptop").await;
    let right = [("csrf", &*csrf), ("code", &begun.user_code), ("decision", "approve")];
    assert_eq!(browser.post("/device/decide", &right).await.status, 429, "not by another way either");
    // One place cannot fill the table either.
    let mut last = 200;
    for _ in 0..25 {
        last = ask(&world, DEVICE_PATH, &[("client_id", CLIENT_ID)]).await.0;
    }
    assert_eq!(last, 429);
}

#[tokio::test]
async fn signing_in_again_keeps_the_token_and_what_rests_on_it() {
    let world = World::new().await;
    let office = world.office().await;
    let aged = world.resource(office.site, "db", json!({ "type": "ip", "address": "10.1.1.1" })).await;
    let policy = world.post("policies", json!({ "group": office.group, "resource": aged })).await;
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut browser = person_of(&world, &office.actor).await;
    let issued = device_token(&world, &mut browser, "laptop").await;
    let mut client = live(&world, &issued.access_token).await.unwrap();
    assert_eq!((client.init.resources.len(), client.sign_in.is_too_old), (2, false));
    client.request(1, office.resource).await;
    let granted = client.granted().await;
    gateway.told().await;
    // By another provider than this one, the resource would not be seen; after it, it is.
    world.conditions(&id(&policy), json!({ "auth_provider": { "none_of": ["local"] } })).await;
    assert!(matches!(client.peer.next().await, PortalToClient::ResourceRemoved(gone) if gone.id == aged));
    world.conditions(&id(&policy), json!({ "auth_provider": { "any_of": ["local"] } })).await;
    assert!(matches!(client.peer.next().await, PortalToClient::ResourceChanged(_)));

    let begun = begin(&world, "laptop").await;
    assert_eq!(decide(&mut browser, &begun.user_code, "approve").await.status, 200);
    world.patch("settings", json!({ "device_session_days": 60 })).await;
    let mut fields = poll(&begun.device_code);
    fields.push(("renews", &issued.access_token));
    let renewed = token(&world, &fields).await;
    assert_eq!(renewed.access_token, issued.access_token);
    assert!(renewed.expires_in.unwrap() > 59 * 86_400);
    let PortalToClient::SignIn(told) = client.peer.next().await else { panic!("not told") };
    assert!(told.expires_at_ms > client.sign_in.expires_at_ms);
    gateway.peer.silent().await;
    client.peer.silent().await;
    // The session lives on the new end: a lease of eight hours needs it, and so does a new connection.
    let again = live(&world, &issued.access_token).await.unwrap();
    assert_eq!(again.init.session_expires_at_ms, told.expires_at_ms);
    assert_eq!(again.init.authorizations[0].id, granted.id);
    // The code again does not take the token away that it did not give.
    assert_eq!(refused(&world, &fields).await, SignInError::InvalidGrant);
    assert!(live(&world, &issued.access_token).await.is_ok());
}

#[tokio::test]
async fn somebody_elses_token_is_not_renewed() {
    let world = World::new().await;
    let (mut ana, _) = person(&world, "ana").await;
    let (mut ben, _) = person(&world, "ben").await;
    let of_ana = device_token(&world, &mut ana, "laptop").await;
    let gone = device_token(&world, &mut ben, "old").await;
    world.delete(&format!("tokens/{}", World::token_id(&gone.access_token))).await;
    let forged = of_ana.access_token.clone() + "A";
    for renews in [&of_ana.access_token, &gone.access_token, &forged, &world.admin] {
        let begun = begin(&world, "ben's").await;
        assert_eq!(decide(&mut ben, &begun.user_code, "approve").await.status, 200);
        let mut fields = poll(&begun.device_code);
        fields.push(("renews", renews));
        let issued = token(&world, &fields).await;
        assert_ne!(&issued.access_token, renews);
        assert_eq!(issued.actor_name, "ben");
    }
    assert_eq!(live(&world, &of_ana.access_token).await.unwrap().init.actor_name, "ana");
}

#[tokio::test]
async fn a_sign_in_that_is_too_old_hides_what_asks_for_a_newer_one_until_it_is_renewed() {
    let world = World::new().await;
    let office = world.office().await;
    let mut browser = person_of(&world, &office.actor).await;
    let issued = device_token(&world, &mut browser, "laptop").await;
    // A minute is the least age that can be asked for; the sign-in is made older than that.
    run_sql(
        &world,
        "UPDATE token SET authenticated_ms = authenticated_ms - 120000 WHERE provider IS NOT NULL",
    )
    .await;
    let mut client = live(&world, &issued.access_token).await.unwrap();
    assert_eq!(client.init.resources.len(), 1);
    world.conditions(&office.policy, json!({ "authentication_age": 60 })).await;
    assert!(matches!(client.peer.next().await, PortalToClient::ResourceRemoved(_)));
    let PortalToClient::SignIn(told) = client.peer.next().await else { panic!("not told") };
    assert!(told.is_too_old);
    let begun = begin(&world, "laptop").await;
    assert_eq!(decide(&mut browser, &begun.user_code, "approve").await.status, 200);
    let mut fields = poll(&begun.device_code);
    fields.push(("renews", &issued.access_token));
    token(&world, &fields).await;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        seen.push(client.peer.next().await);
    }
    assert!(
        matches!(&seen[0], PortalToClient::SignIn(sign_in) if sign_in.authenticated_at_ms > told.authenticated_at_ms)
    );
    assert!(matches!(&seen[1], PortalToClient::ResourceChanged(resource) if resource.id == office.resource));
    assert!(matches!(&seen[2], PortalToClient::SignIn(sign_in) if !sign_in.is_too_old));
}

#[tokio::test]
async fn a_person_has_so_many_devices_and_ends_their_sessions() {
    let world = World::new().await;
    let (mut browser, _) = person(&world, "ana").await;
    let (mut other, _) = person(&world, "ben").await;
    for wrong in [json!({ "devices_per_user": 0 }), json!({ "device_session_days": 367 }), json!({})] {
        assert_eq!(world.call(Method::PATCH, "settings", Some(wrong)).await.0, 422);
    }
    let settings = world.patch("settings", json!({ "devices_per_user": 1 })).await;
    assert_eq!((&settings["devices_per_user"], &settings["device_session_days"]), (&json!(1), &json!(30)));
    let first = device_token(&world, &mut browser, "laptop").await;
    let begun = begin(&world, "phone").await;
    assert_eq!(decide(&mut browser, &begun.user_code, "approve").await.status, 200);
    let (status, body) = ask(&world, TOKEN_PATH, &poll(&begun.device_code)).await;
    assert_eq!((status, &body["error"]), (400, &json!("access_denied")));
    assert!(body["error_description"].as_str().unwrap().contains("Too many devices"));
    // The one that is there signs in again all the same.
    let begun = begin(&world, "laptop").await;
    assert_eq!(decide(&mut browser, &begun.user_code, "approve").await.status, 200);
    let mut fields = poll(&begun.device_code);
    fields.push(("renews", &first.access_token));
    assert_eq!(token(&world, &fields).await.access_token, first.access_token);
    let mut client = live(&world, &first.access_token).await.unwrap();
    let start = browser.get("/").await;
    assert!(
        start.text.contains("laptop") && start.text.contains("connected") && !start.text.contains("/admin")
    );
    assert_eq!(browser.get("/admin").await.status, 403);
    let path = format!("/devices/{}/end", World::token_id(&first.access_token));
    let stranger = other.get("/").await.field("csrf").to_owned();
    assert_eq!(other.post(&path, &[("csrf", &stranger)]).await.status, 403);
    let csrf = start.field("csrf").to_owned();
    assert_eq!(browser.post(&path, &[("csrf", &csrf)]).await.status, 303);
    assert!(matches!(client.peer.next().await, PortalToClient::Disconnect(_)));
    device_token(&world, &mut browser, "phone").await;
    world.patch("settings", json!({ "devices_per_user": null })).await;
    device_token(&world, &mut browser, "tablet").await;
}

#[tokio::test]
async fn links_are_for_people_and_only_owners_make_them_for_people_with_a_role() {
    let world = World::new().await;
    let admin = id(&world.post("actors", json!({ "kind": "user", "name": "adm", "role": "admin" })).await);
    let token = world.post("tokens", json!({ "kind": "api", "actor": admin })).await;
    let token = token["token"].as_str().unwrap();
    let actors = world.admin(Method::GET, "actors", None).await;
    let owner = actors["items"][0]["id"].as_str().unwrap().to_owned();
    let machine = id(&world.post("actors", json!({ "kind": "service_account", "name": "ci" })).await);
    let plain = id(&world.post("actors", json!({ "kind": "user", "name": "ana" })).await);
    let link = |actor: String| format!("actors/{actor}/sign-in-link");
    for (actor, expected) in [(owner, 403), (admin, 403), (machine.clone(), 422), (plain.clone(), 201)] {
        assert_eq!(world.call_as(token, Method::POST, &link(actor), None).await.0, expected);
    }
    // An owner's page makes them too, for people only.
    let (mut browser, ..) = welcomed(&world).await;
    let page = browser.get(&format!("/admin/people/{machine}")).await;
    assert!(page.status == 200 && !page.text.contains("sign-in-link"));
    let path = format!("/admin/people/{plain}/sign-in-link");
    let page = browser.get(&format!("/admin/people/{plain}")).await;
    let csrf = page.field("csrf").to_owned();
    assert!(page.text.contains(&path));
    let made = browser.post(&path, &[("csrf", &csrf)]).await;
    assert!(made.status == 200 && made.text.contains("https://localhost/welcome?token="));
    world.patch(&format!("actors/{plain}"), json!({ "enabled": false })).await;
    assert_eq!(world.call(Method::POST, &link(plain), None).await.0, 422);
}
