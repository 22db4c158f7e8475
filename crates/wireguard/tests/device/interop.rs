//! The same wire as another implementation (boringtun), in both roles, with a preshared key.
//!
//! boringtun reads the real clock; nothing here waits for it.

use std::net::SocketAddr;
use std::time::Instant;

use crate::pair::{UNIX, private};
use adit_wireguard::{Device, HEADER, OVERHEAD, PADDING, PeerId, PresharedKey, Received};
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};

/// A minimal IPv4 packet: boringtun looks at version and length of what it decrypts.
fn packet(payload: u8) -> Vec<u8> {
    let mut packet = vec![0; 40];
    packet[0] = 0x45;
    packet[3] = 40;
    packet[9] = 17;
    packet[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    packet[20..].fill(payload);
    packet
}

struct Interop {
    now: Instant,
    device: Device,
    peer: PeerId,
    theirs: Tunn,
}

const SOURCE: &str = "127.0.0.1:1";

impl Interop {
    fn new(preshared: [u8; 2]) -> Self {
        let now = Instant::now();
        let mut device = Device::new(now, UNIX, private(1), [1; 32]);
        let secret = StaticSecret::from([2; 32]);
        let key = adit_wireguard::PublicKey(PublicKey::from(&secret).to_bytes());
        let peer = device.add_peer(now, key, PresharedKey([preshared[0]; 32])).expect("a usable key");
        let ours = PublicKey::from(device.public_key().0);
        let theirs = Tunn::new(secret, ours, Some([preshared[1]; 32]), None, 7, None);
        Self { now, device, peer, theirs }
    }

    /// Gives a datagram to boringtun; its answer and what it decrypted.
    fn give(&mut self, datagram: &[u8]) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
        let (mut buffer, mut answers) = (vec![0; 2048], Vec::new());
        let mut input = datagram;
        loop {
            match self.theirs.decapsulate(None, input, &mut buffer) {
                TunnResult::WriteToNetwork(answer) => answers.push(answer.to_vec()),
                TunnResult::WriteToTunnelV4(packet, _) => return (answers, Some(packet.to_vec())),
                _ => return (answers, None),
            }
            input = &[];
        }
    }

    /// Gives a datagram to our device; its answers and what it decrypted.
    fn take(&mut self, mut datagram: Vec<u8>) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
        let source: SocketAddr = SOURCE.parse().expect("an address");
        let (mut answers, mut plaintext) = (Vec::new(), None);
        match self.device.handle_datagram(self.now, source, &mut datagram) {
            Ok(Received::Handshake { reply, .. }) => answers.extend(reply),
            Ok(Received::Data { plaintext: range, .. }) => plaintext = Some(datagram[range].to_vec()),
            Err(reason) => panic!("{reason:?}"),
        }
        answers.extend(std::iter::from_fn(|| self.device.poll_transmit()).map(|transmit| transmit.datagram));
        (answers, plaintext)
    }

    fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        let mut buffer = vec![0; packet.len() + OVERHEAD + PADDING];
        buffer[HEADER..][..packet.len()].copy_from_slice(packet);
        let length = self.device.seal(self.now, self.peer, &mut buffer, packet.len()).expect("a session");
        buffer.truncate(length);
        buffer
    }

    fn exchange_data(&mut self) {
        for number in 0..20 {
            let sealed = self.seal(&packet(number));
            assert_eq!(self.give(&sealed).1, Some(packet(number)), "to boringtun");
            let mut buffer = vec![0; 2048];
            let TunnResult::WriteToNetwork(sealed) = self.theirs.encapsulate(&packet(number), &mut buffer)
            else {
                panic!("boringtun does not seal");
            };
            let sealed = sealed.to_vec();
            let plaintext = self.take(sealed).1.expect("data");
            assert_eq!(plaintext[..40], packet(number)[..], "from boringtun");
        }
    }
}

#[test]
fn we_initiate_and_boringtun_answers() {
    let mut interop = Interop::new([5, 5]);
    interop.device.initiate(interop.now, interop.peer);
    let initiation = interop.device.poll_transmit().unwrap().datagram;
    let (answers, _) = interop.give(&initiation);
    let (confirmation, _) = interop.take(answers[0].clone());
    assert_eq!(confirmation[0].len(), OVERHEAD);
    interop.give(&confirmation[0]);
    interop.exchange_data();
}

#[test]
fn boringtun_initiates_and_we_answer() {
    let mut interop = Interop::new([5, 5]);
    let mut buffer = vec![0; 2048];
    let TunnResult::WriteToNetwork(initiation) =
        interop.theirs.format_handshake_initiation(&mut buffer, false)
    else {
        panic!("boringtun does not initiate");
    };
    let initiation = initiation.to_vec();
    let (answers, _) = interop.take(initiation);
    assert_eq!(answers[0].len(), 92);
    assert!(interop.device.current_session(interop.peer).is_none());
    let (confirmation, _) = interop.give(&answers[0]);
    interop.take(confirmation[0].clone());
    assert!(interop.device.current_session(interop.peer).is_some());
    interop.exchange_data();
}

#[test]
fn another_preshared_key_is_refused_by_both() {
    let mut interop = Interop::new([5, 6]);
    interop.device.initiate(interop.now, interop.peer);
    let initiation = interop.device.poll_transmit().unwrap().datagram;
    let (answers, _) = interop.give(&initiation);
    let source: SocketAddr = SOURCE.parse().unwrap();
    assert!(interop.device.handle_datagram(interop.now, source, &mut answers[0].clone()).is_err());
}
