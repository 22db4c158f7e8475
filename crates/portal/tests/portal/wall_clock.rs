//! The clock on the wall of the portal's machine jumps: nobody gets access by it, nothing that was acknowledged is lost,
//! and once it is taken back everything is as before.
//!
//! The program runs with a library in front of the C library that shifts what it reads. Its timers run on the monotonic
//! clock, as they do on a machine whose clock is set.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_protocol::client::{DisconnectReason, FailureReason};
use adit_protocol::{Message, PortalToClient};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::program::Program;
use crate::sign_in::{Browser, PASSWORD, code, welcomed};
use crate::world::{Client, ClientPeer, Gateway, Office, Peer, World};

const DAY: i64 = 24 * 60 * 60;
const YEAR: i64 = 365 * DAY;

/// The library, made once by the C compiler that also makes the database of the portal.
fn library() -> &'static PathBuf {
    static LIBRARY: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = LIBRARY.get_or_init(|| {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("wall_clock.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/portal/wall_clock.c");
        let made = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&path).arg(source).status();
        assert!(made.unwrap().success(), "cc");
        (directory, path)
    });
    path
}

/// An installation whose program has a clock that can be set.
struct Machine {
    world: World,
    office: Office,
    clock: File,
    program: Option<Program>,
}

impl Machine {
    async fn new() -> Self {
        let world = World::new().await;
        let office = world.office().await;
        Self::of(world, office).await
    }

    /// Takes over a world's installation.
    async fn of(mut world: World, office: Office) -> Self {
        world.stop().await;
        let clock = File::create(world.directory.path().join("clock")).unwrap();
        let mut machine = Self { world, office, clock, program: None };
        machine.set(0);
        machine.start(&[]);
        machine
    }

    /// By how many seconds the clock is ahead.
    fn set(&self, seconds: i64) {
        self.clock.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_adit-portal"));
        command.env("LD_PRELOAD", library());
        command.env("ADIT_TEST_CLOCK", self.world.directory.path().join("clock"));
        command
    }

    /// Starts the program, or starts it again.
    fn start(&mut self, arguments: &[&str]) {
        if let Some(program) = self.program.take() {
            program.kill();
        }
        let mut all = self.world.backend.arguments();
        all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let data = self.world.directory.path().join("data");
        let program = Program::serve_by(self.command(), &data, &all);
        self.world.address = program.address;
        self.program = Some(program);
    }

    /// A token for a client that lasts for so many seconds.
    async fn client_token(&self, seconds: i64) -> String {
        let body = json!({ "kind": "client", "actor": self.office.actor, "expires_in": seconds });
        self.world.post("tokens", body).await["token"].as_str().unwrap().to_owned()
    }

