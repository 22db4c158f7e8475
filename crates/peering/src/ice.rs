//! The ICE agent of one connection: candidates in, checks out.
//!
//! Wraps the `is` library. Server-reflexive candidates of our own are not given to the agent:
//! they share the base of the host candidate, so their pairs would be redundant (RFC 8445,
//! section 6.1.2.4). They exist for the other side only.
//!
//! The agent keeps every address it ever learned. To bound that, the wrapper counts them
//! and makes a fresh agent with the same credentials when there are too many; knowledge about
//! paths lives outside the agent and is not lost. Between two NATs that map each destination anew, checks
//! breed addresses and addresses breed checks without end. So an agent lasts a minute at least: until then it
//! learns no more, and checks from further addresses get an answer without it.

use std::collections::{BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_protocol::{Candidate, CandidateKind, IceCredentials};
use is::stun::{StunMessage, StunPacket, TransId};
use is::{DefaultSha1HmacProvider, IceAgent, IceAgentEvent, IceConnectionState, IceCreds};
use is::{Protocol, Sha1HmacProvider as _};

use crate::address::{Pair, family, is_usable, normalized};
use crate::transactions::TransactionId;

/// Candidates of the peer beyond this many are ignored.
const MAX_REMOTE: usize = 32;
/// Addresses learned from checks, or from their answers, before a fresh agent is made.
const MAX_LEARNED: usize = 24;
/// A fresh agent is made at most this often because of what was learned.
const RESTART_PAUSE: Duration = Duration::from_secs(60);
/// Answers that wait to be sent; the agent's own are not counted.
const MAX_ANSWERS: usize = 32;
/// Candidates ever given to one agent before a fresh one is made.
const MAX_GIVEN: usize = 128;
/// No connection of ordinary hosts has more pairs; the lowest priority falls out first.
const MAX_PAIRS: usize = 256;

/// First retransmission of a check; each further pause is twice as long.
const INITIAL_RETRANSMISSION: Duration = Duration::from_millis(100);
/// Time between two checks of one agent (RFC 8445, section 14.2: not below 5 ms).
const PACE: Duration = Duration::from_millis(5);
/// Checks sent at once when a connection starts, so that NATs open early.
const FIRST_BURST: usize = 8;

/// How often a path in use is checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// What the agent noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IceEvent {
    /// The agent prefers this pair.
    Nominated(Pair),
    /// No pair works any more.
    Disconnected,
}

/// A check to send.
#[derive(Debug)]
pub(crate) struct Check {
    pub(crate) pair: Pair,
    pub(crate) datagram: Vec<u8>,
    /// Set for requests.
    pub(crate) transaction: Option<TransactionId>,
}

/// The agent of one connection.
#[derive(Debug)]
pub(crate) struct Ice {
    agent: IceAgent,
    controlling: bool,
    tie_breaker: u64,
    local: IceCreds,
    remote: IceCreds,
    hosts: BTreeSet<SocketAddr>,
    relayed: BTreeSet<SocketAddr>,
    /// Those of `relayed` that no other pair should have to stand behind.
    last_resorts: Arc<BTreeSet<SocketAddr>>,
    remotes: Vec<Candidate>,
    learned: BTreeSet<SocketAddr>,
    mapped: BTreeSet<SocketAddr>,
    /// When the agent was made again because it had learned too much.
    restarted: Option<Instant>,
    /// Answers to checks that the agent does not see.
    answers: VecDeque<Check>,
    /// Candidates of either end that the agent was ever given.
    given: usize,
    /// No checks are due; requests of the peer are answered all the same.
    resting: bool,
}

impl Ice {
    /// An agent without candidates. The portal made the credentials; the library's own
    /// would not be unguessable.
    pub(crate) fn new(
        controlling: bool,
        tie_breaker: u64,
        local: &IceCredentials,
        remote: &IceCredentials,
    ) -> Self {
        let credentials =
            |from: &IceCredentials| IceCreds { ufrag: from.ufrag.clone(), pass: from.password.clone() };
        let (local, remote) = (credentials(local), credentials(remote));
        Self {
            agent: IceAgent::new(local.clone()),
            controlling,
            tie_breaker,
            local,
            remote,
            hosts: BTreeSet::new(),
            relayed: BTreeSet::new(),
            last_resorts: Arc::default(),
            remotes: Vec::new(),
            learned: BTreeSet::new(),
            mapped: BTreeSet::new(),
            restarted: None,
            answers: VecDeque::new(),
            given: 0,
            resting: false,
        }
        .configured()
    }

