//! The relay asks itself for an allocation, as a client would, to know whether it can serve any.
//!
//! It goes through the real sockets, over loopback, so that it also notices a full port range, a lack of file descriptors, and a shard
//! that does not answer. Each time from another port, so that all shards get their turn. It comes from a loopback address, which nobody
//! outside can use: a flood of forged requests cannot use up the replies that it needs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use adit_turn::client::{Client, Config, Event, Transport};
use adit_turn::{Family, credentials};
use tokio::net::UdpSocket;

use crate::identity;
use crate::settings::Place;
use crate::sockets::FAMILIES;

/// How long an allocation may take: enough for three lost datagrams.
const LIMIT: Duration = Duration::from_secs(4);
/// How long the probe waits for the word that its allocation is gone. Without it, it ends with its credentials.
const RELEASE_LIMIT: Duration = Duration::from_secs(1);
/// How long the probe's credentials last.
const CREDENTIALS: Duration = Duration::from_secs(60);
/// The user that the relay counts the probe as.
const USER: &str = "readiness-probe";

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// There was an allocation for each family.
    Works,
    /// There was none.
    Fails(String),
    /// Nothing could be sent, which says nothing about the relay.
    Impossible(String),
}

/// Makes an allocation and gives it back. `unix_now` is the time by which the relay judges credentials.
pub(crate) async fn run(place: &Place, secret: &str, unix_now: Duration) -> Outcome {
    match Probe::new(place, secret, unix_now).await {
        Ok(probe) => probe.run().await,
        Err(error) => Outcome::Impossible(format!("{error:#}")),
    }
}

struct Probe {
    client: Client,
    /// One per family that the relay serves.
    sockets: Vec<UdpSocket>,
    failure: Option<String>,
}

impl Probe {
    async fn new(place: &Place, secret: &str, unix_now: Duration) -> anyhow::Result<Self> {
        let username = credentials::username((unix_now + CREDENTIALS).as_secs(), USER);
        let mut config = Config {
            transport: Transport::Udp,
            server_v4: None,
            server_v6: None,
            password: credentials::password(secret.as_bytes(), &username),
            username,
            software: String::new(),
        };
        let mut sockets = Vec::new();
        for family in FAMILIES {
            let Some(address) = place.address(family) else { continue };
            let loopback = loopback(family);
            let ip = if address.bind.is_unspecified() { loopback } else { address.bind };
            let server = match family {
                Family::V4 => &mut config.server_v4,
                Family::V6 => &mut config.server_v6,
            };
            *server = Some(SocketAddr::new(ip, place.port));
            sockets.push(UdpSocket::bind((loopback, 0)).await?);
        }
        let client = Client::new(Instant::now(), config, identity::random()?);
        Ok(Self { client, sockets, failure: None })
    }

    async fn run(mut self) -> Outcome {
        let wanted = self.sockets.len();
        let settled =
            |probe: &Self| probe.failure.is_some() || probe.client.relayed_addresses().count() == wanted;
        if let Err(error) = self.drive(LIMIT, settled).await {
            return Outcome::Impossible(format!("{error:#}"));
        }
        let count = self.client.relayed_addresses().count();
        self.client.close(Instant::now());
        let _ = self.drive(RELEASE_LIMIT, |probe| probe.client.poll_timeout().is_none()).await;
        match self.failure {
            None if count == wanted => Outcome::Works,
            None if count > 0 => Outcome::Fails("only one address family can be had".to_owned()),
            None => Outcome::Fails("the relay did not answer".to_owned()),
            Some(reason) => Outcome::Fails(reason),
        }
    }

    /// Runs the client until `settled`, at most `limit`.
    async fn drive(&mut self, limit: Duration, settled: impl Fn(&Self) -> bool) -> std::io::Result<()> {
        let deadline = Instant::now() + limit;
        let mut buffer = [0; 1500];
        loop {
            while let Some(transmit) = self.client.poll_transmit() {
                let is_ipv4 = |socket: &UdpSocket| socket.local_addr().is_ok_and(|own| own.is_ipv4());
                let same = |socket: &&UdpSocket| is_ipv4(socket) == transmit.destination.is_ipv4();
                if let Some(socket) = self.sockets.iter().find(same) {
                    socket.send_to(&transmit.payload, transmit.destination).await?;
                }
            }
            while let Some(event) = self.client.poll_event() {
                if let Event::AllocationFailed { reason } = event {
                    self.failure = Some(reason.to_string());
                }
            }
            let now = Instant::now();
            if settled(self) || now >= deadline {
                return Ok(());
            }
            let wake = self.client.poll_timeout().map_or(deadline, |(at, _)| at.min(deadline));
            tokio::select! {
                received = receive(&self.sockets, &mut buffer) => {
                    let (length, from) = received?;
                    self.client.handle_datagram(Instant::now(), from, &buffer[..length]);
                }
                () = tokio::time::sleep_until(wake.into()) => self.client.handle_timeout(Instant::now()),
            }
        }
    }
}

/// From whichever socket has something.
async fn receive(sockets: &[UdpSocket], buffer: &mut [u8]) -> std::io::Result<(usize, SocketAddr)> {
    match sockets {
        [one] => one.recv_from(buffer).await,
        [first, second, ..] => {
            let ready = tokio::select! {
                ready = first.readable() => ready.map(|()| first),
                ready = second.readable() => ready.map(|()| second),
            };
            match ready?.try_recv_from(buffer) {
                // Not ready after all: an empty datagram stands for that.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    Ok((0, SocketAddr::new(loopback(Family::V4), 0)))
                }
                received => received,
            }
        }
        [] => std::future::pending().await,
    }
}

fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}
