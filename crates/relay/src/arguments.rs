//! The arguments of `adit-relay`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use clap::{ArgGroup, Parser, ValueEnum};
use ipnet::IpNet;
use url::Url;

/// Something else than relaying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Task {
    /// Check whether this machine is fit to be a relay with these settings, and say what to do if not.
    Doctor,
}

/// Relay traffic of peers that cannot reach each other directly (STUN and TURN over UDP, TCP and TLS).
#[derive(Debug, Parser)]
#[command(
    name = "adit-relay",
    version,
    group = ArgGroup::new("mode").required(true).multiple(true).args(["portal", "static_secret", "task"]),
    group = ArgGroup::new("address").required(true).multiple(true).args(["public_ipv4", "public_ipv6", "task"]),
    after_help = "With --portal the relay serves the users of an Adit portal. With --static-secret it stands alone and serves any TURN \
                  client: the user name is `EXPIRY:NAME` (Unix seconds), the password the base64 of HMAC-SHA1(secret, user name), \
                  the realm `adit`.\n\n\
                  Signals: SIGTERM and SIGINT drain (no new allocations) and stop; a second one stops at once. SIGHUP reads the TLS \
                  certificate again. SIGUSR1 makes a new secret for the portal; credentials under the old one stay good until the next.\n\
                  Exit codes: 0 stopped on request, 1 failure, 2 usage, 4 token refused; of doctor: 0 fit, 1 not fit, 2 usage."
)]
pub(crate) struct Arguments {
    /// What to do instead of relaying.
    #[arg(value_enum)]
    pub(crate) task: Option<Task>,

    /// With doctor: print the findings as JSON.
    #[arg(long, requires = "task")]
    pub(crate) json: bool,

    /// Take settings that are not given otherwise from this TOML file; its keys are these flags.
    #[arg(long, env = "ADIT_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// The portal's address, such as wss://portal.example.com.
    #[arg(long, env = "ADIT_PORTAL", value_name = "URL")]
    pub(crate) portal: Option<Url>,

