//! What the arguments mean, checked before anything is opened.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use adit_turn::Family;
use adit_turn::server::Limits;
use anyhow::{Context as _, bail, ensure};

use crate::arguments::Arguments;

/// Whom the relay serves.
#[derive(Debug)]
pub(crate) enum Mode {
    /// Everybody with credentials under this secret.
    Alone {
        /// The secret.
        secret: String,
    },
    /// The users of a portal.
    Portal(Box<PortalSettings>),
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

/// Everything the relay needs to start.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) mode: Mode,
    pub(crate) v4: Option<Address>,
    pub(crate) v6: Option<Address>,
    pub(crate) port: u16,
    pub(crate) ports: std::ops::RangeInclusive<u16>,
    pub(crate) allowed_peers: Vec<ipnet::IpNet>,
    pub(crate) limits: Limits,
    pub(crate) drain_timeout: Duration,
    pub(crate) health: Option<SocketAddr>,
}

impl Settings {
    /// Checks the arguments.
    ///
    /// # Errors
    ///
    /// What is wrong with them, for people.
    pub(crate) fn new(arguments: Arguments) -> anyhow::Result<Self> {
        ensure!(
            arguments.min_port <= arguments.max_port,
            "--min-port {} is above --max-port {}",
            arguments.min_port,
            arguments.max_port
        );
        let ports = arguments.min_port..=arguments.max_port;
        ensure!(
            !ports.contains(&arguments.port),
            "--port {} is among the ports to lend ({} to {})",
            arguments.port,
            ports.start(),
            ports.end()
        );
        let limits = Limits {
            allocations: arguments.max_allocations,
            allocations_per_user: arguments.max_allocations_per_user,
            ..Limits::default()
        };
        let address = |public: Option<IpAddr>, bind: Option<IpAddr>| {
            public.map(|public| Address { public, bind: bind.unwrap_or_else(|| default_bind(public)) })
        };
        Ok(Self {
            v4: address(arguments.public_ipv4.map(IpAddr::V4), arguments.bind_ipv4.map(IpAddr::V4)),
            v6: address(arguments.public_ipv6.map(IpAddr::V6), arguments.bind_ipv6.map(IpAddr::V6)),
            port: arguments.port,
            ports,
            allowed_peers: arguments.allowed_peers.clone(),
            limits,
            drain_timeout: Duration::from_secs(arguments.drain_timeout.into()),
            health: arguments.health,
            mode: mode(arguments)?,
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
}

fn mode(arguments: Arguments) -> anyhow::Result<Mode> {
    if let Some(secret) = arguments.static_secret {
        ensure!(secret.len() >= 8, "--static-secret is shorter than 8 characters: anybody could guess it");
        return Ok(Mode::Alone { secret });
    }
    let Some(portal) = arguments.portal else { bail!("give --portal or --static-secret") };
    let token = match (arguments.token, &arguments.token_file) {
        (Some(token), _) => token.trim().to_owned(),
        (None, Some(path)) => read(path)?.trim().to_owned(),
        (None, None) => bail!("no token: give --token-file, --token or ADIT_TOKEN"),
    };
    ensure!(!token.is_empty(), "the token is empty");
    let ca = arguments.ca.as_deref().map(|path| read(path).map(String::into_bytes)).transpose()?;
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

    fn settings(line: &str) -> anyhow::Result<Settings> {
        Settings::new(Arguments::try_parse_from(line.split(' ')).expect("parses"))
    }

    #[test]
    fn contradictions_are_named() {
        for (line, complaint) in [
            ("adit-relay --static-secret 12345678 --public-ipv4 192.0.2.1 --min-port 3000", "--port 3478"),
            (
                "adit-relay --static-secret 12345678 --public-ipv4 192.0.2.1 --min-port 60000 --max-port 50000",
                "above",
            ),
            ("adit-relay --static-secret short --public-ipv4 192.0.2.1", "guess"),
            ("adit-relay --portal wss://p.example --public-ipv4 192.0.2.1", "no token"),
            ("adit-relay --portal wss://p --token-file /nonexistent --public-ipv4 192.0.2.1", "/nonexistent"),
            ("adit-relay --portal ftp://p --token t --public-ipv4 192.0.2.1", "ftp://p"),
        ] {
            let error = format!("{:#}", settings(line).expect_err(line));
            assert!(error.contains(complaint), "{line}: {error}");
        }
    }

    #[test]
    fn the_public_address_is_bound_where_it_is_ours() {
        let ours = settings("adit-relay --static-secret 12345678 --public-ipv4 127.0.0.1").expect("sound");
        assert_eq!(ours.v4.expect("IPv4").bind.to_string(), "127.0.0.1");
        let natted = settings("adit-relay --static-secret 12345678 --public-ipv4 192.0.2.1").expect("sound");
        assert_eq!(natted.v4.expect("IPv4").bind.to_string(), "0.0.0.0");
        assert!(natted.v6.is_none());
    }
}
