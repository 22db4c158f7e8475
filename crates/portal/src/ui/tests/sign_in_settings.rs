//! Identity providers and the sink of flows on the pages: who may change them, and what never leaves the portal.

use std::collections::BTreeSet;

use super::*;
use crate::store::Identity;

const SECRET: &str = "a-secret-that-nobody-sees";

/// What the form for a provider sends.
const PROVIDER: [(&str, &str); 7] = [
    ("name", "corp"),
    ("issuer", "https://login.corp.example/"),
    ("client_id", "adit"),
    ("client_secret", SECRET),
    ("scopes", "profile email"),
    ("email_domains", "corp.example, Corp.Test"),
    ("just_in_time", "yes"),
];

/// The fields with some of them replaced or added.
fn with<'a>(fields: &[(&'a str, &'a str)], other: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let kept = fields.iter().filter(|(name, _)| other.iter().all(|(replaced, _)| replaced != name));
    kept.chain(other).copied().collect()
}

/// The token of a device that somebody signs in with the code that it shows.
async fn device_token(desk: &Desk, cookie: &str, csrf: &str) -> String {
    use adit_protocol::sign_in::{CLIENT_ID, DEVICE_PATH, GRANT_DEVICE_CODE, TOKEN_PATH};
    let ask = async |path: &str, fields: &[(&str, &str)]| {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let request = desk.http.post(desk.url(path)).header(header::COOKIE, cookie);
        let request = request.header("sec-fetch-site", "same-origin");
        let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        let response = request.body(body).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        response.text().await.unwrap()
    };
    let begun = ask(DEVICE_PATH, &[("client_id", CLIENT_ID), ("device_name", "laptop")]).await;
    let begun: adit_protocol::sign_in::DeviceCode = serde_json::from_str(&begun).unwrap();
    let yes = [("csrf", csrf), ("code", begun.user_code.as_str()), ("decision", "approve")];
    ask("/device/decide", &yes).await;
    let poll =
        [("grant_type", GRANT_DEVICE_CODE), ("client_id", CLIENT_ID), ("device_code", &*begun.device_code)];
    let issued: adit_protocol::sign_in::IssuedToken =
        serde_json::from_str(&ask(TOKEN_PATH, &poll).await).unwrap();
    issued.access_token
}

/// Nothing that was written down holds the secret.
async fn assert_kept_secret(desk: &Desk) {
    for path in ["/admin/settings", "/admin/audit", "/admin/flows/sink"] {
        let (status, page) = desk.get(path).await;
        assert!(status == 200 && !page.contains(SECRET), "{path}: {page}");
    }
    let entries = desk.portal.store.audit(Part::FIRST).await.unwrap();
    assert!(!format!("{entries:?}").contains(SECRET));
}

#[tokio::test]
async fn an_owner_sets_up_and_changes_a_provider() {
    let desk = desk().await;
    let new = "/admin/providers/new";
    for (wrong, reason) in [
        (("name", "local"), "is not `local`"),
        (("issuer", "http://login.corp.example/"), "https address"),
        (("client_id", ""), "what the provider calls this portal"),
        (("email_domains", "nodot"), "at most 50 domains"),
        (("ca_pem", "no certificate"), "certificates in PEM"),
    ] {
        let (status, page) = desk.post(new, &with(&PROVIDER, &[wrong])).await;
        assert_eq!(status, 422, "{wrong:?}");
        assert!(page.contains(reason) && page.contains("login.corp.example"), "{wrong:?}: {page}");
        assert!(!page.contains(SECRET), "{page}");
    }
    assert!(desk.portal.store.auth_providers(Part::FIRST).await.unwrap().is_empty());
    let id = desk.create(new, &PROVIDER).await;
    let provider = async || desk.portal.store.auth_provider(id.parse().unwrap()).await.unwrap();
    let made = provider().await;
    assert_eq!(
        (made.scopes.as_str(), made.email_domains.as_str()),
        ("openid profile email", "corp.example corp.test")
    );
    assert!(made.just_in_time && !made.links_directory && made.enabled);
    let (_, page) = desk.get(&format!("/admin/providers/{id}")).await;
    assert!(page.contains("set, and never shown") && page.contains("/sign-in/with/corp/callback"), "{page}");
    let (status, _) = desk.post(new, &PROVIDER).await;
    assert_eq!(status, 422, "the name is taken");

    // An empty secret is the one that there is; the rest is what the form says.
    let edit = format!("/admin/providers/{id}/edit");
    let (_, page) = desk.get(&edit).await;
    assert!(page.contains("the one that is set stays") && !page.contains(SECRET), "{page}");
    assert_eq!(desk.post(&edit, &[("scopes", "groups"), ("group_claim", "groups")]).await.0, 303);
    let changed = provider().await;
    assert_eq!(changed.client_secret_sealed, made.client_secret_sealed);
    assert_eq!((changed.scopes.as_str(), changed.group_claim.as_deref()), ("openid groups", Some("groups")));
    assert!(changed.email_domains.is_empty() && !changed.just_in_time);
    let (status, page) = desk.post(&edit, &[("client_secret", SECRET), ("email_domains", "nodot")]).await;
    assert!(status == 422 && !page.contains(SECRET), "{page}");
    assert_eq!(desk.post(&edit, &[("client_secret", "another")]).await.0, 303);
    let another = provider().await.client_secret_sealed;
    assert!(another.is_some() && another != made.client_secret_sealed);
    assert_eq!(desk.post(&edit, &[("no_secret", "yes")]).await.0, 303);
    assert_eq!(provider().await.client_secret_sealed, None);
    assert_kept_secret(&desk).await;
}

