//! Programs that cannot start: each says why in one line, ends with the documented code, and leaves nothing behind.

use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::all;
use super::stranger::Stranger;
use crate::process::Finished;
use crate::scenario::{Context, Target};
use crate::stage::Stage;
use crate::system::{self, Programs, Relay};

/// Longest time until a program has given up.
const LIMIT: Duration = Duration::from_secs(8);

const PORTAL_PORT: u16 = 8_443;

/// Exit codes.
const FAILED: i32 = 1;
const USAGE: i32 = 2;

/// As nobody, with no capability left.
const NOBODY: [&str; 6] =
    ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"];

/// As root without what makes root powerful.
const POWERLESS: [&str; 3] = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"];

/// Without the device, and without the right to make it anew, which root has.
const HIDE_TUN: &str =
    "mount -t tmpfs none /dev/net && exec setpriv --inh-caps=-mknod --bounding-set=-mknod \"$0\" \"$@\"";

/// A start that must fail.
struct Case {
    name: &'static str,
    line: Vec<String>,
    /// Exit code.
    code: i32,
    /// Words of the complaint.
    words: &'static [&'static str],
}

pub(super) fn fail(stage: &Stage, stranger: &Stranger, context: &mut Context) -> Result<()> {
    let address = stranger.address.v4;
    let health = system::health();
    let taken = stranger.host.enter(|| -> std::io::Result<_> {
        let relay = UdpSocket::bind((address, Relay::PORT))?;
        let portal = TcpListener::bind((address, PORTAL_PORT))?;
        Ok((relay, portal, TcpListener::bind(health)?))
    })??;
    let programs = context.programs.clone();
    let lines = Lines::prepare(stage, stranger, &programs)?;
    let mut cases = Vec::new();
    for maker in [gateway, relay, client, portal] {
        cases.extend(maker(&lines)?);
    }
    all(cases.iter().map(|case| {
        let finished = stranger.finish(&case.line, LIMIT).with_context(|| case.name)?;
        context.record_time(&format!("start: {}", case.name), finished.took, Target::AtMost(5_000.0));
        require_clear(&finished, case).with_context(|| case.name)
    }))?;
    drop(taken);
    let left = stranger.host.run(&["ip", "-o", "link"])?;
    ensure!(!left.contains(": adit"), "an interface is left behind: {left}");
    Ok(())
}

fn require_clear(finished: &Finished, case: &Case) -> Result<()> {
    let said = &finished.stderr;
    ensure!(
        finished.status.code() == Some(case.code),
        "wanted {}, got {}: {said}",
        case.code,
        finished.status
    );
    for word in case.words {
        let has = said.to_lowercase().contains(&word.to_lowercase());
        ensure!(has, "`{word}` is missing in: {said}");
    }
    ensure!(!said.to_lowercase().contains("panic"), "{said}");
    // What clap says of wrong usage has a few lines more: usage, and a hint at --help.
    let is_short = case.code == USAGE || said.lines().count() == 1;
    ensure!(is_short, "more than one line: {said}");
    Ok(())
}

/// Command lines that differ from good ones in one thing.
struct Lines<'a> {
    stranger: &'a Stranger,
    programs: &'a Programs,
    portal_url: String,
    ca: String,
    token: String,
    /// A directory that nobody may read too: copies of the program, token and certificate.
    open: String,
    /// Data of a portal that never ran.
    portal_data: String,
}

impl<'a> Lines<'a> {
    fn prepare(stage: &Stage, stranger: &'a Stranger, programs: &'a Programs) -> Result<Self> {
        let site = stage.portal.create_site("nowhere")?;
        let token = stranger.state.write_secret("start.token", &stage.portal.create_gateway_token(&site)?)?;
        let open = std::env::temp_dir().join(stranger.host.namespace());
        let data = stranger.fresh("portal-data")?;
        let lines = Self {
            stranger,
            programs,
            portal_url: stage.portal.peer_url(),
            ca: text(stage.portal.ca_file()),
            token: text(&token),
            open: text(&open),
            portal_data: text(&data),
        };
        let url = format!("https://{}:{PORTAL_PORT}", stranger.address.v4);
        let bootstrap = ["bootstrap", "--data-dir", &lines.portal_data, "--url", &url, "--json"];
        let made = stranger.finish(&lines.line("adit-portal", &bootstrap), LIMIT)?;
        ensure!(made.success(), "bootstrap: {}", made.complaint());
        Ok(lines)
    }

