//! `adit dns query`: asks the tunnel's resolver as any program would, and says who answered.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use adit_client_ipc::{Answerer, DnsQueryReport, DnsRecord, FrontEnd, Request, Response};
use domain::base::iana::{Rcode, Rtype};
use domain::base::{Message, MessageBuilder, Name};
use domain::rdata::AllRecordData;
use rand::Rng as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};

use super::fetch;
use crate::cli::exit::Failure;
use crate::cli::{CALL_LIMIT, print, render};

/// Where the resolver listens.
const PORT: u16 = 53;

/// How long one question may take: longer than the resolver asks upstream.
const ANSWER_WITHIN: Duration = Duration::from_secs(6);

/// A lost datagram is sent again so often.
const TRIES: usize = 2;

/// Asks for `name` and prints what came back; a name that does not exist is an answer, a refusal a failure.
pub(crate) async fn query(
    daemon: &mut FrontEnd,
    name: &str,
    rtype: Option<Rtype>,
    json: bool,
) -> Result<(), Failure> {
    let usual = if name.parse::<IpAddr>().is_ok() { Rtype::PTR } else { Rtype::A };
    let rtype = rtype.unwrap_or(usual);
    let question = Question::new(name, rtype)?;
    let status = fetch(daemon).await?;
    let route = match daemon.call(Request::Route { destination: question.plain_name() }, CALL_LIMIT).await? {
        Response::Route(route) => route,
        other => return Err(Failure::unexpected(&other)),
    };
    let resolver = status.resolvers.first().copied();
    let resolver =
        resolver.ok_or_else(|| Failure::from(anyhow::anyhow!("the portal gave this device no resolver")))?;
    let message = ask((resolver, PORT).into(), &question).await?;
    let (rcode, answers) = read(&message)?;
    let report = DnsQueryReport {
        because: because(&question.plain_name(), rcode, route.resource.is_some()),
        name: question.plain_name(),
        r#type: rtype.to_string(),
        rcode: rcode.to_string(),
        answers,
        resource: route.resource,
        pattern: route.address,
        upstreams: status.upstreams,
    };
    print(&if json { render::json(&report)? } else { text(&report) })?;
    if report.because == Answerer::Refused { Err(Failure::found()) } else { Ok(()) }
}

fn because(name: &str, rcode: Rcode, is_resource: bool) -> Answerer {
    let is_kept = name.parse().is_ok_and(|name| adit_dns::is_kept_from_upstreams(&name));
    match rcode {
        _ if is_kept => Answerer::KeptBack,
        Rcode::REFUSED | Rcode::SERVFAIL | Rcode::FORMERR | Rcode::NOTIMP => Answerer::Refused,
        _ if is_resource => Answerer::Resource,
        _ => Answerer::Upstream,
    }
}

struct Question {
    name: Name<Vec<u8>>,
    bytes: Vec<u8>,
    id: u16,
}

impl Question {
    fn new(name: &str, rtype: Rtype) -> Result<Self, Failure> {
        let usage =
            |error: &dyn std::fmt::Display| Failure::usage(format!("`{name}` is no host name: {error}"));
        let name = match name.parse::<IpAddr>() {
            Ok(address) => reverse(address).parse(),
            Err(_) => name.parse::<Name<Vec<u8>>>(),
        }
        .map_err(|error| usage(&error))?;
        let mut builder = MessageBuilder::new_vec();
        // Another id in each question, so that no late answer is taken for ours.
        builder.header_mut().set_id(rand::rng().random());
        builder.header_mut().set_rd(true);
        let id = builder.header().id();
        let mut builder = builder.question();
        builder.push((&name, rtype)).map_err(|error| usage(&error))?;
        Ok(Self { bytes: builder.finish(), name, id })
    }

    fn plain_name(&self) -> String {
        self.name.to_string()
    }