    fn configured(mut self) -> Self {
        self.configure();
        self
    }

    fn configure(&mut self) {
        let agent = &mut self.agent;
        agent.set_remote_credentials(self.remote.clone());
        agent.set_controlling(self.controlling);
        agent.set_control_tie_breaker(self.tie_breaker);
        agent.set_initial_stun_rto(INITIAL_RETRANSMISSION);
        agent.set_max_stun_rto(CHECK_INTERVAL);
        agent.set_timing_advance(PACE);
        agent.set_max_candidate_pairs(MAX_PAIRS);
        self.prefer();
    }

    fn prefer(&mut self) {
        let last = Arc::clone(&self.last_resorts);
        self.agent.set_local_preference(move |candidate: &is::Candidate, same_kind| {
            local_preference(candidate, same_kind, last.contains(&candidate.addr()))
        });
    }

    /// Says which addresses that relays lend us are to be used only if no others work. Call before
    /// [`set_locals`](Self::set_locals).
    pub(crate) fn set_last_resorts(&mut self, lent: BTreeSet<SocketAddr>) {
        if *self.last_resorts != lent {
            self.last_resorts = Arc::new(lent);
            self.prefer();
        }
    }

    /// Makes a fresh agent with the same credentials and the present candidates; all pairs
    /// are checked again.
    fn restart(&mut self, now: Instant) {
        self.agent = IceAgent::new(self.local.clone());
        self.configure();
        self.learned.clear();
        self.mapped.clear();
        self.given = 0;
        let (hosts, relayed) = (std::mem::take(&mut self.hosts), std::mem::take(&mut self.relayed));
        self.set_locals(now, &hosts, &relayed);
        for candidate in &self.remotes {
            self.agent.add_remote_candidate(remote_candidate(candidate));
        }
        // An agent has no timeout before it was told the time once.
        self.agent.handle_timeout(now);
    }

    /// Our user name fragment.
    pub(crate) fn user(&self) -> &str {
        &self.local.ufrag
    }

    /// Sets our own ends: socket addresses and addresses that relays lend us.
    pub(crate) fn set_locals(
        &mut self,
        now: Instant,
        hosts: &BTreeSet<SocketAddr>,
        relayed: &BTreeSet<SocketAddr>,
    ) {
        for gone in self.hosts.difference(hosts).filter_map(host_candidate) {
            self.agent.invalidate_candidate(&gone);
        }
        for gone in self.relayed.difference(relayed).filter_map(relayed_candidate) {
            self.agent.invalidate_candidate(&gone);
        }
        let new_hosts = hosts.difference(&self.hosts).filter_map(host_candidate);
        let new_relayed = relayed.difference(&self.relayed).filter_map(relayed_candidate);
        for new in new_hosts.chain(new_relayed) {
            self.given += 1;
            self.agent.add_local_candidate(new);
        }
        self.hosts.clone_from(hosts);
        self.relayed.clone_from(relayed);
        if self.given > MAX_GIVEN {
            self.restart(now);
        }
    }

    /// Adds candidates of the peer and returns those that are new.
    pub(crate) fn add_remotes(&mut self, now: Instant, candidates: &[Candidate]) -> Vec<SocketAddr> {
        let mut added = Vec::new();
        for candidate in candidates {
            let candidate = Candidate { address: normalized(candidate.address), ..*candidate };
            let known = self.remotes.iter().any(|other| other.address == candidate.address);
            if known || !is_usable(candidate.address) || self.remotes.len() >= MAX_REMOTE {
                continue;
            }
            self.remotes.push(candidate);
            self.given += 1;
            self.agent.add_remote_candidate(remote_candidate(&candidate));
            added.push(candidate.address);
        }
        if self.given > MAX_GIVEN {
            self.restart(now);
        }
        added
    }

    /// Removes candidates of the peer and returns those that were there.
    pub(crate) fn remove_remotes(&mut self, candidates: &[Candidate]) -> Vec<SocketAddr> {
        let mut removed = Vec::new();
        for address in candidates.iter().map(|candidate| normalized(candidate.address)) {
            let Some(index) = self.remotes.iter().position(|other| other.address == address) else {
                continue;
            };
            let candidate = self.remotes.swap_remove(index);
            self.agent.invalidate_candidate(&remote_candidate(&candidate));
            removed.push(address);
        }
        removed
    }

