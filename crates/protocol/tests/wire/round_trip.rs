//! What is written is read back, whatever the values.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use adit_policy::{AuthorizationId, ClientId, GatewayId, ResourceId};
use adit_protocol::client::{AuthorizationRevoked, ConnectedGateway, RequestAuthorization};
use adit_protocol::frame::{self, Decoded};
use adit_protocol::peer::{self, DomainState, GoodbyeReason, PeerMessage};
use adit_protocol::{
    Candidate, CandidateKind, CandidateUpdate, ClientToPortal, EncodedKey, Hello, Message, PortalToClient,
    PortalToGateway, gateway,
};
use proptest::prelude::*;
use uuid::Uuid;

fn ids() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn ips() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from(bits))),
    ]
}

fn addresses() -> impl Strategy<Value = SocketAddr> {
    (ips(), any::<u16>()).prop_map(SocketAddr::from)
}

fn kinds() -> impl Strategy<Value = CandidateKind> {
    prop_oneof![Just(CandidateKind::Host), Just(CandidateKind::ServerReflexive), Just(CandidateKind::Relayed)]
}

prop_compose! {
    fn candidates()(kind in kinds(), address in addresses(), base in prop::option::of(addresses())) -> Candidate {
        Candidate { kind, address, base }
    }
}

fn candidate_lists() -> impl Strategy<Value = Vec<Candidate>> {
    prop::collection::vec(candidates(), 0..12)
}

fn updates() -> impl Strategy<Value = CandidateUpdate> {
    (candidate_lists(), candidate_lists()).prop_map(|(added, removed)| CandidateUpdate { added, removed })
}

prop_compose! {
    fn hellos()(
        revision in any::<u16>(), device_id in ids(), name in ".{0,40}", key in any::<[u8; 32]>(),
        version in ".{0,20}", capabilities in prop::collection::vec(".{0,10}", 0..4),
    ) -> Hello {
        Hello { revision, device_id, name, public_key: EncodedKey(key), version, capabilities }
    }
}

prop_compose! {
    fn requests()(
        request_id in any::<u64>(), resource in ids(),
        connected in prop::collection::vec((ids(), any::<u64>()), 0..6), avoid in prop::collection::vec(ids(), 0..6),
    ) -> RequestAuthorization {
        RequestAuthorization {
            request_id,
            resource: ResourceId::from_uuid(resource),
            connected_gateways: connected
                .into_iter()
                .map(|(id, epoch)| ConnectedGateway { id: GatewayId::from_uuid(id), epoch })
                .collect(),
            avoid_gateways: avoid.into_iter().map(GatewayId::from_uuid).collect(),
            prefer_gateway: None,
        }
    }
}

fn peer_messages() -> impl Strategy<Value = PeerMessage> {
    let reasons = prop_oneof![
        Just(GoodbyeReason::Revoked),
        Just(GoodbyeReason::Expired),
        Just(GoodbyeReason::ShuttingDown),
        Just(GoodbyeReason::NoResources),
        Just(GoodbyeReason::SignedOut),
        Just(GoodbyeReason::InternalError),
    ];
    let states = prop_oneof![
        Just(DomainState::Active),
        Just(DomainState::NotFound),
        Just(DomainState::ResolverFailed),
        Just(DomainState::Forbidden),
    ];
    let sorted = |mut addresses: Vec<IpAddr>| {
        // The two families travel apart; each keeps its order.
        addresses.sort_by_key(IpAddr::is_ipv6);
        addresses
    };
    let without_base = |list: Vec<Candidate>| -> Vec<Candidate> {
        list.into_iter().map(|candidate| Candidate { base: None, ..candidate }).collect()
    };
    prop_oneof![
        (reasons, any::<Option<u32>>())
            .prop_map(|(reason, retry_after_ms)| PeerMessage::Goodbye { reason, retry_after_ms }),
        any::<[u8; 16]>().prop_map(|token| PeerMessage::ResetTicket { token }),
        (candidate_lists(), candidate_lists()).prop_map(move |(added, removed)| PeerMessage::Candidates {
            added: without_base(added),
            removed: without_base(removed),
        }),
        (ids(), "[a-z0-9.-]{0,200}", prop::collection::vec(ips(), 0..8)).prop_map(
            move |(resource, name, list)| {
                PeerMessage::AssignedAddresses {
                    resource: ResourceId::from_uuid(resource),
                    name,
                    addresses: sorted(list),
                }
            }
        ),
        (ids(), "[a-z0-9.-]{0,200}", states).prop_map(|(resource, name, state)| PeerMessage::DomainStatus {
            resource: ResourceId::from_uuid(resource),
            name,
            state,
        }),
        any::<u32>().prop_map(|deadline_ms| PeerMessage::Draining { deadline_ms }),
        (128_u16..).prop_map(|size| PeerMessage::SizeProbe { size }),
        any::<u16>().prop_map(|size| PeerMessage::SizeConfirmed { size }),
    ]
}

fn returns<T: Message + PartialEq + std::fmt::Debug>(message: &T, reference: Option<u64>) {
    let text = frame::encode(message, reference).unwrap();
    match frame::decode::<T>(&text).unwrap() {
        Decoded::Message { message: read, reference: echoed } => {
            assert_eq!((&read, echoed), (message, reference))
        }
        Decoded::Unknown { kind } => panic!("{kind} is unknown"),
    }
}

proptest! {
    #[test]
    fn control_messages_return(
        hello in hellos(), request in requests(), update in updates(), id in ids(), reference in any::<Option<u64>>(),
    ) {
        returns(&ClientToPortal::Hello(hello), reference);
        returns(&ClientToPortal::RequestAuthorization(request), reference);
        returns(&ClientToPortal::Candidates(update.clone()), reference);
        let change = gateway::PeerCandidates { client: ClientId::from_uuid(id), update };
        returns(&PortalToGateway::PeerCandidates(change), reference);
        returns(&PortalToClient::AuthorizationRevoked(AuthorizationRevoked {
            id: AuthorizationId::from_uuid(id),
            resource: ResourceId::from_uuid(id),
            gateway: GatewayId::from_uuid(id),
        }), reference);
    }

    #[test]
    fn peer_messages_return(message in peer_messages(), source in any::<u128>(), destination in any::<u128>(), id in any::<u32>()) {
        let (source, destination) = (Ipv6Addr::from(source), Ipv6Addr::from(destination));
        let packet = peer::encode(source, destination, id, &message).unwrap();
        let longest = if let PeerMessage::SizeProbe { size } = message { size.into() } else { peer::MAX_PACKET };
        prop_assert!(packet.len() <= longest && peer::is_control(&packet));
        let received = peer::decode(&packet).unwrap();
        prop_assert_eq!((received.source, received.destination, received.id), (source, destination, id));
        prop_assert_eq!(received.message, message);
    }
}
