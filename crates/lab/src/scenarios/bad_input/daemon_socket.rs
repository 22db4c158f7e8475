//! Broken frames, broken requests and too many visitors at the socket of the client's daemon.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::all;
use super::corpus::Bytes;
use super::stranger::Stranger;
use crate::scenario::{Context, Target};
use crate::stage::Stage;

/// Longest wait for an answer or an end; the daemon gives a hello five seconds.
const LIMIT: Duration = Duration::from_secs(8);

/// The daemon's limit for one frame.
const MOST: u32 = 1024 * 1024;

/// More visitors than the daemon has seats for.
const CROWD: usize = 100;

const HELLO: &str = r#"{"oldest":1,"newest":1,"version":"0.1.0"}"#;

pub(super) fn abuse(stage: &Stage, _: &Stranger, context: &mut Context) -> Result<()> {
    let door = Door { stage };
    let before = frame(HELLO);
    let (beginnings, requests) = (strange_beginnings(), strange_requests());
    all(beginnings.iter().map(|(name, said)| {
        door.require_end(said).with_context(|| format!("instead of a hello: {name}"))?;
        let late = [before.clone(), said.clone()].concat();
        door.require_end(&late).with_context(|| format!("after a hello: {name}"))
    }))?;
    all(requests
        .iter()
        .map(|(name, request)| door.require_refusal(request).with_context(|| format!("request: {name}"))))?;
    let count = (beginnings.len() * 2 + requests.len()) as f64;
    context.record("daemon socket: bad frames", count, "frames", Target::Shown);
    let crowd: Vec<UnixStream> = (0..CROWD).map(|_| door.open()).collect::<Result<_>>()?;
    std::thread::sleep(Duration::from_millis(200));
    drop(crowd);
    // Half a frame, and the rest never: the seat is taken, the others are free.
    let mut half = door.open()?;
    half.write_all(&[before, 100_u32.to_be_bytes().to_vec(), b"{".to_vec()].concat())?;
    let (status, took) = stage.client().wait_for("online", LIMIT, |status| status.state == "online")?;
    ensure!(!status.connections.is_empty(), "{status:?}");
    context.record_time("daemon socket: crowd gone to next answer", took, Target::AtMost(2_000.0));
    Ok(())
}

/// A length and that many bytes.
fn frame(body: &str) -> Vec<u8> {
    [(body.len() as u32).to_be_bytes().to_vec(), body.as_bytes().to_vec()].concat()
}

/// What ends a conversation, before and after the hello: the sender closes its half after it.
fn strange_beginnings() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("nothing", Vec::new()),
        ("half a length", vec![0, 0]),
        ("half a frame", [vec![0, 0, 0, 9], b"{".to_vec()].concat()),
        ("the largest length", vec![0xff; 4]),
        ("one byte too much", (MOST + 1).to_be_bytes().to_vec()),
        ("the largest frame", [MOST.to_be_bytes().to_vec(), vec![b' '; MOST as usize]].concat()),
        ("noise", [vec![0xff], Bytes::new(5).take(5_000)].concat()),
        ("an HTTP request", b"GET / HTTP/1.1\r\n\r\n".to_vec()),
        ("a hello of the future", frame(r#"{"oldest":7,"newest":9,"version":"9"}"#)),
        ("no hello", frame(r#"{"oldest":"x"}"#)),
    ]
}

/// Requests that are answered with an error, and after which the daemon still listens.
fn strange_requests() -> Vec<(&'static str, String)> {
    let request = |text: &str| text.to_owned();
    vec![
        ("no JSON", request("{")),
        ("nothing", String::new()),
        ("a number", request("7")),
        ("no method", request(r#"{"id":1}"#)),
        ("an unknown method", request(r#"{"id":1,"method":"reboot","params":{}}"#)),
        ("a negative id", request(r#"{"id":-1,"method":"status","params":{}}"#)),
        ("wrong parameters", request(r#"{"id":1,"method":"ping","params":{"resource":[1]}}"#)),
        ("a wrong log level", request(r#"{"id":1,"method":"set_log_level","params":{"level":"=,=loud"}}"#)),
        ("an unknown resource", request(r#"{"id":1,"method":"ping","params":{"resource":"\u0000\u001b"}}"#)),
        ("deep JSON", "[".repeat(100_000)),
        (
            "a long resource",
            format!(r#"{{"id":1,"method":"ping","params":{{"resource":"{}"}}}}"#, "x".repeat(900_000)),
        ),
    ]
}

struct Door<'a> {
    stage: &'a Stage,
}

impl Door<'_> {
    fn open(&self) -> Result<UnixStream> {
        let stream = UnixStream::connect(self.stage.client().socket())?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(stream)
    }

    /// Says something, ends, and requires that the daemon ends too.
    fn require_end(&self, said: &[u8]) -> Result<()> {
        let mut stream = self.open()?;
        // The daemon may refuse to hear the end of it, or have gone already.
        let _ = stream.write_all(said);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                Err(error).context("the conversation goes on")
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Requires an error in answer, and that the same conversation can go on.
    fn require_refusal(&self, request: &str) -> Result<()> {
        let mut stream = self.open()?;
        stream.write_all(&[frame(HELLO), frame(request)].concat())?;
        let hello = read_frame(&mut stream)?;
        ensure!(hello.contains("newest"), "no hello: {hello}");
        let refusal = read_frame(&mut stream)?;
        ensure!(refusal.contains(r#""error""#) && refusal.contains("message"), "no error: {refusal}");
        ensure!(refusal.len() < 4_096, "{} bytes of complaint", refusal.len());
        stream.write_all(&frame(r#"{"id":77,"method":"status","params":{}}"#))?;
        let status = read_frame(&mut stream)?;
        ensure!(status.contains(r#""id":77"#) && status.contains("online"), "no status: {status}");
        Ok(())
    }
}

fn read_frame(stream: &mut UnixStream) -> Result<String> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    ensure!(length <= MOST, "the daemon's frame is too large");
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body)?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}
