//! The real daemon and the real command line sign in at a portal over TLS, in a network namespace of their own.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod portal;

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use adit_protocol::PortalToClient;
use adit_protocol::client::{Disconnect, DisconnectReason};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use self::portal::{Answer, Portal, fresh};

/// A user who may only look on.
const NOBODY: u32 = 65534;

const LIMIT: Duration = Duration::from_secs(20);

/// Runs `test` on a thread in a fresh network namespace; without root it says why it does not.
fn isolated<T: Future<Output = ()>>(test: impl FnOnce() -> T + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: network namespaces need root");
        return;
    }
    let worker = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network of its own");
        let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = worker.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A portal, a daemon that knows nobody, and its command line.
struct Device {
    directory: tempfile::TempDir,
    portal: Portal,
    daemon: Child,
}

impl Device {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let portal = Portal::start(directory.path()).await;
        let path = |name: &str| directory.path().join(name);
        let daemon = Command::new(env!("CARGO_BIN_EXE_aditd"))
            .env_clear()
            .arg(format!("--portal=wss://localhost:{}", portal.port))
            .arg("--ca")
            .arg(&portal.ca)
            .args(["--dns-control=off", "--workers=1", "--name=test device"])
            .arg("--state-dir")
            .arg(path("state"))
            .arg("--log-dir")
            .arg(path("log"))
            .env("ADIT_SOCKET", path("socket"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let device = Self { directory, portal, daemon };
        let began = Instant::now();
        while device.adit(&["status"]).await.status.code() != Some(0) {
            assert!(began.elapsed() < LIMIT, "the daemon does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        device
    }

    fn command(&self, words: &[&str]) -> Command {
        self.command_of(Path::new(env!("CARGO_BIN_EXE_adit")), words)
    }

    /// The same for somebody else, who may not look into the directory where the programs were built.
    fn onlooker(&self, words: &[&str]) -> Command {
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(self.directory.path(), open).unwrap();
        let program = self.directory.path().join("adit");
        if !program.exists() {
            // By another process: a file that this one has open to write, a child of another test would inherit for a
            // moment, and nobody could execute it.
            let copied =
                std::process::Command::new("cp").arg(env!("CARGO_BIN_EXE_adit")).arg(&program).status();
            assert!(copied.unwrap().success());
        }
        let mut command = self.command_of(&program, words);
        command.uid(NOBODY).gid(NOBODY);
        command
    }

    fn command_of(&self, program: &Path, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.env_clear().arg("--json").arg("--socket").arg(self.directory.path().join("socket"));
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        command
    }

    async fn adit(&self, words: &[&str]) -> Output {
        tokio::time::timeout(LIMIT, self.command(words).output()).await.expect("adit ends").unwrap()
    }

    async fn status(&self) -> Value {
        serde_json::from_slice(&self.adit(&["status"]).await.stdout).unwrap()
    }

    /// Waits until the status is as wanted.
    async fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let status = self.status().await;
            if is_so(&status) {
                return status;
            }
            assert!(began.elapsed() < LIMIT, "not {what}: {status}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// `adit login` with these words, when it has said what to open.
    async fn begin(&self, words: &[&str]) -> Login {
        let mut child = self.command(&[&["login"], words].concat()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(LIMIT, lines.next_line()).await.expect("a prompt").unwrap();
        let prompt = serde_json::from_str(&line.expect("a prompt")).unwrap();
        Login { child, lines, prompt }
    }

    fn token(&self) -> Option<String> {
        std::fs::read_to_string(self.directory.path().join("state/token")).ok()
    }

    fn log(&self) -> String {
        let files = std::fs::read_dir(self.directory.path().join("log")).unwrap();
        files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect()
    }

    async fn stop(mut self) {
        kill(Pid::from_raw(self.daemon.id().unwrap().cast_signed()), Signal::SIGTERM).unwrap();
        let status = tokio::time::timeout(LIMIT, self.daemon.wait()).await.expect("it stops").unwrap();
        assert!(status.success(), "{status}");
        let log = self.log();
        for secret in ["adit_client_", "the-device-code", "the-code", "state=", "BCDF-GHJK"] {
            assert!(!log.contains(secret), "`{secret}` is in the log");
        }
    }
}

/// A sign-in that waits.
struct Login {
    child: Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    prompt: Value,
}

impl Login {
    /// The exit code and the last line of output.
    async fn end(mut self) -> (Option<i32>, Value) {
        let line = tokio::time::timeout(LIMIT, self.lines.next_line()).await.expect("it ends").unwrap();
        let status = tokio::time::timeout(LIMIT, self.child.wait()).await.expect("it ends").unwrap();
        (status.code(), line.map_or(Value::Null, |line| serde_json::from_str(&line).unwrap()))
    }
}

fn code(expires_in: u64) -> Answer {
    let body = serde_json::json!({
        "device_code": "the-device-code", "user_code": "BCDF-GHJK", "verification_uri": "https://localhost/device",
        "expires_in": expires_in, "interval": 1,
    });
    ("200 OK", body.to_string())
}

fn token(token: &str) -> Answer {
    let body = serde_json::json!({"access_token": token, "token_type": "Bearer", "actor_name": "Maria"});
    ("200 OK", body.to_string())
}

fn error(error: &str) -> Answer {
    ("400 Bad Request", serde_json::json!({ "error": error }).to_string())
}

#[test]
fn a_device_code_signs_in_and_the_same_token_renews_without_interruption() {
    isolated(async || {
        let device = Device::start().await;
        let status = device.status().await;
        assert_eq!((&status["state"], &status["reason"]), (&"signed_out".into(), &"no_token".into()));
        let up = device.adit(&["up"]).await;
        assert_eq!(up.status.code(), Some(4));
        assert!(String::from_utf8_lossy(&up.stderr).contains("adit login"));

        device.portal.will_answer([code(60), error("authorization_pending"), token("adit_client_one")]);
        let login = device.begin(&["--device-code"]).await;
        assert_eq!(login.prompt["user_code"], "BCDF-GHJK");
        let status = device.status().await;
        let expected: (Value, Value) = ("waiting_browser".into(), "waiting_browser".into());
        assert_eq!((&status["state"], &status["reason"]), (&expected.0, &expected.1));
        assert_eq!(status["login"]["user_code"], "BCDF-GHJK");
        let onlooker = device.onlooker(&["status"]).output().await.unwrap();
        let seen: Value = serde_json::from_slice(&onlooker.stdout).unwrap_or_else(|_| panic!("{onlooker:?}"));
        assert_eq!((&seen["state"], &seen["login"]), (&"waiting_browser".into(), &Value::Null));
        let onlooker = device.onlooker(&["login", "--device-code"]).output().await.unwrap();
        assert_eq!(onlooker.status.code(), Some(6), "{onlooker:?}");
        let (exit, last) = login.end().await;
        assert_eq!((exit, &last["signed_in"], &last["actor"]), (Some(0), &true.into(), &"Maria".into()));
        assert_eq!(device.token().as_deref(), Some("adit_client_one"));
        device.until("online", |status| status["state"] == "online").await;
        let forms = device.portal.forms();
        assert_eq!(forms[0]["device_name"], "test device");
        assert!(!forms[2].contains_key("renews"));

        device.portal.say(fresh(720, true));
        let status = device.until("told", |status| status["is_sign_in_too_old"] == true).await;
        assert!(status["authenticated_at_ms"].is_u64() && status["is_expiring"] == false, "{status}");

        device.portal.will_answer([code(60), token("adit_client_one")]);
        let login = device.begin(&["--device-code"]).await;
        assert_eq!(device.status().await["state"], "online", "a renewal interrupts nothing");
        assert_eq!(login.end().await.0, Some(0));
        assert_eq!(device.portal.forms().last().unwrap()["renews"], "adit_client_one");
        assert_eq!(device.portal.sessions(), ["adit_client_one"], "the session goes on");

        device.portal.will_answer([code(60), token("adit_client_two")]);
        assert_eq!(device.begin(&["--device-code"]).await.end().await.0, Some(0));
        device.until("online", |status| status["state"] == "online").await;
        assert_eq!(device.portal.sessions(), ["adit_client_one", "adit_client_two"]);
        device.stop().await;
    });
}

async fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(LIMIT, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[test]
fn a_browser_on_this_machine_signs_in() {
    isolated(async || {
        let device = Device::start().await;
        device.portal.will_answer([token("adit_client_one")]);
        let login = device.begin(&["--no-browser"]).await;
        let url = url::Url::parse(login.prompt["url"].as_str().unwrap()).unwrap();
        assert_eq!((url.scheme(), url.path()), ("https", "/device/authorize"));
        let query: std::collections::HashMap<_, _> = url.query_pairs().into_owned().collect();
        let callback = url::Url::parse(&query["redirect_uri"]).unwrap();
        let address = format!("127.0.0.1:{}", callback.port().unwrap());
        let wrong = get(&address, "/callback?code=the-code&state=wrong").await;
        assert!(wrong.starts_with("HTTP/1.1 404"), "{wrong}");
        assert_eq!(device.status().await["state"], "waiting_browser");

        // Another front end is shown the same, and does not disturb.
        let other = device.begin(&["--no-browser"]).await;
        assert_eq!(other.prompt, login.prompt);
        let right = format!("/callback?code=the-code&state={}", query["state"]);
        let page = get(&address, &right).await;
        assert!(page.contains("You are signed in."), "{page}");
        assert_eq!((login.end().await.0, other.end().await.0), (Some(0), Some(0)));
        let form = &device.portal.forms()[0];
        assert_eq!(form["redirect_uri"], query["redirect_uri"]);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, form["code_verifier"].as_bytes());
        assert_eq!(base64_url(digest.as_ref()), query["code_challenge"]);
        device.until("online", |status| status["state"] == "online").await;
        assert!(TcpStream::connect(&address).await.is_err(), "nobody listens any more");
        device.stop().await;
    });
}

#[test]
fn the_callers_browser_is_opened_and_people_are_told_in_words() {
    isolated(async || {
        let device = Device::start().await;
        let path = |name: &str| device.directory.path().join(name).display().to_string();
        let script = format!("#!/bin/sh\necho \"$1\" > {}\n", path("opened"));
        std::fs::write(path("browser"), script).unwrap();
        std::fs::set_permissions(path("browser"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        device.portal.will_answer([token("adit_client_one")]);
        let mut login = Command::new(env!("CARGO_BIN_EXE_adit"));
        login.env_clear().env("ADIT_SOCKET", path("socket")).env("BROWSER", path("browser")).arg("login");
        let login = login.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let began = Instant::now();
        let opened = loop {
            let opened = std::fs::read_to_string(path("opened")).unwrap_or_default();
            if opened.ends_with('\n') {
                break opened;
            }
            assert!(began.elapsed() < LIMIT, "no browser was opened");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        let start = url::Url::parse(opened.trim()).unwrap();
        assert_eq!((start.host_str(), start.path()), (Some("127.0.0.1"), "/start"));
        let address = format!("127.0.0.1:{}", start.port().unwrap());
        let elsewhere = get(&address, &opened.trim()["http://".len() + address.len()..]).await;
        let page = elsewhere.lines().find_map(|line| line.strip_prefix("location: ")).unwrap().to_owned();
        let url = url::Url::parse(&page).unwrap();
        let query: std::collections::HashMap<_, _> = url.query_pairs().into_owned().collect();
        get(&address, &format!("/callback?code=the-code&state={}", query["state"])).await;
        let output = tokio::time::timeout(LIMIT, login.wait_with_output()).await.unwrap().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains(&page), "{text}");
        assert!(text.ends_with("\nSigned in as Maria.\n"), "{text}");
        device.stop().await;
    });
}

fn base64_url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}

#[test]
fn what_does_not_work_says_why_and_leaves_everything_as_it_was() {
    isolated(async || {
        let device = Device::start().await;
        for (answers, exit) in [
            (vec![code(60), error("access_denied")], 6),
            (vec![code(60), error("expired_token")], 7),
            (vec![code(60), ("200 OK", "<html>".to_owned())], 1),
            (vec![code(60), ("200 OK", "x".repeat(1 << 20))], 1),
        ] {
            device.portal.will_answer(answers);
            let login = device.begin(&["--device-code"]).await;
            assert_eq!(login.end().await.0, Some(exit));
            assert_eq!(device.status().await["state"], "signed_out");
        }
        // A portal that cannot even give a code.
        device.portal.will_answer([("200 OK", "captive".to_owned())]);
        let output = device.adit(&["login", "--device-code"]).await;
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be understood"), "{output:?}");

        device.portal.will_answer([code(60)]);
        let mut login = device.begin(&["--device-code"]).await;
        let refused = device.adit(&["login", "--no-browser"]).await;
        assert!(String::from_utf8_lossy(&refused.stderr).contains("under way"), "one at a time");
        kill(Pid::from_raw(login.child.id().unwrap().cast_signed()), Signal::SIGINT).unwrap();
        assert_eq!(login.child.wait().await.unwrap().code(), Some(1));
        assert_eq!(device.status().await["state"], "signed_out", "an interrupt gives it up");

        device.portal.will_answer([code(60)]);
        let login = device.begin(&["--device-code"]).await;
        assert!(device.adit(&["login", "--cancel"]).await.status.success());
        assert_eq!(login.end().await.0, Some(1));
        assert_eq!(device.token(), None);
        device.stop().await;
    });
}

#[test]
fn a_sign_in_outlives_its_front_end_and_mends_a_session_that_was_ended() {
    isolated(async || {
        let device = Device::start().await;
        device.portal.will_answer([code(60), error("authorization_pending"), token("adit_client_one")]);
        let mut login = device.begin(&["--device-code"]).await;
        login.child.kill().await.unwrap();
        device.until("online", |status| status["state"] == "online").await;

        let revoked = Disconnect { reason: DisconnectReason::RevokedToken };
        device.portal.say(PortalToClient::Disconnect(revoked));
        let status = device.until("blocked", |status| status["state"] == "blocked").await;
        assert_eq!(status["reason"], "revoked_token");
        assert_eq!(device.adit(&["wait", "--for", "online"]).await.status.code(), Some(4));
        device.portal.will_answer([code(60), token("adit_client_two")]);
        assert_eq!(device.begin(&["--device-code"]).await.end().await.0, Some(0));
        device.until("online", |status| status["state"] == "online").await;
        assert_eq!(device.portal.sessions(), ["adit_client_one", "adit_client_two"]);

        let report: Value = serde_json::from_slice(&device.adit(&["dns", "status"]).await.stdout).unwrap();
        assert_eq!((&report["controller"], &report["is_controlled"]), (&"off".into(), &false.into()));
        assert_eq!(
            (&report["upstreams"][0], &report["upstreams_from"]),
            (&"192.0.2.53:53".into(), &"portal".into())
        );
        let query = device.adit(&["dns", "query", "use-application-dns.net"]).await;
        let report: Value = serde_json::from_slice(&query.stdout).unwrap_or_else(|_| panic!("{query:?}"));
        assert_eq!((&report["rcode"], &report["because"]), (&"NXDOMAIN".into(), &"kept_back".into()));
        let listed: Value = serde_json::from_slice(&device.adit(&["config", "list"]).await.stdout).unwrap();
        let of = |name: &str| {
            let settings = listed["settings"].as_array().unwrap();
            let found = settings.iter().find(|setting| setting["name"] == name);
            found.map(|setting| setting["source"].clone()).unwrap()
        };
        assert_eq!(
            (of("portal"), of("socket"), of("interface")),
            ("flag".into(), "environment".into(), "default".into())
        );
        device.stop().await;
    });
}
