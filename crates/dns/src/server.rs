//! The resolver at its address in the tunnel: IP packets in, IP packets out.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Instant;

use adit_packet::{PacketView, Transport as PacketTransport, build};
use ipnet::{Ipv4Net, Ipv6Net};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha20Rng;

use crate::forwarder::{Forwarder, ResponseError, UpstreamFailure, UpstreamId, UpstreamQuery};
use crate::name::Name;
use crate::pattern::Pattern;
use crate::pattern_index::PatternIndex;
use crate::proxy_addresses::Assignment;
use crate::query::{DropReason, Transport};
use crate::stub::{Decision, StubResolver};
use crate::tcp::{self, Listener, QueryId};

/// Where the resolver is and what it hands out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Address of the resolver.
    pub ipv4: Ipv4Addr,
    /// Address of the resolver.
    pub ipv6: Ipv6Addr,
    /// Range of proxy addresses.
    pub ipv4_proxies: Ipv4Net,
    /// Range of proxy addresses.
    pub ipv6_proxies: Ipv6Net,
}

/// Who stands behind a proxy address; `K` is what the caller calls a resource.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Owner<K> {
    /// The name that was asked for.
    pub name: Name,
    /// All proxy addresses of the name.
    pub assignment: Assignment,
    /// The resources whose patterns match the name now, most specific first; empty once they are gone.
    pub resources: Vec<K>,
}

/// Stub resolver, forwarder and TCP, put together.
#[derive(Debug)]
pub struct Server<K> {
    settings: Settings,
    random: ChaCha20Rng,
    stub: StubResolver<K>,
    forwarder: Forwarder<Client>,
    delegations: PatternIndex<Vec<SocketAddr>>,
    tcp: Listener,
    packets: VecDeque<Vec<u8>>,
    drops: BTreeMap<DropReason, u64>,
}

/// Where an answer goes.
#[derive(Copy, Clone, Debug)]
enum Client {
    Udp { client: SocketAddr, resolver: SocketAddr },
    Tcp(QueryId),
}

impl Client {
    const fn transport(self) -> Transport {
        match self {
            Self::Udp { .. } => Transport::Udp,
            Self::Tcp(_) => Transport::Tcp,
        }
    }
}

impl<K: Clone> Server<K> {
    /// A resolver without resources and upstreams.
    pub fn new(now: Instant, settings: Settings, seed: [u8; 32]) -> Self {
        let mut random = ChaCha20Rng::from_seed(seed);
        let addresses = [settings.ipv4.into(), settings.ipv6.into()];
        Self {
            stub: StubResolver::new(settings.ipv4_proxies, settings.ipv6_proxies),
            forwarder: Forwarder::new(random.random()),
            delegations: PatternIndex::default(),
            tcp: Listener::new(now, &addresses, random.random()),
            settings,
            random,
            packets: VecDeque::new(),
            drops: BTreeMap::new(),
        }
    }

    /// Moves the resolver; names keep their proxy addresses unless the ranges change. Same settings change nothing.
    pub fn configure(&mut self, now: Instant, settings: Settings) {
        if (settings.ipv4, settings.ipv6) != (self.settings.ipv4, self.settings.ipv6) {
            let addresses = [settings.ipv4.into(), settings.ipv6.into()];
            self.tcp = Listener::new(now, &addresses, self.random.random());
        }
        self.stub.set_proxy_ranges(settings.ipv4_proxies, settings.ipv6_proxies);
        self.settings = settings;
    }

    /// Replaces the resolvers for names that are no resources, in order of preference.
    pub fn set_upstreams(&mut self, upstreams: Vec<SocketAddr>) {
        self.forwarder.set_upstreams(upstreams);
    }

    /// Replaces all resources; names keep the addresses they have.
    pub fn set_resources(&mut self, resources: Vec<(Pattern, K)>) {
        self.stub.set_resources(resources);
    }

    /// Replaces the names that others answer, unless they belong to a resource here; the most specific pattern counts.
    /// Kept responses are forgotten.
    pub fn set_delegations(&mut self, delegations: Vec<(Pattern, Vec<SocketAddr>)>) {
        let mut index = PatternIndex::default();
        for (pattern, servers) in delegations {
            index.insert(&pattern, servers);
        }
        self.delegations = index;
        self.forwarder.forget();
    }

    /// Whether packets to `address` are for [`handle_packet`](Self::handle_packet).
    pub fn is_resolver(&self, address: IpAddr) -> bool {
        address == self.settings.ipv4 || address == self.settings.ipv6
    }

