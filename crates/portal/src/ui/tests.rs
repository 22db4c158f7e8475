//! The admin pages of a running portal, asked over HTTP and looked at with a browser.

mod sign_in_settings;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use adit_policy::{Conditions, GroupId, ResourceAddress, SiteId};
use adit_protocol::client::RequestAuthorization;
use adit_protocol::frame::{self, Decoded};
use adit_protocol::{
    ClientToPortal, EncodedKey, GatewayToPortal, Hello, Message, PortalToClient, PortalToGateway, REVISION,
    flow,
};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::{SinkExt as _, StreamExt as _};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{self};
use uuid::Uuid;

use super::view::{Block, Button, Cell, Empty, Field, Form, Input, Page, Step, Table, Tone};
use super::visitor::Visitor;
use crate::bootstrap::{self, bootstrap};
use crate::portal::SharedPortal;
use crate::serve::{self, Running, Security};
use crate::store::{Actor, ActorKind, By, Find, Page as Part, Removal, ResourceSpec, Role};
use crate::web;

/// Longer than anything should take on a busy machine, and than a session is silent.
const PATIENCE: Duration = Duration::from_secs(120);

/// A name that would be markup.
const MARKUP: &str = "<script>alert(1)</script>\"' onload=x &amp;";

/// A portal, and an administrator who is signed in.
struct Desk {
    address: SocketAddr,
    portal: SharedPortal,
    cookie: String,
    csrf: String,
    session: Uuid,
    http: reqwest::Client,
    running: Running,
    _directory: TempDir,
}

/// Signs somebody in: the cookie, and who it says they are.
async fn sign_in(portal: &SharedPortal, actor: &Actor, provider: &str) -> (String, web::Signed) {
    let mut response = Response::default();
    web::begin(portal, actor, provider, (&HeaderMap::new(), "127.0.0.1"), &mut response).await.unwrap();
    let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let headers = HeaderMap::from_iter([(header::COOKIE, cookie.parse().unwrap())]);
    let signed = web::signed(portal, &headers, "127.0.0.1".to_owned()).await.unwrap().unwrap();
    (cookie, signed)
}

async fn desk() -> Desk {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    bootstrap(&bootstrap::Options {
        data_dir: data_dir.clone(),
        database: None,
        url: "https://localhost".parse().unwrap(),
        extra_names: Vec::new(),
        certificate: None,
        dns_upstreams: Vec::new(),
        search_domains: Vec::new(),
        ranges: bootstrap::Ranges::default(),
        rotate_admin_token: false,
    })
    .await
    .unwrap();
    let options = serve::Options {
        data_dir,
        database: None,
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        security: Security::Plain,
        health: None,
        keep_audit: None,
        behind_proxy: Vec::new(),
        api_rate: serve::API_RATE,
        take_over: false,
    };
    let running = serve::start(&options, None).await.unwrap();
    let portal = running.portal();
    let owner = portal.store.actors(Part::FIRST).await.unwrap().remove(0);
    let (cookie, signed) = sign_in(&portal, &owner, "local").await;
    let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    Desk {
        address: running.addresses()[0],
        portal,
        cookie,
        csrf: signed.csrf,
        session: signed.session.id,
        http: http.build().unwrap(),
        running,
        _directory: directory,
    }
}

impl Desk {
    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let request = self.http.get(self.url(path)).header(header::COOKIE, &self.cookie);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Sends a form as a page of the portal would.
    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> (u16, String) {
        self.post_with(path, fields, &self.csrf, "same-origin").await
    }

