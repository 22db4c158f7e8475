//! What the arguments mean, checked before anything is opened.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_turn::Family;
use adit_turn::server::Limits;
use anyhow::{Context as _, bail, ensure};

use crate::arguments::{Arguments, Xdp};
use crate::certificate::Source;
use crate::streams;

/// Shards unless told otherwise: the kernel's network stack needs processors too.
const MAX_DEFAULT_SHARDS: usize = 4;

/// Characters of a secret that people choose.
const SHORTEST_SECRET: usize = 8;

/// Whom the relay serves.
pub(crate) enum Mode {
    /// Everybody with credentials under this secret.
    Alone {
        /// The secret.
        secret: String,
        /// The one before; still accepted.
        previous: Option<String>,
    },
    /// The users of a portal.
    Portal(Box<PortalSettings>),
}

impl std::fmt::Debug for Mode {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Alone { .. } => formatter.write_str("Alone"),
            Self::Portal(portal) => portal.fmt(formatter),
        }
    }
}

/// How to reach the portal.
pub(crate) struct PortalSettings {
    pub(crate) session: adit_control_client::Config,
    pub(crate) name: String,
    pub(crate) state_dir: PathBuf,
    pub(crate) rotate_secret: bool,
}

impl std::fmt::Debug for PortalSettings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("PortalSettings").field("session", &self.session).finish_non_exhaustive()
    }
}

/// One address family of the relay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    /// Where others reach it.
    pub(crate) public: IpAddr,
    /// What to bind.
    pub(crate) bind: IpAddr,
}

/// Listening with TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TlsSettings {
    pub(crate) port: u16,
    pub(crate) source: Source,
    pub(crate) name: Option<String>,
}

/// Whether and how the kernel forwards.
#[derive(Clone, Debug)]
pub(crate) struct XdpSettings {
    pub(crate) mode: Xdp,
    /// Where clients and peers come in; empty: the interfaces with the relay's addresses.
    pub(crate) interfaces: Vec<String>,
    /// Most channels at a time.
    pub(crate) routes: u32,
}

/// Where the relay is and what it opens: what can be said without knowing whom it serves.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) v4: Option<Address>,
    pub(crate) v6: Option<Address>,
    pub(crate) port: u16,
    pub(crate) tcp_port: Option<u16>,
    pub(crate) tls: Option<TlsSettings>,
    pub(crate) ports: RangeInclusive<u16>,
    pub(crate) shards: usize,
    pub(crate) limits: Limits,
    pub(crate) stream_limits: streams::Limits,
    pub(crate) xdp: XdpSettings,
    pub(crate) health: Option<SocketAddr>,
}

/// Everything the relay needs to start.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    pub(crate) place: Place,
    pub(crate) allowed_peers: Vec<ipnet::IpNet>,
    pub(crate) drain_timeout: Duration,
}

impl Settings {
    /// Checks the arguments.
    ///
    /// # Errors
    ///
    /// What is wrong with them, for people.
    pub(crate) fn new(arguments: Arguments) -> anyhow::Result<Self> {
        Ok(Self {
            place: Place::new(&arguments)?,
            allowed_peers: arguments.allowed_peers.clone(),
            drain_timeout: Duration::from_secs(arguments.drain_timeout.into()),
            mode: mode(arguments)?,
        })
    }
}

impl Place {
    /// Checks the arguments.
    ///
    /// # Errors
    ///
    /// What is wrong with them, for people.
    pub(crate) fn new(arguments: &Arguments) -> anyhow::Result<Self> {
        let ports = lent_ports(arguments)?;
        let limits = Limits {
            allocations: arguments.max_allocations,
            allocations_per_user: arguments.max_allocations_per_user,
            grants_per_user: arguments.max_grants_per_user,
            packets_per_second: arguments.max_packets_per_second,
            bytes_per_second: arguments.max_bytes_per_second,
            unauthenticated_replies: arguments.max_unauthenticated_replies,
            ..Limits::default()
        };
        let stream_limits = streams::Limits {
            connections: arguments.max_connections,
            per_address: arguments.max_connections_per_address,
            idle_timeout: Duration::from_secs(arguments.connection_timeout.into()),
        };
        let address = |public: Option<IpAddr>, bind: Option<IpAddr>| {
            public.map(|public| Address { public, bind: bind.unwrap_or_else(|| default_bind(public)) })
        };
        let default_tcp_port = arguments.static_secret.as_ref().map(|_| arguments.port);
        let tcp_port = arguments.tcp_port.or(default_tcp_port).filter(|port| *port != 0);
        Ok(Self {
            v4: address(arguments.public_ipv4.map(IpAddr::V4), arguments.bind_ipv4.map(IpAddr::V4)),
            v6: address(arguments.public_ipv6.map(IpAddr::V6), arguments.bind_ipv6.map(IpAddr::V6)),
            port: arguments.port,
            tcp_port,
            tls: tls(arguments, tcp_port)?,
            shards: shards(arguments.shards).min(ports.len()),
            ports,
            limits,
            stream_limits,
            xdp: XdpSettings {
                mode: arguments.xdp,
                interfaces: arguments.xdp_interfaces.clone(),
                routes: arguments.xdp_routes,
            },
            health: arguments.health,
        })
    }

