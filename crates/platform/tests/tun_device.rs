//! The TUN device against the real kernel.

#[expect(dead_code, reason = "each test file uses its part of the helpers")]
mod namespace;

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd as _;
use std::time::Duration;

use adit_platform::tun::{Config, Offload, Tun, TunError};
use namespace::{ip, isolated};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

fn create(name: &str) -> Result<Tun, TunError> {
    Tun::create(&Config { name: name.to_owned(), mtu: 1_280, offload: Offload::None })
}

/// Waits for a packet as an epoll loop would.
fn next_packet(tun: &Tun) -> Vec<u8> {
    let mut buffer = vec![0; 2_048];
    loop {
        let mut wait = [PollFd::new(tun.as_fd(), PollFlags::POLLIN)];
        assert_ne!(poll(&mut wait, PollTimeout::from(5_000u16)).expect("polls"), 0, "no packet came");
        match tun.read(&mut buffer) {
            Ok(length) if buffer[0] >> 4 == 4 => return buffer[..length].to_vec(),
            Ok(_) => {} // the kernel's own IPv6 chatter
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
}

#[test]
fn packets_go_through_the_kernel_both_ways() {
    isolated(|| async {
        let tun = create("adit0").expect("creates");
        assert_eq!(tun.name(), "adit0");
        assert!(ip("link show adit0").contains("mtu 1280"));
        ip("address add 10.9.0.1/24 dev adit0");
        ip("link set adit0 up");
        let socket = UdpSocket::bind("10.9.0.1:4000").expect("binds");
        socket.set_read_timeout(Some(Duration::from_secs(5))).expect("timeout");
        socket.send_to(b"to the tunnel", "10.9.0.2:5000").expect("sends");
        let mut packet = next_packet(&tun);
        assert_eq!(&packet[28..], b"to the tunnel");
        // Swap the addresses and ports: both checksums stay right.
        for at in 12..16 {
            packet.swap(at, at + 4);
        }
        packet.swap(20, 22);
        packet.swap(21, 23);
        tun.write(&packet).expect("writes");
        let mut buffer = [0; 64];
        let (length, from) = socket.recv_from(&mut buffer).expect("receives");
        assert_eq!(
            (&buffer[..length], from),
            (&b"to the tunnel"[..], "10.9.0.2:5000".parse().expect("address"))
        );
    });
}

#[test]
fn the_device_goes_away_with_its_owner() {
    isolated(|| async {
        drop(create("adit0").expect("creates"));
        // A program that another test is just starting may hold the descriptor for a moment.
        let gone = || !ip("link show").contains("adit0");
        for _ in 0..200 {
            if gone() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(gone());
        create("adit0").expect("creates again");
    });
}

#[test]
fn names_in_use_are_told_apart() {
    isolated(|| async {
        let _held = create("adit0").expect("creates");
        assert!(matches!(create("adit0"), Err(TunError::NameTaken(_))));
        ip("link add ethernet0 type veth peer name ethernet1");
        assert!(matches!(create("ethernet0"), Err(TunError::NotTun(_))));
    });
}

#[test]
fn garbage_and_a_downed_interface_are_errors_not_crashes() {
    isolated(|| async {
        let tun = create("adit0").expect("creates");
        assert_eq!(tun.write(&[0x45; 20]).expect_err("down").raw_os_error(), Some(nix::libc::EIO));
        ip("link set adit0 up");
        assert!(tun.write(&[]).is_err());
        assert_eq!(tun.write(&[0xff; 40]).expect_err("version 15").raw_os_error(), Some(nix::libc::EINVAL));
    });
}

#[test]
fn a_missing_device_node_is_made() {
    isolated(|| async {
        nix::mount::mount(
            Some("none"),
            "/dev/net",
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            None::<&str>,
        )
        .expect("hides the node");
        assert!(!std::path::Path::new("/dev/net/tun").exists());
        create("adit0").expect("creates");
    });
}

#[test]
fn without_the_capability_the_error_names_it() {
    const CHILD: &str = "ADIT_TEST_WITHOUT_CAPABILITY";
    if std::env::var_os(CHILD).is_some() {
        let error = create("adit0").expect_err("no capability");
        assert!(matches!(error, TunError::NoPermission { .. }), "{error:?}");
        assert!(error.to_string().contains("CAP_NET_ADMIN"), "{error}");
        return;
    }
    isolated(|| async {
        let test = std::env::current_exe().expect("path");
        let output = std::process::Command::new("setpriv")
            .args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"])
            .arg(test)
            .args(["--exact", "without_the_capability_the_error_names_it"])
            .env(CHILD, "1")
            .output()
            .expect("setpriv of util-linux");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"));
    });
}
