//! Whether the ports can be bound: listeners, and the ports to lend.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use adit_turn::stun::{Class, Message, Method, TransactionId, Writer};

use super::report::Finding;
use crate::settings::Place;

/// How long a STUN server on this machine may take to answer.
const LIMIT: Duration = Duration::from_secs(1);
/// So many taken ports of a hundred are nothing special.
const TAKEN_PERCENT: usize = 10;

pub(super) fn check(place: &Place) -> Vec<Finding> {
    let binds: Vec<IpAddr> = [place.v4, place.v6].into_iter().flatten().map(|address| address.bind).collect();
    let mut findings = Vec::new();
    for &bind in &binds {
        findings.push(udp(SocketAddr::new(bind, place.port)));
        findings.extend(place.tcp_port.map(|port| tcp("tcp-port", SocketAddr::new(bind, port))));
        findings.extend(place.tls.as_ref().map(|tls| tcp("tls-port", SocketAddr::new(bind, tls.port))));
    }
    findings.extend(binds.first().map(|&bind| lent(place, bind)));
    findings.push(ephemeral(
        place,
        &read("net/ipv4/ip_local_port_range"),
        &read("net/ipv4/ip_local_reserved_ports"),
    ));
    findings
}

fn udp(address: SocketAddr) -> Finding {
    let check = "udp-port";
    match UdpSocket::bind(address) {
        Ok(_) => Finding::ok(check, format!("UDP {address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && answers_udp(address) => Finding::ok(
            check,
            format!("a STUN server is at work on UDP {address}; this relay, it is to be hoped"),
        ),
        Err(error) => unbindable(check, "UDP", address, &error),
    }
}

fn tcp(check: &'static str, address: SocketAddr) -> Finding {
    match TcpListener::bind(address) {
        Ok(_) => Finding::ok(check, format!("TCP {address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && answers_tcp(address) => Finding::ok(
            check,
            format!("a STUN server is at work on TCP {address}; this relay, it is to be hoped"),
        ),
        // What is behind TLS cannot be seen.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && check == "tls-port" => Finding::warning(
            check,
            format!("TCP {address} is in use"),
            format!("if it is not this relay, see who has it: ss -tlpn 'sport = :{}'", address.port()),
        ),
        Err(error) => unbindable(check, "TCP", address, &error),
    }
}

fn unbindable(check: &'static str, protocol: &str, address: SocketAddr, error: &io::Error) -> Finding {
    let flag = if protocol == "UDP" { 'u' } else { 't' };
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => format!("see who has it: ss -{flag}lpn 'sport = :{}'", address.port()),
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => "give an address of this machine".to_owned(),
        _ => "see whether this address family is switched on".to_owned(),
    };
    Finding::failure(check, format!("{protocol} {address} cannot be opened: {error}"), advice)
}

/// Asks whatever listens there who we are; a STUN server knows.
fn answers_udp(address: SocketAddr) -> bool {
    let address = reachable(address);
    let ask = || -> io::Result<bool> {
        let socket = UdpSocket::bind(SocketAddr::new(address.ip(), 0))?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.send_to(&binding_request(), address)?;
        let mut buffer = [0; 1500];
        let length = socket.recv(&mut buffer)?;
        Ok(is_binding_response(&buffer[..length]))
    };
    ask().unwrap_or(false)
}

fn answers_tcp(address: SocketAddr) -> bool {
    let ask = || -> io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&reachable(address), LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(&binding_request())?;
        let mut buffer = [0; 1500];
        let length = stream.read(&mut buffer)?;
        Ok(is_binding_response(&buffer[..length]))
    };
    ask().unwrap_or(false)
}

fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => std::net::Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => std::net::Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn binding_request() -> Vec<u8> {
    Writer::new(Method::BINDING, Class::Request, TransactionId(*b"adit-doctor?")).finish()
}

fn is_binding_response(bytes: &[u8]) -> bool {
    Message::parse(bytes)
        .is_ok_and(|message| message.class() == Class::Success && message.method() == Method::BINDING)
}