    /// Numbers of the audit log as it is listed, and whether `doctor` finds its seals whole.
    async fn audit(&self) -> (Vec<i64>, Value) {
        let list = self.world.admin(Method::GET, "audit?limit=500", None).await;
        let numbers = list["items"].as_array().unwrap().iter().map(|row| row["seq"].as_i64().unwrap());
        let output = self
            .command()
            .args(["doctor", "--json", "--data-dir"])
            .arg(self.world.directory.path().join("data"))
            .output()
            .unwrap();
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let checks = found["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == "audit").unwrap();
        (numbers.collect(), check["state"].clone())
    }

    /// The log is whole, and is listed by its numbers.
    async fn expect_whole_audit(&self) {
        let (numbers, seals) = self.audit().await;
        let last = i64::try_from(numbers.len()).unwrap();
        assert_eq!(numbers, (1..=last).rev().collect::<Vec<_>>(), "none is missing, the newest first");
        assert_eq!(seals, "ok");
    }
}

/// The first message that is one, of those that come.
async fn first<I: Message, O: Message + std::fmt::Debug, T>(
    peer: &mut Peer<I, O>,
    is_it: impl Fn(O) -> Option<T>,
) -> T {
    loop {
        if let Some(found) = is_it(peer.next().await) {
            return found;
        }
    }
}

/// A gateway, and a client that holds a lease.
async fn introduced(machine: &Machine, token: &str) -> (Gateway, Client) {
    let mut gateway = machine.world.gateway(&machine.office.gateway_token, 1, 1).await;
    let mut client = machine.world.client(token, 2, 2).await;
    client.request(1, machine.office.resource).await;
    client.granted().await;
    gateway.told().await;
    (gateway, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_year_ahead_ends_leases_and_sessions_and_back_again_they_can_be_had_anew() {
    let machine = Machine::new().await;
    let token = machine.client_token(30 * DAY).await;
    let (mut gateway, mut client) = introduced(&machine, &token).await;

    machine.set(YEAR);
    // The gateway counts on its own clock: unless it is told, it would let things through for hours.
    gateway.revoked().await;
    let reason = first(&mut client.peer, |message| match message {
        PortalToClient::Disconnect(end) => Some(end.reason),
        _ => None,
    });
    assert_eq!(reason.await, DisconnectReason::ExpiredToken);
    let refused = ClientPeer::connect(machine.world.address, "client", &token).await.err().unwrap();
    assert_eq!(refused, (401, "expired_token".to_owned()));
    // What has no end goes on, and what is written down is written down.
    machine.world.post("sites", json!({ "name": "made a year ahead" })).await;

    machine.set(0);
    let mut client = machine.world.client(&token, 2, 2).await;
    assert_eq!(client.init.authorizations, []);
    client.request(2, machine.office.resource).await;
    let granted = client.granted().await;
    assert_eq!(gateway.told().await.id, granted.id, "the gateway's session has lasted all the time");
    let sites = machine.world.admin(Method::GET, "sites", None).await.to_string();
    assert!(sites.contains("made a year ahead"));
    machine.expect_whole_audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_year_back_revives_nothing_and_forward_again_nothing_is_lost() {
    let machine = Machine::new().await;
    let token = machine.client_token(30 * DAY).await;
    let (mut gateway, client) = introduced(&machine, &token).await;

    machine.set(-YEAR);
    // It would last for a year and eight hours.
    gateway.revoked().await;
    drop(client);
    let refused = ClientPeer::connect(machine.world.address, "client", &token).await.err().unwrap();
    assert_eq!(refused.0, 503, "come back later: the device keeps its token");
    let lists = machine.world.admin(Method::GET, "authorizations", None).await;
    assert_eq!(lists["items"], json!([]));
    machine.world.post("sites", json!({ "name": "made a year ago" })).await;
    machine.expect_whole_audit().await;

    machine.set(0);
    let mut client = machine.world.client(&token, 2, 2).await;
    client.request(2, machine.office.resource).await;
    let granted = client.granted().await;
    assert_eq!(gateway.told().await.id, granted.id);
    machine.expect_whole_audit().await;
}

/// A lease that was granted under a wrong clock is not handed out by the next process either.
#[tokio::test(flavor = "multi_thread")]
async fn a_portal_that_starts_with_another_clock_hands_out_no_lease_that_cannot_be() {
    let mut machine = Machine::new().await;
    let client_token = machine.office.client_token.clone();
    for shift in [YEAR, -YEAR] {
        machine.set(0);
        machine.start(&[]);
        let (gateway, client) = introduced(&machine, &client_token).await;
        machine.set(shift);
        machine.start(&[]);
        drop((gateway, client));
        let gateway = machine.world.gateway(&machine.office.gateway_token, 1, 1).await;
        assert_eq!(gateway.init.authorizations, [], "{shift}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_for_these_hours_is_judged_by_the_clock_as_it_is() {
    let machine = Machine::new().await;
    let client_token = machine.client_token(10 * YEAR).await;
    // Two hours around now; a year is 52 weeks and a day.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let name = |at: i64| ["thu", "fri", "sat", "sun", "mon", "tue", "wed"][(at / DAY % 7) as usize];
    let clock = |at: i64| format!("{:02}:{:02}", at % DAY / 3600, at % 3600 / 60);
    let (from, to) = (now - 3600, now + 3600);
    let window = json!({ "days": [name(from)], "from": clock(from), "to": clock(to) });
    let time = json!({ "time": { "time_zone": "UTC", "windows": [window] } });
    machine.world.conditions(&machine.office.policy, time).await;
    let (mut gateway, mut client) = introduced(&machine, &client_token).await;
    machine.set(YEAR);
    gateway.revoked().await;
    for (request, shift) in [(2, YEAR), (3, -YEAR)] {
        machine.set(shift);
        client.request(request, machine.office.resource).await;
        let reason = first(&mut client.peer, |message| match message {
            PortalToClient::AuthorizationFailed(failed) => Some(failed.reason),
            _ => None,
        });
        assert_eq!(reason.await, FailureReason::Forbidden, "{shift}");
    }
    machine.set(0);
    client.request(4, machine.office.resource).await;
    let granted = first(&mut client.peer, |message| match message {
        PortalToClient::AuthorizationCreated(created) => Some(created.id),
        _ => None,
    });
    assert_eq!(granted.await, gateway.told().await.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_year_ahead_makes_no_entry_old() {
    let mut machine = Machine::new().await;
    let keep = ["--keep-audit", "30d"];
    let count = async |machine: &Machine| machine.audit().await.0.len();
    let before = count(&machine).await;
    // A program that starts with a clock that is wrong, and one whose clock is set while it runs.
    machine.set(YEAR);
    machine.start(&keep);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(count(&machine).await, before);
    machine.set(0);
    machine.start(&keep);
    machine.set(YEAR);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(count(&machine).await, before);

    // What is old under a clock that goes evenly is forgotten: entries of a year ago, and one of a moment ago.
    machine.set(YEAR);
    machine.world.post("sites", json!({ "name": "a sign of life" })).await;
    machine.start(&keep);
    for _ in 0..100 {
        if count(&machine).await <= 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(count(&machine).await <= 2, "old entries are forgotten");
    assert_eq!(machine.audit().await.1, "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_sign_in_again_and_a_code_of_the_future_is_not_taken_twice() {
    let world = World::new().await;
    let office = world.office().await;
    let (mut browser, secret, recovery) = welcomed(&world).await;
    let machine = Machine::of(world, office).await;
    browser.base = format!("http://{}", machine.world.address);
    assert_eq!(browser.get("/").await.status, 200);
    for shift in [YEAR, -YEAR] {
        machine.set(shift);
        assert_eq!(browser.get("/").await.status, 303, "{shift}");
    }
    machine.set(0);
    assert_eq!(browser.get("/").await.status, 200, "nothing was deleted");

    let steps = |seconds: i64| u64::try_from(seconds / 30).unwrap();
    machine.set(YEAR);
    let mut ahead = Browser::new(&machine.world);
    assert_eq!(ahead.sign_in(PASSWORD, &code(&secret, steps(YEAR))).await.status, 303);
    assert_eq!(ahead.get("/").await.status, 200);
    machine.set(0);
    assert_eq!(ahead.get("/").await.status, 303, "a session of the future is none");
    // The authenticator is as good as used until then; a recovery code, or a new link, lets its owner in.
    let mut back = Browser::new(&machine.world);
    assert_eq!(back.sign_in(PASSWORD, &code(&secret, 1)).await.status, 401);
    assert_eq!(back.sign_in(PASSWORD, &recovery[0]).await.status, 303);
    assert_eq!(back.get("/").await.status, 200);
}