    async fn post_with(&self, path: &str, fields: &[(&str, &str)], csrf: &str, from: &str) -> (u16, String) {
        let mut body = url::form_urlencoded::Serializer::new(String::new());
        body.append_pair("csrf", csrf).extend_pairs(fields);
        let request = self.http.post(self.url(path)).header(header::COOKIE, &self.cookie);
        let request = request.header("sec-fetch-site", from);
        let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let response = request.body(body.finish()).send().await.unwrap();
        let place = response.headers().get(header::LOCATION).map(|place| place.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        (status, place.unwrap_or(response.text().await.unwrap()))
    }

    /// Sends a form that is carried out, and returns the id in the address that it leads to.
    async fn create(&self, path: &str, fields: &[(&str, &str)]) -> String {
        let (status, place) = self.post(path, fields).await;
        assert_eq!(status, 303, "{path}: {place}");
        place.rsplit('/').next().unwrap().to_owned()
    }
}

/// Every address of a page that shows something.
const PAGES: [&str; 28] = [
    "/admin",
    "/admin/sites",
    "/admin/sites/new",
    "/admin/resources",
    "/admin/resources/new",
    "/admin/policies",
    "/admin/policies/new",
    "/admin/explain",
    "/admin/people",
    "/admin/people/new",
    "/admin/groups",
    "/admin/groups/new",
    "/admin/devices",
    "/admin/sessions",
    "/admin/authorizations",
    "/admin/relays",
    "/admin/tokens",
    "/admin/tokens/new",
    "/admin/audit",
    "/admin/flows",
    "/admin/flows/sink",
    "/admin/flows/sink/remove",
    "/admin/settings",
    "/admin/providers/new",
    "/admin/suggest/resources",
    "/admin/suggest/people",
    "/admin/resources?q=x&after=nonsense",
    "/admin/audit?q=%25_%5C",
];

#[tokio::test]
async fn nobody_sees_a_page_or_changes_anything_without_a_session() {
    let desk = desk().await;
    for path in PAGES {
        assert_eq!(desk.get(path).await.0, 200, "{path}");
        let response = desk.http.get(desk.url(path)).send().await.unwrap();
        assert_eq!(response.status(), 303, "{path}");
        assert!(response.headers()[header::LOCATION].to_str().unwrap().starts_with("/sign-in"), "{path}");
    }
    let events = desk.http.get(desk.url("/admin/events")).header(header::ACCEPT, "text/event-stream");
    assert_eq!(events.send().await.unwrap().status(), 401);
    let sites = || desk.portal.store.sites(Part::FIRST);
    let response = desk.http.post(desk.url("/admin/sites/new")).body("name=x").send().await.unwrap();
    assert_eq!(response.status(), 303);
    for (csrf, from) in [("", "same-origin"), ("made up", "same-origin"), (desk.csrf.as_str(), "cross-site")]
    {
        assert_eq!(desk.post_with("/admin/sites/new", &[("name", "x")], csrf, from).await.0, 403);
    }
    assert!(sites().await.unwrap().is_empty());
    assert_eq!(desk.post("/admin/sites/new", &[("name", "x")]).await.0, 303);
    assert_eq!(sites().await.unwrap().len(), 1);
}

#[tokio::test]
async fn pages_carry_a_strict_policy_and_assets_are_kept() {
    let desk = desk().await;
    let request = desk.http.get(desk.url("/admin")).header(header::COOKIE, &desk.cookie);
    let response = request.send().await.unwrap();
    let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"));
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
    let page = response.text().await.unwrap();
    assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains(" onclick="));
    for path in page.split('"').filter(|part| part.starts_with("/assets/")) {
        let asset = desk.http.get(desk.url(path)).send().await.unwrap();
        assert_eq!(asset.status(), 200, "{path}");
        assert!(asset.headers()[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"));
    }
    assert_eq!(desk.get("/assets/style-0.css").await.0, 404);
}

#[tokio::test]
async fn names_are_escaped_wherever_they_are_shown() {
    let desk = desk().await;
    let site = desk.create("/admin/sites/new", &[("name", MARKUP)]).await;
    let fields = [("name", MARKUP), ("kind", "dns"), ("address", "wiki.corp"), ("site", &site)];
    let resource = desk.create("/admin/resources/new", &fields).await;
    let person = desk.create("/admin/people/new", &[("name", MARKUP), ("kind", "user")]).await;
    let group = desk.create("/admin/groups/new", &[("name", MARKUP)]).await;
    assert_eq!(desk.post(&format!("/admin/groups/{group}/add"), &[("person", MARKUP)]).await.0, 303);
    let fields = [("group", group.as_str()), ("resource", MARKUP)];
    let policy = desk.create("/admin/policies/new", &fields).await;
    let (status, token) =
        desk.post("/admin/tokens/new", &[("kind", "client"), ("name", MARKUP), ("person", MARKUP)]).await;
    assert_eq!(status, 200);
    let (_, gateway) = desk.post(&format!("/admin/sites/{site}/deploy"), &[]).await;
    let gateway = shown_token(&gateway);
    let mut gateway = Peer::gateway(desk.address, &gateway).await;
    let mut client = Peer::client(desk.address, &shown_token(&token)).await;
    client.reach_first().await;
    gateway.report_flow(MARKUP).await;
    let encoded = url::form_urlencoded::byte_serialize(MARKUP.as_bytes()).collect::<String>();
    let mut paths: Vec<String> = PAGES.iter().map(|path| (*path).to_owned()).collect();
    paths.extend([
        format!("/admin/sites/{site}"),
        format!("/admin/sites/{site}/delete"),
        format!("/admin/resources/{resource}"),
        format!("/admin/resources/{resource}/edit"),
        format!("/admin/resources/{resource}/delete"),
        format!("/admin/policies/{policy}"),
        format!("/admin/policies/{policy}/edit"),
        format!("/admin/policies/{policy}/disable"),
        format!("/admin/people/{person}"),
        format!("/admin/people/{person}/delete"),
        format!("/admin/groups/{group}"),
        format!("/admin/groups/{group}/delete"),
        format!("/admin/groups/{group}/remove/{person}"),
        format!("/admin/explain?person={encoded}&resource={encoded}&device={encoded}"),
        format!("/admin/resources?q={encoded}"),
        format!("/admin/policies/new?resource={encoded}&group={encoded}&from={encoded}"),
    ]);
    let mut seen = 0;
    for path in paths {
        let (status, page) = desk.get(&path).await;
        assert_eq!(status, 200, "{path}");
        assert!(!page.contains("<script>alert") && !page.contains("\"' onload"), "{path}: {page}");
        seen += page.matches("alert(1)").count();
    }
    assert!(seen > 50, "the names are on the pages, {seen} times");
    let (status, page) = desk.post("/admin/sites/new", &[("name", &format!("\u{7}{MARKUP}"))]).await;
    assert_eq!(status, 422);
    assert!(page.contains("alert(1)") && !page.contains("<script>alert"));
}

/// The token that a page shows once.
fn shown_token(page: &str) -> String {
    let begin = page.find("adit_").unwrap();
    page[begin..].chars().take_while(|c| c.is_ascii_alphanumeric() || "_-".contains(*c)).collect()
}

fn every_control(visitor: &Visitor) -> Page {
    let change = Button::change("Change", "/admin/change", Tone::Primary);
    let step = Step { is_done: false, title: "Step", hint: "", button: change.clone() };
    let buttons =
        vec![change.clone(), Button::post("Post", "/admin/post"), Button::link("See", "/admin/see")];
    let field = Field::new("name", "Name", Input::Text);
    let empty = Empty::new("Empty", "").with(change.clone());
    Page::new(visitor, "sites", "Everything")
        .action(change)
        .block(Block::Steps(vec![step]))
        .block(Block::Form(Form::new("/admin/form", "Send", vec![field])))
        .table(Table::new("Rows", &[""], vec![vec![Cell::Buttons(buttons)]], Empty::default()))
        .table(Table::new("None", &[""], Vec::new(), empty))
}

#[tokio::test]
async fn an_auditor_sees_no_control_and_is_refused_every_change() {
    let desk = desk().await;
    let headers = HeaderMap::from_iter([(header::COOKIE, desk.cookie.parse().unwrap())]);
    let signed = web::signed(&desk.portal, &headers, "127.0.0.1".to_owned()).await.unwrap().unwrap();
    let admin = Visitor::new(signed).unwrap();
    let mut auditor = admin.clone();
    auditor.may_change = false;
    let text = |page: Page| async move {
        let body = axum::body::to_bytes(page.answer().into_body(), usize::MAX).await.unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    };
    let all = text(every_control(&admin)).await;
    for place in ["/admin/change", "/admin/post", "/admin/form", "/admin/see"] {
        assert!(all.contains(place), "{place}");
    }
    let seen = text(every_control(&auditor)).await;
    for place in ["/admin/change", "/admin/post", "/admin/form"] {
        assert!(!seen.contains(place), "{place}");
    }
    assert!(seen.contains("/admin/see") && seen.contains("Everything"));
    assert_eq!(seen.matches("method=\"post\"").count(), 1, "only signing out");
    assert!(admin.editor().is_ok());
    assert_eq!(auditor.editor().unwrap_err().into_response().status(), 403);
}

#[tokio::test]
async fn a_page_of_ten_thousand_resources_is_quick() {
    let desk = desk().await;
    let mut change = desk.portal.store.change(&By::system()).await.unwrap();
    let site = change.create_site("office").await.unwrap();
    for number in 0..10_000 {
        let address = ResourceAddress::Dns { pattern: format!("host-{number}.corp.example") };
        let name = format!("host {number}");
        let spec = ResourceSpec { name, address, site: site.id, filters: Vec::new() };
        change.create_resource(&spec).await.unwrap();
    }
    change.commit().await.unwrap();
    let mut slowest = Duration::ZERO;
    for path in [
        "/admin/resources",
        "/admin/resources?q=host-9999",
        "/admin/resources?q=nowhere",
        "/admin",
        "/admin/sites",
    ] {
        desk.get(path).await;
        let begin = Instant::now();
        let (status, page) = desk.get(path).await;
        let took = begin.elapsed();
        println!("{path}: {took:?}, {} bytes", page.len());
        assert_eq!(status, 200);
        slowest = slowest.max(took);
    }
    // 200 ms is the aim for a release; this is a debug build beside other tests.
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let (_, mut page) = desk.get("/admin/resources").await;
    let mut pages = 1;
    while let Some(begin) = page.find("/admin/resources?after=") {
        let next: String = page[begin..].chars().take_while(|c| *c != '"').collect();
        page = desk.get(&next).await.1;
        pages += 1;
        if pages == 5 {
            assert!(page.contains("host-249.corp") && !page.contains("host-250.corp"), "50 rows a page");
            break;
        }
    }
    assert_eq!(pages, 5);
}

#[tokio::test]
async fn an_event_stream_ends_with_its_session() {
    let desk = desk().await;
    let request = desk.http.get(desk.url("/admin/events")).header(header::COOKIE, &desk.cookie);
    let mut events = request.header(header::ACCEPT, "text/event-stream").send().await.unwrap();
    desk.create("/admin/sites/new", &[("name", "x")]).await;
    let first = tokio::time::timeout(PATIENCE, events.chunk()).await.unwrap().unwrap().unwrap();
    assert!(String::from_utf8_lossy(&first).contains("event: change"));
    let mut change = desk.portal.store.change(&By::system()).await.unwrap();
    change.end_web_session(desk.session).await.unwrap();
    change.commit().await.unwrap();
    let begin = Instant::now();
    let mut rest = String::new();
    while let Ok(Some(bytes)) = tokio::time::timeout(PATIENCE, events.chunk()).await.unwrap() {
        rest.push_str(&String::from_utf8_lossy(&bytes));
    }
    assert!(rest.contains("event: end"), "{rest}");
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert_eq!(desk.get("/admin").await.0, 303);
    desk.running.stop().await;
}

#[tokio::test]
async fn what_a_change_takes_away_is_said_before() {
    let desk = desk().await;
    let store = &desk.portal.store;
    let mut change = store.change(&By::system()).await.unwrap();
    let site = change.create_site("office").await.unwrap();
    let address = ResourceAddress::Dns { pattern: "wiki.corp".to_owned() };
    let spec = ResourceSpec { name: "wiki".to_owned(), address, site: site.id, filters: Vec::new() };
    let wiki = change.create_resource(&spec).await.unwrap();
    let mut groups = Vec::new();
    for name in ["staff", "friends"] {
        let group = GroupId::from_uuid(change.create_group(name, false).await.unwrap().id);
        change.create_policy(group, wiki, &Conditions::default()).await.unwrap();
        groups.push(group);
    }
    for (name, of) in [("ana", &groups[..]), ("ben", &groups[..1])] {
        let actor = change.create_actor(ActorKind::User, name, Role::None).await.unwrap();
        for group in of {
            change.add_member(*group, adit_policy::ActorId::from_uuid(actor.id)).await.unwrap();
        }
    }
    change.commit().await.unwrap();
    let loses = async |removal| {
        let impact = store.impact(removal, 0).await.unwrap();
        impact.losses.into_iter().map(|(who, _)| who).collect::<Vec<_>>()
    };
    assert_eq!(loses(Removal::Group(groups[0])).await, ["ben"], "ana has another way");
    assert!(loses(Removal::Group(groups[1])).await.is_empty());
    assert_eq!(loses(Removal::Resource(wiki)).await, ["ana", "ben"]);
    assert_eq!(loses(Removal::Site(SiteId::from_uuid(site.id.as_uuid()))).await, ["ana", "ben"]);
    let staff = store.find_policies(&Find::of(groups[0].as_uuid(), 1)).await.unwrap().remove(0);
    assert_eq!(loses(Removal::Policy(staff.id)).await, ["ben"]);
    let (status, page) = desk.get(&format!("/admin/groups/{}/delete", groups[0])).await;
    assert_eq!(status, 200);
    assert!(page.contains("1 permission will be taken away") && page.contains("ben"));
}

#[tokio::test]
async fn an_edit_that_takes_access_away_says_from_whom_before_it_is_made() {
    let desk = desk().await;
    let site = desk.create("/admin/sites/new", &[("name", "office")]).await;
    let fields = [("name", "wiki"), ("kind", "dns"), ("address", "wiki.corp"), ("site", &*site)];
    let resource = desk.create("/admin/resources/new", &fields).await;
    let group = desk.create("/admin/groups/new", &[("name", "staff")]).await;
    for name in ["ana", "ben"] {
        desk.create("/admin/people/new", &[("name", name), ("kind", "user")]).await;
        assert_eq!(desk.post(&format!("/admin/groups/{group}/add"), &[("person", name)]).await.0, 303);
    }
    let fields = [("group", group.as_str()), ("resource", "wiki")];
    let policy = desk.create("/admin/policies/new", &fields).await;
    let fields = [("kind", "client"), ("name", "laptop"), ("person", "ana")];
    let (_, token) = desk.post("/admin/tokens/new", &fields).await;
    let (_, deployed) = desk.post(&format!("/admin/sites/{site}/deploy"), &[]).await;
    let mut gateway = Peer::gateway(desk.address, &shown_token(&deployed)).await;
    let mut client = Peer::client(desk.address, &shown_token(&token)).await;
    client.reach_first().await;
    let told = gateway.hear::<PortalToGateway>().await;
    assert!(matches!(told, PortalToGateway::AuthorizationCreated(_)));
    let entries = async || desk.portal.store.audit(Part::FIRST).await.unwrap().len();
    let before = entries().await;

    let conditions = format!("/admin/policies/{policy}/edit");
    let (status, page) = desk.post(&conditions, &[("verified", "yes"), ("age", "90")]).await;
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("2 permissions will change and 1 live connection will end at once"), "{page}");
    for part in ["ana", "ben", "always", "under conditions", "laptop", "name=\"age\" value=\"90\""] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let place = format!("/admin/resources/{resource}/edit");
    let moved = [("name", "wiki"), ("kind", "ip"), ("address", "10.0.0.1"), ("site", &*site)];
    let (status, page) = desk.post(&place, &moved).await;
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("wiki.corp at office") && page.contains("10.0.0.1 at office"), "{page}");
    assert!(page.contains("2 permissions will change and 1 live connection will end at once"), "{page}");
    assert_eq!(entries().await, before, "nothing was changed, and nothing is in the log");
    let leases = async || {
        let leases = desk.portal.store.authorizations(Part::FIRST, crate::clock::now_ms()).await;
        leases.unwrap().len()
    };
    assert_eq!(leases().await, 1);