    /// Whether `address` lies in the proxy ranges, assigned or not.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.stub.is_proxy(address)
    }

    /// Who stands behind a proxy address; counts as use of the name.
    pub fn owner(&mut self, now: Instant, address: IpAddr) -> Option<Owner<K>> {
        self.stub.touch(now, address);
        let (name, assignment) = self.stub.assignment_of(address)?;
        let resources = self.stub.resources(name).cloned().collect();
        Some(Owner { name: name.clone(), assignment, resources })
    }

    /// The resources whose patterns match `name`, most specific first.
    pub fn resources(&self, name: &Name) -> impl Iterator<Item = &K> {
        self.stub.resources(name)
    }

    /// Takes a packet from an application to the resolver.
    ///
    /// # Errors
    ///
    /// Why there will be no answer; counted in [`drops`](Self::drops).
    pub fn handle_packet(
        &mut self,
        now: Instant,
        packet: &[u8],
        view: &PacketView,
    ) -> Result<(), DropReason> {
        let result = self.dispatch(now, packet, view);
        self.count(result);
        self.settle(now);
        result
    }

    fn dispatch(&mut self, now: Instant, packet: &[u8], view: &PacketView) -> Result<(), DropReason> {
        if !self.is_resolver(view.destination()) {
            return Err(DropReason::NotForResolver);
        }
        match view.transport() {
            PacketTransport::Tcp { .. } => self.tcp.handle_packet(now, packet, view),
            PacketTransport::Udp { source_port, destination_port: tcp::PORT } => {
                if source_port == 0 || self.is_resolver(view.source()) {
                    return Err(DropReason::Source);
                }
                let message = view.udp_payload(packet).ok_or(DropReason::Fragment)?;
                let client = SocketAddr::new(view.source(), source_port);
                let resolver = SocketAddr::new(view.destination(), tcp::PORT);
                self.handle_query(now, Client::Udp { client, resolver }, message)
            }
            PacketTransport::LaterFragment => Err(DropReason::Fragment),
            _ => Err(DropReason::NotForResolver),
        }
    }

    /// Takes the outcome of an [`UpstreamQuery`].
    ///
    /// # Errors
    ///
    /// [`ResponseError`] when the response is not believed: go on listening for the real one.
    pub fn handle_response(
        &mut self,
        now: Instant,
        id: UpstreamId,
        outcome: Result<&[u8], UpstreamFailure>,
    ) -> Result<(), ResponseError> {
        let result = self.forwarder.handle_response(now, id, outcome);
        self.settle(now);
        result
    }

    /// Ends what took too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.forwarder.handle_timeout(now);
        self.tcp.handle_timeout(now);
        self.settle(now);
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), and why.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.forwarder.poll_timeout().into_iter().chain(self.tcp.poll_timeout()).min()
    }

    /// The next IP packet to an application.
    pub fn poll_packet(&mut self) -> Option<Vec<u8>> {
        self.packets.pop_front().or_else(|| self.tcp.poll_packet())
    }

    /// The next message to send to an upstream resolver.
    pub fn poll_upstream_query(&mut self) -> Option<UpstreamQuery> {
        self.forwarder.poll_upstream_query()
    }

    /// Packets and messages that were dropped, by reason.
    pub const fn drops(&self) -> &BTreeMap<DropReason, u64> {
        &self.drops
    }

    /// Passes queries and answers on until none is left: an answer lets a connection come up with its next query.
    fn settle(&mut self, now: Instant) {
        loop {
            if let Some(query) = self.tcp.poll_query() {
                let result = self.handle_query(now, Client::Tcp(query.id), &query.message);
                self.count(result);
            } else if let Some(answer) = self.forwarder.poll_answer() {
                let result = self.send(now, answer.token, &answer.message);
                self.count(result);
            } else {
                return;
            }
        }
    }

    fn handle_query(&mut self, now: Instant, client: Client, message: &[u8]) -> Result<(), DropReason> {
        match self.stub.handle_query(now, message) {
            Decision::Answer(answer) => self.send(now, client, &answer),
            Decision::Forward(query) => {
                let name = query.name();
                let transport = client.transport();
                match name.as_ref().and_then(|name| self.delegations.find(name).next()) {
                    Some(servers) => self.forwarder.delegate(now, &query, transport, client, servers),
                    None => self.forwarder.forward(now, &query, transport, client),
                }
                Ok(())
            }
            Decision::Drop(reason) => Err(reason),
        }
    }

    fn send(&mut self, now: Instant, client: Client, message: &[u8]) -> Result<(), DropReason> {
        match client {
            Client::Udp { client, resolver } => {
                let packet = build::udp(resolver, client, message).map_err(|_| DropReason::Unanswerable)?;
                self.packets.push_back(packet);
            }
            Client::Tcp(id) => {
                self.tcp.answer(now, id, message);
            }
        }
        Ok(())
    }

    fn count(&mut self, result: Result<(), DropReason>) {
        if let Err(reason) = result {
            *self.drops.entry(reason).or_default() += 1;
        }
    }
}