    /// The relay token that the portal made.
    #[arg(
        long,
        env = "ADIT_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        conflicts_with = "token_file"
    )]
    pub(crate) token: Option<String>,

    /// File with the relay token; keeps it out of the process list.
    #[arg(long, env = "ADIT_TOKEN_FILE", value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,

    /// The CA of the portal, if no public one signed its certificate: a file with the CA's certificate (PEM), or
    /// `sha256:` and its digest.
    #[arg(long, env = "ADIT_CA", value_name = "FILE|DIGEST")]
    pub(crate) ca: Option<PathBuf>,

    /// Allow an unencrypted ws:// portal. Everybody on the way can then use the relay.
    #[arg(long, env = "ADIT_INSECURE_PLAIN_PORTAL")]
    pub(crate) insecure_plain_portal: bool,

    /// Stand alone: serve everybody who has credentials under this secret.
    #[arg(
        long,
        env = "ADIT_STATIC_SECRET",
        hide_env_values = true,
        value_name = "SECRET",
        conflicts_with = "portal"
    )]
    pub(crate) static_secret: Option<String>,

    /// The static secret before; credentials under it stay good.
    #[arg(
        long,
        env = "ADIT_PREVIOUS_STATIC_SECRET",
        hide_env_values = true,
        value_name = "SECRET",
        requires = "static_secret"
    )]
    pub(crate) previous_static_secret: Option<String>,

    /// The name shown to administrators [default: the host name].
    #[arg(long, env = "ADIT_NAME", value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// IPv4 address under which clients and peers reach this relay.
    #[arg(long, env = "ADIT_PUBLIC_IPV4", value_name = "ADDRESS")]
    pub(crate) public_ipv4: Option<Ipv4Addr>,

    /// IPv6 address under which clients and peers reach this relay.
    #[arg(long, env = "ADIT_PUBLIC_IPV6", value_name = "ADDRESS")]
    pub(crate) public_ipv6: Option<Ipv6Addr>,

    /// IPv4 address to bind [default: the public one if this machine has it, else all].
    #[arg(long, env = "ADIT_BIND_IPV4", value_name = "ADDRESS", requires = "public_ipv4")]
    pub(crate) bind_ipv4: Option<Ipv4Addr>,

    /// IPv6 address to bind [default: the public one if this machine has it, else all].
    #[arg(long, env = "ADIT_BIND_IPV6", value_name = "ADDRESS", requires = "public_ipv6")]
    pub(crate) bind_ipv6: Option<Ipv6Addr>,

    /// Threads that relay, each with its own part of the ports to lend [default: one per processor, at most 4].
    #[arg(long, env = "ADIT_SHARDS", value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) shards: Option<u16>,

    /// UDP port for STUN and TURN.
    #[arg(long, env = "ADIT_PORT", value_name = "PORT", default_value_t = 3478, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,

    /// TCP port for STUN and TURN, 0 for none [default: the UDP port with --static-secret, none with --portal].
    #[arg(long, env = "ADIT_TCP_PORT", value_name = "PORT")]
    pub(crate) tcp_port: Option<u16>,

    /// Port for STUN and TURN over TLS, such as 443 or 5349 [default: none]. Under a portal the relay makes a certificate itself unless
    /// it is given one.
    #[arg(long, env = "ADIT_TLS_PORT", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) tls_port: Option<u16>,

    /// File with the certificate chain (PEM) for TLS. It is read again when it changes, and on SIGHUP.
    #[arg(long, env = "ADIT_TLS_CERTIFICATE", value_name = "FILE", requires_all = ["tls_port", "tls_key"])]
    pub(crate) tls_certificate: Option<PathBuf>,

    /// File with the key (PEM) of the certificate.
    #[arg(long, env = "ADIT_TLS_KEY", value_name = "FILE", requires = "tls_certificate")]
    pub(crate) tls_key: Option<PathBuf>,

    /// The name in the certificate that clients are to verify [default: its first; the public address without --tls-certificate].
    #[arg(long, env = "ADIT_TLS_NAME", value_name = "NAME", requires = "tls_port")]
    pub(crate) tls_name: Option<String>,

    /// Most TCP and TLS connections at a time.
    #[arg(long, env = "ADIT_MAX_CONNECTIONS", value_name = "COUNT", default_value_t = 10_000)]
    pub(crate) max_connections: usize,

    /// Most TCP and TLS connections from one IPv4 address or IPv6 /64 at a time.
    #[arg(long, env = "ADIT_MAX_CONNECTIONS_PER_ADDRESS", value_name = "COUNT", default_value_t = 256)]
    pub(crate) max_connections_per_address: usize,

    /// How long a TCP or TLS connection may stay without an allocation.
    #[arg(long, env = "ADIT_CONNECTION_TIMEOUT", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connection_timeout: u32,

    /// First UDP port to lend to clients.
    #[arg(long, env = "ADIT_MIN_PORT", value_name = "PORT", default_value_t = 49152, value_parser = clap::value_parser!(u16).range(1024..))]
    pub(crate) min_port: u16,

    /// Last UDP port to lend to clients.
    #[arg(long, env = "ADIT_MAX_PORT", value_name = "PORT", default_value_t = 65535, value_parser = clap::value_parser!(u16).range(1024..))]
    pub(crate) max_port: u16,

    /// Network that peers may be in although it is private or special; may be repeated, or comma-separated in the variable. Without it
    /// such peers are refused, because the relay may stand where its clients must not reach.
    #[arg(long = "allow-peer", env = "ADIT_ALLOW_PEER", value_name = "CIDR", value_delimiter = ',')]
    pub(crate) allowed_peers: Vec<IpNet>,

    /// Most allocations at a time.
    #[arg(long, env = "ADIT_MAX_ALLOCATIONS", value_name = "COUNT", default_value_t = 16_000)]
    pub(crate) max_allocations: usize,

    /// Most allocations of one user at a time.
    #[arg(long, env = "ADIT_MAX_ALLOCATIONS_PER_USER", value_name = "COUNT", default_value_t = 32)]
    pub(crate) max_allocations_per_user: usize,

    /// Most channels, and most permissions, of one user at a time.
    #[arg(long, env = "ADIT_MAX_GRANTS_PER_USER", value_name = "COUNT", default_value_t = 16_384)]
    pub(crate) max_grants_per_user: usize,

    /// Most datagrams a second that are relayed for one user, in each direction and shard [default: no bound]. What is more is dropped.
    #[arg(long, env = "ADIT_MAX_PACKETS_PER_SECOND", value_name = "COUNT")]
    pub(crate) max_packets_per_second: Option<u64>,

    /// Most bytes of data a second that are relayed for one user, in each direction and shard [default: no bound]. What is more is dropped.
    #[arg(long, env = "ADIT_MAX_BYTES_PER_SECOND", value_name = "BYTES")]
    pub(crate) max_bytes_per_second: Option<u64>,

    /// Most replies a second to requests without credentials from one IPv4 /24 or IPv6 /48. What is more draws none.
    #[arg(long, env = "ADIT_MAX_UNAUTHENTICATED_REPLIES", value_name = "COUNT", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) max_unauthenticated_replies: u32,

    /// Forward data on bound channels in the kernel: in the driver, in the kernel's common part, or in the driver where that is possible. See
    /// docs/xdp.md; the firewall does not see what is forwarded this way.
    #[arg(long, env = "ADIT_XDP", value_name = "MODE", value_enum, default_value_t = Xdp::Off)]
    pub(crate) xdp: Xdp,

    /// Interface by which clients and peers come in, for --xdp; may be repeated, or comma-separated [default: those with the relay's
    /// addresses].
    #[arg(long = "xdp-interface", env = "ADIT_XDP_INTERFACE", value_name = "NAME", value_delimiter = ',')]
    pub(crate) xdp_interfaces: Vec<String>,

    /// Most channels that --xdp forwards in the kernel at a time; more are served as without it.
    #[arg(long, env = "ADIT_XDP_ROUTES", value_name = "COUNT", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    pub(crate) xdp_routes: u32,

    /// Where the relay keeps its identity and its secret; not used with --static-secret.
    #[arg(long, env = "ADIT_STATE_DIR", value_name = "DIR", default_value = "/var/lib/adit-relay")]
    pub(crate) state_dir: PathBuf,

    /// Make a new secret before starting; credentials under the old one stay good until the next time.
    #[arg(long, env = "ADIT_ROTATE_SECRET", conflicts_with = "static_secret")]
    pub(crate) rotate_secret: bool,

    /// How long to wait for allocations to end after SIGTERM.
    #[arg(long, env = "ADIT_DRAIN_TIMEOUT", value_name = "SECONDS", default_value_t = 5)]
    pub(crate) drain_timeout: u32,

    /// Serve /healthz, /readyz and /metrics here.
    #[arg(long, env = "ADIT_HEALTH", value_name = "ADDRESS:PORT")]
    pub(crate) health: Option<SocketAddr>,

    /// Write logs to this directory instead of standard output.
    #[arg(long, env = "ADIT_LOG_DIR", value_name = "DIR")]
    pub(crate) log_dir: Option<PathBuf>,

    /// What to log: error, warn, info, debug, trace, or a filter such as info,adit_turn=debug.
    #[arg(long, env = "ADIT_LOG_LEVEL", value_name = "FILTER", default_value = "info")]
    pub(crate) log_level: String,
}