    /// The public IPv4 address.
    pub(crate) fn public_v4(&self) -> Option<Ipv4Addr> {
        self.v4.and_then(|address| if let IpAddr::V4(ip) = address.public { Some(ip) } else { None })
    }

    /// The public IPv6 address.
    pub(crate) fn public_v6(&self) -> Option<Ipv6Addr> {
        self.v6.and_then(|address| if let IpAddr::V6(ip) = address.public { Some(ip) } else { None })
    }

    /// The address of a family, if the relay has one.
    pub(crate) fn address(&self, family: Family) -> Option<Address> {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }

    /// The ports to lend, a part for each shard, as equal as can be.
    pub(crate) fn ports_by_shard(&self) -> Vec<RangeInclusive<u16>> {
        let (first, count, shards) =
            (u32::from(*self.ports.start()), self.ports.len() as u32, self.shards as u32);
        let bound = |shard: u32| first + count * shard / shards;
        (0..shards).map(|shard| bound(shard) as u16..=(bound(shard + 1) - 1) as u16).collect()
    }
}

fn lent_ports(arguments: &Arguments) -> anyhow::Result<RangeInclusive<u16>> {
    let ports = arguments.min_port..=arguments.max_port;
    ensure!(
        !ports.is_empty(),
        "--min-port {} is above --max-port {}",
        arguments.min_port,
        arguments.max_port
    );
    ensure!(
        !ports.contains(&arguments.port),
        "--port {} is among the ports to lend ({} to {})",
        arguments.port,
        ports.start(),
        ports.end()
    );
    Ok(ports)
}

fn shards(wanted: Option<u16>) -> usize {
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    wanted.map_or_else(|| processors().min(MAX_DEFAULT_SHARDS), usize::from)
}

fn tls(arguments: &Arguments, tcp_port: Option<u16>) -> anyhow::Result<Option<TlsSettings>> {
    let Some(port) = arguments.tls_port else { return Ok(None) };
    ensure!(tcp_port != Some(port), "--tls-port {port} is the TCP port already");
    let address =
        arguments.public_ipv4.map(|ip| ip.to_string()).or(arguments.public_ipv6.map(|ip| ip.to_string()));
    let (source, default_name) = match (&arguments.tls_certificate, &arguments.tls_key) {
        (Some(chain), Some(key)) => (Source::Files { chain: chain.clone(), key: key.clone() }, None),
        // Without a portal nobody could tell clients which certificate to expect.
        _ if arguments.static_secret.is_some() => bail!("--tls-port needs --tls-certificate and --tls-key"),
        _ => (Source::Own, address),
    };
    Ok(Some(TlsSettings { port, source, name: arguments.tls_name.clone().or(default_name) }))
}

fn mode(arguments: Arguments) -> anyhow::Result<Mode> {
    if let Some(secret) = arguments.static_secret {
        let previous = arguments.previous_static_secret;
        let is_short = |secret: &String| secret.len() < SHORTEST_SECRET;
        ensure!(
            !is_short(&secret) && !previous.as_ref().is_some_and(is_short),
            "--static-secret is shorter than {SHORTEST_SECRET} characters: anybody could guess it"
        );
        return Ok(Mode::Alone { secret, previous });
    }
    let Some(portal) = arguments.portal else { bail!("give --portal or --static-secret") };
    let token = match (arguments.token, &arguments.token_file) {
        (Some(token), _) => token.trim().to_owned(),
        (None, Some(path)) => read(path)?.trim().to_owned(),
        (None, None) => bail!("no token: give --token-file, --token or ADIT_TOKEN"),
    };
    ensure!(!token.is_empty(), "the token is empty");
    let ca = arguments.ca.as_deref().map(adit_control_client::read_authority).transpose()?;
    let session = crate::portal::session_config(&portal, token, ca, arguments.insecure_plain_portal)?;
    Ok(Mode::Portal(Box::new(PortalSettings {
        session,
        name: arguments.name.unwrap_or_else(host_name),
        state_dir: arguments.state_dir,
        rotate_secret: arguments.rotate_secret,
    })))
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "adit-relay".to_owned())
}

