//! The program itself, over TLS, as an administrator uses it.

use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::Arc;

use adit_portal::bootstrap::{self, Outcome, bootstrap};
use adit_portal::serve::{self, Running, Security};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpStream;

struct Tls {
    _directory: TempDir,
    made: Outcome,
    address: SocketAddr,
    running: Running,
}

impl Tls {
    async fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let data_dir = directory.path().join("data");
        let made = bootstrap(&bootstrap::Options {
            data_dir: data_dir.clone(),
            database: None,
            url: "https://127.0.0.1".parse().unwrap(),
            extra_names: vec!["portal.example".to_owned()],
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
            security: Security::Bootstrapped,
            health: None,
            keep_audit: None,
            behind_proxy: Vec::new(),
            api_rate: serve::API_RATE,
            take_over: false,
        };
        let running = serve::start(&options, None).await.unwrap();
        Self { _directory: directory, made, address: running.addresses()[0], running }
    }

    async fn run(&self, arguments: &'static [&'static str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_adit-portal"));
        command
            .args(arguments)
            .env("ADIT_PORTAL_URL", format!("https://{}", self.address))
            .env("ADIT_ADMIN_TOKEN", &self.made.admin_token)
            .env("ADIT_CA", self.made.ca_file.as_ref().unwrap());
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    /// A command that must succeed: its JSON.
    async fn json(&self, arguments: &'static [&'static str]) -> Value {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A command that must fail: its exit code and what it says.
    async fn succeeds(&self, arguments: &'static [&'static str]) -> String {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    async fn fails(&self, arguments: &'static [&'static str]) -> (i32, String) {
        let output = self.run(arguments).await;
        assert_eq!(output.stdout, b"");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

/// Arguments that last as long as the test.
fn leak(arguments: &[&str]) -> &'static [&'static str] {
    let arguments = arguments.iter().map(|argument| &*Box::leak(Box::from(*argument)));
    Box::leak(arguments.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_installation_is_set_up_from_the_command_line() {
    let portal = Tls::new().await;
    portal.json(&["site", "create", "office", "--json"]).await;
    let token = portal.json(&["token", "create", "gateway", "--site", "office", "--json"]).await;
    assert!(token["token"].as_str().unwrap().starts_with("adit_gateway_"));
    assert_eq!(token["expires_ms"], Value::Null);
    let resource = portal
        .json(&[
            "resource",
            "create",
            "wiki",
            "--type",
            "dns",
            "--address",
            "wiki.corp",
            "--site",
            "office",
            "--filter",
            "tcp/80,443",
            "--filter",
            "icmp",
            "--json",
        ])
        .await;
    assert_eq!(resource["filters"].as_array().unwrap().len(), 3);
    let options =
        ["--during", "mon-fri 00:00-24:00", "--during", "sat,sun 12:00-12:00", "--time-zone", "UTC"];
    let create = ["policy", "create", "--group", "Everyone", "--resource", "wiki", "--json"];
    let (code, error) = portal.fails(leak(&[&create[..], &options[..]].concat())).await;
    assert!(code != 0 && error.contains("the window from 12:00 to 12:00 is empty"), "{error}");
    let options = ["--during", "mon-sun 00:00-24:00", "--time-zone", "UTC", "--from", "192.0.2.0/24"];
    let policy = portal.json(leak(&[&create[..], &options[..]].concat())).await;
    let policies = portal.json(&["policy", "list", "--json"]).await;
    assert_eq!(policies[0]["conditions"]["remote_address"]["any_of"][0], "192.0.2.0/24");
    assert_eq!(policies[0]["conditions"]["time"]["windows"][0]["days"].as_array().unwrap().len(), 7);
    let id = policy["id"].as_str().unwrap();
    let options = ["--authentication-age", "7d", "--not-from", "192.0.2.0/24,2001:db8::/32"];
    portal.json(leak(&[&["policy", "conditions", id, "--json"], &options[..]].concat())).await;
    let policies = portal.json(&["policy", "list", "--json"]).await;
    let networks = serde_json::json!({ "none_of": ["192.0.2.0/24", "2001:db8::/32"] });
    let conditions = serde_json::json!({ "remote_address": networks, "authentication_age": 604_800 });
    assert_eq!(policies[0]["conditions"], conditions, "all others are gone");
    portal.json(leak(&["policy", "conditions", id, "--json"])).await;
    portal.json(&["actor", "create", "ana", "--json"]).await;
    let token =
        portal.json(&["token", "create", "client", "--actor", "ana", "--expires-in", "12h", "--json"]).await;
    assert!(token["token"].as_str().unwrap().starts_with("adit_client_"));
    assert!(token["expires_ms"].is_i64());
    let why = portal.json(&["explain", "--actor", "ana", "--resource", "wiki", "--json"]).await;
    assert!(why["decision"]["granted"].is_object());
    let changed = portal
        .json(&["resource", "update", "wiki", "--address", "wiki2.corp", "--no-filters", "--json"])
        .await;
    assert_eq!(
        (changed["address"]["pattern"].as_str(), &changed["filters"]),
        (Some("wiki2.corp"), &Value::Array(vec![]))
    );
    for noun in [
        &["site", "list", "--json"][..],
        &["resource", "list", "--json"],
        &["group", "list", "--json"],
        &["actor", "list", "--json"],
        &["policy", "list", "--json"],
        &["token", "list", "--json"],
        &["device", "list", "--json"],
        &["gateway", "list", "--json"],
        &["relay", "list", "--json"],
        &["authorization", "list", "--json"],
        &["audit", "list", "--json"],
    ] {
        let arguments = leak(noun);
        assert!(portal.json(arguments).await.is_array(), "{noun:?}");
        let table = portal.run(&arguments[..2]).await;
        for line in String::from_utf8(table.stdout).unwrap().lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
    let sites = portal.json(&["audit", "list", "--action", "site", "--since", "1h", "--json"]).await;
    assert_eq!(sites.as_array().unwrap().len(), 1, "{sites}");
    for nothing in
        [["--actor", "nobody"], ["--until", "1h"], ["--object", "00000000-0000-0000-0000-000000000000"]]
    {
        let arguments = leak(&["audit", "list", nothing[0], nothing[1], "--json"]);
        assert_eq!(portal.json(arguments).await, Value::Array(vec![]), "{nothing:?}");
    }
    portal.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_have_exit_codes_and_sentences() {
    let portal = Tls::new().await;
    let (code, text) = portal.fails(&["site", "create", "--json"]).await;
    assert_eq!(code, 2, "{text}");
    let (code, text) = portal.fails(&["token", "create", "gateway", "--site", "nowhere"]).await;
    assert_eq!((code, text.contains("none called `nowhere`")), (2, true), "{text}");
    let (code, text) = portal.fails(&["site", "list", "--token", "adit_api_x"]).await;
    assert_eq!((code, text.contains("not valid")), (4, true), "{text}");
    let (code, text) = portal.fails(&["site", "list", "--url", "https://127.0.0.1:1"]).await;
    assert_eq!((code, text.contains("cannot reach the portal")), (3, true), "{text}");
    let (code, text) = portal.fails(&["site", "list", "--ca", "/nonexistent"]).await;
    assert_eq!((code, text.contains("cannot use the CA")), (2, true), "{text}");
    let (code, text) =
        portal.fails(&["serve", "--data-dir", "/nonexistent", "--listen", "127.0.0.1:0"]).await;
    assert_eq!((code, text.contains("run `adit-portal bootstrap` first")), (1, true), "{text}");
    portal.running.stop().await;
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let portal = Tls::new().await;
    let options = serve::Options {
        data_dir: portal.made.data_dir.clone(),
        database: None,
        listen: vec![portal.address],
        security: Security::Bootstrapped,
        health: None,
        keep_audit: None,
        behind_proxy: Vec::new(),
        api_rate: serve::API_RATE,
        take_over: false,
    };
    let error = serve::start(&options, None).await.unwrap_err();
    assert!(format!("{error:#}").starts_with(&format!("cannot listen on {}", portal.address)), "{error:#}");
}

/// The pre-shared keys of tunnels travel here: a recording must stay closed to a quantum computer.
#[tokio::test]
async fn the_key_exchange_is_hybrid() {
    let portal = Tls::new().await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(portal.made.ca_file.as_ref().unwrap()).unwrap()).unwrap();
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    for name in ["127.0.0.1", "portal.example"] {
        let stream = TcpStream::connect(portal.address).await.unwrap();
        let stream = connector.connect(ServerName::try_from(name).unwrap(), stream).await.unwrap();
        let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(group, rustls::NamedGroup::X25519MLKEM768, "{name}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn secrets_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let portal = Tls::new().await;
    let mut seen = 0;
    for file in
        ["portal.db", "secrets/portal.key", "secrets/token-pepper.key", "tls/ca.key", "tls/server.key"]
    {
        let mode = std::fs::metadata(portal.made.data_dir.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file}");
        seen += 1;
    }
    assert_eq!(seen, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_planned_and_applied_from_the_command_line() {
    let portal = Tls::new().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("office.yaml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "sites: [{name: office}]\ngroups: [{name: crew, members: [owner]}]\n").unwrap();
    let said = portal.succeeds(leak(&["plan", path])).await;
    assert_eq!(said, "+ site office\n+ group crew\n+ member crew: owner\n\nNobody gains or loses access.\n");
    let (code, error) = portal.fails(leak(&["apply", path])).await;
    assert!(code == 2 && error.contains("give --yes"), "{error}");
    portal.succeeds(leak(&["apply", path, "--yes"])).await;
    assert_eq!(portal.succeeds(leak(&["apply", path])).await, "Nothing is to be changed.\n");
    let more = "resources: [{name: wiki, site: office, type: dns, address: wiki.corp}]
policies: [{group: crew, resource: wiki}]";
    std::fs::write(&file, more).unwrap();
    let said = portal.succeeds(leak(&["plan", path])).await;
    assert!(said.contains("+ policy crew → wiki\n\nGain access:\n  owner → wiki\n"), "{said}");
    portal.succeeds(leak(&["apply", path, "--yes"])).await;
    let exported = portal.succeeds(&["export"]).await;
    std::fs::write(&file, &exported).unwrap();
    assert_eq!(portal.succeeds(leak(&["plan", path, "--prune"])).await, "Nothing is to be changed.\n");
    std::fs::write(&file, "sites:\n  - name: office\ngroups:\n  - nmae: x\n").unwrap();
    let (code, error) = portal.fails(leak(&["plan", path])).await;
    assert!(code == 1 && error.contains(&format!("{path}: line 4, column 5: ")), "{error}");
    portal.running.stop().await;
}
