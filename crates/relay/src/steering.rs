//! Which listener a datagram goes to, decided in the kernel by a classic BPF program.
//!
//! All listeners of a family share one port: for each shard one for data and one for requests. The program looks at the first bytes,
//! because requests have a queue of their own then, which no flood of data can fill; and it finds the shard by a keyed hash of the
//! client's address and port, because all datagrams of a client must meet the machine that holds its allocation.
//!
//! Were it refused, the kernel would choose by a hash of its own. Everything works then too, but requests queue up behind data.

use adit_turn::Family;
use nix::libc::{
    BPF_ABS, BPF_ADD, BPF_ALU, BPF_H, BPF_IMM, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_LDX, BPF_MEM, BPF_MOD,
    BPF_MUL, BPF_RET, BPF_RSH, BPF_ST, BPF_W, BPF_X, BPF_XOR, SKF_NET_OFF, sock_filter,
};

/// The largest type of a STUN request whose method this relay knows; indications and responses are larger, and so is ChannelData (RFC
/// 8489, section 5; RFC 8656, sections 12.4 and 17).
const LAST_REQUEST: u32 = 0x000f;

/// "Return the accumulator", which has no name in the C headers' bindings.
const RETURN: u32 = BPF_RET | 0x10;

/// What clients cannot guess, so that nobody can aim at a shard.
pub(crate) type Keys = [u32; 3];

/// The program for `shards` shards, at least one: listener `n` takes the data of shard `n`, listener `shards + n` its requests.
pub(crate) fn program(family: Family, shards: u32, keys: Keys) -> Vec<sock_filter> {
    let [mask, first, second] = keys;
    // Offsets in the IP header. With options in it, the port is something else, but the same for all datagrams of a client.
    let (address, port): (&[u32], u32) = match family {
        Family::V4 => (&[12], 20),
        Family::V6 => (&[8, 12, 16, 20], 40),
    };
    // The hash so far is in M[0].
    let mut program = vec![step(BPF_LD | BPF_IMM, mask), step(BPF_ST, 0)];
    for &word in address {
        program.extend([
            step(BPF_LD | BPF_W | BPF_ABS, in_header(word)),
            step(BPF_LDX | BPF_MEM, 0),
            step(BPF_ALU | BPF_XOR | BPF_X, 0),
            step(BPF_ALU | BPF_MUL | BPF_K, first | 1),
            step(BPF_ST, 0),
        ]);
    }
    program.extend([
        step(BPF_LD | BPF_H | BPF_ABS, in_header(port)),
        step(BPF_LDX | BPF_MEM, 0),
        step(BPF_ALU | BPF_ADD | BPF_X, 0),
        step(BPF_ALU | BPF_MUL | BPF_K, second | 1),
        // The upper bits are mixed best.
        step(BPF_ALU | BPF_RSH | BPF_K, 16),
        step(BPF_ALU | BPF_MOD | BPF_K, shards),
        step(BPF_ST, 0),
        // A payload of less than two bytes ends the program here, with listener 0. It is garbage anyway.
        step(BPF_LD | BPF_H | BPF_ABS, 0),
        sock_filter { code: (BPF_JMP | BPF_JGT | BPF_K) as u16, jt: 3, jf: 0, k: LAST_REQUEST },
        step(BPF_LD | BPF_MEM, 0),
        step(BPF_ALU | BPF_ADD | BPF_K, shards),
        step(RETURN, 0),
        step(BPF_LD | BPF_MEM, 0),
        step(RETURN, 0),
    ]);
    program
}

fn step(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// An offset from the start of the IP header.
fn in_header(offset: u32) -> u32 {
    (SKF_NET_OFF as u32).wrapping_add(offset)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::UdpSocket;
    use std::time::Duration;

    use adit_platform::udp::Config;
    use adit_platform::udp::train::{ReceiveBatch, TrainSocket};

    use super::*;

    const SHARDS: usize = 3;

    /// A group of listeners on one port.
    fn group(address: &str, family: Family) -> Vec<TrainSocket> {
        let first = TrainSocket::bind(&Config::new(address.parse().expect("address"))).expect("binds");
        first.share_port().expect("shares");
        let config = Config { reuse_port: true, ..Config::new(first.local_addr().expect("address")) };
        let more = (1..2 * SHARDS).map(|_| TrainSocket::bind(&config).expect("joins"));
        let group: Vec<TrainSocket> = std::iter::once(first).chain(more).collect();
        group[0]
            .steer(&program(family, SHARDS as u32, [0x1234_5678, 0x9e37_79b9, 0x85eb_ca6b]))
            .expect("the kernel takes it");
        group
    }

    /// Which listeners got what each sender said, by the sender's port.
    fn received(group: &[TrainSocket], count: usize) -> BTreeMap<u16, Vec<usize>> {
        let mut batch = ReceiveBatch::new(32, 0, 0);
        let mut by_sender: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        let mut left = count;
        for _ in 0..200 {
            for (listener, socket) in group.iter().enumerate() {
                for slot in 0..socket.receive(&mut batch, 32).expect("works") {
                    let (received, _) = batch.get(slot).expect("filled");
                    by_sender.entry(received.source.port()).or_default().push(listener);
                    left -= 1;
                }
            }
            if left == 0 {
                return by_sender;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{left} of {count} do not arrive");
    }

    #[test]
    fn requests_and_data_of_a_client_meet_at_its_shard() {
        for (address, family) in [("127.0.0.1:0", Family::V4), ("[::1]:0", Family::V6)] {
            let group = group(address, family);
            let to = group[0].local_addr().expect("address");
            let senders: Vec<UdpSocket> =
                (0..100).map(|_| UdpSocket::bind(address).expect("binds")).collect();
            let data: [&[u8]; 4] = [&[0x40, 0, 0, 0], &[0x00, 0x16, 0, 0], &[0x01, 0x13], &[0xff; 40]];
            let requests: [&[u8]; 3] = [&[0x00, 0x01, 0, 0], &[0x00, 0x03], &[0x00, 0x09, 0, 0]];
            for sender in &senders {
                for payload in data.iter().chain(&requests) {
                    sender.send_to(payload, to).expect("sends");
                }
            }
            let by_sender = received(&group, 700);
            let mut shards = [0; SHARDS];
            for sender in &senders {
                let mut listeners = by_sender[&sender.local_addr().expect("address").port()].clone();
                listeners.sort_unstable();
                let shard = listeners[0];
                assert_eq!(listeners, [[shard; 4].as_slice(), &[shard + SHARDS; 3]].concat());
                shards[shard] += 1;
            }
            assert!(shards.iter().all(|&clients| clients > 10), "{shards:?}");
        }
    }

    #[test]
    fn a_stub_of_a_datagram_is_received_too() {
        let group = group("127.0.0.1:0", Family::V4);
        let sender = UdpSocket::bind("127.0.0.1:0").expect("binds");
        for payload in [&[][..], &[0]] {
            sender.send_to(payload, group[0].local_addr().expect("address")).expect("sends");
        }
        assert_eq!(received(&group, 2).into_values().collect::<Vec<_>>(), [[0, 0]]);
    }
}
