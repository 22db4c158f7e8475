//! A plain WireGuard peer on Adit's own machinery, to be set against other implementations. Not shipped.
//!
//! It makes a TUN interface, gives it its addresses and moves packets between it and one UDP socket, all on one thread.
//! Facts go to standard output, one JSON object a line. SIGUSR1 begins a new handshake; SIGTERM and SIGINT end it
//! with a line of totals.

mod machine;

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use adit_platform::network::{LinuxNetwork, NetworkControl, NetworkState};
use adit_platform::tun::{self, Offload, Tun};
use adit_platform::udp::{self, ReceiveBatch, Transmit, UdpSocket};
use adit_wireguard::{PresharedKey, PrivateKey, PublicKey};
use anyhow::{Context as _, Result};
use clap::Parser;
use ipnet::IpNet;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rand::TryRngCore as _;
use serde_json::{Value, json};

use crate::machine::{Config, Event, HEADROOM, Machine, TAILROOM};

/// The largest packet that the TUN device may hand over.
const LARGEST_PACKET: usize = 65_535;

/// Packets taken from the TUN device in one turn.
const TUN_TURN: usize = 64;

/// Super-datagrams received in one turn.
const RECEIVE_SLOTS: usize = 8;

/// The longest sleep without a deadline.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

const TUN: u64 = 0;
const SOCKET: u64 = 1;
const SIGNAL: u64 = 2;

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
    Shell::start(&arguments)?.run()
}

/// The machine with the kernel around it.
struct Shell {
    machine: Machine,
    epoll: Epoll,
    tun: Tun,
    socket: UdpSocket,
    signals: SignalFd,
    packet: Vec<u8>,
    batch: ReceiveBatch,
    unsent: u64,
}

impl Shell {
    fn start(arguments: &Arguments) -> Result<Self> {
        let signals = take_signals()?;
        let socket = UdpSocket::bind(&udp::Config::new(arguments.listen))?;
        let tun = Tun::create(&tun::Config {
            name: arguments.interface.clone(),
            mtu: arguments.mtu,
            offload: Offload::None,
        })?;
        set_addresses(arguments)?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&tun, EpollEvent::new(EpollFlags::EPOLLIN, TUN))?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, SOCKET))?;
        epoll.add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNAL))?;
        let unix_now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
        let machine = Machine::new(Instant::now(), unix_now, config(arguments)?)?;
        tell(&json!({
            "event": "ready",
            "interface": tun.name(),
            "port": socket.local_addr().port(),
            "public_key": machine.public_key().to_string(),
        }));
        Ok(Self {
            machine,
            epoll,
            tun,
            socket,
            signals,
            packet: vec![0; HEADROOM + LARGEST_PACKET + TAILROOM],
            batch: ReceiveBatch::new(RECEIVE_SLOTS),
            unsent: 0,
        })
    }

    fn run(&mut self) -> Result<()> {
        let mut ready = [EpollEvent::empty(); 3];
        loop {
            self.drain();
            let count = match self.epoll.wait(&mut ready, self.sleep()) {
                Ok(count) => count,
                Err(Errno::EINTR) => 0,
                Err(error) => return Err(error).context("epoll failed"),
            };
            for event in &ready[..count] {
                match event.data() {
                    TUN => self.turn_of_tun()?,
                    SOCKET => self.turn_of_socket()?,
                    _ if self.turn_of_signals()?.is_break() => {
                        tell(&self.totals());
                        return Ok(());
                    }
                    _ => {}
                }
            }
            let now = Instant::now();
            if self.machine.poll_timeout().is_some_and(|(deadline, _)| deadline <= now) {
                self.machine.handle_timeout(now);
            }
        }
    }

    fn sleep(&self) -> EpollTimeout {
        let now = Instant::now();
        let until = self.machine.poll_timeout().map_or(LONGEST_SLEEP, |(deadline, _)| {
            // A whole millisecond more: waking early would only mean going round again.
            deadline.saturating_duration_since(now) + Duration::from_millis(1)
        });
        EpollTimeout::try_from(until.min(LONGEST_SLEEP)).unwrap_or(EpollTimeout::ZERO)
    }

    fn turn_of_tun(&mut self) -> Result<()> {
        let now = Instant::now();
        for _ in 0..TUN_TURN {
            let length = match self.tun.read(&mut self.packet[HEADROOM..HEADROOM + LARGEST_PACKET]) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error).context("the tunnel interface is gone"),
            };
            if let Some((endpoint, sealed)) = self.machine.handle_packet(now, &mut self.packet, length) {
                self.unsent += u64::from(!send(&self.socket, endpoint, &self.packet[..sealed]));
            }
        }
        Ok(())
    }

    fn turn_of_socket(&mut self) -> Result<()> {
        self.socket.receive(&mut self.batch).context("the UDP socket is broken")?;
        let now = Instant::now();
        for datagram in self.batch.datagrams() {
            if let Some(range) = self.machine.handle_datagram(now, datagram.source, datagram.payload) {
                // The kernel refuses packets while its queue is full, which is loss as on any network.
                let _ = self.tun.write(&datagram.payload[range]);
            }
        }
        Ok(())
    }

    /// Breaks when asked to end.
    fn turn_of_signals(&mut self) -> Result<ControlFlow<()>> {
        while let Some(signal) = self.signals.read_signal()? {
            if signal.ssi_signo != Signal::SIGUSR1 as u32 {
                return Ok(ControlFlow::Break(()));
            }
            self.machine.rekey(Instant::now());
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Carries out what the machine wants.
    fn drain(&mut self) {
        while let Some((destination, datagram)) = self.machine.poll_transmit() {
            self.unsent += u64::from(!send(&self.socket, destination, &datagram));
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

/// Blocks our signals before they can end the process, and lets epoll see them.
fn take_signals() -> Result<SignalFd> {
    let signals = SigSet::from_iter([Signal::SIGUSR1, Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

fn set_addresses(arguments: &Arguments) -> Result<()> {
    let state = NetworkState {
        super_packet: None,
        interface: arguments.interface.clone(),
        mtu: arguments.mtu,
        addresses: arguments.addresses.clone(),
        routes: Vec::new(),
    };
    // Nothing is recorded without a bypass, and the addresses go with the interface.
    let mut network = LinuxNetwork::new(&std::env::temp_dir(), None);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(network.apply(&state)).context("cannot set the interface's addresses")?;
    Ok(())
}

/// Whether the datagram left.
fn send(socket: &UdpSocket, destination: SocketAddr, contents: &[u8]) -> bool {
    socket.send(&Transmit { source: None, destination, contents, segment_size: None }).is_ok()
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
        mtu: usize::try_from(arguments.mtu)?,
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
