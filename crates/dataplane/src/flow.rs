//! What a flow is: where its packets come from, what is done to them, where they go.

use std::net::IpAddr;

use adit_packet::{FlowTuple, Rewrite, protocol};

/// A peer, by the number that the control thread gave it. Never used again.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct PeerId(pub u64);

/// The authorization that a flow rests on. When it is revoked, its flows end at once.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct GrantId(pub u64);

/// Where a packet came from; part of the key, so that nobody can use the flow of another.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub enum Origin {
    /// Our TUN device.
    Local,
    /// The tunnel of a peer.
    Peer(PeerId),
}

/// Where a packet goes.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub enum NextHop {
    /// Our TUN device.
    Tun,
    /// The tunnel of a peer.
    Peer(PeerId),
}

/// How packets of a flow are recognised in one direction.
#[derive(Copy, Clone, Debug, Eq, PartialEq, Hash, Ord, PartialOrd)]
pub struct FlowKey {
    /// Where they come from.
    pub origin: Origin,
    /// IP protocol number.
    pub protocol: u8,
    /// Source address, as it arrives.
    pub source: IpAddr,
    /// Destination address, as it arrives.
    pub destination: IpAddr,
    /// Source port; the identifier for ICMP echo; 0 for protocols without ports.
    pub source_port: u16,
    /// Destination port; the identifier for ICMP echo; 0 for protocols without ports.
    pub destination_port: u16,
}

impl FlowKey {
    /// The key of packets with this tuple from this origin.
    #[must_use]
    pub const fn new(origin: Origin, tuple: FlowTuple) -> Self {
        let FlowTuple { protocol, source, destination, source_port, destination_port } = tuple;
        Self { origin, protocol, source, destination, source_port, destination_port }
    }

    /// The tuple without the origin.
    #[must_use]
    pub const fn tuple(&self) -> FlowTuple {
        let Self { protocol, source, destination, source_port, destination_port, .. } = *self;
        FlowTuple { protocol, source, destination, source_port, destination_port }
    }
}

/// A decision of the control thread about one flow, both directions.
///
/// *Forward* is the direction of the flow's first packet. After the forward rewrite a packet
/// must have the tuple of `reply_key` reversed, and after the reverse rewrite that of `key`
/// reversed; [`Flow::new`] derives both rewrites that way. A flow that breaks this rule is
/// not installed. The two keys may be of different IP families (one protocol is ICMP then where the other is ICMPv6):
/// packets are translated on their way.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub struct Flow {
    /// How forward packets are recognised.
    pub key: FlowKey,
    /// How replies are recognised, as they arrive from the other side.
    pub reply_key: FlowKey,
    /// What is changed in forward packets.
    pub forward: Rewrite,
    /// What is changed in replies.
    pub reverse: Rewrite,
    /// What the flow rests on.
    pub grant: GrantId,
    /// Where forward packets go; not where they come from.
    pub to: NextHop,
    /// Where replies go; not where they come from.
    pub reply_to: NextHop,
}

impl Flow {
    /// A flow with the rewrites that follow from its keys, and replies that go back to where
    /// forward packets come from.
    ///
    /// `reply_key.origin` says where forward packets go.
    #[must_use]
    pub fn new(key: FlowKey, reply_key: FlowKey, grant: GrantId) -> Self {
        Self {
            key,
            reply_key,
            forward: translation(&key, &reply_key),
            reverse: translation(&reply_key, &key),
            grant,
            to: hop_to(reply_key.origin),
            reply_to: hop_to(key.origin),
        }
    }

    /// A flow without any rewrite between two origins.
    #[must_use]
    pub fn untranslated(key: FlowKey, to: Origin, grant: GrantId) -> Self {
        Self::new(key, FlowKey::new(to, key.tuple().reversed()), grant)
    }

    /// Whether its two ends speak different IP families.
    #[must_use]
    pub const fn changes_family(&self) -> bool {
        self.key.source.is_ipv4() != self.reply_key.source.is_ipv4()
    }

    /// The protocol that the other end must speak.
    const fn protocol_beyond(&self) -> u8 {
        match self.key.protocol {
            protocol::ICMP if self.changes_family() => protocol::ICMPV6,
            protocol::ICMPV6 if self.changes_family() => protocol::ICMP,
            other => other,
        }
    }

    /// Whether the flow does what its keys say.
    pub(crate) fn is_consistent(&self) -> bool {
        let derived = Self::new(self.key, self.reply_key, self.grant);
        self.to == derived.to
            && self.reply_to == derived.reply_to
            && is_local(&self.key) != is_local(&self.reply_key)
            && is_of_one_family(&self.key)
            && is_of_one_family(&self.reply_key)
            && self.reply_key.protocol == self.protocol_beyond()
            && leads_to(&self.forward, &self.key, &self.reply_key)
            && leads_to(&self.reverse, &self.reply_key, &self.key)
    }
}

/// The rewrite after which packets of `key` have the tuple of `opposite` reversed.
pub(crate) fn translation(key: &FlowKey, opposite: &FlowKey) -> Rewrite {
    Rewrite {
        source: changed(key.source, opposite.destination),
        destination: changed(key.destination, opposite.source),
        source_port: changed(key.source_port, opposite.destination_port),
        destination_port: changed(key.destination_port, opposite.source_port),
    }
}

fn changed<T: PartialEq>(before: T, after: T) -> Option<T> {
    (before != after).then_some(after)
}

const fn is_local(key: &FlowKey) -> bool {
    matches!(key.origin, Origin::Local)
}

const fn hop_to(origin: Origin) -> NextHop {
    match origin {
        Origin::Local => NextHop::Tun,
        Origin::Peer(peer) => NextHop::Peer(peer),
    }
}

const fn is_of_one_family(key: &FlowKey) -> bool {
    key.source.is_ipv4() == key.destination.is_ipv4()
}

/// Whether `rewrite` does what [`translation`] would; naming an unchanged field is fine.
fn leads_to(rewrite: &Rewrite, key: &FlowKey, opposite: &FlowKey) -> bool {
    let echo = matches!(key.protocol, protocol::ICMP | protocol::ICMPV6);
    // An echo has one identifier; either field may name its new value.
    let echo_port = rewrite.source_port.or(rewrite.destination_port);
    let (source_port, destination_port) =
        if echo { (echo_port, echo_port) } else { (rewrite.source_port, rewrite.destination_port) };
    rewrite.source.unwrap_or(key.source) == opposite.destination
        && rewrite.destination.unwrap_or(key.destination) == opposite.source
        && source_port.unwrap_or(key.source_port) == opposite.destination_port
        && destination_port.unwrap_or(key.destination_port) == opposite.source_port
}

/// What a flow carried, in inner packets and bytes.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub struct FlowCounters {
    /// Packets in the direction of the first packet.
    pub forward_packets: u64,
    /// Bytes in the direction of the first packet.
    pub forward_bytes: u64,
    /// Packets of replies.
    pub reverse_packets: u64,
    /// Bytes of replies.
    pub reverse_bytes: u64,
}
