//! What the relay needs besides the network: its certificate, its portal, its health endpoint.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, SystemTime};

use url::Url;

use super::report::Finding;
use crate::arguments::Arguments;
use crate::certificate::Store;
use crate::settings::Place;

/// How long another machine may take to answer.
const LIMIT: Duration = Duration::from_secs(5);
/// A certificate that ends so soon should have been renewed.
const RENEW_DAYS: f64 = 14.0;

pub(super) fn check(arguments: &Arguments, place: &Place) -> Vec<Finding> {
    let certificate =
        place.tls.as_ref().map(|tls| certificate(Store::open(tls.source.clone(), tls.name.clone())));
    let portal = arguments.portal.as_ref().map(portal);
    let health = place.health.map(health);
    certificate.into_iter().chain(portal).chain(health).collect()
}

fn certificate(store: anyhow::Result<Store>) -> Finding {
    let check = "certificate";
    let store = match store {
        Ok(store) => store,
        Err(error) => {
            return Finding::failure(
                check,
                format!("{error:#}"),
                "give --tls-certificate and --tls-key files in PEM that fit together",
            );
        }
    };
    let certificate = store.current();
    let name = &certificate.server_name;
    if certificate.sha256.is_some() {
        return Finding::ok(check, format!("the relay makes one for {name}, and the portal vouches for it"));
    }
    let days = certificate.seconds_left(SystemTime::now()) / 86_400.0;
    if days < 0.0 {
        return Finding::failure(
            check,
            format!("the one for {name} is not valid any more"),
            "renew it; the relay notices by itself",
        );
    }
    if days < RENEW_DAYS {
        return Finding::warning(
            check,
            format!("the one for {name} ends in {days:.0} days"),
            "renew it; the relay notices by itself",
        );
    }
    Finding::ok(check, format!("it is for {name} and good for {days:.0} days"))
}

fn portal(portal: &Url) -> Finding {
    let check = "portal";
    let host = portal.host_str().unwrap_or_default();
    let port = portal.port().unwrap_or(if matches!(portal.scheme(), "ws" | "http") { 80 } else { 443 });
    let connect = || -> io::Result<SocketAddr> {
        let mut last = io::Error::other("its name has no address");
        for address in (host.trim_matches(['[', ']']), port).to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, LIMIT) {
                Ok(_) => return Ok(address),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    match connect() {
        Ok(address) => Finding::ok(check, format!("{host} accepts connections ({address})")),
        Err(error) => Finding::failure(
            check,
            format!("{host}, port {port}, cannot be reached: {error}"),
            "let this machine out to the portal; until then nobody is sent to this relay",
        ),
    }
}

/// Free, or a relay is at work and says how it is.
fn health(address: SocketAddr) -> Finding {
    let check = "health";
    let Err(error) = TcpListener::bind(address) else {
        return Finding::ok(check, format!("TCP {address} is free"));
    };
    let ask = || -> io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        write!(stream, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut answer = String::new();
        stream.take(4096).read_to_string(&mut answer)?;
        Ok(answer)
    };
    match ask() {
        Ok(answer) if answer.starts_with("HTTP/1.1 200") => {
            Finding::ok(check, format!("a program is at work on TCP {address}, and ready"))
        }
        Ok(answer) if answer.starts_with("HTTP/1.1 503") => Finding::failure(
            check,
            format!(
                "the relay at work on TCP {address} is not ready: {}",
                answer.lines().last().unwrap_or_default()
            ),
            "see its log",
        ),
        _ => Finding::failure(
            check,
            format!("TCP {address} cannot be opened: {error}"),
            format!("see who has it: ss -tlpn 'sport = :{}'", address.port()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;
    use crate::certificate::Source;

    #[test]
    fn certificates_and_portals_are_tried() {
        assert_eq!(certificate(Store::open(Source::Own, Some("192.0.2.1".to_owned()))).status, Status::Ok);
        let missing = Source::Files { chain: "/nonexistent".into(), key: "/nonexistent".into() };
        assert_eq!(certificate(Store::open(missing, None)).status, Status::Failure);
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let port = listener.local_addr().expect("address").port();
        let url = |port: u16| Url::parse(&format!("ws://127.0.0.1:{port}")).expect("a URL");
        assert_eq!(portal(&url(port)).status, Status::Ok);
        drop(listener);
        assert_eq!(portal(&url(port)).status, Status::Failure);
        assert_eq!(portal(&Url::parse("ws://[::1]:1").expect("a URL")).status, Status::Failure);
    }
}