    /// Whether these bytes answer it.
    fn is_answered_by(&self, bytes: &[u8]) -> bool {
        let Ok(message) = Message::from_octets(bytes) else { return false };
        let asked = message.sole_question();
        let is_same =
            asked.is_ok_and(|asked| asked.qname().to_string().eq_ignore_ascii_case(&self.plain_name()));
        message.header().qr() && message.header().id() == self.id && is_same
    }
}

/// The name that stands for an address (RFC 1035, section 3.5; RFC 3596, section 2.5).
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let mut name = String::new();
            for byte in address.octets().iter().rev() {
                let _ = write!(name, "{:x}.{:x}.", byte & 15, byte >> 4);
            }
            name + "ip6.arpa"
        }
    }
}

async fn ask(resolver: SocketAddr, question: &Question) -> Result<Vec<u8>, Failure> {
    let silent = || Failure::timeout(format!("the tunnel's resolver at {resolver} does not answer"));
    let failed = |error: io::Error| anyhow::Error::from(error).context("cannot ask the tunnel's resolver");
    for _ in 0..TRIES {
        let Ok(answer) = tokio::time::timeout(ANSWER_WITHIN, ask_udp(resolver, question)).await else {
            continue;
        };
        let answer = answer.map_err(failed)?;
        let is_cut = Message::from_octets(&answer[..]).is_ok_and(|message| message.header().tc());
        if !is_cut {
            return Ok(answer);
        }
        let whole = tokio::time::timeout(ANSWER_WITHIN, ask_tcp(resolver, question)).await;
        return Ok(whole.map_err(|_| silent())?.map_err(failed)?);
    }
    Err(silent())
}

