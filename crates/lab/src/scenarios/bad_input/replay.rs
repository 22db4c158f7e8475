//! What was on the wire, sent again: by the one who sent it, by somebody else, and with a bit changed.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::corpus::Bytes;
use super::datagrams::socket;
use super::stranger::Stranger;
use crate::link::tap::{Record, Tap};
use crate::scenario::{Context, Target};
use crate::stage::Stage;
use crate::world::Host;

/// Datagrams of one kind and way that are sent again, at most.
const MOST: usize = 100;

/// Copies of each.
const COPIES: usize = 3;

const PAUSE: Duration = Duration::from_millis(1);

const DNS: u16 = 53;

/// Looks at the two cables between the peers' routers and the internet, from the first handshake on.
#[derive(Debug)]
pub(super) struct Recording {
    from_client: Tap,
    from_gateway: Tap,
}

/// What came from each side.
#[derive(Debug)]
pub(super) struct Wire {
    from_client: Vec<Record>,
    from_gateway: Vec<Record>,
}

impl Recording {
    pub(super) fn start(stage: &Stage) -> Result<Self> {
        let internet = &stage.topology.internet;
        let tap = |edge: &crate::topology::Edge| Tap::open(internet, edge.host.name());
        Ok(Self { from_client: tap(stage.topology.client())?, from_gateway: tap(stage.topology.gateway())? })
    }

    pub(super) fn stop(self) -> Result<Wire> {
        let wire = Wire {
            from_client: sample(self.from_client.take()?),
            from_gateway: sample(self.from_gateway.take()?),
        };
        for (side, records) in [("client", &wire.from_client), ("gateway", &wire.from_gateway)] {
            let has = |first: u8| records.iter().any(|record| record.payload.first() == Some(&first));
            ensure!(has(4), "no data of the {side} was recorded");
            ensure!(has(1) || has(2), "no handshake of the {side} was recorded");
            ensure!(has(0), "no STUN of the {side} was recorded");
        }
        Ok(wire)
    }
}

/// The first and the last of each kind: handshakes come early, and the newest data must be refused too.
fn sample(records: Vec<Record>) -> Vec<Record> {
    let mut kinds: BTreeMap<(SocketAddr, Option<u8>), Vec<Record>> = BTreeMap::new();
    for record in records.into_iter().filter(|record| record.destination.port() != DNS) {
        kinds.entry((record.destination, record.payload.first().copied())).or_default().push(record);
    }
    let cut = |mut kind: Vec<Record>| {
        if kind.len() > MOST {
            let last = kind.split_off(kind.len() - MOST / 2);
            kind.truncate(MOST / 2);
            kind.extend(last);
        }
        kind
    };
    kinds.into_values().flat_map(cut).collect()
}

pub(super) fn send(stage: &Stage, stranger: &Stranger, wire: &Wire, context: &mut Context) -> Result<()> {
    let (client, gateway) = (stage.topology.client(), stage.topology.gateway());
    let mut sent = 0;
    for (records, edge) in [(&wire.from_client, client), (&wire.from_gateway, gateway)] {
        // The router's outside interface is where these frames came from.
        let tap = Tap::open(&edge.router.host, "wan")?;
        for record in records.iter().flat_map(|record| std::iter::repeat_n(record, COPIES)) {
            sent += u32::from(tap.send(&record.frame).is_ok());
            std::thread::sleep(PAUSE);
        }
    }
    context.record("replayed by the sender", f64::from(sent), "datagrams", Target::AtLeast(100.0));

    let mut elsewhere = 0;
    let (to_gateway, to_client) = (&gateway.router.host, &client.router.host);
    let mut bytes = Bytes::new(0xb17);
    for (records, inside) in [(&wire.from_client, to_gateway), (&wire.from_gateway, to_client)] {
        let mut senders = Senders::default();
        for record in records {
            let target = behind_router(stage, record.destination);
            // What is meant for a server can be sent from anywhere, what is meant for a peer from its router.
            let host = if target == record.destination && target.is_ipv4() { &stranger.host } else { inside };
            elsewhere += senders.send(host, target, &record.payload)?;
            let mut changed = record.payload.clone();
            let at = bytes.below(changed.len());
            if let Some(byte) = changed.get_mut(at) {
                *byte ^= 1 << bytes.below(8);
            }
            elsewhere += senders.send(host, target, &changed)?;
            std::thread::sleep(PAUSE);
        }
    }
    context.record("replayed by others", f64::from(elsewhere), "datagrams", Target::AtLeast(100.0));
    Ok(())
}

/// Where a peer's public address leads: the port is kept by the routers of this world.
fn behind_router(stage: &Stage, destination: SocketAddr) -> SocketAddr {
    let edges = [stage.topology.client(), stage.topology.gateway()];
    let edge = edges.into_iter().find(|edge| destination.ip() == edge.public.v4);
    edge.map_or(destination, |edge| SocketAddr::new(edge.address.v4.into(), destination.port()))
}

/// Sockets by target, so that each target sees one new source.
#[derive(Default)]
struct Senders(BTreeMap<SocketAddr, std::net::UdpSocket>);

impl Senders {
    fn send(&mut self, host: &Host, target: SocketAddr, payload: &[u8]) -> Result<u32> {
        let socket = match self.0.entry(target) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(socket(host, target)?),
        };
        Ok(u32::from(socket.send_to(payload, target).is_ok()))
    }
}
