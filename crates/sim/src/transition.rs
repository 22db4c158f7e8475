//! What can happen: by users, administrators, and misfortune.

use std::time::Duration;

/// One thing that happens. Numbers name clients, gateways (of all sites), relays and resources from 0; one that does
/// not exist, or a thing that makes no sense at the moment, does nothing, so that stories can be shortened freely.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transition {
    /// An application sends a probe every so many milliseconds; 0 stops it.
    Traffic {
        /// Whose application.
        client: usize,
        /// Where to.
        resource: usize,
        /// Milliseconds between two probes.
        every_ms: u64,
    },
    /// An administrator lets a client reach a resource.
    Grant {
        /// Who.
        client: usize,
        /// What.
        resource: usize,
    },
    /// An administrator takes it away.
    Revoke {
        /// Who.
        client: usize,
        /// What.
        resource: usize,
    },
    /// The client signs out in order; its program ends.
    SignOut(usize),
    /// The client's program dies.
    CrashClient(usize),
    /// The client's program starts.
    StartClient(usize),
    /// The client's machine sleeps, and wakes after so many milliseconds.
    Sleep {
        /// Which client.
        client: usize,
        /// How long.
        for_ms: u64,
        /// Whether its steady clock stands still meanwhile, as Linux's does.
        stops_clock: bool,
    },
    /// The client moves to another network.
    Roam(usize),
    /// The client's cable is pulled.
    CutClient(usize),
    /// The client's cable is back.
    HealClient(usize),
    /// The gateway stops in order, and nobody follows.
    StopGateway(usize),
    /// The gateway makes room for a successor, which comes after so many milliseconds.
    RestartGateway {
        /// Which gateway.
        gateway: usize,
        /// How long nobody serves.
        away_ms: u64,
    },
    /// The gateway's program dies.
    CrashGateway(usize),
    /// The gateway's program starts, with nothing but its reset secret.
    StartGateway(usize),
    /// The gateway's program stands still for so many milliseconds.
    FreezeGateway {
        /// Which gateway.
        gateway: usize,
        /// How long.
        for_ms: u64,
    },
    /// The gateway's cable is pulled.
    CutGateway(usize),
    /// The gateway's cable is back.
    HealGateway(usize),
    /// A relay dies.
    CrashRelay(usize),
    /// A relay starts, empty.
    StartRelay(usize),
    /// The portal dies; what it said a moment ago is lost on the way.
    PortalDown,
    /// The portal is back.
    PortalUp,
    /// A client and a gateway cannot reach each other directly any more.
    Part {
        /// Which client.
        client: usize,
        /// Which gateway.
        gateway: usize,
    },
    /// All that were parted can reach each other again.
    Unpart,
    /// A relay's time of day jumps ahead by so many seconds.
    ClockJump {
        /// Which relay.
        relay: usize,
        /// How far.
        by_s: u64,
    },
    /// Only relays carry datagrams between clients and gateways.
    BlockDirect,
    /// Direct paths work again.
    UnblockDirect,
    /// The client's network lets no UDP out or in any more; TCP passes.
    BlockUdp(usize),
    /// It does again.
    UnblockUdp(usize),
    /// The same for a gateway's network.
    BlockGatewayUdp(usize),
    /// It does again.
    UnblockGatewayUdp(usize),
    /// Time passes, in milliseconds.
    Wait(u64),
    /// Everything that is broken is repaired.
    RepairAll,
}

impl Transition {
    /// After this time everything that can work must work again: the longest of the waits that the protocol's own
    /// timers allow for what happened.
    pub fn recovery(&self) -> Duration {
        Duration::from_millis(match self {
            Self::Traffic { .. } | Self::Wait(_) => 0,
            // An answer of the portal, a connection, and once a lost datagram or two.
            Self::Grant { .. } | Self::Revoke { .. } => 3_000,
            // Ten probes and another gateway; or the client's patience with an offline site.
            Self::CrashGateway(_) | Self::StopGateway(_) => 6_000,
            Self::Roam(_) | Self::BlockDirect | Self::UnblockDirect | Self::CrashRelay(_) => 8_000,
            // Noticed, then connected over TCP; after that UDP is tried every half a minute.
            Self::BlockUdp(_) | Self::BlockGatewayUdp(_) => 12_000,
            Self::Part { .. } | Self::Unpart | Self::ClockJump { .. } => 8_000,
            // The portal may name a gateway that is not there; a connection gets ten seconds to find out.
            Self::FreezeGateway { for_ms, .. } => 25_000 + for_ms,
            Self::RestartGateway { away_ms, .. } => 12_000 + away_ms,
            Self::Sleep { for_ms, .. } => 25_000 + for_ms,
            _ => 25_000,
        })
    }
}
