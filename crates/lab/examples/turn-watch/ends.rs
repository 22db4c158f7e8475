//! The client with its machine, the peer, and the stranger.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Instant;

use adit_turn::client::{Client, Config, Event, Handled, Transport};
use adit_turn::{Family, credentials};
use anyhow::{Context as _, Result, bail};
use rand::TryRngCore as _;

use crate::trace::{Trace, unix_now};

/// What each of them sends; nothing in STUN looks like it.
const FROM_CLIENT: [u8; 160] = [0xc1; 160];
const FROM_PEER: [u8; 160] = [0xf1; 160];
const FROM_STRANGER: [u8; 160] = [0x57; 160];

/// Everybody around one allocation.
pub(crate) struct Ends {
    relay: SocketAddr,
    client: UdpSocket,
    peer: UdpSocket,
    stranger: UdpSocket,
    machine: Client,
    /// ChannelData as the client sends it, once the channel is bound.
    framed: Option<Vec<u8>>,
    is_deleting: bool,
    /// When the relay confirmed that the allocation is gone.
    pub(crate) deleted: Option<f64>,
    /// Datagrams that each of the three sent.
    pub(crate) sent: u64,
    pub(crate) to_peer: Trace,
    pub(crate) to_client: Trace,
    /// What the client should never have got.
    pub(crate) from_stranger: u64,
}

impl Ends {
    /// Opens the sockets; the machine has something to send. `user` has a name, and an expiry in seconds since 1970.
    pub(crate) fn open(
        now: Instant,
        relay: SocketAddr,
        [address, stranger]: [IpAddr; 2],
        secret: &str,
        user: (&str, u64),
    ) -> Result<Self> {
        let socket = |address: IpAddr| {
            let socket = UdpSocket::bind((address, 0)).with_context(|| format!("no socket on {address}"))?;
            socket.set_nonblocking(true)?;
            anyhow::Ok(socket)
        };
        let client = socket(address)?;
        client.connect(relay)?;
        Ok(Self {
            relay,
            client,
            peer: socket(address)?,
            stranger: socket(stranger)?,
            machine: machine(now, relay, secret, user)?,
            framed: None,
            is_deleting: false,
            deleted: None,
            sent: 0,
            to_peer: Trace::default(),
            to_client: Trace::default(),
            from_stranger: 0,
        })
    }

    /// Whether data can flow.
    pub(crate) fn is_open(&self) -> bool {
        self.framed.is_some()
    }

    /// Everybody sends one datagram.
    pub(crate) fn send(&mut self) {
        self.sent += 1;
        // What cannot leave is lost, and what came back as unreachable is expected: the relay may be gone.
        if let Some(framed) = &self.framed {
            let _ = self.client.send(framed);
        }
        let _ = self.peer.send(&FROM_PEER);
        let _ = self.stranger.send(&FROM_STRANGER);
    }

    /// Asks the relay to take the allocation back.
    pub(crate) fn delete(&mut self, now: Instant) {
        self.machine.close(now);
        self.is_deleting = true;
    }

    /// Takes what has come, and lets the machine work.
    pub(crate) fn work(&mut self, now: Instant) -> Result<()> {
        let mut buffer = [0; 2_048];
        while let Some(length) = receive(&self.client, &mut buffer)? {
            let at = unix_now()?;
            let datagram = &buffer[..length];
            if let Handled::Data { payload, .. } = self.machine.handle_datagram(now, self.relay, datagram)
                && datagram.get(payload) == Some(&FROM_PEER[..])
            {
                self.to_client.add(at);
            } else if holds(datagram, &FROM_PEER) {
                // The machine has given the channel up, and the relay has not.
                self.to_client.add(at);
            } else if holds(datagram, &FROM_STRANGER) {
                self.from_stranger += 1;
            }
        }
        while let Some(length) = receive(&self.peer, &mut buffer)? {
            if buffer[..length] == FROM_CLIENT {
                self.to_peer.add(unix_now()?);
            }
        }
        if self.machine.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.machine.handle_timeout(now);
        }
        self.act(now)
    }

    fn act(&mut self, now: Instant) -> Result<()> {
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::AllocationCreated { relayed } if !self.is_open() => {
                    let peer = self.peer.local_addr()?;
                    let is_like_peer = |address: &&SocketAddr| address.is_ipv4() == peer.is_ipv4();
                    let relayed = relayed.iter().find(is_like_peer);
                    let relayed = relayed.with_context(|| format!("nothing relayed can reach {peer}"))?;
                    self.peer.connect(relayed)?;
                    self.stranger.connect(relayed)?;
                    self.machine.bind_channel(now, peer);
                }
                Event::ChannelBound { number, .. } if !self.is_open() => {
                    let length = FROM_CLIENT.len() as u16;
                    let header = [number.to_be_bytes(), length.to_be_bytes()].concat();
                    self.framed = Some([&header[..], &FROM_CLIENT].concat());
                }
                Event::AllocationFailed { reason } if !self.is_open() => bail!("no allocation: {reason}"),
                Event::ChannelFailed { peer } if !self.is_open() => bail!("no channel to {peer}"),
                // Later ones are what the watch is for.
                _ => {}
            }
        }
        while let Some(transmit) = self.machine.poll_transmit() {
            let _ = self.client.send(&transmit.payload);
        }
        // Without anything to wait for, it has got its answer.
        if self.is_deleting && self.deleted.is_none() && self.machine.poll_timeout().is_none() {
            self.deleted = Some(unix_now()?);
        }
        Ok(())
    }
}

fn machine(now: Instant, relay: SocketAddr, secret: &str, (name, expires): (&str, u64)) -> Result<Client> {
    let username = credentials::username(expires, name);
    let of_family = |family| Some(relay).filter(|relay| Family::of(relay.ip()) == family);
    let config = Config {
        transport: Transport::Udp,
        server_v4: of_family(Family::V4),
        server_v6: of_family(Family::V6),
        password: credentials::password(secret.as_bytes(), &username),
        username,
        software: String::new(),
    };
    let mut seed = [0; 32];
    rand::rngs::OsRng.try_fill_bytes(&mut seed).context("no randomness")?;
    Ok(Client::new(now, config, seed))
}

/// A datagram that waits; a report that an earlier one found nobody counts as none.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Result<Option<usize>> {
    match socket.recv(buffer) {
        Ok(length) => Ok(Some(length)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionRefused) => {
            Ok(None)
        }
        Err(error) => Err(error).context("cannot receive"),
    }
}

fn holds(datagram: &[u8], payload: &[u8]) -> bool {
    datagram.windows(payload.len()).any(|window| window == payload)
}