    fn line(&self, program: &str, arguments: &[&str]) -> Vec<String> {
        let program = text(&self.programs.path(program));
        std::iter::once(program).chain(arguments.iter().map(|&argument| argument.to_owned())).collect()
    }

    /// A good start of the gateway with a fresh state directory, and these arguments after it.
    fn gateway(&self, more: &[&str]) -> Result<Vec<String>> {
        let state = text(&self.stranger.fresh("gateway")?);
        let log = text(&self.stranger.host.log_dir()?);
        let good = ["--portal", &self.portal_url, "--ca", &self.ca, "--token-file", &self.token];
        let good = [&good[..], &["--state-dir", &state, "--log-dir", &log], more].concat();
        Ok(self.line("adit-gateway", &good))
    }

    fn relay(&self, more: &[&str]) -> Result<Vec<String>> {
        let log = text(&self.stranger.host.log_dir()?);
        Ok(self.line("adit-relay", &[&["--log-dir", &log], more].concat()))
    }

    fn client(&self, more: &[&str]) -> Result<Vec<String>> {
        let state = self.stranger.fresh("client")?;
        let (socket, state) = (text(&state.join("aditd.sock")), text(&state));
        let log = text(&self.stranger.host.log_dir()?);
        let good = ["--portal", &self.portal_url, "--ca", &self.ca, "--state-dir", &state];
        let good = [&good[..], &["--socket", &socket, "--log-dir", &log], more].concat();
        Ok(self.line("aditd", &good))
    }

    fn portal(&self, data: &str, more: &[&str]) -> Result<Vec<String>> {
        let log = text(&self.stranger.host.log_dir()?);
        let good = ["serve", "--data-dir", data, "--log-dir", &log];
        Ok(self.line("adit-portal", &[&good[..], more].concat()))
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The same line as somebody else.
fn run_as(who: &[&str], line: Vec<String>) -> Vec<String> {
    who.iter().map(|&word| word.to_owned()).chain(line).collect()
}

/// The last value given for a flag is the wrong one; clap refuses a flag given twice, so the good one goes.
fn with(mut line: Vec<String>, flag: &str, value: &str) -> Vec<String> {
    if let Some(at) = line.iter().position(|word| word == flag) {
        line.drain(at..at + 2);
    }
    line.extend([flag.to_owned(), value.to_owned()]);
    line
}

fn gateway(lines: &Lines<'_>) -> Result<Vec<Case>> {
    let case = |name, line, code, words| Case { name, line, code, words };
    let health = system::health().to_string();
    let good = lines.gateway(&[])?;
    let hidden = run_as(&["sh", "-c", HIDE_TUN], good.clone());
    let garbage = text(&lines.stranger.state.write_secret("garbage.pem", "no certificate\n")?);
    let broken = lines.stranger.fresh("broken-gateway")?;
    std::fs::create_dir_all(&broken)?;
    let portal = |url| with(good.clone(), "--portal", url);
    Ok(vec![
        case(
            "gateway, health port taken",
            lines.gateway(&["--health", &health])?,
            FAILED,
            &["9090", "in use"],
        ),
        case("gateway, no /dev/net/tun", hidden, FAILED, &["/dev/net/tun"]),
        case("gateway, no CAP_NET_ADMIN", run_as(&POWERLESS, good.clone()), FAILED, &["CAP_NET_ADMIN"]),
        case("gateway, not root", as_nobody(lines, &good)?, FAILED, &["CAP_NET_ADMIN"]),
        case(
            "gateway, no state directory",
            with(good.clone(), "--state-dir", "/dev/null/x"),
            FAILED,
            &["state", "/dev/null/x"],
        ),
        case(
            "gateway, no log directory",
            with(good.clone(), "--log-dir", "/dev/null/x"),
            USAGE,
            &["log", "/dev/null/x"],
        ),
        case(
            "gateway, no CA file",
            with(good.clone(), "--ca", "/no/such/ca"),
            FAILED,
            &["/no/such/ca", "No such file"],
        ),
        case("gateway, CA of noise", with(good.clone(), "--ca", &garbage), FAILED, &["CA", "certificate"]),
        case(
            "gateway, no token file",
            with(good.clone(), "--token-file", "/no/token"),
            FAILED,
            &["/no/token"],
        ),
        case("gateway, no portal's URL", portal("https//nonsense"), USAGE, &["--portal"]),
        case("gateway, plain portal", portal("ws://192.0.2.77"), FAILED, &["ws://", "insecure"]),
        case("gateway, nonsense flag", lines.gateway(&["--fly"])?, USAGE, &["--fly"]),
        case("gateway, nonsense port", lines.gateway(&["--port", "70000"])?, USAGE, &["70000"]),
        case(
            "gateway, nonsense log level",
            lines.gateway(&["--log-level", "=,=loud"])?,
            USAGE,
            &["log", "loud"],
        ),
        case(
            "gateway, long interface name",
            lines.gateway(&["--interface", "a-name-much-too-long"])?,
            FAILED,
            &["interface"],
        ),
    ])
}

/// The line with everything where nobody may read and write it.
fn as_nobody(lines: &Lines<'_>, line: &[String]) -> Result<Vec<String>> {
    use std::os::unix::fs::PermissionsExt as _;
    let open = Path::new(&lines.open);
    std::fs::create_dir_all(open.join("state"))?;
    for directory in [open.to_owned(), open.join("state")] {
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755))?;
    }
    nix::unistd::chown(&open.join("state"), Some(65534.into()), Some(65534.into()))?;
    std::fs::set_permissions(open.join("state"), std::fs::Permissions::from_mode(0o700))?;
    let copy = |from: &str, name: &str, mode| -> Result<String> {
        let to = open.join(name);
        std::fs::copy(from, &to)?;
        std::fs::set_permissions(&to, std::fs::Permissions::from_mode(mode))?;
        Ok(text(&to))
    };
    let mut line = with(line.to_vec(), "--ca", &copy(&lines.ca, "ca.pem", 0o644)?);
    line = with(line, "--token-file", &copy(&lines.token, "token", 0o644)?);
    line = with(line, "--state-dir", &text(&open.join("state")));
    line = with(line, "--log-dir", &text(&open.join("state")));
    line[0] = copy(&line[0], "adit-gateway", 0o755)?;
    Ok(run_as(&NOBODY, line))
}