    // What takes nothing away is made at once: another name, or a place that was confirmed.
    let renamed = [("name", "the wiki"), ("kind", "dns"), ("address", "wiki.corp"), ("site", &*site)];
    assert_eq!(desk.post(&place, &renamed).await.0, 303);
    assert_eq!(leases().await, 1);
    // Less traffic takes something away, although the leases stay; more does not.
    let filtered = |ports| {
        [("name", "the wiki"), ("kind", "dns"), ("address", "wiki.corp"), ("site", &*site), ("ports", ports)]
    };
    let (status, page) = desk.post(&place, &filtered("tcp/80-443 icmp")).await;
    assert_eq!(status, 200, "{page}");
    assert!(page.contains("2 permissions will change and 0 live connections will end at once"), "{page}");
    assert!(page.contains("everything") && page.contains("tcp/80-443 icmp"), "{page}");
    let confirmed = [&filtered("tcp/80-443 icmp")[..], &[("confirmed", "yes")]].concat();
    assert_eq!(desk.post(&place, &confirmed).await.0, 303);
    assert_eq!(desk.post(&place, &filtered("tcp/80-500 icmp")).await.0, 303);
    assert_eq!(desk.post(&place, &filtered("tcp/443 icmp")).await.0, 200);
    assert_eq!(leases().await, 1);
    let confirmed = [("verified", "yes"), ("age", "90"), ("confirmed", "yes")];
    assert_eq!(desk.post(&conditions, &confirmed).await.0, 303);
    assert_eq!(leases().await, 0);
    let (status, page) = desk.post(&conditions, &[("verified", "yes"), ("age", "60")]).await;
    assert!(status == 200 && page.contains("under other conditions"), "{page}");
    assert_eq!(desk.post(&conditions, &[]).await.0, 303, "without any condition nobody loses anything");
}

