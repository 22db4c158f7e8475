//! The CBOR content of each kind, kept apart from the types that the rest of Adit uses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use adit_policy::ResourceId;
use minicbor::{Decode, Encode};
use uuid::Uuid;

use super::{DomainState, GoodbyeReason, PeerMessage, PeerMessageError};
use crate::{Candidate, CandidateKind};

#[derive(Encode, Decode)]
#[cbor(map)]
struct Goodbye {
    #[n(0)]
    reason: u8,
    #[n(1)]
    retry_after_ms: Option<u32>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct ResetTicket {
    #[cbor(n(0), with = "minicbor::bytes")]
    token: [u8; 16],
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct CandidateEntry {
    #[n(0)]
    kind: u8,
    #[cbor(n(1), with = "minicbor::bytes")]
    address: Vec<u8>,
    #[n(2)]
    port: u16,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Candidates {
    #[n(0)]
    added: Vec<CandidateEntry>,
    #[n(1)]
    removed: Vec<CandidateEntry>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct AssignedAddresses {
    #[cbor(n(0), with = "minicbor::bytes")]
    resource: [u8; 16],
    #[n(1)]
    name: String,
    #[cbor(n(2), with = "minicbor::bytes")]
    ipv4: Vec<u8>,
    #[cbor(n(3), with = "minicbor::bytes")]
    ipv6: Vec<u8>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct DomainStatus {
    #[cbor(n(0), with = "minicbor::bytes")]
    resource: [u8; 16],
    #[n(1)]
    name: String,
    #[n(2)]
    state: DomainState,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Draining {
    #[n(0)]
    deadline_ms: u32,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Size {
    #[n(0)]
    size: u16,
}

/// The kind of size probes, which alone may be large.
pub(super) const SIZE_PROBE: u8 = 6;

pub(super) fn encode(message: &PeerMessage) -> (u8, Vec<u8>) {
    match message {
        PeerMessage::Goodbye { reason, retry_after_ms } => {
            (0, bytes(&Goodbye { reason: reason_code(*reason), retry_after_ms: *retry_after_ms }))
        }
        PeerMessage::ResetTicket { token } => (1, bytes(&ResetTicket { token: *token })),
        PeerMessage::Candidates { added, removed } => {
            (2, bytes(&Candidates { added: entries(added), removed: entries(removed) }))
        }
        PeerMessage::AssignedAddresses { resource, name, addresses } => {
            (3, bytes(&assigned(*resource, name, addresses)))
        }
        PeerMessage::DomainStatus { resource, name, state } => (
            4,
            bytes(&DomainStatus {
                resource: resource.as_uuid().into_bytes(),
                name: name.clone(),
                state: *state,
            }),
        ),
        PeerMessage::Draining { deadline_ms } => (5, bytes(&Draining { deadline_ms: *deadline_ms })),
        PeerMessage::SizeProbe { size } => (SIZE_PROBE, bytes(&Size { size: *size })),
        PeerMessage::SizeConfirmed { size } => (7, bytes(&Size { size: *size })),
    }
}

pub(super) fn decode(kind: u8, content: &[u8]) -> Result<PeerMessage, PeerMessageError> {
    Ok(match kind {
        0 => {
            let goodbye: Goodbye = value(content)?;
            PeerMessage::Goodbye { reason: reason_of(goodbye.reason), retry_after_ms: goodbye.retry_after_ms }
        }
        1 => PeerMessage::ResetTicket { token: value::<ResetTicket>(content)?.token },
        2 => {
            let update: Candidates = value(content)?;
            PeerMessage::Candidates {
                added: candidates(&update.added)?,
                removed: candidates(&update.removed)?,
            }
        }
        3 => addresses_of(value(content)?)?,
        4 => {
            let status: DomainStatus = value(content)?;
            PeerMessage::DomainStatus {
                resource: resource(status.resource),
                name: status.name,
                state: status.state,
            }
        }
        5 => PeerMessage::Draining { deadline_ms: value::<Draining>(content)?.deadline_ms },
        SIZE_PROBE => PeerMessage::SizeProbe { size: value::<Size>(content)?.size },
        7 => PeerMessage::SizeConfirmed { size: value::<Size>(content)?.size },
        other => return Err(PeerMessageError::UnknownKind(other)),
    })
}

/// A goodbye with a reason from the future is still a goodbye.
fn reason_of(code: u8) -> GoodbyeReason {
    match code {
        0 => GoodbyeReason::Revoked,
        1 => GoodbyeReason::Expired,
        2 => GoodbyeReason::ShuttingDown,
        3 => GoodbyeReason::NoResources,
        4 => GoodbyeReason::SignedOut,
        _ => GoodbyeReason::InternalError,
    }
}

const fn reason_code(reason: GoodbyeReason) -> u8 {
    reason as u8
}

fn bytes<T: Encode<()>>(value: &T) -> Vec<u8> {
    // Writing to a vector cannot fail, and no field has a fallible encoding.
    minicbor::to_vec(value).unwrap_or_default()
}

fn value<'a, T: Decode<'a, ()>>(content: &'a [u8]) -> Result<T, PeerMessageError> {
    minicbor::decode(content).map_err(|_| PeerMessageError::Content)
}

fn resource(bytes: [u8; 16]) -> ResourceId {
    ResourceId::from_uuid(Uuid::from_bytes(bytes))
}

fn entries(candidates: &[Candidate]) -> Vec<CandidateEntry> {
    candidates
        .iter()
        .map(|candidate| CandidateEntry {
            kind: candidate.kind as u8,
            address: octets(candidate.address.ip()),
            port: candidate.address.port(),
        })
        .collect()
}

fn candidates(entries: &[CandidateEntry]) -> Result<Vec<Candidate>, PeerMessageError> {
    entries.iter().map(candidate).collect()
}

fn candidate(entry: &CandidateEntry) -> Result<Candidate, PeerMessageError> {
    let kind = match entry.kind {
        0 => CandidateKind::Host,
        1 => CandidateKind::ServerReflexive,
        2 => CandidateKind::Relayed,
        _ => return Err(PeerMessageError::Content),
    };
    let address = SocketAddr::new(address(&entry.address)?, entry.port);
    Ok(Candidate { kind, address, base: None })
}

fn assigned(resource: ResourceId, name: &str, addresses: &[IpAddr]) -> AssignedAddresses {
    let (ipv4, ipv6): (Vec<&IpAddr>, Vec<&IpAddr>) = addresses.iter().partition(|ip| ip.is_ipv4());
    AssignedAddresses {
        resource: resource.as_uuid().into_bytes(),
        name: name.to_owned(),
        ipv4: ipv4.into_iter().flat_map(|ip| octets(*ip)).collect(),
        ipv6: ipv6.into_iter().flat_map(|ip| octets(*ip)).collect(),
    }
}

fn addresses_of(content: AssignedAddresses) -> Result<PeerMessage, PeerMessageError> {
    if !content.ipv4.len().is_multiple_of(4) || !content.ipv6.len().is_multiple_of(16) {
        return Err(PeerMessageError::Content);
    }
    let addresses = content
        .ipv4
        .chunks_exact(4)
        .chain(content.ipv6.chunks_exact(16))
        .map(address)
        .collect::<Result<_, _>>()?;
    Ok(PeerMessage::AssignedAddresses { resource: resource(content.resource), name: content.name, addresses })
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn address(octets: &[u8]) -> Result<IpAddr, PeerMessageError> {
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        return Ok(IpAddr::V4(Ipv4Addr::from(v4)));
    }
    <[u8; 16]>::try_from(octets)
        .map(|v6| IpAddr::V6(Ipv6Addr::from(v6)))
        .map_err(|_| PeerMessageError::Content)
}