#[tokio::test]
async fn a_provider_that_goes_says_first_whom_it_signs_out_and_what_they_lose() {
    let desk = desk().await;
    let id = desk.create("/admin/providers/new", &with(&PROVIDER, &[("group_claim", "groups")])).await;
    let site = desk.create("/admin/sites/new", &[("name", "office")]).await;
    let wiki = [("name", "wiki"), ("kind", "dns"), ("address", "wiki.corp"), ("site", &*site)];
    desk.create("/admin/resources/new", &wiki).await;
    let mut change = desk.portal.store.change(&By::system()).await.unwrap();
    let identity = Identity {
        subject: "subject".to_owned(),
        name: "ana".to_owned(),
        verified_email: None,
        groups: Some(BTreeSet::from(["staff".to_owned()])),
    };
    let ana = change.sign_in_identity(id.parse().unwrap(), &identity).await.unwrap().unwrap();
    change.commit().await.unwrap();
    let staff =
        desk.portal.store.find_groups(&Find { text: "staff".to_owned(), ..Find::first(1) }).await.unwrap();
    let group = staff[0].group.id.to_string();
    desk.create("/admin/policies/new", &[("group", &group), ("resource", "wiki")]).await;
    let (cookie, hers) = sign_in(&desk.portal, &ana, "corp").await;
    let token = device_token(&desk, &cookie, &hers.csrf).await;
    let is_signed_in = async || desk.portal.store.web_session(hers.session.id).await.unwrap().is_some();

    let at = |verb: &str| format!("/admin/providers/{id}/{verb}");
    let (status, page) = desk.get(&at("disable")).await;
    assert_eq!(status, 200);
    assert!(page.contains("1 user can no longer sign in with it"), "{page}");
    assert!(page.contains("1 browser session and 1 device session end at once"), "{page}");
    assert!(
        !page.contains("Nobody loses access")
            && !page.contains("Yours is one of them")
            && !page.contains("wiki"),
        "{page}"
    );
    let (_, page) = desk.get(&at("delete")).await;
    assert!(page.contains("1 group of its own will be empty"), "{page}");
    assert!(page.contains("1 permission will be taken away") && page.contains("wiki"), "{page}");
    assert!(is_signed_in().await, "looking changes nothing");
    let (_, deployed) = desk.post(&format!("/admin/sites/{site}/deploy"), &[]).await;
    let _gateway = Peer::gateway(desk.address, &shown_token(&deployed)).await;
    let mut client = Peer::client(desk.address, &token).await;
    client.reach_first().await;
    let (_, page) = desk.get(&at("disable")).await;
    assert!(
        page.contains("0 permissions will be taken away and 1 live connection will end at once"),
        "{page}"
    );
    let (_, page) = desk.get(&at("delete")).await;
    assert!(
        page.contains("1 permission will be taken away and 1 live connection will end at once"),
        "{page}"
    );

    assert_eq!(desk.post(&at("disable"), &[]).await.0, 303);
    assert!(!is_signed_in().await);
    let leases = desk.portal.store.authorizations(Part::FIRST, crate::clock::now_ms()).await.unwrap();
    assert!(leases.is_empty(), "what the page said");
    assert!(!desk.portal.store.auth_provider(id.parse().unwrap()).await.unwrap().enabled);
    let (_, page) = desk.get(&format!("/admin/providers/{id}")).await;
    assert!(page.contains(&at("enable")) && !page.contains(&at("disable")), "{page}");
    assert_eq!(desk.post(&at("enable"), &[]).await.0, 303);
    assert!(desk.portal.store.auth_provider(id.parse().unwrap()).await.unwrap().enabled);
    assert_eq!(desk.post(&at("delete"), &[]).await.0, 303);
    assert_eq!(desk.get(&format!("/admin/providers/{id}")).await.0, 404);
    let members =
        desk.portal.store.find_groups(&Find { text: "staff".to_owned(), ..Find::first(1) }).await.unwrap();
    assert_eq!(members[0].members, 0);
}

