//! Responses that are made here.

use std::convert::Infallible;

use domain::base::iana::{Opcode, OptRcode, Rcode};
use domain::base::message_builder::{AnswerBuilder, PushError, QuestionBuilder};
use domain::base::{Message, MessageBuilder, Name as WireName, StaticCompressor, Ttl};
use domain::rdata::{A, Aaaa, Ptr};

use crate::name::Name;
use crate::proxy_addresses::Assignment;
use crate::query::{DropReason, Query};

/// How long applications may keep an answer about a resource, in seconds: short, because resources come and go.
const TTL: Ttl = Ttl::from_secs(5);
/// Queries up to this size may come in one datagram; the tunnel's MTU carries it unfragmented.
const UDP_PAYLOAD_SIZE: u16 = 1232;

/// Records that an answer can hold.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Records<'a> {
    None,
    Ipv4(Assignment),
    Ipv6(Assignment),
    Pointer(&'a Name),
}

/// A response to a well-formed query.
pub(crate) fn response(query: &Query<'_>, rcode: Rcode, records: Records<'_>) -> Result<Vec<u8>, DropReason> {
    build(query, rcode, records).map_err(|_| DropReason::Unanswerable)
}

/// An error response to a message of which only the header need be readable.
pub(crate) fn error(query: &[u8], rcode: Rcode) -> Result<Vec<u8>, DropReason> {
    Ok(error_builder(query, rcode)?.finish())
}

/// The error response to a query with an unknown version of EDNS.
pub(crate) fn bad_edns_version(query: &[u8]) -> Result<Vec<u8>, DropReason> {
    let mut builder = error_builder(query, Rcode::NOERROR)?.additional();
    let pushed = builder.opt(|opt| {
        opt.set_udp_payload_size(UDP_PAYLOAD_SIZE);
        opt.set_rcode(OptRcode::BADVERS);
        Ok(())
    });
    pushed.map_err(|_| DropReason::Unanswerable)?;
    Ok(builder.finish())
}

/// Header and question of an error response; the question comes back only if it can be read.
fn error_builder(query: &[u8], rcode: Rcode) -> Result<QuestionBuilder<Vec<u8>>, DropReason> {
    let message = Message::from_octets(query).map_err(|_| DropReason::Short)?;
    let readable =
        message.question().all(|question| question.is_ok()) && message.header_counts().qdcount() == 1;
    let mut builder = MessageBuilder::new_vec();
    let header = builder.header_mut();
    header.set_id(message.header().id());
    header.set_qr(true);
    header.set_opcode(message.header().opcode());
    header.set_rd(message.header().rd());
    header.set_ra(message.header().opcode() == Opcode::QUERY);
    header.set_rcode(rcode);
    let mut builder = builder.question();
    if readable {
        for question in message.question().flatten() {
            builder.push(question).map_err(|_| DropReason::Unanswerable)?;
        }
    }
    Ok(builder)
}

/// An empty response that tells a UDP client to ask again over TCP.
pub(crate) fn truncated(query: &Query<'_>, rcode: Rcode) -> Result<Vec<u8>, DropReason> {
    let mut bytes = response(query, rcode, Records::None)?;
    // The TC bit (RFC 1035, 4.1.1).
    bytes[2] |= 0x02;
    Ok(bytes)
}

type Target = StaticCompressor<Vec<u8>>;

fn build(query: &Query<'_>, rcode: Rcode, records: Records<'_>) -> Result<Vec<u8>, PushError> {
    let target = StaticCompressor::new(Vec::with_capacity(512));
    let builder = match MessageBuilder::from_target(target) {
        Ok(builder) => builder,
        Err(error) => never(error),
    };
    let mut builder = builder.start_answer(query.message(), rcode)?;
    builder.header_mut().set_ra(true);
    push(&mut builder, query, records)?;
    let mut builder = builder.additional();
    if let Some(edns) = query.edns() {
        builder.opt(|opt| {
            opt.set_udp_payload_size(UDP_PAYLOAD_SIZE);
            opt.set_dnssec_ok(edns.dnssec_ok);
            Ok(())
        })?;
    }
    Ok(builder.finish().into_target())
}

const fn never(error: Infallible) -> ! {
    match error {}
}

fn push(
    builder: &mut AnswerBuilder<Target>,
    query: &Query<'_>,
    records: Records<'_>,
) -> Result<(), PushError> {
    let owner = query.qname();
    match records {
        Records::None => Ok(()),
        Records::Ipv4(assignment) => {
            assignment.ipv4.into_iter().try_for_each(|address| builder.push((owner, TTL, A::new(address))))
        }
        Records::Ipv6(assignment) => {
            assignment.ipv6.into_iter().try_for_each(|address| builder.push((owner, TTL, Aaaa::new(address))))
        }
        Records::Pointer(name) => match WireName::vec_from_str(name.as_str()) {
            Ok(name) => builder.push((owner, TTL, Ptr::new(name))),
            Err(_) => Err(PushError::ShortBuf),
        },
    }
}