async fn ask_udp(resolver: SocketAddr, question: &Question) -> io::Result<Vec<u8>> {
    let any: IpAddr =
        if resolver.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(resolver).await?;
    socket.send(&question.bytes).await?;
    let mut answer = vec![0; 65_535];
    loop {
        let length = socket.recv(&mut answer).await?;
        if question.is_answered_by(&answer[..length]) {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn ask_tcp(resolver: SocketAddr, question: &Question) -> io::Result<Vec<u8>> {
    let length = u16::try_from(question.bytes.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut stream = TcpStream::connect(resolver).await?;
    stream.write_all(&[&length.to_be_bytes()[..], &question.bytes].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

fn read(bytes: &[u8]) -> Result<(Rcode, Vec<DnsRecord>), Failure> {
    let malformed = || Failure::from(anyhow::anyhow!("the tunnel's resolver answers what is no DNS message"));
    let message = Message::from_octets(bytes).map_err(|_| malformed())?;
    let mut answers = Vec::new();
    for record in message.answer().map_err(|_| malformed())? {
        let record = record.map_err(|_| malformed())?;
        let record = record.to_any_record::<AllRecordData<_, _>>().map_err(|_| malformed())?;
        answers.push(DnsRecord {
            name: record.owner().to_string(),
            ttl: record.ttl().as_secs(),
            r#type: record.rtype().to_string(),
            // What an upstream put into a record is not for terminals.
            data: record.data().to_string().chars().filter(|letter| !letter.is_control()).collect(),
        });
    }
    Ok((message.header().rcode(), answers))
}

fn text(report: &DnsQueryReport) -> String {
    let why = match (report.because, &report.resource, &report.pattern) {
        (Answerer::Resource, Some(resource), Some(pattern)) => {
            format!("answered here, because {pattern} of {resource} covers it")
        }
        (Answerer::Resource, ..) => "answered here".to_owned(),
        (Answerer::KeptBack, ..) => {
            "answered here, or programs would go past the tunnel's resolver".to_owned()
        }
        (Answerer::Upstream, ..) => {
            let upstreams: Vec<_> = report.upstreams.iter().map(ToString::to_string).collect();
            format!("answered by {}, because no resource covers it", upstreams.join(" or "))
        }
        (Answerer::Refused, ..) if report.upstreams.is_empty() => {
            "refused: no resource covers it and no upstream is known".to_owned()
        }
        (Answerer::Refused, ..) => "refused, or no upstream answers".to_owned(),
    };
    let mut text = format!("{} {}: {}; {why}.\n", report.name, report.r#type, report.rcode);
    for answer in &report.answers {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {} {} {} {}", answer.name, answer.ttl, answer.r#type, answer.data);
    }
    text
}

#[cfg(test)]
mod tests {
    use domain::base::Ttl;
    use domain::rdata::A;

    use super::*;

    fn answer_to(question: &Question, rcode: Rcode) -> Vec<u8> {
        let asked = Message::from_octets(&question.bytes[..]).unwrap();
        let mut builder = MessageBuilder::new_vec().start_answer(&asked, rcode).unwrap();
        if rcode == Rcode::NOERROR {
            let data = A::from_octets(100, 96, 0, 5);
            builder.push((&question.name, Ttl::from_secs(5), data)).unwrap();
        }
        builder.finish()
    }

    #[test]
    fn an_address_is_asked_for_by_its_name() {
        assert_eq!(reverse("192.0.2.7".parse().unwrap()), "7.2.0.192.in-addr.arpa");
        let name = reverse("2001:db8::1".parse().unwrap());
        assert!(name.starts_with("1.0.0.0.") && name.ends_with("8.b.d.0.1.0.0.2.ip6.arpa"), "{name}");
        let question = Question::new("192.0.2.7", Rtype::PTR).unwrap();
        assert_eq!(question.plain_name(), "7.2.0.192.in-addr.arpa");
        assert!(Question::new("a..b", Rtype::A).is_err());
    }

    #[test]
    fn only_an_answer_to_the_question_is_one() {
        let question = Question::new("wiki.corp", Rtype::A).unwrap();
        let good = answer_to(&question, Rcode::NOERROR);
        assert!(question.is_answered_by(&good));
        let mut other = good.clone();
        other[0] ^= 1;
        assert!(!question.is_answered_by(&other), "another id");
        let mut other = Question::new("other.corp", Rtype::A).unwrap();
        other.id = question.id;
        let other = answer_to(&other, Rcode::NOERROR);
        assert!(!question.is_answered_by(&other));
        assert!(!question.is_answered_by(&question.bytes), "a question");
        assert!(!question.is_answered_by(b"short"));
    }

    #[tokio::test]
    async fn the_answer_is_read_and_explained() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let question = Question::new("wiki.corp", Rtype::A).unwrap();
        let answer = answer_to(&question, Rcode::NOERROR);
        tokio::spawn(async move {
            let (_, from) = server.recv_from(&mut [0; 512]).await.unwrap();
            server.send_to(b"nonsense", from).await.unwrap();
            server.send_to(&answer, from).await.unwrap();
        });
        let (rcode, answers) = read(&ask(address, &question).await.unwrap()).unwrap();
        let report = DnsQueryReport {
            name: question.plain_name(),
            r#type: "A".to_owned(),
            rcode: rcode.to_string(),
            answers,
            because: because("wiki.corp", rcode, true),
            resource: Some("wiki".to_owned()),
            pattern: Some("*.corp".to_owned()),
            upstreams: Vec::new(),
        };
        let expected = "wiki.corp A: NOERROR; answered here, because *.corp of wiki covers it.\n  \
                        wiki.corp 5 A 100.96.0.5\n";
        assert_eq!(text(&report), expected);
    }

    #[test]
    fn who_answered_follows_from_name_and_code() {
        assert_eq!(because("example.com", Rcode::NXDOMAIN, false), Answerer::Upstream);
        assert_eq!(because("example.com", Rcode::SERVFAIL, false), Answerer::Refused);
        assert_eq!(because("use-application-dns.net", Rcode::NXDOMAIN, false), Answerer::KeptBack);
        assert_eq!(because("_dns.resolver.arpa", Rcode::NOERROR, false), Answerer::KeptBack);
    }
}