    /// Where the peer may be reached: signalled addresses first, then learned ones.
    pub(crate) fn remote_addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let signalled = self.remotes.iter().map(|candidate| candidate.address);
        let known = |address: &SocketAddr| self.remotes.iter().any(|other| other.address == *address);
        signalled.chain(self.learned.iter().copied().filter(move |address| !known(address)))
    }

    /// Every pair of ends of one family, direct ones first.
    pub(crate) fn pairs(&self) -> Vec<Pair> {
        let mut pairs = Vec::new();
        for locals in [&self.hosts, &self.relayed] {
            for remote in self.remote_addresses() {
                let matching = locals.iter().filter(|local| family(**local) == family(remote));
                pairs.extend(matching.map(|local| Pair { local: *local, remote }));
            }
        }
        pairs.sort_by_key(|pair| self.is_relayed(*pair));
        pairs
    }

    /// Whether a relay is between the two ends, ours or the peer's.
    pub(crate) fn is_relayed(&self, pair: Pair) -> bool {
        self.relayed.contains(&pair.local) || self.is_relayed_remote(pair.remote)
    }

    /// A relay may answer from another port than the one it lent, so its address counts too,
    /// unless the peer itself lives there.
    pub(crate) fn is_relayed_remote(&self, remote: SocketAddr) -> bool {
        if let Some(candidate) = self.remotes.iter().find(|candidate| candidate.address == remote) {
            return candidate.kind == CandidateKind::Relayed;
        }
        let mut same_host = self.remotes.iter().filter(|candidate| candidate.address.ip() == remote.ip());
        let first = same_host.next().is_some_and(|candidate| candidate.kind == CandidateKind::Relayed);
        first && same_host.all(|candidate| candidate.kind == CandidateKind::Relayed)
    }

    /// Stops the schedule of checks.
    pub(crate) fn rest(&mut self) {
        self.resting = true;
    }

    /// Starts the schedule of checks again.
    pub(crate) fn resume(&mut self, now: Instant) {
        if std::mem::take(&mut self.resting) {
            self.agent.handle_timeout(now);
        }
    }

    /// Starts the checks: several at once, the rest at the usual pace.
    pub(crate) fn start(&mut self, now: Instant) {
        for _ in 0..FIRST_BURST {
            self.agent.handle_timeout(now);
        }
    }

    /// Checks every pair again, those too that were given up.
    pub(crate) fn recheck(&mut self, now: Instant) {
        self.agent.recreate_candidate_pairs();
        self.agent.handle_timeout(now);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.agent.handle_timeout(now);
    }

    pub(crate) fn poll_timeout(&mut self) -> Option<Instant> {
        if self.resting { None } else { self.agent.poll_timeout() }
    }

    pub(crate) fn poll_check(&mut self) -> Option<Check> {
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        let transmit = self.agent.poll_transmit()?;
        let datagram: Vec<u8> = transmit.contents.into();
        let transaction = request_id(&datagram);
        let pair = Pair { local: transmit.source, remote: transmit.destination };
        Some(Check { pair, datagram, transaction })
    }

    pub(crate) fn poll_event(&mut self) -> Option<IceEvent> {
        loop {
            match self.agent.poll_event()? {
                IceAgentEvent::NominatedSend { source, destination, .. } => {
                    return Some(IceEvent::Nominated(Pair { local: source, remote: destination }));
                }
                IceAgentEvent::IceConnectionStateChange(IceConnectionState::Disconnected) => {
                    return Some(IceEvent::Disconnected);
                }
                _ => {}
            }
        }
    }

    /// Takes a message for this agent; false if it is not authentic.
    pub(crate) fn handle_message(&mut self, now: Instant, pair: Pair, message: StunMessage<'_>) -> bool {
        if !self.agent.accepts_message(&message) {
            return false;
        }
        let learned = if message.is_binding_request() {
            let known = self.remotes.iter().any(|candidate| candidate.address == pair.remote);
            (!known).then_some((&mut self.learned, pair.remote))
        } else {
            let ours = |mapped: &SocketAddr| !self.hosts.contains(mapped) && !self.relayed.contains(mapped);
            message.mapped_address().filter(ours).map(|mapped| (&mut self.mapped, mapped))
        };
        if let Some((set, address)) = learned.filter(|(set, address)| !set.contains(address)) {
            if set.len() < MAX_LEARNED {
                set.insert(address);
            } else if self.restarted.is_some_and(|at| now < at + RESTART_PAUSE) {
                self.answer_alone(pair, &message);
                return true;
            } else {
                self.restarted = Some(now);
                self.restart(now);
                if message.is_binding_request() {
                    self.learned.insert(pair.remote);
                }
            }
        }
        let packet =
            StunPacket { proto: Protocol::Udp, source: pair.remote, destination: pair.local, message };
        self.agent.handle_packet(now, packet);
        true
    }

    /// Answers a check without telling the agent (RFC 8445, section 7.3); to a response there is nothing to say.
    fn answer_alone(&mut self, pair: Pair, message: &StunMessage<'_>) {
        if !message.is_binding_request() || self.answers.len() >= MAX_ANSWERS {
            return;
        }
        let reply = StunMessage::binding_reply(message.trans_id(), pair.remote);
        let mut datagram = vec![0; 512];
        if let Ok(length) = reply.to_bytes(Some(self.local.pass.as_bytes()), &mut datagram, hmac) {
            datagram.truncate(length);
            self.answers.push_back(Check { pair, datagram, transaction: None });
        }
    }

    /// Builds a check of our own, outside the agent's schedule.
    pub(crate) fn probe(&self) -> Option<(TransactionId, Vec<u8>)> {
        let user = format!("{}:{}", self.remote.ufrag, self.local.ufrag);
        let priority = PEER_REFLEXIVE << 24 | PREFERENCE << 8 | COMPONENT;
        let id = TransId::new();
        let request =
            StunMessage::binding_request(&user, id, self.controlling, self.tie_breaker, priority, false);
        let mut datagram = vec![0; 512];
        let length = request.to_bytes(Some(self.remote.pass.as_bytes()), &mut datagram, hmac).ok()?;
        datagram.truncate(length);
        Some((request_id(&datagram)?, datagram))
    }

    /// Whether the answer to a probe is authentic and not an error.
    pub(crate) fn is_answer(&self, message: &StunMessage<'_>) -> bool {
        message.is_successful_binding_response() && message.verify(self.remote.pass.as_bytes(), hmac)
    }
}