#[tokio::test]
async fn the_secret_of_a_sink_stays_with_its_server() {
    let desk = desk().await;
    let path = "/admin/flows/sink";
    for wrong in [
        [("url", "file:///etc/passwd"), ("authorization", "")],
        [("url", "http://logs.example/"), ("authorization", SECRET)],
    ] {
        let (status, page) = desk.post(path, &wrong).await;
        assert!(status == 422 && !page.contains(SECRET), "{wrong:?}: {page}");
    }
    let right = [("url", "https://logs.example/adit"), ("authorization", SECRET)];
    assert_eq!(desk.post(path, &right).await.0, 303);
    let sink = async || desk.portal.store.flow_sink().await.unwrap().unwrap();
    let sealed = sink().await.sink_sealed;
    assert!(sealed.is_some());
    let (_, page) = desk.get(path).await;
    assert!(page.contains("https://logs.example/adit") && page.contains("set, and never shown"), "{page}");
    assert_eq!(desk.post(path, &[("url", "https://logs.example/other")]).await.0, 303);
    assert_eq!(sink().await.sink_sealed, sealed);
    for elsewhere in ["https://evil.example/other", "http://logs.example/other", "https://logs.example:444/"]
    {
        let (status, page) = desk.post(path, &[("url", elsewhere)]).await;
        assert!(status == 422 && page.contains("another server"), "{elsewhere}: {page}");
    }
    assert_eq!(sink().await.sink_url.as_deref(), Some("https://logs.example/other"));
    assert_eq!(desk.post(path, &[("url", "https://evil.example/"), ("no_secret", "yes")]).await.0, 303);
    assert_eq!(sink().await.sink_sealed, None);
    assert_kept_secret(&desk).await;
    assert_eq!(desk.post(&format!("{path}/remove"), &[]).await.0, 303);
    assert_eq!(sink().await.sink_url, None);
}

#[tokio::test]
async fn only_owners_change_who_signs_in_and_where_flows_go() {
    let mut desk = desk().await;
    let id = desk.create("/admin/providers/new", &PROVIDER).await;
    assert_eq!(desk.post("/admin/flows/sink", &[("url", "https://logs.example/")]).await.0, 303);
    let at = |verb: &str| format!("/admin/providers/{id}/{verb}");
    let changes = [
        "/admin/providers/new".to_owned(),
        at("edit"),
        at("enable"),
        at("disable"),
        at("delete"),
        "/admin/flows/sink".to_owned(),
        "/admin/flows/sink/remove".to_owned(),
    ];
    for role in [Role::Admin, Role::Auditor] {
        let mut change = desk.portal.store.change(&By::system()).await.unwrap();
        let actor = change.create_actor(ActorKind::User, role.name(), role).await.unwrap();
        change.commit().await.unwrap();
        let (cookie, signed) = sign_in(&desk.portal, &actor, "local").await;
        (desk.cookie, desk.csrf) = (cookie, signed.csrf);
        let before = desk.portal.store.audit(Part::FIRST).await.unwrap().len();
        for path in &changes {
            assert_eq!(
                desk.post(path, &with(&PROVIDER, &[("url", "https://x.example/")])).await.0,
                403,
                "{path}"
            );
        }
        for path in ["/admin/providers/new".to_owned(), at("edit"), at("disable"), at("delete")] {
            assert_eq!(desk.get(&path).await.0, 403, "{path}");
        }
        for path in [format!("/admin/providers/{id}"), "/admin/flows/sink".to_owned()] {
            let (status, page) = desk.get(&path).await;
            assert_eq!(status, 200, "{path}");
            assert_eq!(page.matches("method=\"post\"").count(), 1, "{path}: only signing out");
            assert!(changes.iter().all(|change| !page.contains(&format!("href=\"{change}\""))), "{page}");
        }
        assert_eq!(desk.portal.store.audit(Part::FIRST).await.unwrap().len(), before);
    }
}
