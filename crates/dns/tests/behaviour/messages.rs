//! DNS messages as clients and upstreams write them.

use std::net::Ipv4Addr;

use adit_dns::Name;
use domain::base::iana::{Class, Rcode, Rtype};
use domain::base::{Message, MessageBuilder, Name as WireName, Ttl};
use domain::rdata::{A, AllRecordData, Soa};

pub(crate) fn name(text: &str) -> Name {
    text.parse().expect("a valid name")
}

fn wire(text: &str) -> WireName<Vec<u8>> {
    WireName::vec_from_str(text).expect("a valid name")
}

/// A query with recursion desired and identifier 0x1234.
pub(crate) fn query(name: &str, rtype: Rtype) -> Vec<u8> {
    query_in(name, rtype, Class::IN)
}

pub(crate) fn query_in(name: &str, rtype: Rtype, class: Class) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(0x1234);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder.push((wire(name), rtype, class)).expect("fits");
    builder.finish()
}

/// The same with EDNS.
pub(crate) fn query_edns(name: &str, rtype: Rtype, payload: u16, dnssec_ok: bool) -> Vec<u8> {
    let plain = query(name, rtype);
    let message = Message::from_octets(plain).expect("a message");
    let mut builder = MessageBuilder::new_vec();
    *builder.header_mut() = message.header();
    let mut builder = builder.question();
    builder.push(message.sole_question().expect("one question")).expect("fits");
    let mut builder = builder.additional();
    let opt = builder.opt(|opt| {
        opt.set_udp_payload_size(payload);
        opt.set_dnssec_ok(dnssec_ok);
        Ok(())
    });
    opt.expect("fits");
    builder.finish()
}

/// An upstream's answer to `query` with address records.
pub(crate) fn addresses(query: &[u8], ttl: u32, addresses: &[Ipv4Addr]) -> Vec<u8> {
    let query = Message::from_octets(query).expect("a message");
    let mut builder = MessageBuilder::new_vec().start_answer(&query, Rcode::NOERROR).expect("fits");
    builder.header_mut().set_ra(true);
    let owner = query.sole_question().expect("one question").into_qname();
    for address in addresses {
        builder.push((owner, Ttl::from_secs(ttl), A::new(*address))).expect("fits");
    }
    builder.finish()
}

/// An upstream's answer that there is nothing, to be kept for `ttl` seconds.
pub(crate) fn negative(query: &[u8], rcode: Rcode, ttl: u32) -> Vec<u8> {
    let query = Message::from_octets(query).expect("a message");
    let mut builder = MessageBuilder::new_vec().start_answer(&query, rcode).expect("fits").authority();
    let seconds = Ttl::from_secs;
    let (server, mail) = (wire("ns.example"), wire("mail.example"));
    let soa = Soa::new(server, mail, 1.into(), seconds(1), seconds(2), seconds(3), seconds(ttl));
    builder.push((wire("example"), seconds(100_000), soa)).expect("fits");
    builder.finish()
}

/// An upstream's answer without records.
pub(crate) fn bare(query: &[u8], rcode: Rcode) -> Vec<u8> {
    let query = Message::from_octets(query).expect("a message");
    MessageBuilder::new_vec().start_answer(&query, rcode).expect("fits").finish()
}

/// An upstream's answer that did not fit into a datagram.
pub(crate) fn cut(query: &[u8]) -> Vec<u8> {
    let mut answer = bare(query, Rcode::NOERROR);
    answer[2] |= 0x02;
    answer
}

/// What a client reads out of an answer.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Seen {
    pub(crate) id: u16,
    pub(crate) rcode: Rcode,
    pub(crate) truncated: bool,
    pub(crate) question: String,
    /// Records in text form, without owner and TTL.
    pub(crate) records: Vec<String>,
    pub(crate) ttls: Vec<u32>,
    pub(crate) has_edns: bool,
}

pub(crate) fn read(answer: &[u8]) -> Seen {
    let message = Message::from_octets(answer).expect("a message");
    assert!(message.header().qr(), "an answer is a response");
    let records: Vec<_> = message
        .answer()
        .expect("well-formed")
        .limit_to::<AllRecordData<_, _>>()
        .map(|record| record.expect("well-formed"))
        .collect();
    let question = message.question().flatten().next();
    Seen {
        id: message.header().id(),
        rcode: message.header().rcode(),
        truncated: message.header().tc(),
        question: question.map_or_else(String::new, |question| question.qname().to_string()),
        records: records.iter().map(|record| record.data().to_string()).collect(),
        ttls: records.iter().map(|record| record.ttl().as_secs()).collect(),
        has_edns: message.opt().is_some(),
    }
}
