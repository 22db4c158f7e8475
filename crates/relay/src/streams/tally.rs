//! What is counted about connections. Nothing here grows with clients.

/// Why a connection was turned away at the door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// There are too many connections.
    TooMany,
    /// There are too many from its address.
    TooManyFromAddress,
    /// There is no certificate for TLS.
    NoCertificate,
    /// The operating system has no room.
    System,
}

impl Refusal {
    pub(crate) const ALL: [Self; 4] =
        [Self::TooMany, Self::TooManyFromAddress, Self::NoCertificate, Self::System];

    /// A short name, fit as a metric label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::TooMany => "too_many",
            Self::TooManyFromAddress => "too_many_from_address",
            Self::NoCertificate => "no_certificate",
            Self::System => "system",
        }
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client closed it.
    Closed,
    /// It broke.
    Broken,
    /// TLS failed.
    Tls,
    /// What came is not TURN.
    Framing,
    /// The TLS handshake took too long.
    HandshakeTimeout,
    /// It had no allocation for too long.
    Idle,
    /// It did not read its answers.
    Overrun,
}

impl End {
    pub(crate) const ALL: [Self; 7] = [
        Self::Closed,
        Self::Broken,
        Self::Tls,
        Self::Framing,
        Self::HandshakeTimeout,
        Self::Idle,
        Self::Overrun,
    ];

    /// A short name, fit as a metric label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Broken => "broken",
            Self::Tls => "tls",
            Self::Framing => "framing",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Idle => "idle",
            Self::Overrun => "overrun",
        }
    }
}

/// The figures. Pairs are plain and encrypted connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) accepted: [u64; 2],
    /// Indexed as [`Refusal::ALL`].
    pub(crate) refused: [u64; Refusal::ALL.len()],
    /// Indexed as [`End::ALL`].
    pub(crate) ended: [u64; End::ALL.len()],
    /// Data packets and bytes that came by connections and went to peers.
    pub(crate) to_peers: [(u64, u64); 2],
    /// Data packets and bytes from peers that went to connections.
    pub(crate) to_clients: [(u64, u64); 2],
    /// Data packets dropped because a connection's queue was full.
    pub(crate) full: u64,
}

impl Tally {
    pub(crate) fn add(&mut self, other: &Self) {
        add(&mut self.accepted, &other.accepted);
        add(&mut self.refused, &other.refused);
        add(&mut self.ended, &other.ended);
        let pairs = self.to_peers.iter_mut().chain(&mut self.to_clients);
        for (ours, theirs) in pairs.zip(other.to_peers.iter().chain(&other.to_clients)) {
            ours.0 += theirs.0;
            ours.1 += theirs.1;
        }
        self.full += other.full;
    }
}

fn add(ours: &mut [u64], theirs: &[u64]) {
    for (ours, theirs) in ours.iter_mut().zip(theirs) {
        *ours += theirs;
    }
}
