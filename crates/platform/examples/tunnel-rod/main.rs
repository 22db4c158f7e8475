//! A measuring rod: how far does the bare packet path go?
//!
//! One peer, fixed keys, no handshake, no timers, no policy, no replay window: TUN with segmentation offload on one
//! side, UDP with segmentation and receive offload on the other, WireGuard's data packets in between, one thread for
//! each direction. `cargo xtask bench tunnel` measures the shipped programs against it. It is a ruler and no part of
//! the product: whoever knows this file can read what it carries.

mod aead;
mod checksum;
mod downward;
mod socket;
mod tun;
mod upward;

use std::io::Write as _;
use std::net::{SocketAddrV4, UdpSocket};
use std::time::Duration;

use clap::{Parser, ValueEnum};

use aead::Aead;

/// Bytes before the ciphertext of a data packet: type, receiver, counter.
const HEADER: usize = 16;

/// Bytes after it.
const TAG: usize = 16;

/// Type of a data packet, as its first four bytes.
const DATA: [u8; 4] = [4, 0, 0, 0];

#[derive(Debug, Parser)]
struct Arguments {
    /// Which of the two keys is for sending.
    #[arg(long)]
    role: Role,
    /// Name of the TUN device that it makes.
    #[arg(long)]
    interface: String,
    /// Address that it receives at.
    #[arg(long)]
    listen: SocketAddrV4,
    /// Address of the other end.
    #[arg(long)]
    peer: SocketAddrV4,
    /// Leave the packets as they are.
    #[arg(long)]
    no_crypto: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    Client,
    Gateway,
}

fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let tun = tun::open(&arguments.interface)?;
    let socket = open_socket(&arguments)?;
    let aead = || Aead::new(arguments.role == Role::Client, arguments.no_crypto);
    let (upward, downward) = (aead(), aead());
    println!("ready");
    std::io::stdout().flush()?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            if let Err(error) = downward::run(&tun, &socket, &downward) {
                eprintln!("downward: {error}");
                std::process::exit(1);
            }
        });
        upward::run(&tun, &socket, &upward)
    })
}

fn open_socket(arguments: &Arguments) -> std::io::Result<UdpSocket> {
    let socket = UdpSocket::bind(arguments.listen)?;
    while socket.connect(arguments.peer).is_err() {
        // The other end's network may come up later.
        std::thread::sleep(Duration::from_millis(100));
    }
    socket.set_nonblocking(true)?;
    socket::enable_offload(&socket)?;
    Ok(socket)
}