impl Drop for Lines<'_> {
    fn drop(&mut self) {
        // In the temporary directory, where it harms nobody.
        let _ = std::fs::remove_dir_all(&self.open);
    }
}

fn relay(lines: &Lines<'_>) -> Result<Vec<Case>> {
    let case = |name, line, code, words| Case { name, line, code, words };
    let health = system::health().to_string();
    let address = lines.stranger.address.v4.to_string();
    let alone = ["--static-secret", "long-enough", "--public-ipv4", &address];
    let relay = |more: &[&str]| lines.relay(&[&alone[..], more].concat());
    let portal = lines.portal_url.clone();
    let of_portal =
        ["--portal", &portal, "--public-ipv4", &address, "--token", "x", "--state-dir", "/dev/null/x"];
    let not_ours = lines.relay(&[
        "--static-secret",
        "long-enough",
        "--public-ipv4",
        &address,
        "--bind-ipv4",
        "203.0.113.250",
    ])?;
    Ok(vec![
        case("relay, UDP port taken", relay(&[])?, FAILED, &["3478", "taken"]),
        case(
            "relay, health port taken",
            relay(&["--port", "3479", "--health", &health])?,
            FAILED,
            &["9090", "in use"],
        ),
        case("relay, an address it has not", not_ours, FAILED, &["203.0.113.250"]),
        case(
            "relay, no state directory",
            lines.relay(&[&of_portal[..], &["--port", "3479"]].concat())?,
            USAGE,
            &["/dev/null/x"],
        ),
        case(
            "relay, no CA file",
            lines.relay(&[&of_portal[..], &["--ca", "/no/ca"]].concat())?,
            USAGE,
            &["/no/ca"],
        ),
        case(
            "relay, no mode",
            lines.relay(&["--public-ipv4", &address])?,
            USAGE,
            &["--portal", "--static-secret"],
        ),
        case(
            "relay, crossed ports",
            relay(&["--min-port", "60000", "--max-port", "50000"])?,
            USAGE,
            &["60000", "50000"],
        ),
        case(
            "relay, short secret",
            lines.relay(&["--static-secret", "x", "--public-ipv4", &address])?,
            USAGE,
            &["--static-secret"],
        ),
        case("relay, nonsense network", relay(&["--allow-peer", "10.0.0.0/99"])?, USAGE, &["10.0.0.0/99"]),
    ])
}

