//! The arguments of `adit-gateway`.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use adit_engine::OffloadKind;
use clap::Parser;
use url::Url;

/// Let clients of Adit reach the resources beside this machine.
#[derive(Debug, Parser)]
#[command(
    name = "adit-gateway",
    version,
    after_help = "Needs root, or CAP_NET_ADMIN and /dev/net/tun, and the program `nft`.\n\
                  Exit codes: 0 stopped on request, 1 failure, 2 usage, 4 token refused."
)]
pub(crate) struct Arguments {
    /// Take settings that are not given otherwise from this TOML file; its keys are these flags.
    #[arg(long, env = "ADIT_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// The portal's address, such as wss://portal.example.com.
    #[arg(long, env = "ADIT_PORTAL", value_name = "URL")]
    pub(crate) portal: Url,

    /// The gateway token that the portal made for this site.
    #[arg(
        long,
        env = "ADIT_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        conflicts_with = "token_file"
    )]
    pub(crate) token: Option<String>,

    /// File with the gateway token; keeps it out of the process list.
    #[arg(long, env = "ADIT_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// The CA of the portal, if no public one signed its certificate: a file with the CA's certificate (PEM), or
    /// `sha256:` and its digest.
    #[arg(long, env = "ADIT_CA", value_name = "FILE|DIGEST")]
    pub(crate) ca: Option<PathBuf>,

    /// Allow an unencrypted ws:// portal. Everybody on the way can then take the gateway over.
    #[arg(long, env = "ADIT_INSECURE_PLAIN_PORTAL")]
    pub(crate) insecure_plain_portal: bool,

    /// The name shown to administrators [default: the host name].
    #[arg(long, env = "ADIT_NAME", value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Where the gateway keeps its identity.
    #[arg(long, env = "ADIT_STATE_DIR", value_name = "DIR", default_value = "/var/lib/adit-gateway")]
    pub(crate) state_dir: PathBuf,

    /// The name of the tunnel interface.
    #[arg(long, env = "ADIT_INTERFACE", value_name = "NAME", default_value = "adit-gw0")]
    pub(crate) interface: String,

    /// The UDP port for tunnels; 0 takes any free one.
    #[arg(long, env = "ADIT_PORT", value_name = "PORT", default_value_t = 0)]
    pub(crate) port: u16,

    /// Do without these offloads of the kernel: tun, tun-udp, udp-send, udp-receive (for kernels and drivers that do
    /// not keep what they promise).
    #[arg(long, env = "ADIT_WITHOUT_OFFLOAD", value_name = "KIND", value_delimiter = ',')]
    pub(crate) without_offload: Vec<OffloadKind>,

    /// Threads that move packets, 1 to 64 [default: one for each core, at most 4].
    #[arg(long, env = "ADIT_WORKERS", value_name = "COUNT", value_parser = adit_engine::parse_workers)]
    pub(crate) workers: Option<NonZeroUsize>,

    /// How long clients wait for a successor, in seconds, when SIGUSR1 asks this gateway to make room for it.
    #[arg(
        long,
        env = "ADIT_RESTART_HOLD",
        value_name = "SECONDS",
        default_value_t = 10,
        value_parser = clap::value_parser!(u64).range(1..=120)
    )]
    pub(crate) restart_hold: u64,

    /// Space in the state directory for reports of flows that the portal has not stored yet, in MiB; 0 reports none.
    #[arg(
        long,
        env = "ADIT_FLOW_SPOOL",
        value_name = "MIB",
        default_value_t = 64,
        value_parser = clap::value_parser!(u64).range(0..=65_536)
    )]
    pub(crate) flow_spool: u64,

    /// Serve /healthz, /readyz and /metrics here.
    #[arg(long, env = "ADIT_HEALTH", value_name = "ADDRESS:PORT")]
    pub(crate) health: Option<SocketAddr>,

    /// Write logs to this directory instead of standard output.
    #[arg(long, env = "ADIT_LOG_DIR", value_name = "DIR")]
    pub(crate) log_dir: Option<PathBuf>,

    /// What to log: error, warn, info, debug, trace, or a filter such as info,adit_peering=debug.
    #[arg(long, env = "ADIT_LOG_LEVEL", value_name = "FILTER", default_value = "info")]
    pub(crate) log_level: String,
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
