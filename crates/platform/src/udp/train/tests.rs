use std::time::{Duration, Instant};

use super::*;

const HEADROOM: usize = 48;

fn bind(reuse_port: bool, address: &str) -> TrainSocket {
    let config = Config { reuse_port, ..Config::new(address.parse().expect("address")) };
    TrainSocket::bind(&config).expect("binds")
}

/// Receives `count` datagrams: sender, bytes, and whether there was room around them.
fn receive(socket: &TrainSocket, slots: usize, count: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut batch = ReceiveBatch::new(slots, HEADROOM, 3);
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut all = Vec::new();
    while all.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} arrive", all.len());
        let filled = socket.receive(&mut batch, slots).expect("works");
        for index in 0..filled {
            let (received, buffer) = batch.get(index).expect("filled");
            for range in received.datagrams(HEADROOM) {
                assert!(range.start >= HEADROOM && range.end + 3 <= buffer.len());
                all.push((received.source, buffer[range].to_vec()));
            }
        }
        assert!(batch.get(filled).is_none());
    }
    all
}

#[test]
fn trains_arrive_whole_over_both_families() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let (sender, receiver) = (bind(false, address), bind(false, address));
        let destination = receiver.local_addr().expect("address");
        let bodies: Vec<Vec<u8>> = (0..20_u8).map(|number| vec![number; 1000]).collect();
        let parts: Vec<IoSlice<'_>> = bodies
            .iter()
            .flat_map(|body| [IoSlice::new(b"head"), IoSlice::new(body)])
            .chain([IoSlice::new(b"head"), IoSlice::new(b"short")])
            .collect();
        let train = Train { destination, parts: &parts, parts_per_datagram: 2, segment: 1004 };
        for segmentation in [Segmentation::detect(), Segmentation::off()] {
            let (sent, error) = sender.send(&segmentation, &train);
            assert_eq!((sent, error.map(|error| error.to_string())), (21, None));
            for (number, (source, datagram)) in receive(&receiver, 4, 21).into_iter().enumerate() {
                assert_eq!(source, sender.local_addr().expect("address"));
                assert_eq!(datagram[..4], *b"head");
                let body = bodies.get(number).map_or(&b"short"[..], Vec::as_slice);
                assert_eq!(datagram[4..], *body);
            }
        }
    }
}

#[test]
fn single_and_empty_datagrams_fill_many_slots_at_once() {
    let (sender, receiver) = (bind(false, "127.0.0.1:0"), bind(false, "127.0.0.1:0"));
    let destination = receiver.local_addr().expect("address");
    for size in [0, 1, 300, 0] {
        sender.send_one(destination, &vec![7; size]).expect("sends");
    }
    let mut batch = ReceiveBatch::new(8, HEADROOM, 3);
    assert_eq!(receiver.receive(&mut batch, 3).expect("works"), 3);
    assert_eq!(receiver.receive(&mut batch, 8).expect("works"), 1);
    assert_eq!(receiver.receive(&mut batch, 8).expect("works"), 0);
    for size in [0, 1, 300, 0] {
        sender.send_one(destination, &vec![7; size]).expect("sends");
    }
    let sizes: Vec<usize> = receive(&receiver, 8, 4).iter().map(|(_, datagram)| datagram.len()).collect();
    assert_eq!(sizes, [0, 1, 300, 0]);
}

#[test]
fn what_is_too_large_for_the_kernel_does_not_end_segmentation() {
    let (sender, receiver) = (bind(false, "127.0.0.1:0"), bind(false, "127.0.0.1:0"));
    let destination = receiver.local_addr().expect("address");
    let body = vec![1; 40_000];
    let parts: Vec<IoSlice<'_>> = (0..2).map(|_| IoSlice::new(&body)).collect();
    let segmentation = Segmentation::detect();
    assert!(segmentation.works(), "needs Linux 4.18");
    let train = Train { destination, parts: &parts, parts_per_datagram: 1, segment: body.len() };
    assert_eq!(sender.send(&segmentation, &train).0, 2, "together they are too large, alone they are not");
    assert_eq!(receive(&receiver, 2, 2).len(), 2);
    assert!(segmentation.works());
}

#[test]
fn what_a_full_buffer_drops_is_counted() {
    let receiver = TrainSocket::bind(&Config {
        receive_buffer: 4096,
        ..Config::new("127.0.0.1:0".parse().expect("address"))
    });
    let (sender, receiver) = (bind(false, "127.0.0.1:0"), receiver.expect("binds"));
    assert_eq!(receiver.dropped(), Some(0));
    for _ in 0..100 {
        sender.send_one(receiver.local_addr().expect("address"), &[0; 1000]).expect("sends");
    }
    let mut batch = ReceiveBatch::new(32, HEADROOM, 3);
    let received: usize =
        std::iter::repeat_with(|| receiver.receive(&mut batch, 32).expect("works")).take(4).sum();
    assert_eq!(receiver.dropped().map(|dropped| dropped as usize + received), Some(100));
    assert!(received < 100);
}

#[test]
fn a_driver_that_cannot_cut_is_asked_only_once() {
    let refused = |code: i32| {
        let segmentation = Segmentation::detect();
        let goes_on = segmentation.refused(&std::io::Error::from_raw_os_error(code));
        (goes_on, segmentation.works())
    };
    assert_eq!(refused(libc::EIO), (true, false));
    assert_eq!(refused(libc::EMSGSIZE), (true, true), "too large, not unable");
    assert_eq!(refused(libc::EAGAIN), (false, true));
}

#[test]
fn the_first_of_a_group_has_the_port_for_itself_until_it_shares_it() {
    let first = bind(false, "127.0.0.1:0");
    let address = first.local_addr().expect("address");
    let config = Config { reuse_port: true, ..Config::new(address) };
    assert!(matches!(TrainSocket::bind(&config), Err(BindError::Taken(_))));
    first.share_port().expect("shares");
    let second = TrainSocket::bind(&config).expect("joins");
    // By the first byte: 0 goes to the first socket, anything else to the second.
    let program = [
        libc::sock_filter { code: (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16, jt: 0, jf: 1, k: 0 },
        libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 },
        libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 1 },
    ];
    first.steer(&program).expect("the kernel takes it");
    let sender = bind(false, "127.0.0.1:0");
    for byte in [0, 1, 0, 2, 0] {
        sender.send_one(address, &[byte]).expect("sends");
    }
    let bytes = |socket, count| -> Vec<u8> {
        receive(socket, 4, count).into_iter().map(|(_, datagram)| datagram[0]).collect()
    };
    assert_eq!((bytes(&first, 3), bytes(&second, 2)), (vec![0, 0, 0], vec![1, 2]));
}