#[tokio::test]
async fn settings_are_checked_field_by_field_and_only_what_differs_is_changed() {
    let desk = desk().await;
    let path = "/admin/settings/edit";
    let store = &desk.portal.store;
    let entries = async || store.audit(Part::FIRST).await.unwrap();
    let before = entries().await.len();
    let wrong = [
        ("upstreams", "192.0.2.53"),
        ("domains", "*.corp.example"),
        ("session_days", "0"),
        ("device_limit", "many"),
        ("flow_days", "-1"),
        ("flow_rows", "5"),
    ];
    let (status, page) = desk.post(path, &wrong).await;
    assert_eq!(status, 422);
    for (name, value) in wrong {
        let beside = format!("aria-describedby=\"h-{name} e-{name}\"");
        assert!(page.contains(&beside) && page.contains(&format!("id=\"e-{name}\"")), "{name}: {page}");
        assert!(page.contains(&format!("value=\"{value}\"")), "what was filled in is kept: {name}");
    }
    assert_eq!(page.matches("aria-invalid").count(), 6);
    assert_eq!(entries().await.len(), before, "nothing was changed");

    let right = [
        ("upstreams", "192.0.2.53:53, [2001:db8::53]:53"),
        ("domains", "corp.example"),
        ("session_days", "30"),
        ("device_limit", "3"),
        ("flow_days", "0"),
        ("flow_rows", "1000000"),
    ];
    assert_eq!(desk.post(path, &right).await, (303, "/admin/settings".to_owned()));
    let log = entries().await;
    let actions: Vec<&str> = log[..log.len() - before].iter().map(|row| row.action.as_str()).collect();
    assert_eq!(actions, ["flow_log.update", "settings.update", "sign_in.settings"]);
    assert_eq!(log[0].who, "owner");
    assert_eq!(desk.portal.account().settings.dns_upstreams.len(), 2, "clients get them at once");
    assert_eq!(store.flow_setting().await.unwrap().keep_days, 0);
    let (_, page) = desk.get("/admin/settings").await;
    assert!(page.contains("192.0.2.53:53") && page.contains("not at all"), "{page}");
    assert_eq!(desk.post(path, &right).await.0, 303);
    assert_eq!(entries().await.len(), log.len(), "the same again changes nothing");
}

