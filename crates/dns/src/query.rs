//! Queries as they come from applications.

use domain::base::iana::{Class, Opcode, Rcode, Rtype};
use domain::base::{Message, ParsedName};

use crate::name::Name;

/// What carries a DNS message.
#[derive(Copy, Clone, Debug, Eq, Hash, PartialEq)]
pub enum Transport {
    /// One datagram each way (RFC 1035, 4.2.1).
    Udp,
    /// Two bytes of length, then the message (RFC 7766).
    Tcp,
}

/// Why a packet to the resolver gets no answer.
#[derive(Copy, Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, thiserror::Error)]
pub enum DropReason {
    /// Shorter than a DNS header.
    #[error("DNS message is too short")]
    Short,
    /// A response, where only queries make sense; answering could start a loop.
    #[error("DNS message is a response")]
    Response,
    /// Not to the address and port of the resolver.
    #[error("packet is not for the resolver")]
    NotForResolver,
    /// The sender's address is that of the resolver itself, or no host at all.
    #[error("packet has no usable source")]
    Source,
    /// A fragment.
    #[error("packet is a fragment")]
    Fragment,
    /// All connections are busy.
    #[error("too many TCP connections")]
    TooManyConnections,
    /// The answer cannot be put into a message.
    #[error("answer does not fit")]
    Unanswerable,
}

/// Why a query is answered with an error, or not at all.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// Silence.
    Drop(DropReason),
    /// An error response with this code.
    Error(Rcode),
    /// An error response that says which version of EDNS is understood (RFC 6891, 6.1.3).
    EdnsVersion,
}

/// A well-formed query for one name in class IN.
#[derive(Copy, Clone, Debug)]
pub struct Query<'a> {
    message: Message<&'a [u8]>,
    qname: ParsedName<&'a [u8]>,
    rtype: Rtype,
    edns: Option<Edns>,
}

/// What the OPT record says (RFC 6891).
#[derive(Copy, Clone, Debug)]
pub(crate) struct Edns {
    pub(crate) udp_payload_size: u16,
    pub(crate) dnssec_ok: bool,
    pub(crate) has_options: bool,
}

/// Responses stay below this on UDP whatever the client offers: they must pass the tunnel's MTU unfragmented.
const LARGEST_UDP_RESPONSE: u16 = 1232;
/// What every client takes (RFC 1035, 4.2.1).
const SMALLEST_UDP_RESPONSE: u16 = 512;

impl<'a> Query<'a> {
    /// Reads a message that claims to be a query.
    ///
    /// # Errors
    ///
    /// [`Refusal`]: malformed messages and other numbers of questions than one are FORMERR, other opcodes and classes
    /// NOTIMP, zone transfers REFUSED.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refusal> {
        let message = Message::from_octets(bytes).map_err(|_| Refusal::Drop(DropReason::Short))?;
        let header = message.header();
        if header.qr() {
            return Err(Refusal::Drop(DropReason::Response));
        }
        if header.opcode() != Opcode::QUERY {
            return Err(Refusal::Error(Rcode::NOTIMP));
        }
        let formerr = |_| Refusal::Error(Rcode::FORMERR);
        let mut questions = message.question();
        let question = match (message.header_counts().qdcount(), questions.next()) {
            (1, Some(question)) => question.map_err(formerr)?,
            _ => return Err(Refusal::Error(Rcode::FORMERR)),
        };
        if question.qclass() != Class::IN {
            return Err(Refusal::Error(Rcode::NOTIMP));
        }
        if matches!(question.qtype(), Rtype::AXFR | Rtype::IXFR) {
            return Err(Refusal::Error(Rcode::REFUSED));
        }
        let edns = edns(&message)?;
        Ok(Self { message, qname: *question.qname(), rtype: question.qtype(), edns })
    }

    /// The name asked for; none for the root.
    pub fn name(&self) -> Option<Name> {
        Name::from_wire(&self.qname)
    }

    /// The record type asked for.
    pub const fn rtype(&self) -> Rtype {
        self.rtype
    }

    /// The whole query message.
    pub fn bytes(&self) -> &'a [u8] {
        self.message.as_octets()
    }

    pub(crate) const fn message(&self) -> &Message<&'a [u8]> {
        &self.message
    }

    pub(crate) const fn qname(&self) -> &ParsedName<&'a [u8]> {
        &self.qname
    }

    pub(crate) const fn edns(&self) -> Option<Edns> {
        self.edns
    }

    /// The largest response that may go back over `transport`, in bytes.
    pub fn response_limit(&self, transport: Transport) -> usize {
        match transport {
            Transport::Tcp => usize::from(u16::MAX),
            Transport::Udp => {
                let offered = self.edns.map_or(SMALLEST_UDP_RESPONSE, |edns| edns.udp_payload_size);
                usize::from(offered.clamp(SMALLEST_UDP_RESPONSE, LARGEST_UDP_RESPONSE))
            }
        }
    }
}

fn edns(message: &Message<&[u8]>) -> Result<Option<Edns>, Refusal> {
    // Finding the OPT record means walking all records: a broken one must not pass as "no EDNS".
    let additional = message.additional().map_err(|_| Refusal::Error(Rcode::FORMERR))?;
    if additional.flatten().filter(|record| record.rtype() == Rtype::OPT).count() > 1 {
        return Err(Refusal::Error(Rcode::FORMERR));
    }
    let Some(opt) = message.opt() else { return Ok(None) };
    if opt.version() != 0 {
        return Err(Refusal::EdnsVersion);
    }
    let has_options = !opt.opt().is_empty();
    Ok(Some(Edns { udp_payload_size: opt.udp_payload_size(), dnssec_ok: opt.dnssec_ok(), has_options }))
}