/// The public address if this machine has it: replies then leave from where requests came to, however many addresses there are. Behind a
/// one-to-one NAT it does not, and the wildcard serves.
fn default_bind(public: IpAddr) -> IpAddr {
    if UdpSocket::bind((public, 0)).is_ok() {
        return public;
    }
    match public {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    const ALONE: &str = "adit-relay --static-secret 12345678 --public-ipv4 192.0.2.1";

    fn settings(line: &str) -> anyhow::Result<Settings> {
        Settings::new(Arguments::try_parse_from(line.split(' ')).expect("parses"))
    }

    fn place(more: &str) -> Place {
        settings(&format!("{ALONE} {more}")).expect("sound").place
    }

    #[test]
    fn contradictions_are_named() {
        for (line, complaint) in [
            (format!("{ALONE} --min-port 3000"), "--port 3478"),
            (format!("{ALONE} --min-port 60000 --max-port 50000"), "above"),
            (format!("{ALONE} --tls-port 443"), "--tls-certificate"),
            (format!("{ALONE} --tcp-port 443 --tls-port 443 --tls-certificate c --tls-key k"), "443"),
            ("adit-relay --static-secret short --public-ipv4 192.0.2.1".to_owned(), "guess"),
            ("adit-relay --portal wss://p.example --public-ipv4 192.0.2.1".to_owned(), "no token"),
            (
                "adit-relay --portal wss://p --token-file /nonexistent --public-ipv4 192.0.2.1".to_owned(),
                "/nonexistent",
            ),
            ("adit-relay --portal ftp://p --token t --public-ipv4 192.0.2.1".to_owned(), "ftp://p"),
        ] {
            let error = format!("{:#}", settings(&line).expect_err(&line));
            assert!(error.contains(complaint), "{line}: {error}");
        }
    }

    #[test]
    fn the_public_address_is_bound_where_it_is_ours() {
        let ours =
            settings("adit-relay --static-secret 12345678 --public-ipv4 127.0.0.1").expect("sound").place;
        assert_eq!(ours.v4.expect("IPv4").bind.to_string(), "127.0.0.1");
        let natted = place("--port 3478");
        assert_eq!(natted.v4.expect("IPv4").bind.to_string(), "0.0.0.0");
        assert!(natted.v6.is_none());
    }

    #[test]
    fn streams_are_on_by_default_only_where_any_client_may_come() {
        assert_eq!((place("--port 3478").tcp_port, place("--port 3478").tls), (Some(3478), None));
        assert_eq!(place("--tcp-port 0").tcp_port, None);
        let portal = "adit-relay --portal wss://p --token t --public-ipv4 192.0.2.1";
        let joined = settings(portal).expect("sound").place;
        assert_eq!((joined.tcp_port, joined.tls), (None, None));
        let joined = settings(&format!("{portal} --tls-port 443 --tcp-port 80")).expect("sound").place;
        let tls = TlsSettings { port: 443, source: Source::Own, name: Some("192.0.2.1".to_owned()) };
        assert_eq!((joined.tcp_port, joined.tls), (Some(80), Some(tls)));
    }

    #[test]
    fn each_shard_has_its_own_part_of_the_ports() {
        let parts = place("--shards 3 --min-port 50000 --max-port 50009").ports_by_shard();
        assert_eq!(parts, [50_000..=50_002, 50_003..=50_005, 50_006..=50_009]);
        let parts = place("--shards 4 --min-port 65534").ports_by_shard();
        assert_eq!(parts, [65_534..=65_534, 65_535..=65_535], "no more shards than ports");
        let all = place("--shards 64").ports_by_shard();
        assert_eq!(all.iter().map(ExactSizeIterator::len).sum::<usize>(), 16_384);
    }
}
