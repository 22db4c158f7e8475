//! The stories that the lab can run.
//!
//! Bounds are generous, since machines that run them are small and busy; the printed figures are what to read.

mod availability;
mod bad_input;
mod cold;
mod collision;
mod command_line;
mod download;
mod exit;
mod failover;
mod first_run;
mod flow_log;
mod goodbye;
mod harsh;
mod held;
mod interop;
mod kernel_path;
mod openapi;
mod other_family;
mod outage;
mod packets;
mod paths;
mod python;
mod relays;
mod revoke;
mod roam;
mod tcp_only;
mod two_networks;

use crate::link::Profile;
use crate::scenario::Scenario;
use crate::topology::Options;

/// Every scenario, in the order in which they run.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "direct",
        description: "Client and gateway behind NATs meet directly; a page by address.",
        run: paths::direct,
    },
    Scenario {
        name: "relayed",
        description: "Direct paths are blocked; the relay carries everything.",
        run: paths::relayed,
    },
    Scenario {
        name: "ipv6",
        description: "No IPv4 outside; the tunnel carries IPv4 over IPv6.",
        run: paths::ipv6,
    },
    Scenario {
        name: "dns",
        description: "A private name works and leaks to nobody; public names keep working.",
        run: paths::dns,
    },
    Scenario {
        name: "other-family",
        description: "A name with an address of one IP family is reached over the other one.",
        run: other_family::run,
    },
    Scenario {
        name: "collision",
        description: "Networks of the client have addresses of the tunnel: said, hidden as documented, and gone.",
        run: collision::run,
    },
    Scenario {
        name: "goodbye-shutdown",
        description: "A gateway is stopped: traffic moves to the other one, or returns with it.",
        run: goodbye::shutdown,
    },
    Scenario {
        name: "goodbye-revoked",
        description: "Access is revoked: packets stop at once and the peer is removed.",
        run: goodbye::revoked,
    },
    Scenario {
        name: "goodbye-expired",
        description: "A session ends at its time, also without the portal's help.",
        run: goodbye::expired,
    },
    Scenario {
        name: "goodbye-site-lost",
        description: "A client loses every resource of a site and says goodbye to its gateways.",
        run: goodbye::site_lost,
    },
    Scenario {
        name: "goodbye-sign-out",
        description: "Signing out ends connections, session and authorizations.",
        run: goodbye::sign_out,
    },
    Scenario {
        name: "portal-down",
        description: "Traffic outlives an outage of the portal, and new connections work after it.",
        run: availability::portal_down,
    },
    Scenario {
        name: "flow-log",
        description: "Downloads are in the flow log with their bytes, once, though portal and gateway are killed.",
        run: flow_log::run,
    },
    Scenario {
        name: "bad-input",
        description: "Garbage at every port, replays, bad tokens, impossible starts: all refused, nobody disturbed.",
        run: bad_input::run,
    },
    Scenario {
        name: "command-line",
        description: "Everything that `adit` says and does beside connecting, on a machine that is connected.",
        run: command_line::run,
    },
    Scenario {
        name: "first-run",
        description: "From nothing to a page through the tunnel with three commands, everything else in the browser.",
        run: first_run::run,
    },
    Scenario {
        name: "cold-start",
        description: "The first packet of a client that was never connected, near and on a plain network.",
        run: cold::start,
    },
    Scenario {
        name: "second-resource",
        description: "The first packet to a further resource on an open connection.",
        run: cold::second_resource,
    },
    Scenario {
        name: "restart-two-gateways",
        description: "A gateway stops in order; traffic goes on through the other one of its site.",
        run: failover::restart,
    },
    Scenario {
        name: "goodbye-lossy",
        description: "A gateway stops on a lossy network and its goodbye is lost.",
        run: goodbye::lossy,
    },
    Scenario {
        name: "failover-crash",
        description: "A gateway is killed; traffic goes on through the other one of its site.",
        run: failover::crash,
    },
    Scenario {
        name: "failover-linkdown",
        description: "A gateway's cable is pulled; traffic goes on through the other one.",
        run: failover::link_down,
    },
    Scenario {
        name: "failover-frozen",
        description: "A gateway stands still; traffic goes on through the other one.",
        run: failover::frozen,
    },
    Scenario {
        name: "roam",
        description: "The client changes its network under traffic, near and on a plain network.",
        run: roam::roam,
    },
    Scenario {
        name: "roam-portal-down",
        description: "The client changes its network while the portal is away.",
        run: roam::portal_down,
    },
    Scenario {
        name: "relay-drain",
        description: "The relay in use is stopped in order; another one carries on.",
        run: relays::drain,
    },
    Scenario {
        name: "relay-kill",
        description: "The relay in use is killed; another one carries on.",
        run: relays::kill,
    },
    Scenario {
        name: "relay-load",
        description: "Numbered datagrams through our relay arrive once and in order; strangers get little and leave nothing.",
        run: relays::load,
    },
    Scenario {
        name: "tcp-only",
        description: "The client's network lets out nothing but TCP 443: a relay's TLS, or its TCP, carries all.",
        run: tcp_only::carried,
    },
    Scenario {
        name: "tcp-only-both",
        description: "Neither client nor gateway has UDP: both reach relays over TLS.",
        run: tcp_only::both,
    },
    Scenario {
        name: "tcp-only-roam",
        description: "The client moves between a network that lets out TCP 443 alone and an open one.",
        run: tcp_only::roam,
    },
    Scenario {
        name: "tcp-only-firewall",
        description: "A firewall opens for UDP and closes again under traffic; the connection stays.",
        run: tcp_only::firewall,
    },
    Scenario {
        name: "tcp-only-load",
        description: "More is sent than a stream takes, or the line loses: it drops and goes on.",
        run: tcp_only::loads,
    },
    Scenario {
        name: "tcp-only-relay-drain",
        description: "The relay that carries the stream stops, and another one takes over.",
        run: tcp_only::drain,
    },
    Scenario {
        name: "tcp-only-relay-kill",
        description: "The relay that carries the stream is killed; the connection goes on over another one.",
        run: tcp_only::kill,
    },
    Scenario {
        name: "tcp-only-intercepted",
        description: "Somebody answers TLS in the relays' place: the client refuses and says so.",
        run: tcp_only::intercepted,
    },
    Scenario {
        name: "restart-held-tcp",
        description: "A gateway restarts on its host under 200 TCP connections, and none of them ends.",
        run: held::restart,
    },
    Scenario {
        name: "upgrade",
        description: "A gateway's program is replaced and restarted under 200 TCP connections.",
        run: held::upgrade,
    },
    Scenario {
        name: "revoke-live",
        description: "Access ends under live TCP and UDP flows.",
        run: revoke::live,
    },
    Scenario {
        name: "exit",
        description: "Everything goes through the tunnel, the local network aside, and nothing past it whatever fails.",
        run: exit::internet,
    },
    Scenario {
        name: "two-networks",
        description: "A device in two networks at once: names of both, whichever daemon holds the resolver.",
        run: two_networks::run,
    },
    Scenario {
        name: "portal-outage",
        description: "The portal is killed under traffic; what was granted ends at its time without it.",
        run: outage::portal,
    },
    Scenario {
        name: "portal-kill-commit",
        description: "The portal is killed between a decision and its telling; nothing is lost or half done.",
        run: outage::kill_after_commit,
    },
    Scenario {
        name: "lossy",
        description: "A download while one packet of five is lost.",
        run: harsh::lossy,
    },
    Scenario {
        name: "symmetric-nat-both",
        description: "Neither NAT can be predicted; a relay carries it.",
        run: harsh::symmetric,
    },
    Scenario {
        name: "without-offloads",
        description: "Kernels that lack one offload or all: what arrives is what was sent.",
        run: packets::without_offloads,
    },
    Scenario {
        name: "workers",
        description: "One worker, two or four: everything arrives, in order.",
        run: packets::workers,
    },
    Scenario {
        name: "narrow-path",
        description: "A path that carries less than Ethernet, known from the start or all of a sudden.",
        run: packets::narrow,
    },
    Scenario {
        name: "scan",
        description: "One device scans the network; another one hardly notices.",
        run: packets::scan,
    },
    Scenario {
        name: "many-clients",
        description: "A hundred devices on one gateway, which restarts; then all lose access.",
        run: harsh::many_clients,
    },
    Scenario {
        name: "interop-wireguard",
        description: "Our WireGuard against wireguard-go, either side beginning, roaming, handshaking anew.",
        run: interop::wireguard,
    },
    Scenario {
        name: "interop-turn",
        description: "coturn's client against our relay, our client against coturn's server.",
        run: interop::turn,
    },
    Scenario {
        name: "interop-turn-errors",
        description: "Everything that a relay must refuse, and with which code; coturn's answers beside ours.",
        run: interop::turn_errors,
    },
    Scenario {
        name: "openapi",
        description: "The portal's API, held against its own description by schemathesis.",
        run: openapi::run,
    },
    Scenario {
        name: "interop-aiortc",
        description: "aiortc through relays alone, over UDP, TCP and TLS, with our relay and with coturn.",
        run: interop::aiortc,
    },
    Scenario {
        name: "interop-chromium",
        description: "Chromium through relays alone, over UDP, TCP and TLS, with our relay and with coturn.",
        run: interop::chromium,
    },
    Scenario {
        name: "interop-xdp",
        description: "coturn's client against our relay, whose data goes through the kernel.",
        run: interop::xdp,
    },
    Scenario {
        name: "xdp-tunnel",
        description: "A relayed tunnel goes through the kernel, in driver and in generic mode, over IPv4 and IPv6.",
        run: kernel_path::tunnel,
    },
    Scenario {
        name: "xdp-fallback",
        description: "A full table, a stopped relay, a link that loses frames: the sockets serve what XDP does not.",
        run: kernel_path::fallback,
    },
    Scenario {
        name: "xdp-ends",
        description: "Deleted, expired, never permitted, a relay that stands still or is killed: the kernel stops too.",
        run: kernel_path::ends,
    },
];

/// A world with the distances of one country: 40 ms from client to gateway and back.
fn nearby() -> Options {
    let link = Some(Profile::delay_ms(10));
    Options { client_link: link, gateway_link: link, ..Options::default() }
}