/// Type preferences of RFC 8445, section 5.1.2.2.
const HOST: u32 = 126;
const PEER_REFLEXIVE: u32 = 110;
const SERVER_REFLEXIVE: u32 = 100;
const RELAYED: u32 = 2;
/// Local preference of a remote candidate: its rank among its own kind is not signalled.
const PREFERENCE: u32 = 65_534;
/// 256 minus the component, of which there is one.
const COMPONENT: u32 = 255;

fn hmac(key: &[u8], payloads: &[&[u8]]) -> [u8; 20] {
    DefaultSha1HmacProvider.sha1_hmac(key, payloads)
}

/// The transaction id of a Binding request.
fn request_id(datagram: &[u8]) -> Option<TransactionId> {
    if datagram.first_chunk::<2>() != Some(&[0, 1]) {
        return None;
    }
    datagram.get(8..20)?.try_into().ok()
}

/// IPv6 a little before IPv4, earlier before later; never out of range, however many.
fn local_preference(candidate: &is::Candidate, same_kind: usize, is_last_resort: bool) -> u32 {
    let family = if candidate.addr().is_ipv6() { 65_535 } else { 65_534 };
    let first = if is_last_resort { family - 32_768 } else { family };
    let rank = u32::try_from(same_kind).unwrap_or(u32::MAX).min(10_000);
    first - 2 * rank
}

fn host_candidate(address: &SocketAddr) -> Option<is::Candidate> {
    is::Candidate::host(*address, "udp").ok()
}

fn relayed_candidate(address: &SocketAddr) -> Option<is::Candidate> {
    is::Candidate::relayed(*address, *address, "udp").ok()
}

