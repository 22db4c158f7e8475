//! A plain WireGuard peer on Adit's own machinery, to be set against other implementations. Not shipped.
//!
//! It makes a TUN interface, gives it its addresses and moves packets between it and one UDP socket, all on one thread.
//! Facts go to standard output, one JSON object a line. SIGUSR1 begins a new handshake; SIGTERM and SIGINT end it
//! with a line of totals.

mod machine;

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use adit_platform::network::{LinuxNetwork, NetworkControl, NetworkState};
use adit_platform::tun::{self, Tun};
use adit_platform::udp::{self, ReceiveBatch, Transmit, UdpSocket};
use adit_wireguard::{PresharedKey, PrivateKey, PublicKey};
use anyhow::{Context as _, Result};
use clap::Parser;
use ipnet::IpNet;
use rand::TryRngCore as _;
use serde_json::{Value, json};
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::machine::{Config, Event, HEADROOM, Machine, TAILROOM};

/// The largest packet that the TUN device may hand over.
const LARGEST_PACKET: usize = 65_535;

/// Packets taken from the TUN device in one turn.
const TUN_TURN: usize = 64;

/// Super-datagrams received in one turn.
const RECEIVE_SLOTS: usize = 8;

/// A WireGuard peer with one other peer.
#[derive(Debug, Parser)]
struct Arguments {
    /// Name of the TUN interface to make.
    #[arg(long, value_name = "NAME")]
    interface: String,
    /// Address of the interface with its prefix length; may be repeated.
    #[arg(long = "address", value_name = "CIDR", required = true)]
    addresses: Vec<IpNet>,
    /// MTU of the interface.
    #[arg(long, value_name = "BYTES", default_value_t = 1420)]
    mtu: u32,
    /// File with our private key, as `wg genkey` writes it.
    #[arg(long, value_name = "FILE")]
    private_key: PathBuf,
    /// Public key of the other peer.
    #[arg(long, value_name = "KEY")]
    peer: PublicKey,
    /// File with the preshared key, as `wg genpsk` writes it; without it there is none.
    #[arg(long, value_name = "FILE")]
    preshared_key: Option<PathBuf>,
    /// Where to listen; its family is the one that is spoken.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:0")]
    listen: SocketAddr,
    /// Where the other peer is; without it, it must come first.
    #[arg(long, value_name = "ADDRESS:PORT")]
    endpoint: Option<SocketAddr>,
    /// Send something at least this often.
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    keepalive: u64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut shell = Shell::start(&arguments).await?;
        shell.run().await
    })
}

