//! What the operating system grants a process and its sockets.

use std::net::Ipv4Addr;

use adit_platform::udp::Config;
use adit_platform::udp::train::TrainSocket;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::{getsockopt, sockopt};

use super::ports::read;
use super::report::Finding;
use crate::settings::Place;

/// Files that are neither ports nor connections: listeners, logs, the portal.
const OTHER_FILES: u64 = 64;
/// What the listeners ask for in bytes.
const BUFFER: usize = 7 << 20;
/// Below this a burst of data is lost before the relay sees it.
const SMALL_BUFFER: usize = 1 << 20;
/// Connections that wait to be accepted.
const BACKLOG: u64 = 1024;

pub(super) fn check(place: &Place) -> Vec<Finding> {
    let mut findings = vec![open_files(place), buffers()];
    findings.extend(conntrack(
        place,
        &read("net/netfilter/nf_conntrack_max"),
        &read("net/netfilter/nf_conntrack_count"),
    ));
    if place.tcp_port.is_some() || place.tls.is_some() {
        findings.push(backlog(&read("net/core/somaxconn")));
    }
    findings
}

/// What a full relay needs: a socket per lent port and connection.
fn files_needed(place: &Place) -> u64 {
    let families = [place.v4, place.v6].into_iter().flatten().count().max(1) as u64;
    let streams = if place.tcp_port.is_some() || place.tls.is_some() {
        place.stream_limits.connections as u64
    } else {
        0
    };
    families * place.limits.allocations as u64 + streams + OTHER_FILES
}

fn open_files(place: &Place) -> Finding {
    let check = "open-files";
    let needed = files_needed(place);
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard >= needed => {
            Finding::ok(check, format!("{hard} open files are allowed, {needed} needed at most"))
        }
        Ok((_, hard)) => Finding::warning(
            check,
            format!("{hard} open files are allowed, but a full relay needs {needed}"),
            format!(
                "raise the limit (systemd: LimitNOFILE={}; shell: ulimit -Hn), or lower --max-allocations",
                needed.next_power_of_two()
            ),
        ),
        Err(error) => {
            Finding::warning(check, format!("the limit of open files is unknown: {error}"), "see ulimit -Hn")
        }
    }
}

/// What the kernel gives a listener of what it asks for.
fn buffers() -> Finding {
    let check = "socket-buffers";
    let config = Config {
        receive_buffer: BUFFER,
        send_buffer: BUFFER,
        ..Config::new((Ipv4Addr::LOCALHOST, 0).into())
    };
    let given = TrainSocket::bind(&config).ok().and_then(|socket| getsockopt(&socket, sockopt::RcvBuf).ok());
    let Some(given) = given else {
        return Finding::warning(
            check,
            "no UDP socket can be opened on the loopback interface",
            "ip link set lo up",
        );
    };
    // The kernel doubles what it grants, for its own bookkeeping.
    let given = given / 2;
    let advice = format!(
        "sysctl -w net.core.rmem_max={BUFFER} net.core.wmem_max={BUFFER}, and write it to /etc/sysctl.d"
    );
    if given >= BUFFER {
        Finding::ok(check, format!("a listener gets its buffer of {} KiB", BUFFER >> 10))
    } else if given >= SMALL_BUFFER {
        Finding::warning(
            check,
            format!("a listener gets a buffer of {} KiB instead of {}", given >> 10, BUFFER >> 10),
            advice,
        )
    } else {
        Finding::warning(
            check,
            format!("a listener gets a buffer of {} KiB only: bursts will be lost", given >> 10),
            advice,
        )
    }
}

/// A firewall that follows connections has an entry for each client and each peer.
fn conntrack(place: &Place, max: &str, count: &str) -> Option<Finding> {
    let check = "conntrack";
    let max: usize = max.parse().ok()?;
    let needed = place.limits.allocations * 4;
    let count = count.parse().unwrap_or(0);
    if max < needed || count * 10 > max * 9 {
        return Some(Finding::warning(
            check,
            format!(
                "the firewall follows at most {max} connections, {count} now; a full relay may have {needed}"
            ),
            format!(
                "leave the relay's traffic alone (nft: `udp dport {{ {}, {}-{} }} notrack` in a prerouting chain of priority raw), or \
                 sysctl -w net.netfilter.nf_conntrack_max={}",
                place.port,
                place.ports.start(),
                place.ports.end(),
                needed.next_power_of_two()
            ),
        ));
    }
    Some(Finding::ok(check, format!("the firewall follows up to {max} connections, {count} now")))
}

fn backlog(max: &str) -> Finding {
    let check = "backlog";
    match max.parse::<u64>() {
        Ok(max) if max < BACKLOG => Finding::warning(
            check,
            format!("only {max} connections may wait to be accepted"),
            format!("sysctl -w net.core.somaxconn={BACKLOG}"),
        ),
        Ok(max) => Finding::ok(check, format!("{max} connections may wait to be accepted")),
        Err(_) => Finding::ok(check, "this system does not say how many connections may wait"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::super::report::Status;
    use super::*;
    use crate::arguments::Arguments;

    fn place(line: &str) -> Place {
        Place::new(&Arguments::parse_from(line.split(' '))).expect("sound")
    }

    #[test]
    fn what_a_full_relay_needs_is_counted() {
        let one = place("adit-relay doctor --public-ipv4 127.0.0.1 --max-allocations 1000");
        assert_eq!(files_needed(&one), 1064);
        let all = place(
            "adit-relay doctor --public-ipv4 127.0.0.1 --public-ipv6 ::1 --max-allocations 1000 --tcp-port 443 --max-connections 500",
        );
        assert_eq!(files_needed(&all), 2564);
        let absurd = place("adit-relay doctor --public-ipv4 127.0.0.1 --max-allocations 9000000000");
        assert_eq!(open_files(&absurd).status, Status::Warning);
    }

    #[test]
    fn a_small_or_full_connection_table_is_noticed() {
        let place = place("adit-relay doctor --public-ipv4 127.0.0.1 --max-allocations 1000");
        let status = |max: &str, count: &str| conntrack(&place, max, count).map(|finding| finding.status);
        assert_eq!(status("", ""), None, "no such firewall");
        assert_eq!(status("262144", "10"), Some(Status::Ok));
        assert_eq!(status("3999", "10"), Some(Status::Warning));
        assert_eq!(status("262144", "250000"), Some(Status::Warning));
        assert_eq!((backlog("128").status, backlog("4096").status), (Status::Warning, Status::Ok));
    }
}