/// Tries all ports to lend.
fn lent(place: &Place, bind: IpAddr) -> Finding {
    let check = "lent-ports";
    let ports = place.ports.clone();
    let (first, last, count) = (*ports.start(), *ports.end(), ports.len());
    let taken = ports.filter(|&port| UdpSocket::bind((bind, port)).is_err()).count();
    let detail = format!("{count} ports to lend ({first}-{last}), {taken} of them taken now");
    if taken == count {
        return Finding::failure(check, detail, "choose others: --min-port, --max-port");
    }
    if taken * 100 > count * TAKEN_PERCENT {
        return Finding::warning(
            check,
            detail,
            "unless they are lent already, choose others: --min-port, --max-port",
        );
    }
    if count < place.limits.allocations {
        let advice = format!(
            "they bound the number of allocations before --max-allocations {} does",
            place.limits.allocations
        );
        return Finding::warning(check, detail, advice);
    }
    Finding::ok(check, detail)
}

/// Whether the system gives the ports to lend to everybody else.
fn ephemeral(place: &Place, range: &str, reserved: &str) -> Finding {
    let check = "reserved-ports";
    let (first, last) = (*place.ports.start(), *place.ports.end());
    let mut bounds = range.split_whitespace().filter_map(|bound| bound.parse::<u16>().ok());
    let (Some(from), Some(to)) = (bounds.next(), bounds.next()) else {
        return Finding::ok(check, "this system does not say which ports it gives to programs");
    };
    let (from, to) = (from.max(first), to.min(last));
    let is_reserved = |port: u16| {
        reserved.trim().split(',').any(|part| {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            let parse = |text: &str| text.trim().parse::<u16>().ok();
            parse(low).zip(parse(high)).is_some_and(|(low, high)| (low..=high).contains(&port))
        })
    };
    let shared = (from..=to).filter(|&port| !is_reserved(port)).count();
    if shared == 0 {
        return Finding::ok(check, "no other program is given ports to lend");
    }
    Finding::warning(
        check,
        format!("the system gives {shared} of the ports to lend to any program that asks for one"),
        format!("sysctl -w net.ipv4.ip_local_reserved_ports={first}-{last}, and write it to /etc/sysctl.d"),
    )
}

/// A kernel setting; empty when there is none of this name.
pub(super) fn read(key: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/{key}")).unwrap_or_default().trim().to_owned()
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
    fn ports_that_the_system_gives_away_are_noticed() {
        let place = place("adit-relay doctor --public-ipv4 127.0.0.1 --min-port 50000 --max-port 50009");
        let status = |range: &str, reserved: &str| ephemeral(&place, range, reserved).status;
        assert_eq!(status("32768 60999", ""), Status::Warning);
        assert_eq!(status("32768 60999", "50000-50009"), Status::Ok);
        assert_eq!(status("32768 60999", "1,50000-50004,50005-60000"), Status::Ok);
        assert_eq!(status("32768 60999", "50000-50008"), Status::Warning);
        assert_eq!(status("32768 49999", ""), Status::Ok);
        assert_eq!(status("", ""), Status::Ok);
    }

    #[test]
    fn taken_ports_are_told_from_a_relay_at_work() {
        let silent = UdpSocket::bind("127.0.0.1:0").expect("binds");
        let address = silent.local_addr().expect("address");
        assert_eq!(udp(address).status, Status::Failure);
        let server = std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            // The question before, which nobody answered, is in the queue still.
            for _ in 0..2 {
                let (length, from) = silent.recv_from(&mut buffer).expect("asked");
                let request = Message::parse(&buffer[..length]).expect("STUN");
                let response = Writer::new(Method::BINDING, Class::Success, request.transaction()).finish();
                silent.send_to(&response, from).expect("answers");
            }
        });
        assert_eq!(udp(address).status, Status::Ok);
        server.join().expect("no panic");
        let held = TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = held.local_addr().expect("address");
        assert_eq!(tcp("tls-port", address).status, Status::Warning);
    }

    #[test]
    fn too_few_ports_for_the_allocations_are_noticed() {
        let few = place("adit-relay doctor --public-ipv4 127.0.0.1 --min-port 50000 --max-port 50009");
        assert_eq!(lent(&few, "127.0.0.1".parse().expect("address")).status, Status::Warning);
    }
}