/// A scripted peer.
struct Peer {
    socket: tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>,
    init: Option<adit_protocol::client::Init>,
}

impl Peer {
    async fn connect(address: SocketAddr, endpoint: &str, token: &str) -> Self {
        let mut request = format!("ws://{address}/v1/{endpoint}").into_client_request().unwrap();
        let value = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", value);
        Self { socket: tokio_tungstenite::connect_async(request).await.unwrap().0, init: None }
    }

    fn hello(device: u128, name: &str) -> Hello {
        Hello {
            revision: REVISION,
            device_id: Uuid::from_u128(device),
            name: name.to_owned(),
            public_key: EncodedKey([device as u8; 32]),
            version: "1.0.0".to_owned(),
            capabilities: Vec::new(),
        }
    }

    async fn say(&mut self, message: &impl Message) {
        let text = frame::encode(message, None).unwrap();
        self.socket.send(tungstenite::Message::text(text)).await.unwrap();
    }

    async fn hear<M: Message>(&mut self) -> M {
        loop {
            match tokio::time::timeout(PATIENCE, self.socket.next()).await.unwrap().unwrap().unwrap() {
                tungstenite::Message::Text(text) => match frame::decode(&text).unwrap() {
                    Decoded::Message { message, .. } => return message,
                    Decoded::Unknown { kind } => panic!("unknown kind {kind}"),
                },
                tungstenite::Message::Ping(_) | tungstenite::Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn gateway(address: SocketAddr, token: &str) -> Self {
        let mut peer = Self::connect(address, "gateway", token).await;
        peer.say(&GatewayToPortal::Hello(Self::hello(2, "gateway <b id=injected>\"'&"))).await;
        assert!(matches!(peer.hear().await, PortalToGateway::Init(_)));
        peer
    }

    async fn client(address: SocketAddr, token: &str) -> Self {
        let mut peer = Self::connect(address, "client", token).await;
        peer.say(&ClientToPortal::Hello(Self::hello(3, "laptop <b id=injected>\"'&"))).await;
        match peer.hear().await {
            PortalToClient::Init(init) => peer.init = Some(init),
            other => panic!("{other:?}"),
        }
        assert!(matches!(peer.hear().await, PortalToClient::SignIn(_)));
        peer
    }

    /// Says as a gateway that somebody asked for `name`, and waits until that is in the flow log.
    async fn report_flow(&mut self, name: &str) {
        let nobody = Uuid::from_u128(9);
        let record = flow::FlowRecord {
            id: nobody,
            authorization: adit_policy::AuthorizationId::from_uuid(nobody),
            client: Some(adit_policy::ClientId::from_uuid(nobody)),
            gateway: None,
            resource: adit_policy::ResourceId::from_uuid(nobody),
            protocol: 6,
            source: [100, 64, 0, 2].into(),
            source_port: 1,
            destination: [10, 0, 0, 1].into(),
            destination_port: 443,
            name: Some(name.to_owned()),
            path: None,
            opened_ms: 1,
            at_ms: 2,
            end: None,
            sent_packets: 1,
            sent_bytes: 1,
            received_packets: 1,
            received_bytes: 1,
        };
        let flows = vec![flow::NumberedFlow { number: 1, report: flow::FlowReport::Flow(Box::new(record)) }];
        self.say(&GatewayToPortal::Flows(flow::Flows { spool: nobody, flows })).await;
        while !matches!(self.hear().await, PortalToGateway::FlowsStored(_)) {}
    }

    /// Asks for the first resource that it sees, and is granted it.
    async fn reach_first(&mut self) {
        let resource = self.init.as_ref().unwrap().resources[0].id;
        self.say(&ClientToPortal::RequestAuthorization(RequestAuthorization {
            request_id: 1,
            resource,
            connected_gateways: Vec::new(),
            avoid_gateways: Vec::new(),
            prefer_gateway: None,
        }))
        .await;
        assert!(matches!(self.hear().await, PortalToClient::AuthorizationCreated(_)));
    }
}

/// Where the browser's packages and its pictures are kept: beside what cargo builds.
fn artefacts() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(3).unwrap().join("admin-pages")
}

async fn install_packages(into: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    std::fs::create_dir_all(into).unwrap();
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(from.join(file), into.join(file)).unwrap();
    }
    if into.join("node_modules/playwright-core").is_dir() && into.join("node_modules/axe-core").is_dir() {
        return;
    }
    let mut npm = tokio::process::Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(into);
    let status = npm.status().await.expect("npm is there: cargo xtask packages");
    assert!(status.success(), "npm ci");
}

/// An administrator's day in a browser, see `tests/browser/admin-pages.mjs`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_administrator_walks_every_page_in_a_browser() {
    let artefacts = artefacts();
    install_packages(&artefacts).await;
    let desk = desk().await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/admin-pages.mjs");
    let mut browser = tokio::process::Command::new("node")
        .arg(script)
        .env("ADIT_NODE_MODULES", artefacts.join("node_modules"))
        .env("ADIT_URL", format!("http://localhost:{}", desk.address.port()))
        .env("ADIT_COOKIE", &desk.cookie)
        .env("ADIT_SHOTS", artefacts.join("screenshots"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node is there: cargo xtask packages");
    let mut lines = BufReader::new(browser.stdout.take().unwrap()).lines();
    let (mut gateway, mut client) = (None, None);
    let mut is_done = false;
    let mut refused = BTreeSet::new();
    while let Some(line) = tokio::time::timeout(Duration::from_secs(240), lines.next_line())
        .await
        .expect("the browser hangs")
        .unwrap()
    {
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("GATEWAY", token) => {
                let mut peer = Peer::gateway(desk.address, token).await;
                gateway = Some(tokio::spawn(async move {
                    loop {
                        let _: PortalToGateway = peer.hear().await;
                    }
                }));
            }
            ("CLIENT", token) => {
                let mut peer = Peer::client(desk.address, token).await;
                peer.reach_first().await;
                client = Some(tokio::spawn(async move { peer.hear::<PortalToClient>().await }));
            }
            ("END", _) => {
                // The administrator revoked the access meanwhile, and the peers were told.
                let told = tokio::time::timeout(PATIENCE, client.as_mut().unwrap()).await.unwrap().unwrap();
                assert!(matches!(told, PortalToClient::AuthorizationRevoked(_)), "{told:?}");
                let mut change = desk.portal.store.change(&By::system()).await.unwrap();
                change.end_web_session(desk.session).await.unwrap();
                change.commit().await.unwrap();
            }
            ("REFUSED", path) => {
                refused.insert(shape(path));
            }
            ("DONE", _) => is_done = true,
            other => println!("{other:?}"),
        }
    }
    assert!(browser.wait().await.unwrap().success() && is_done, "the browser is not content, see above");
    assert!(gateway.is_some() && client.is_some());
    assert_eq!(refused, changes(), "an auditor was refused every change that there is, see auditor.mjs");
}

/// An address with a placeholder for each id.
fn shape(path: &str) -> String {
    let part = |part| if Uuid::try_parse(part).is_ok() { "{}" } else { part };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// Every address that takes a form, by the router's own text.
fn changes() -> BTreeSet<String> {
    let routes = include_str!("mod.rs").lines().filter_map(|line| line.trim().strip_prefix(".route(\""));
    let changes = routes.filter(|route| route.contains("post(")).filter_map(|route| route.split('"').next());
    let blank = |path: &str| {
        let part = |part: &str| if part.starts_with('{') { "{}".to_owned() } else { part.to_owned() };
        path.split('/').map(part).collect::<Vec<_>>().join("/")
    };
    changes.map(blank).collect()
}
