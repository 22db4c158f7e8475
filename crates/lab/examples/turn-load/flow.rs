//! A flow: a client, and a peer that it talks to through the relay.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

use adit_turn::client::{Client, Config, Event, Transport};
use adit_turn::{Family, credentials};
use anyhow::{Context as _, Result, bail};
use ipnet::IpNet;
use rand::TryRngCore as _;

use crate::socket;

/// How long the credentials are good.
const CREDENTIAL_LIFETIME: Duration = Duration::from_secs(3_600);

/// Allocations of one user: relays limit them, and so few are below any limit.
const ALLOCATIONS_PER_USER: usize = 8;

/// Steps between the addresses of two clients in a network: other clients are in other prefixes, as users are.
const ADDRESS_STEP: u128 = 257;

/// Where the two ends of flows are, and what is between them.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The relay; without one, peers get what clients send.
    pub(crate) relay: Option<SocketAddr>,
    /// The secret from which the relay and its users make credentials.
    pub(crate) secret: String,
    /// Where clients have their addresses.
    pub(crate) clients: IpNet,
    /// The address of all peers.
    pub(crate) peers: IpAddr,
}

/// Both ends.
pub(crate) struct Flow {
    pub(crate) client: UdpSocket,
    pub(crate) peer: UdpSocket,
    pub(crate) machine: Option<Client>,
    /// The channel between client and relay, once it is bound.
    pub(crate) channel: Option<u16>,
}

impl Flow {
    /// Opens the sockets.
    pub(crate) fn new(index: usize, place: &Place) -> Result<Self> {
        let client = socket::open(client_address(place.clients, index))?;
        let peer = socket::open(place.peers)?;
        match place.relay {
            Some(relay) => client.connect(relay).with_context(|| format!("no way to {relay}"))?,
            None => {
                client.connect(socket::address(&peer)?)?;
                peer.connect(socket::address(&client)?)?;
            }
        }
        Ok(Self { client, peer, machine: None, channel: None })
    }

    /// With a relay, there is something to send from now on.
    pub(crate) fn begin(&mut self, index: usize, place: &Place, now: Instant) -> Result<()> {
        self.machine = place.relay.map(|relay| machine(index, relay, place, now)).transpose()?;
        Ok(())
    }

    /// Whether data can flow, once it has begun.
    pub(crate) fn is_open(&self) -> bool {
        self.machine.is_none() || self.channel.is_some()
    }

    /// Sends what the machine has to send, and does what its events ask for.
    pub(crate) fn advance(&mut self, now: Instant) -> Result<()> {
        let Some(machine) = &mut self.machine else { return Ok(()) };
        while let Some(event) = machine.poll_event() {
            match event {
                Event::AllocationCreated { relayed } => {
                    let peer = socket::address(&self.peer)?;
                    let is_like_peer =
                        |address: &&SocketAddr| Family::of(address.ip()) == Family::of(peer.ip());
                    let relayed = relayed.iter().find(is_like_peer);
                    let relayed = relayed.with_context(|| format!("nothing relayed can reach {peer}"))?;
                    self.peer.connect(relayed)?;
                    machine.bind_channel(now, peer);
                }
                Event::ChannelBound { number, .. } => self.channel = Some(number),
                Event::ChannelFailed { peer } => bail!("the relay refuses a channel to {peer}"),
                Event::AllocationFailed { reason } | Event::AllocationLost { reason } => {
                    bail!("no allocation: {reason}")
                }
                Event::MappedAddress { .. } | Event::Unresponsive => {}
            }
        }
        while let Some(transmit) = machine.poll_transmit() {
            // What cannot leave is lost, as anywhere on the way; the machine asks again.
            let _ = self.client.send(&transmit.payload);
        }
        Ok(())
    }
}

fn machine(index: usize, relay: SocketAddr, place: &Place, now: Instant) -> Result<Client> {
    let expires = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)? + CREDENTIAL_LIFETIME;
    let user = format!("load{}", index / ALLOCATIONS_PER_USER);
    let username = credentials::username(expires.as_secs(), &user);
    let of_family = |family| Some(relay).filter(|relay| Family::of(relay.ip()) == family);
    let config = Config {
        transport: Transport::Udp,
        server_v4: of_family(Family::V4),
        server_v6: of_family(Family::V6),
        password: credentials::password(place.secret.as_bytes(), &username),
        username,
        software: String::new(),
    };
    let mut seed = [0; 32];
    rand::rngs::OsRng.try_fill_bytes(&mut seed).context("no randomness")?;
    Ok(Client::new(now, config, seed))
}

/// The address of a client: in a network of one address that one, else one after the other through all prefixes.
pub(crate) fn client_address(network: IpNet, index: usize) -> IpAddr {
    let bits = u32::from(network.max_prefix_len() - network.prefix_len());
    let size = 1_u128.checked_shl(bits).unwrap_or(u128::MAX);
    // From one on, for the first address of a network is the network's own; sizes are powers of two.
    let offset = if size == 1 { 0 } else { (index as u128 * ADDRESS_STEP + 1) % size };
    match network.network() {
        IpAddr::V4(first) => IpAddr::V4((u32::from(first) + offset as u32).into()),
        IpAddr::V6(first) => IpAddr::V6((u128::from(first) + offset).into()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn clients_of_a_network_have_addresses_and_prefixes_of_their_own() {
        let network: IpNet = "198.18.0.0/15".parse().unwrap();
        let addresses: Vec<IpAddr> = (0..10_000).map(|index| client_address(network, index)).collect();
        assert_eq!(addresses.iter().collect::<HashSet<_>>().len(), 10_000);
        assert!(addresses.iter().all(|address| network.contains(address)));
        assert_eq!(addresses[1].to_string(), "198.18.1.2");
        let one: IpNet = "192.0.2.7/32".parse().unwrap();
        assert_eq!(client_address(one, 9).to_string(), "192.0.2.7");
        let v6: IpNet = "2001:db8::/64".parse().unwrap();
        assert_eq!(client_address(v6, 1).to_string(), "2001:db8::102");
    }
}
