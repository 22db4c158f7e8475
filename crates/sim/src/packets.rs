//! Packets of applications and resources: numbered UDP probes, their echoes, DNS questions.

use std::net::{IpAddr, SocketAddr};

use adit_packet::{PacketView, Transport, build, protocol};

/// A UDP packet.
pub(crate) fn udp(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    build::udp(source, destination, payload).expect("one family")
}

/// The number in a probe or its echo.
pub(crate) fn number(packet: &[u8]) -> Option<u64> {
    let view = PacketView::parse(packet).ok()?;
    let payload = view.udp_payload(packet)?;
    payload.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
}

/// Whether a packet is an ICMP error: the client's machine refused something.
pub(crate) fn is_error(packet: &[u8]) -> bool {
    PacketView::parse(packet).is_ok_and(|view| matches!(view.transport(), Transport::IcmpError { .. }))
}

/// What a resource answers: the payload comes back.
pub(crate) fn echo(packet: &[u8]) -> Option<Vec<u8>> {
    let view = PacketView::parse(packet).ok()?;
    // Like any kernel: a wrong checksum gets no answer.
    adit_packet::checksum::verify(packet).ok()?;
    if view.protocol() != protocol::UDP {
        return None;
    }
    let payload = view.udp_payload(packet)?;
    Some(udp(view.destination_socket()?, view.source_socket()?, payload))
}

/// A question for the IPv4 addresses of a name.
pub(crate) fn question(name: &str) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).expect("a short label"));
        message.extend_from_slice(label.as_bytes());
    }
    message.extend_from_slice(&[0, 0, 1, 0, 1]);
    message
}

/// The first IPv4 address in the response to `question`, whose owner names are compressed.
pub(crate) fn first_address(question: &[u8], packet: &[u8]) -> Option<IpAddr> {
    let view = PacketView::parse(packet).ok()?;
    let response = view.udp_payload(packet)?;
    let answers = u16::from_be_bytes([*response.get(6)?, *response.get(7)?]);
    let rest = response.get(question.len()..)?;
    let octets: [u8; 4] = rest.get(12..16)?.try_into().ok()?;
    (answers > 0).then(|| octets.into())
}