/// Whether and how the kernel forwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Xdp {
    /// In the driver where the interface is a device whose driver can do it, else not at all.
    Auto,
    /// In the driver, or the relay does not start.
    Driver,
    /// In the kernel's common part, or the relay does not start.
    Generic,
    /// Not at all.
    Off,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_mode_and_an_address_are_required_and_modes_exclude_each_other() {
        let parses = |line: &str| Arguments::try_parse_from(line.split(' ')).is_ok();
        assert!(parses("adit-relay --static-secret s --public-ipv4 192.0.2.1"));
        assert!(parses("adit-relay --portal wss://p --token t --public-ipv6 2001:db8::1"));
        assert!(!parses("adit-relay --public-ipv4 192.0.2.1"));
        assert!(!parses("adit-relay --static-secret s"));
        assert!(!parses("adit-relay --static-secret s --portal wss://p --public-ipv4 192.0.2.1"));
        assert!(!parses("adit-relay --static-secret s --public-ipv4 192.0.2.1 --port 0"));
        assert!(!parses("adit-relay --static-secret s --public-ipv4 192.0.2.1 --min-port 80"));
        assert!(!parses("adit-relay --static-secret s --public-ipv4 192.0.2.1 --allow-peer 10.0.0.0/99"));
        assert!(!parses("adit-relay --static-secret s --public-ipv4 192.0.2.1 --shards 0"));
        assert!(!parses("adit-relay --static-secret s --public-ipv4 192.0.2.1 --json"), "only with doctor");
        assert!(!parses(
            "adit-relay --static-secret s --public-ipv4 192.0.2.1 --tls-port 443 --tls-certificate c.pem"
        ));
        assert!(!parses(
            "adit-relay --static-secret s --public-ipv4 192.0.2.1 --tls-certificate c.pem --tls-key k.pem"
        ));
    }

    #[test]
    fn every_flag_is_documented() {
        let manual = include_str!("../../../docs/relay.md");
        let rows: Vec<&str> = manual.lines().filter(|line| line.starts_with("| `--")).collect();
        for argument in Arguments::command().get_arguments() {
            let Some(flag) = argument.get_long() else { continue };
            let begins = [format!("| `--{flag} "), format!("| `--{flag}` ")];
            let row = rows.iter().find(|row| begins.iter().any(|begin| row.starts_with(begin)));
            let row = row.unwrap_or_else(|| panic!("--{flag} is not in docs/relay.md"));
            if let Some(variable) = argument.get_env().and_then(|name| name.to_str()) {
                assert!(row.contains(&format!("`{variable}`")), "{row}");
            }
        }
    }

    #[test]
    fn the_doctor_needs_no_more_than_what_there_is_to_check() {
        let parses = |line: &str| Arguments::try_parse_from(line.split(' ')).is_ok();
        assert!(parses("adit-relay doctor"));
        assert!(parses("adit-relay doctor --json --portal wss://p --public-ipv4 192.0.2.1 --tls-port 443"));
        assert!(parses("adit-relay --public-ipv4 192.0.2.1 doctor"));
        assert!(!parses("adit-relay physician"));
    }
}
