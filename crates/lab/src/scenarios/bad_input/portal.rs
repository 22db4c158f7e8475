//! Broken HTTP, broken WebSockets and broken messages at every endpoint of the portal, and at the health endpoints.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::all;
use super::corpus::Bytes;
use super::stranger::Stranger;
use super::vitals;
use crate::probe::http;
use crate::probe::tls::Talk;
use crate::process::Process;
use crate::scenario::{Context, Target};
use crate::stage::{MONTH, Stage};
use crate::system::{self, Portal};

/// Longest time in which a bad request or frame must be answered.
const ANSWER: Duration = Duration::from_secs(6);

/// As long as a session without hello may stay, and some.
const NO_HELLO: Duration = Duration::from_secs(9);

/// The portal's limit for one message.
const MOST: usize = 1024 * 1024;

/// The reason for closing may be lost where the portal leaves much unread; then its counter must tell.
const TOO_LARGE: &str = "";

const ENDPOINTS: [&str; 3] = ["client", "gateway", "relay"];

pub(super) fn abuse(stage: &Stage, stranger: &Stranger, context: &mut Context) -> Result<()> {
    let portal = &stage.portal;
    let tokens = tokens(stage)?;
    // These take five seconds; everything else happens meanwhile.
    let mut silent = Vec::new();
    for (endpoint, token) in ENDPOINTS.into_iter().zip(&tokens) {
        let unknown = text(r#"{"v":1,"type":"from_the_future","payload":{"a":[1]}}"#);
        silent.push(Talk::begin(&stranger.host, portal, [upgrade(endpoint, token), unknown].concat())?);
    }
    let requests = requests(portal.admin_token());
    all(requests.iter().map(|(name, request, wanted)| {
        answer(stranger, portal, request, wanted).with_context(|| format!("request: {name}"))
    }))?;
    context.record("portal: bad requests", requests.len() as f64, "requests", Target::Shown);
    let refused = too_large(stage)?;
    let sessions = ENDPOINTS.into_iter().zip(&tokens).flat_map(|(endpoint, token)| {
        frames().into_iter().map(move |(name, frames, wanted)| (endpoint, token, name, frames, wanted))
    });
    let mut count = 0;
    all(sessions.map(|(endpoint, token, name, frames, wanted)| {
        count += 1;
        let talk = Talk::begin(&stranger.host, portal, upgrade(endpoint, token))?;
        refusal(talk, frames, wanted).with_context(|| format!("{endpoint}: {name}"))
    }))?;
    // Each endpoint had two messages that are too large, and a length without end.
    let refused = too_large(stage)? - refused;
    ensure!(refused >= 6.0, "the portal counted {refused} messages that are too large");
    context.record("portal: bad sessions", f64::from(count), "sessions", Target::Shown);
    in_a_session(stranger, portal, &tokens[0]).context("after the hello")?;
    too_often(stranger, portal, &tokens[0]).context("too often")?;
    for mut talk in silent {
        let closed = talk.wait_closed(NO_HELLO)?.context("a session without hello stays")?;
        ensure!(talk.heard().contains("no hello"), "closed for another reason: {}", talk.heard());
        context.record_time("portal: session without hello", closed, Target::Shown);
    }
    without_tls(stage, stranger)
}

/// Messages that the portal refused for their size, so far.
fn too_large(stage: &Stage) -> Result<f64> {
    let host = stage.portal.process().context("the portal does not run")?.host();
    let page = http::get(host, system::health(), "/metrics")?;
    let counter = "adit_portal_frames_refused_total{reason=\"too_large\"} ";
    let value = page.body.lines().find_map(|line| line.strip_prefix(counter)?.parse().ok());
    Ok(value.unwrap_or(0.0))
}

/// A good token for each endpoint, for nothing but this.
fn tokens(stage: &Stage) -> Result<[String; 3]> {
    let portal = &stage.portal;
    let client = portal.create_client_token(&stage.access.actor, MONTH)?;
    let site = portal.create_site("abused")?;
    let gateway = portal.create_gateway_token(&site)?;
    let relay = portal.admin(&["token", "create", "relay", "--name", "abused"])?;
    Ok([client, gateway, system::text(&relay, "token")?])
}

fn request(method: &str, path: &str, token: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: portal\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

/// Name, bytes, and the statuses that are right; 0 is an end without a word, which
/// is also what arrives when much was left unread: the kernel resets such a connection.
type Request = (&'static str, Vec<u8>, &'static [u16]);

fn requests(admin: &str) -> Vec<Request> {
    let post = |path: &str, body: &str| request("POST", path, admin, body).into_bytes();
    let get = |path: &str| request("GET", path, admin, "").into_bytes();
    let sites = "/api/v1/sites";
    let deep = format!(r#"{{"name":{}1{}}}"#, "[".repeat(20_000), "]".repeat(20_000));
    let headers = (0..200).map(|number| format!("X-{number}: 1\r\n")).collect::<String>();
    let large_head = format!("GET / HTTP/1.1\r\nHost: p\r\nX: {}\r\n\r\n", "x".repeat(64 << 10));
    let many_headers = format!("GET / HTTP/1.1\r\nHost: p\r\n{headers}\r\n");
    let chunked = format!(
        "POST {sites} HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer {admin}\r\n\
         Transfer-Encoding: chunked\r\n\r\nzz\r\nnonsense\r\n"
    );
    let lengths =
        format!("GET {sites} HTTP/1.1\r\nHost: p\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n");
    let network = |address: &str| {
        format!(
            r#"{{"site":"01935000-0000-7000-8000-000000000001","name":"x","type":"cidr","address":"{address}"}}"#
        )
    };
    let resources = "/api/v1/resources";
    vec![
        ("no HTTP", b"hello\r\n\r\n".to_vec(), &[400]),
        ("noise", Bytes::new(1).take(4_000), &[400]),
        ("NUL bytes", vec![0; 4_000], &[400]),
        ("HTTP/2 at once", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &[0]),
        ("a version of the future", b"GET / HTTP/9.9\r\nHost: p\r\n\r\n".to_vec(), &[400, 505]),
        ("a large head", large_head.into_bytes(), &[431, 0]),
        ("many headers", many_headers.into_bytes(), &[431]),
        ("two lengths", lengths.into_bytes(), &[400]),
        ("broken chunks", chunked.into_bytes(), &[400]),
        ("a wrong method", request("BREW", sites, admin, "").into_bytes(), &[405]),
        ("no such page", get("/etc/passwd"), &[404]),
        ("dots", get("/api/v1/../../../../etc/passwd"), &[404]),
        ("a path of noise", get("/api/v1/sites/%ff%00%fe"), &[400]),
        ("an id that is none", get("/api/v1/sites/1;drop%20table"), &[400]),
        ("an unknown id", get("/api/v1/sites/01935000-0000-7000-8000-00000000dead"), &[404]),
        ("a wrong page", get("/api/v1/sites?limit=-1&after=x"), &[400]),
        ("a long query", get(&format!("/api/v1/explain?{}", "a=b&".repeat(2_000))), &[400]),
        ("no token", b"GET /api/v1/sites HTTP/1.1\r\nHost: p\r\nConnection: close\r\n\r\n".to_vec(), &[401]),
        ("a token of noise", request("GET", sites, "\u{fffd}\u{1}", "").into_bytes(), &[400, 401]),
        ("a long token", request("GET", sites, &"a".repeat(16_000), "").into_bytes(), &[401]),
        ("no JSON", post(sites, "{"), &[400]),
        ("the wrong JSON", post(sites, r#"{"name":{"a":1}}"#), &[400]),
        ("a field too much", post(sites, r#"{"name":"x","is_admin":true}"#), &[400]),
        ("deep JSON", post(sites, &deep), &[400]),
        ("no UTF-8", [request("POST", sites, admin, "   ").into_bytes(), vec![0xff; 3]].concat(), &[400]),
        ("a large body", post(sites, &format!(r#"{{"name":"{}"}}"#, "x".repeat(300 << 10))), &[400, 413, 0]),
        ("a long name", post(sites, &format!(r#"{{"name":"{}"}}"#, "x".repeat(10_000))), &[422]),
        ("a name for terminals", post(sites, r#"{"name":"\u001b[2J"}"#), &[422]),
        ("no network", post(resources, &network("10.0.0.0/40")), &[400, 422]),
        ("a network of noise", post(resources, &network("not a network")), &[400, 422]),
        ("a number too large", post("/api/v1/tokens", r#"{"kind":"relay","expires_in":-5}"#), &[400]),
        ("no upgrade", get("/v1/client"), &[403]),
    ]
}

/// Sends a request and requires an answer with one of the statuses, and an end.
fn answer(stranger: &Stranger, portal: &Portal, request: &[u8], wanted: &[u16]) -> Result<()> {
    let mut talk = Talk::begin(&stranger.host, portal, request.to_vec())?;
    let closed = talk.wait_closed(ANSWER)?;
    let heard = talk.heard();
    let status = heard.split_whitespace().nth(1).and_then(|status| status.parse::<u16>().ok());
    ensure!(wanted.contains(&status.unwrap_or(0)), "wanted {wanted:?}, got `{heard}`");
    ensure!(closed.is_some(), "the connection stays open after `{heard}`");
    Ok(())
}

fn upgrade(endpoint: &str, token: &str) -> Vec<u8> {
    format!(
        "GET /v1/{endpoint} HTTP/1.1\r\nHost: portal\r\nAuthorization: Bearer {token}\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    .into_bytes()
}

/// A WebSocket frame from the side that must mask; a mask of zeros changes nothing.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ ..126 => frame.push(0x80 | length as u8),
        length @ ..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

fn text(message: &str) -> Vec<u8> {
    frame(0x81, message.as_bytes())
}

/// Name, frames after the upgrade, and what the portal says before it closes.
fn frames() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let unfit = r#"{"v":1,"type":"hello","payload":{"public_key":7}}"#;
    let unknown = r#"{"v":1,"type":"from_the_future","payload":null}"#;
    let endless = [vec![0x81, 0xff], u64::MAX.to_be_bytes().to_vec(), vec![0; 4]].concat();
    let unmasked = [vec![0x81, 5], b"hello".to_vec()].concat();
    let in_pieces = [frame(0x01, &vec![b' '; MOST / 2]), frame(0x80, &vec![b' '; MOST / 2 + 1])].concat();
    vec![
        ("no JSON", text("hello"), "not a frame"),
        ("an empty text", text(""), "not a frame"),
        ("no object", text("[1,2,3]"), "not a frame"),
        ("deep JSON", text(&"[".repeat(100_000)), "not a frame"),
        ("version 2", text(r#"{"v":2,"type":"hello","payload":{}}"#), "version is not supported"),
        ("no version", text(r#"{"type":"hello","payload":{}}"#), "not a frame"),
        ("version 300", text(r#"{"v":300,"type":"hello","payload":{}}"#), "not a frame"),
        ("a wrong payload", text(unfit), "does not fit"),
        ("unknown, then wrong", [text(unknown), text(unfit)].concat(), "does not fit"),
        ("binary", frame(0x82, b"{}"), "binary frames"),
        ("one byte too much", text(&" ".repeat(MOST + 1)), TOO_LARGE),
        ("too much in pieces", in_pieces, TOO_LARGE),
        ("a length without end", endless, ""),
        ("a reserved kind", frame(0x83, b"x"), ""),
        ("reserved bits", frame(0xf1, b"x"), ""),
        ("no mask", unmasked, ""),
        ("no UTF-8", frame(0x81, &[0xff; 40]), ""),
        ("a long ping", frame(0x89, &[0; 500]), ""),
        ("noise", Bytes::new(9).take(5_000), ""),
    ]
}

/// Says the frames in a session and requires that it is closed, with the right reason where one can still be told.
fn refusal(mut talk: Talk, frames: Vec<u8>, wanted: &str) -> Result<()> {
    ensure!(talk.wait_heard("HTTP/1.1 101", ANSWER), "no upgrade: {}", talk.heard());
    talk.say(frames);
    let closed = talk.wait_closed(ANSWER)?;
    let heard = talk.heard();
    ensure!(closed.is_some(), "the session stays open: {heard}");
    ensure!(heard.contains(wanted), "wanted `{wanted}`, got `{heard}`");
    Ok(())
}

/// A client that signs in well and then asks for what it may not have, again and again.
fn in_a_session(stranger: &Stranger, portal: &Portal, token: &str) -> Result<()> {
    let hello = r#"{"v":1,"type":"hello","payload":{"revision":1,"version":"0.1.0","name":"\u001b[2Jstranger",
        "public_key":"CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=",
        "device_id":"01935000-0000-7000-8000-000000000bad","capabilities":[]}}"#;
    let ask = r#"{"v":1,"type":"request_authorization","payload":{"request_id":1,"avoid_gateways":[],
        "connected_gateways":[],"resource":"01935000-0000-7000-8000-00000000dead"}}"#;
    let mut bytes = [upgrade("client", token), text(hello)].concat();
    (0..20).for_each(|_| bytes.extend(text(ask)));
    bytes.extend(text(
        r#"{"v":1,"type":"candidates","payload":{"added":[{"address":"nowhere"}],"removed":[]}}"#,
    ));
    let mut talk = Talk::begin(&stranger.host, portal, bytes)?;
    let closed = talk.wait_closed(ANSWER)?;
    let heard = talk.heard();
    ensure!(heard.contains(r#""type":"init""#), "the good part was refused: {heard}");
    ensure!(heard.contains("authorization_failed"), "nothing was refused: {heard}");
    ensure!(closed.is_some() && heard.contains("does not fit"), "the session stays open: {heard}");
    Ok(())
}

/// One token that connects a hundred times at once is asked to wait.
fn too_often(stranger: &Stranger, portal: &Portal, token: &str) -> Result<()> {
    let one = format!("GET /v1/client HTTP/1.1\r\nHost: p\r\nAuthorization: Bearer {token}\r\n\r\n");
    let last = request("GET", "/v1/client", token, "");
    let mut talk = Talk::begin(&stranger.host, portal, (one.repeat(100) + &last).into_bytes())?;
    let closed = talk.wait_closed(ANSWER)?;
    let heard = talk.heard().to_ascii_lowercase();
    ensure!(closed.is_some() && heard.contains("http/1.1 429"), "never asked to wait: {heard}");
    ensure!(heard.contains("retry-after:"), "not told for how long: {heard}");
    Ok(())
}

/// What is no TLS at the port for TLS.
fn without_tls(stage: &Stage, stranger: &Stranger) -> Result<()> {
    let mut bytes = Bytes::new(3);
    let record_without_end = [vec![0x16, 3, 1, 0xff, 0xff], bytes.take(40_000)].concat();
    let empty_records = [0x16, 3, 1, 0, 0].repeat(5_000);
    let plain = b"GET / HTTP/1.1\r\nHost: p\r\n\r\n".to_vec();
    for said in [plain, record_without_end, empty_records, bytes.take(20_000), vec![0; 20_000]] {
        let mut stream = stranger.host.enter(|| TcpStream::connect(stage.portal.address()))??;
        // The portal may close before it has heard everything.
        let _ = stream.write_all(&said);
        require_closed(&mut stream, ANSWER).context("no TLS")?;
    }
    Ok(())
}

/// Reads until the other end closes.
pub(super) fn require_closed(stream: &mut TcpStream, limit: Duration) -> Result<()> {
    let begin = Instant::now();
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    let mut buffer = [0; 4_096];
    while begin.elapsed() < limit {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Ok(()),
            Ok(_) | Err(_) => {}
        }
    }
    bail!("still open after {limit:?}")
}

pub(super) fn abuse_health(stage: &Stage, _: &Stranger, context: &mut Context) -> Result<()> {
    let programs = vitals::programs(stage);
    let results: Vec<Result<Duration>> = std::thread::scope(|scope| {
        let abuse = |process| scope.spawn(move || abuse_health_of(process));
        let threads: Vec<_> = programs.iter().map(|process| abuse(*process)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| bail!("panicked"))).collect()
    });
    for (process, back) in programs.iter().zip(results) {
        let back = back.with_context(|| format!("health of {}", process.name()))?;
        let name = format!("health of {}: free again", process.name());
        context.record_time(&name, back, Target::AtMost(8_000.0));
    }
    Ok(())
}

/// Broken requests, then more silent visitors than there are seats; the time until somebody is served again.
fn abuse_health_of(process: &Process) -> Result<Duration> {
    let (host, address) = (process.host(), system::health());
    let long = [b"GET /".to_vec(), vec![b'x'; 20_000]].concat();
    let cases: [(&[u8], &str); 6] = [
        (b"hello\r\n\r\n", " 400 "),
        (b"GET /healthz HTTP/2\r\n\r\n", " 505 "),
        (b"POST /healthz HTTP/1.1\r\n\r\n", " 405 "),
        (b"GET /../etc/passwd HTTP/1.1\r\n\r\n", " 404 "),
        (b"\xff\xfe\0\0\r\n\r\n", " 400 "),
        (&long, " 431 "),
    ];
    for (said, wanted) in cases {
        let mut stream = host.enter(|| TcpStream::connect(address))??;
        stream.set_read_timeout(Some(ANSWER))?;
        // It may answer before it has heard everything, and then reset what it does not want to hear.
        let _ = stream.write_all(said);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        let is_cut = answer.is_empty() && said.len() > 8_192;
        ensure!(answer.contains(wanted) || is_cut, "wanted {wanted}, got `{answer}`");
    }
    let seats: Result<Vec<TcpStream>> =
        host.enter(|| (0..40).map(|_| Ok(TcpStream::connect(address)?)).collect())?;
    let seats = seats?;
    let begin = Instant::now();
    while !matches!(http::get(host, address, "/healthz"), Ok(response) if response.status == 200) {
        ensure!(begin.elapsed() < Duration::from_secs(15), "nobody is served any more");
    }
    drop(seats);
    Ok(begin.elapsed())
}