fn client(lines: &Lines<'_>) -> Result<Vec<Case>> {
    let case = |name, line, code, words| Case { name, line, code, words };
    let health = system::health().to_string();
    let good = lines.client(&[])?;
    let no_daemon = lines.line("adit", &["--socket", "/no/daemon.sock", "status"]);
    Ok(vec![
        case("aditd, health port taken", lines.client(&["--health", &health])?, FAILED, &["9090", "in use"]),
        case(
            "aditd, no state directory",
            with(good.clone(), "--state-dir", "/dev/null/x"),
            FAILED,
            &["state", "/dev/null/x"],
        ),
        case(
            "aditd, no log directory",
            with(good.clone(), "--log-dir", "/dev/null/x"),
            USAGE,
            &["log", "/dev/null/x"],
        ),
        case(
            "aditd, no place for the socket",
            with(good.clone(), "--socket", "/dev/null/x/s"),
            FAILED,
            &["/dev/null/x"],
        ),
        case("aditd, no CA file", with(good.clone(), "--ca", "/no/ca"), FAILED, &["/no/ca", "No such file"]),
        case("aditd, no portal", lines.line("aditd", &["--log-dir", "/tmp"]), USAGE, &["--portal"]),
        case("aditd, nonsense resolver", lines.client(&["--dns-control", "magic"])?, USAGE, &["magic"]),
        case("adit, no daemon", no_daemon, 3, &["/no/daemon.sock", "aditd"]),
        case("adit, nonsense command", lines.line("adit", &["fly"]), USAGE, &["fly"]),
    ])
}

fn portal(lines: &Lines<'_>) -> Result<Vec<Case>> {
    let case = |name, line, code, words| Case { name, line, code, words };
    let listen = format!("{}:{PORTAL_PORT}", lines.stranger.address.v4);
    let free = format!("{}:8444", lines.stranger.address.v4);
    let health = system::health().to_string();
    let data = lines.portal_data.clone();
    let garbage = text(&lines.stranger.state.write_secret("garbage.key", "no key\n")?);
    let empty = text(&lines.stranger.fresh("no-portal")?);
    let files = ["--listen", &free, "--tls-cert", &garbage, "--tls-key", &garbage];
    let torn = torn_database(lines)?;
    Ok(vec![
        case("portal, port taken", lines.portal(&data, &["--listen", &listen])?, FAILED, &["8443", "in use"]),
        case(
            "portal, health port taken",
            lines.portal(&data, &["--listen", &free, "--health", &health])?,
            FAILED,
            &["9090", "in use"],
        ),
        case(
            "portal, never bootstrapped",
            lines.portal(&empty, &["--listen", &free])?,
            FAILED,
            &["bootstrap"],
        ),
        case(
            "portal, certificate of noise",
            lines.portal(&data, &files)?,
            FAILED,
            &["certificate", "garbage.key"],
        ),
        case("portal, database of noise", lines.portal(&torn, &["--listen", &free])?, FAILED, &["database"]),
        case(
            "portal, nonsense address",
            lines.portal(&data, &["--listen", "everywhere"])?,
            USAGE,
            &["everywhere"],
        ),
    ])
}

/// The portal's data with noise in place of the database.
fn torn_database(lines: &Lines<'_>) -> Result<String> {
    let torn = lines.stranger.fresh("torn-portal")?;
    let copied = lines.stranger.host.run(&["cp", "-a", &lines.portal_data, &text(&torn)])?;
    ensure!(copied.is_empty(), "{copied}");
    for entry in std::fs::read_dir(&torn)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_file() && (name.contains("sqlite") || name.contains(".db")) {
            std::fs::write(&path, super::corpus::Bytes::new(4).take(8_192))?;
            return Ok(text(&torn));
        }
    }
    anyhow::bail!("no database in {}", torn.display())
}
