//! TCP throughput with `iperf3`.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use crate::process::{Process, Spawn};
use crate::world::Host;

/// Where its server listens.
pub(super) const PORT: u16 = 5201;

/// Time beyond the measurement itself in which a client must be done.
const GRACE: Duration = Duration::from_secs(15);

/// The server refuses a client while it still clears up after the last one.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);

const READY_LIMIT: Duration = Duration::from_secs(5);

/// What a client is told.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order<'a> {
    pub(super) target: &'a str,
    pub(super) streams: u8,
    pub(super) reverse: bool,
    pub(super) seconds: u32,
}

/// What arrived.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Transfer {
    pub(super) bytes: f64,
    pub(super) gigabits_per_second: f64,
}

/// Starts the server.
pub(super) fn serve(host: &Host) -> Result<Process> {
    let spawn =
        Spawn::new("iperf3", "iperf3").args(["--server", "--forceflush", "--port", &PORT.to_string()]);
    let mut process = host.spawn(&spawn)?;
    process.wait_for_output("Server listening", READY_LIMIT)?;
    Ok(process)
}

/// Repeats what involves a client until it succeeds, a few times.
///
/// # Errors
/// That of the last attempt.
pub(super) fn retry<T>(mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..ATTEMPTS {
        if let Ok(done) = attempt() {
            return Ok(done);
        }
        std::thread::sleep(PAUSE);
    }
    attempt()
}

/// Runs a client to its end.
///
/// # Errors
/// When nothing arrives, also because the server still clears up; see [`retry`].
pub(super) fn run(host: &Host, order: &Order<'_>) -> Result<Transfer> {
    let (port, streams, seconds) = (PORT.to_string(), order.streams.to_string(), order.seconds.to_string());
    let mut command = vec!["iperf3", "--version4", "--json", "--client", order.target, "--port", &port];
    command.extend(["--parallel", &streams, "--time", &seconds, "--connect-timeout", "3000"]);
    if order.reverse {
        command.push("--reverse");
    }
    let finished = host.finish(&command, Duration::from_secs(order.seconds.into()) + GRACE)?;
    parse(&finished.stdout).with_context(|| format!("`{}`", command.join(" ")))
}

/// What `iperf3 --json` prints, as far as it is used.
#[derive(Debug, Deserialize)]
struct Printed {
    error: Option<String>,
    end: Option<End>,
}

#[derive(Debug, Deserialize)]
struct End {
    sum_received: Option<Sum>,
}

#[derive(Debug, Deserialize)]
struct Sum {
    bytes: f64,
    bits_per_second: f64,
}

fn parse(printed: &str) -> Result<Transfer> {
    let printed: Printed = serde_json::from_str(printed).context("iperf3 printed no JSON")?;
    if let Some(error) = printed.error {
        bail!("iperf3: {error}");
    }
    let sum = printed.end.and_then(|end| end.sum_received).context("iperf3 received nothing")?;
    if sum.bytes <= 0.0 {
        bail!("iperf3 received nothing");
    }
    Ok(Transfer { bytes: sum.bytes, gigabits_per_second: sum.bits_per_second / 1e9 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_receiver_got_counts() {
        let printed = r#"{"start":{"connected":[]},"end":{"sum_sent":{"bytes":9,"bits_per_second":9.0},
            "sum_received":{"start":0,"seconds":3.0,"bytes":1500000000,"bits_per_second":4.0e9}}}"#;
        let expected = Transfer { bytes: 1.5e9, gigabits_per_second: 4.0 };
        assert_eq!(parse(printed).unwrap(), expected);
    }

    #[test]
    fn an_attempt_that_succeeds_is_the_last() {
        let mut attempts = 0;
        let second = retry(|| {
            attempts += 1;
            if attempts == 2 { Ok(attempts) } else { bail!("busy") }
        });
        assert_eq!(second.unwrap(), 2);
        retry::<()>(|| bail!("busy")).unwrap_err();
    }

    #[test]
    fn errors_and_silence_are_no_figures() {
        let busy = r#"{"start":{},"intervals":[],"end":{},"error":"the server is busy running a test"}"#;
        assert!(parse(busy).unwrap_err().to_string().contains("busy"));
        for printed in
            ["", "{}", r#"{"end":{}}"#, r#"{"end":{"sum_received":{"bytes":0,"bits_per_second":0}}}"#]
        {
            assert!(parse(printed).is_err(), "{printed}");
        }
    }
}