fn remote_candidate(candidate: &Candidate) -> is::Candidate {
    let (kind, preference) = match candidate.kind {
        CandidateKind::Host => (is::CandidateKind::Host, HOST),
        CandidateKind::ServerReflexive => (is::CandidateKind::ServerReflexive, SERVER_REFLEXIVE),
        CandidateKind::Relayed => (is::CandidateKind::Relayed, RELAYED),
    };
    let within = if candidate.address.is_ipv6() { PREFERENCE + 1 } else { PREFERENCE };
    let priority = preference << 24 | within << 8 | COMPONENT;
    let foundation = "1".to_owned();
    is::Candidate::from_parts(
        foundation,
        1,
        Protocol::Udp,
        priority,
        candidate.address,
        kind,
        None,
        None,
        None,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(name: &str) -> IceCredentials {
        IceCredentials { ufrag: name.to_owned(), password: format!("the password of {name} itself") }
    }

    fn pair_of_agents(now: Instant) -> (Ice, Ice) {
        let mut client = Ice::new(true, 1, &credentials("client"), &credentials("gateway"));
        let mut gateway = Ice::new(false, 2, &credentials("gateway"), &credentials("client"));
        for (ice, local) in [(&mut client, [192, 0, 2, 1]), (&mut gateway, [192, 0, 2, 2])] {
            ice.set_locals(now, &BTreeSet::from([(local, 7).into()]), &BTreeSet::new());
            ice.start(now);
        }
        (client, gateway)
    }

    #[test]
    fn learned_addresses_are_bounded_and_every_check_is_answered() {
        let now = Instant::now();
        let (client, mut gateway) = pair_of_agents(now);
        for port in 1000..1500 {
            let (_, request) = client.probe().unwrap();
            let pair = Pair { local: ([192, 0, 2, 2], 7).into(), remote: ([192, 0, 2, 1], port).into() };
            let message = StunMessage::parse(&request).unwrap();
            assert!(gateway.handle_message(now, pair, message));
            let sent: Vec<Check> = std::iter::from_fn(|| gateway.poll_check()).collect();
            let answers = sent.iter().filter(|check| check.pair == pair && check.transaction.is_none());
            let authentic = |check: &&Check| client.is_answer(&StunMessage::parse(&check.datagram).unwrap());
            assert_eq!(answers.filter(authentic).count(), 1, "port {port}");
            assert!(gateway.remote_addresses().count() <= MAX_LEARNED);
        }
    }

    #[test]
    fn probes_are_for_the_peer_alone() {
        let now = Instant::now();
        let (client, mut gateway) = pair_of_agents(now);
        let (_, request) = client.probe().unwrap();
        let mut stranger = Ice::new(true, 3, &credentials("gateway"), &credentials("another"));
        let pair = Pair { local: ([192, 0, 2, 2], 7).into(), remote: ([192, 0, 2, 1], 7).into() };
        assert!(!stranger.handle_message(now, pair, StunMessage::parse(&request).unwrap()));
        assert!(gateway.handle_message(now, pair, StunMessage::parse(&request).unwrap()));
        let answer = std::iter::from_fn(|| gateway.poll_check()).find(|check| check.transaction.is_none());
        let answer = answer.unwrap().datagram;
        assert!(client.is_answer(&StunMessage::parse(&answer).unwrap()));
        assert!(!stranger.is_answer(&StunMessage::parse(&answer).unwrap()));
    }

    #[test]
    fn a_relay_is_told_by_its_address() {
        let now = Instant::now();
        let (mut client, _) = pair_of_agents(now);
        let candidate = |kind, ip, port| Candidate { kind, address: (ip, port).into(), base: None };
        client.add_remotes(
            now,
            &[
                candidate(CandidateKind::Relayed, [198, 51, 100, 1], 50_000),
                candidate(CandidateKind::Host, [192, 0, 2, 2], 7),
            ],
        );
        let relayed = |ip: [u8; 4], port: u16| client.is_relayed_remote((ip, port).into());
        assert!(relayed([198, 51, 100, 1], 50_000) && relayed([198, 51, 100, 1], 50_001));
        assert!(!relayed([192, 0, 2, 2], 7) && !relayed([192, 0, 2, 2], 8) && !relayed([192, 0, 2, 3], 7));
        let pairs = client.pairs();
        assert_eq!(pairs.len(), 2);
        assert!(!client.is_relayed(pairs[0]) && client.is_relayed(pairs[1]), "direct first");
    }
}
