//! ICMP echo with the system's `ping`.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::world::Host;

/// What a series of echo requests gave.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Requests sent.
    pub sent: u32,
    /// Replies received, duplicates left out.
    pub received: u32,
    /// Average round trip; `None` without a reply.
    pub average: Option<Duration>,
}

/// Bytes of payload that `ping` sends when nobody says otherwise.
const USUAL_SIZE: usize = 56;

/// Sends `count` echo requests, `interval` apart.
///
/// `ping` waits for the last reply as long as two round trips or one interval, whichever is longer, and a second when
/// none has come at all. On a busy machine only a generous interval keeps it from missing a reply that is there.
///
/// # Errors
/// When `ping` cannot run or prints something unexpected; lost replies are no error.
pub fn ping(host: &Host, target: &str, count: u32, interval: Duration) -> Result<Report> {
    ping_with(host, target, count, interval, USUAL_SIZE)
}

/// As [`ping`], with `size` bytes of payload in unfragmented packets.
///
/// # Errors
/// As [`ping`].
pub fn ping_with(host: &Host, target: &str, count: u32, interval: Duration, size: usize) -> Result<Report> {
    let (count_text, interval_text) = (count.to_string(), interval.as_secs_f64().to_string());
    let size = size.to_string();
    let command = ["ping", "-n", "-q", "-c", &count_text, "-i", &interval_text, "-W", "1"];
    let command = [&command[..], &["-M", "do", "-s", &size, target]].concat();
    let limit = interval * count + Duration::from_secs(10);
    let finished = host.finish(&command, limit)?;
    parse(&finished.stdout)
        .with_context(|| format!("{}: ping {target}: {}", host.name(), finished.complaint()))
}

/// Round trips of `count` echo requests, `interval` apart, in the order of their replies; lost ones are left out.
///
/// # Errors
/// When `ping` cannot run, or no reply comes.
pub fn round_trips(host: &Host, target: &str, count: u32, interval: Duration) -> Result<Vec<Duration>> {
    let (count_text, interval_text) = (count.to_string(), interval.as_secs_f64().to_string());
    let command = ["ping", "-n", "-c", &count_text, "-i", &interval_text, "-W", "1", target];
    let finished = host.finish(&command, interval * count + Duration::from_secs(10))?;
    let times = parse_times(&finished.stdout);
    if times.is_empty() {
        bail!("{}: ping {target}: {}", host.name(), finished.complaint());
    }
    Ok(times)
}

fn parse_times(output: &str) -> Vec<Duration> {
    let time = |line: &str| {
        let milliseconds = line.split_once(" time=")?.1.strip_suffix(" ms")?.parse::<f64>().ok()?;
        Some(Duration::from_secs_f64(milliseconds / 1e3))
    };
    output.lines().filter_map(time).collect()
}

fn parse(output: &str) -> Option<Report> {
    let totals = output.lines().find(|line| line.contains("packets transmitted"))?;
    let mut numbers =
        totals.split(", ").filter_map(|part| part.split_whitespace().next()?.parse::<u32>().ok());
    let (sent, received) = (numbers.next()?, numbers.next()?);
    let times = output.lines().find_map(|line| line.strip_prefix("rtt min/avg/max/mdev = "));
    let average = times.and_then(|times| times.split('/').nth(1)?.parse::<f64>().ok());
    Some(Report { sent, received, average: average.map(|ms| Duration::from_secs_f64(ms / 1e3)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_and_losses_are_read() {
        let output = "PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.\n\n--- 10.0.0.1 ping statistics ---\n\
            20 packets transmitted, 19 received, 5% packet loss, time 950ms\n\
            rtt min/avg/max/mdev = 20.101/20.250/21.003/0.211 ms\n";
        let report = parse(output).unwrap();
        assert_eq!((report.sent, report.received), (20, 19));
        assert_eq!(report.average, Some(Duration::from_micros(20_250)));
    }

    #[test]
    fn single_round_trips_are_read() {
        let output = "PING 10.0.0.1 (10.0.0.1) 56(84) bytes of data.\n\
            64 bytes from 10.0.0.1: icmp_seq=1 ttl=62 time=0.125 ms\n\
            64 bytes from 10.0.0.1: icmp_seq=3 ttl=62 time=12 ms\n\n\
            3 packets transmitted, 2 received, 33% packet loss, time 950ms\n";
        assert_eq!(parse_times(output), [Duration::from_micros(125), Duration::from_millis(12)]);
    }

    #[test]
    fn errors_between_the_totals_and_no_reply_at_all() {
        let output = "3 packets transmitted, 0 received, +3 errors, 100% packet loss, time 2040ms\n";
        let report = parse(output).unwrap();
        assert_eq!((report.sent, report.received, report.average), (3, 0, None));
        assert_eq!(parse("ping: connect: Network is unreachable\n"), None);
    }
}
