//! The arguments of `aditd`.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;

use adit_client_ipc::Profile;
use adit_engine::OffloadKind;
use clap::{Parser, ValueEnum};
use url::Url;

/// How the system's resolver is pointed at the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum DnsControlKind {
    /// Ask whoever sets it on this host: one of the following four.
    Auto,
    /// systemd-resolved, over the system bus.
    Resolved,
    /// NetworkManager's global configuration, over the system bus.
    NetworkManager,
    /// The program `resolvconf` (openresolv or Debian's).
    Resolvconf,
    /// Rewrite /etc/resolv.conf while connected.
    ResolvConf,
    /// Leave the system's resolver alone; names of resources do not resolve.
    Off,
}

/// Keep a device connected to the private resources of its user.
#[derive(Debug, Parser)]
#[command(
    name = "aditd",
    version,
    after_help = "Needs root, or CAP_NET_ADMIN and /dev/net/tun.\n\
                  Exit codes: 0 stopped on request, 1 failure, 2 usage."
)]
pub(super) struct Arguments {
    /// Take settings that are not given otherwise from this TOML file; its keys are these flags.
    #[arg(long, env = "ADIT_CONFIG", value_name = "FILE")]
    pub(super) config: Option<PathBuf>,

    /// Serve this profile, beside the daemons of others: up to four networks more at the same time.
    #[arg(long, env = "ADIT_PROFILE", value_name = "NAME")]
    pub(super) profile: Option<Profile>,

    /// The portal's address, such as wss://portal.example.com.
    #[arg(long, env = "ADIT_PORTAL", value_name = "URL", required_unless_present = "cleanup")]
    pub(super) portal: Option<Url>,

    /// The CA of the portal, if no public one signed its certificate: a file with the CA's certificate (PEM), or
    /// `sha256:` and its digest.
    #[arg(long, env = "ADIT_CA", value_name = "FILE|DIGEST")]
    pub(super) ca: Option<PathBuf>,

    /// Allow an unencrypted ws:// portal. Everybody on the way can then read your token.
    #[arg(long, env = "ADIT_INSECURE_PLAIN_PORTAL")]
    pub(super) insecure_plain_portal: bool,

    /// The name of the device, shown to administrators [default: the host name].
    #[arg(long, env = "ADIT_NAME", value_name = "NAME")]
    pub(super) name: Option<String>,

    /// Where identity and token are kept; those of a profile below it in profiles/NAME. The same for all daemons of a host.
    #[arg(long, env = "ADIT_STATE_DIR", value_name = "DIR", default_value = "/var/lib/adit")]
    pub(super) state_dir: PathBuf,

    /// Where front ends connect [default: /run/adit/aditd.sock, for a profile /run/adit/profiles/NAME.sock].
    #[arg(long, env = "ADIT_SOCKET", value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,

    /// The name of the tunnel interface [default: adit0, for profiles adit1 to adit4].
    #[arg(long, env = "ADIT_INTERFACE", value_name = "NAME")]
    pub(super) interface: Option<String>,

    /// The UDP port for tunnels; 0 takes any free one.
    #[arg(long, env = "ADIT_PORT", value_name = "PORT", default_value_t = 0)]
    pub(super) port: u16,

    /// Do without these offloads of the kernel: tun, tun-udp, udp-send, udp-receive (for kernels and drivers that do
    /// not keep what they promise).
    #[arg(long, env = "ADIT_WITHOUT_OFFLOAD", value_name = "KIND", value_delimiter = ',')]
    pub(super) without_offload: Vec<OffloadKind>,

    /// Threads that move packets, 1 to 64 [default: one for each core, at most 4].
    #[arg(long, env = "ADIT_WORKERS", value_name = "COUNT", value_parser = adit_engine::parse_workers)]
    pub(super) workers: Option<NonZeroUsize>,

    /// How the system's resolver is pointed at the tunnel.
    #[arg(long, env = "ADIT_DNS_CONTROL", value_enum, default_value = "auto")]
    pub(super) dns_control: DnsControlKind,

    /// The file that says which name servers the host asks.
    #[arg(long, env = "ADIT_RESOLV_CONF", value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub(super) resolv_conf: PathBuf,

    /// Ask this server over HTTPS for names that belong to no resource, instead of those that the network names; never
    /// in the clear, and not if the portal names servers of its own.
    #[arg(long, env = "ADIT_DOH", value_name = "URL")]
    pub(super) doh: Option<Url>,

    /// Where the server of --doh is, if its URL holds no address.
    #[arg(long, env = "ADIT_DOH_ADDRESS", value_name = "ADDRESS", value_delimiter = ',', requires = "doh")]
    pub(super) doh_address: Vec<IpAddr>,

    /// Certificates (PEM) to trust for --doh instead of the public ones.
    #[arg(long, env = "ADIT_DOH_CA", value_name = "FILE", requires = "doh")]
    pub(super) doh_ca: Option<PathBuf>,

    /// Space in the state directory for reports of flows that the portal has not stored yet, in MiB; 0 reports none. A
    /// portal without a flow log is sent none.
    #[arg(
        long,
        env = "ADIT_FLOW_SPOOL",
        value_name = "MIB",
        default_value_t = 16,
        value_parser = clap::value_parser!(u64).range(0..=1024)
    )]
    pub(super) flow_spool: u64,

    /// Serve /healthz, /readyz and /metrics here.
    #[arg(long, env = "ADIT_HEALTH", value_name = "ADDRESS:PORT")]
    pub(super) health: Option<SocketAddr>,

    /// Write logs to this directory; those of a profile below it in NAME.
    #[arg(long, env = "ADIT_LOG_DIR", value_name = "DIR", default_value = "/var/log/adit")]
    pub(super) log_dir: PathBuf,

    /// What to log: error, warn, info, debug, trace, or a filter such as info,adit_peering=debug.
    #[arg(long, env = "ADIT_LOG_LEVEL", value_name = "FILTER", default_value = "info")]
    pub(super) log_level: String,

    /// Take back what a crashed daemon left behind (routes, rules, resolver) and exit.
    #[arg(long)]
    pub(super) cleanup: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }
}