/// The machine with the kernel around it.
struct Shell {
    machine: Machine,
    tun: AsyncFd<Tun>,
    socket: AsyncFd<UdpSocket>,
    packet: Vec<u8>,
    batch: ReceiveBatch,
    unsent: u64,
    rekey: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Shell {
    async fn start(arguments: &Arguments) -> Result<Self> {
        let socket = UdpSocket::bind(&udp::Config::new(arguments.listen))?;
        let tun = Tun::create(&tun::Config { name: arguments.interface.clone(), mtu: arguments.mtu })?;
        let state = NetworkState {
            interface: arguments.interface.clone(),
            mtu: arguments.mtu,
            addresses: arguments.addresses.clone(),
            routes: Vec::new(),
        };
        // Nothing is recorded without a bypass, and the addresses go with the interface.
        LinuxNetwork::new(&std::env::temp_dir(), None).apply(&state).await?;
        let unix_now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let machine = Machine::new(Instant::now(), unix_now, config(arguments)?)?;
        let shell = Self {
            machine,
            tun: AsyncFd::register(tun)?,
            socket: AsyncFd::register(socket)?,
            packet: vec![0; HEADROOM + LARGEST_PACKET + TAILROOM],
            batch: ReceiveBatch::new(RECEIVE_SLOTS),
            unsent: 0,
            rekey: signal(SignalKind::user_defined1())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        };
        tell(&json!({
            "event": "ready",
            "interface": shell.tun.get_ref().name(),
            "port": shell.socket.get_ref().local_addr().port(),
            "public_key": shell.machine.public_key().to_string(),
        }));
        Ok(shell)
    }

    async fn run(&mut self) -> Result<()> {
        loop {
            self.drain();
            let deadline = self.machine.poll_timeout().map(|(deadline, _)| deadline);
            tokio::select! {
                ready = self.tun.readable() => {
                    let mut guard = ready?;
                    if turn_of_tun(guard.get_inner(), self.socket.get_ref(), &mut self.machine, &mut self.packet, &mut self.unsent)? {
                        guard.clear_ready();
                    }
                }
                ready = self.socket.readable() => {
                    let mut guard = ready?;
                    if turn_of_socket(guard.get_inner(), self.tun.get_ref(), &mut self.machine, &mut self.batch)? {
                        guard.clear_ready();
                    }
                }
                () = until(deadline) => self.machine.handle_timeout(Instant::now()),
                _ = self.rekey.recv() => self.machine.rekey(Instant::now()),
                _ = self.terminate.recv() => break,
                _ = self.interrupt.recv() => break,
            }
        }
        tell(&self.totals());
        Ok(())
    }

    /// Carries out what the machine wants.
    fn drain(&mut self) {
        while let Some((destination, datagram)) = self.machine.poll_transmit() {
            self.unsent += u64::from(!send(self.socket.get_ref(), destination, &datagram));
        }
        while let Some(event) = self.machine.poll_event() {
            tell(&fact(event));
        }
    }

    fn totals(&self) -> Value {
        let (traffic, counters) = (self.machine.traffic(), self.machine.counters());
        let drops: serde_json::Map<String, Value> = counters
            .drops()
            .filter(|(_, count)| *count > 0)
            .map(|(reason, count)| (reason.name().to_owned(), count.into()))
            .collect();
        json!({
            "event": "stopped",
            "sent": traffic.sent,
            "received": traffic.received,
            "undeliverable": traffic.undeliverable,
            "malformed": traffic.malformed,
            "unsent": self.unsent,
            "handshakes": counters.handshakes_completed,
            "cookie_replies_sent": counters.cookie_replies_sent,
            "cookies_received": counters.cookies_received,
            "drops": drops,
        })
    }
}

/// Sends packets of the TUN device; true when none is left.
fn turn_of_tun(
    tun: &Tun,
    socket: &UdpSocket,
    machine: &mut Machine,
    packet: &mut [u8],
    unsent: &mut u64,
) -> Result<bool> {
    let now = Instant::now();
    for _ in 0..TUN_TURN {
        let length = match tun.read(&mut packet[HEADROOM..HEADROOM + LARGEST_PACKET]) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) => return Err(error).context("the tunnel interface is gone"),
        };
        if let Some((endpoint, sealed)) = machine.handle_packet(now, packet, length) {
            *unsent += u64::from(!send(socket, endpoint, &packet[..sealed]));
        }
    }
    Ok(false)
}

/// Takes datagrams; true when none is left.
fn turn_of_socket(
    socket: &UdpSocket,
    tun: &Tun,
    machine: &mut Machine,
    batch: &mut ReceiveBatch,
) -> Result<bool> {
    let received = socket.receive(batch).context("the UDP socket is broken")?;
    let now = Instant::now();
    for datagram in batch.datagrams() {
        if let Some(range) = machine.handle_datagram(now, datagram.source, datagram.payload) {
            // The kernel refuses packets while its queue is full, which is loss as on any network.
            let _ = tun.write(&datagram.payload[range]);
        }
    }
    Ok(received == 0)
}

/// Whether the datagram left.
fn send(socket: &UdpSocket, destination: SocketAddr, contents: &[u8]) -> bool {
    socket.send(&Transmit { source: None, destination, contents, segment_size: None }).is_ok()
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn fact(event: Event) -> Value {
    match event {
        Event::Session { initiator, handshake } => {
            let milliseconds = handshake.map(|took| took.as_secs_f64() * 1e3);
            json!({ "event": "session", "initiator": initiator, "handshake_ms": milliseconds })
        }
        Event::Roamed { endpoint } => json!({ "event": "roamed", "endpoint": endpoint }),
        Event::Expired { reason } => json!({ "event": "expired", "reason": format!("{reason:?}") }),
    }
}

fn tell(fact: &Value) {
    println!("{fact}");
}

fn config(arguments: &Arguments) -> Result<Config> {
    let mut seed = [0; 32];
    rand::rngs::OsRng.try_fill_bytes(&mut seed).context("no randomness")?;
    let preshared_key = arguments.preshared_key.as_deref().map(read_key).transpose()?;
    Ok(Config {
        private_key: PrivateKey::from_bytes(read_key(&arguments.private_key)?),
        peer: arguments.peer,
        preshared_key: PresharedKey(preshared_key.unwrap_or_default()),
        endpoint: arguments.endpoint,
        keepalive: Some(Duration::from_secs(arguments.keepalive)),
        seed,
    })
}

/// Every key has the same text form, so the parser of public keys reads the secret ones as well.
fn read_key(path: &Path) -> Result<[u8; 32]> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let key: PublicKey = text.trim().parse().with_context(|| format!("no key in {}", path.display()))?;
    Ok(key.0)
}
