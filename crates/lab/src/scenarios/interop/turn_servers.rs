//! Our relay and coturn side by side, for judges that visit one after the other.
//!
//! What a judge finds with both is the judge's way; what it finds with ours alone is ours to mend.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};

use super::ground::Machine;
use crate::coturn::Build;
use crate::coturn::server::{Setup, TurnServer};
use crate::process;
use crate::system::{Alone, Programs, Relay, StateDir};
use crate::topology::Families;

/// What servers and users make credentials from.
pub(super) const SECRET: &str = "a secret of this scenario";

/// How long credentials are good, in seconds.
const CREDENTIAL_LIFETIME: u64 = 3_600;

/// Longest wait for a tool that only computes.
const TOOL_LIMIT: Duration = Duration::from_secs(10);

/// Whose server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    Adit,
    Coturn,
}

impl Server {
    pub(super) const BOTH: [Self; 2] = [Self::Adit, Self::Coturn];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Adit => "adit-relay",
            Self::Coturn => "coturn",
        }
    }
}

/// How clients reach a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
    Tls,
}

impl Transport {
    pub(super) const ALL: [Self; 3] = [Self::Udp, Self::Tcp, Self::Tls];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Udp => "UDP",
            Self::Tcp => "TCP",
            Self::Tls => "TLS",
        }
    }

    /// Where both servers listen for it.
    pub(super) const fn port(self) -> u16 {
        match self {
            Self::Udp | Self::Tcp => Relay::PORT,
            Self::Tls => 5349,
        }
    }

    /// The server as clients are told of it (RFC 7065).
    pub(super) fn uri(self, machine: &Machine) -> String {
        let (scheme, transport) = match self {
            Self::Udp => ("turn", "udp"),
            Self::Tcp => ("turn", "tcp"),
            Self::Tls => ("turns", "tcp"),
        };
        format!("{scheme}:{}:{}?transport={transport}", machine.address.v4, self.port())
    }
}

/// What the two are told besides what they always are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options<'a> {
    pub(super) adit: &'a [&'a str],
    pub(super) coturn: &'a [&'a str],
}

/// Both servers, running.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) adit: Relay,
    _coturn: TurnServer,
    /// The certificate of both, in PEM.
    pub(super) certificate: PathBuf,
    pub(super) state: StateDir,
}

impl Servers {
    /// Starts each on its machine.
    pub(super) fn start(
        [adit, coturn]: [&Machine; 2],
        programs: &Programs,
        options: Options<'_>,
    ) -> Result<Self> {
        let state = StateDir::create()?;
        let [certificate, key] = make_certificate(&state, [adit, coturn])?;
        let [certificate_file, key_file] =
            [&certificate, &key].map(|file| file.to_string_lossy().into_owned());
        let port = Transport::Tls.port().to_string();
        let tls = ["--tls-port", &port, "--tls-certificate", &certificate_file, "--tls-key", &key_file];
        let arguments: Vec<&str> = options.adit.iter().copied().chain(tls).collect();
        let alone =
            Alone { address: adit.address, families: Families::Both, secret: SECRET, arguments: &arguments };
        let files = [format!("--cert={}", certificate.display()), format!("--pkey={}", key.display())];
        let arguments = options.coturn.iter().map(Into::into).chain(files.iter().map(Into::into));
        let setup = Setup {
            build: &Build::installed("installed"),
            address: coturn.address,
            families: Families::Both,
            secret: SECRET,
            directory: &state.of("coturn")?,
            arguments: arguments.chain(["-v".into(), "--no-auth-pings".into()]).collect(),
        };
        Ok(Self {
            adit: Relay::start_alone(&adit.host, &alone, programs)?,
            _coturn: TurnServer::start(&coturn.host, &setup)?,
            certificate,
            state,
        })
    }
}

/// A certificate for the addresses of both, signed by itself, and its key.
fn make_certificate(state: &StateDir, machines: [&Machine; 2]) -> Result<[PathBuf; 2]> {
    let directory = state.of("tls")?;
    let files = ["certificate.pem", "key.pem"].map(|name| directory.join(name));
    let names: Vec<String> = machines
        .iter()
        .flat_map(|machine| [machine.address.v4.to_string(), machine.address.v6.to_string()])
        .map(|address| format!("IP:{address}"))
        .collect();
    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
        .args(["-days", "2", "-subj", "/CN=adit-lab"])
        // A server's own: what may sign others is refused as a server by some.
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-addext"])
        .arg(format!("subjectAltName={}", names.join(",")))
        .arg("-out")
        .arg(&files[0])
        .arg("-keyout")
        .arg(&files[1]);
    let finished = process::finish(command, TOOL_LIMIT).context("starting openssl")?;
    if !finished.success() {
        bail!("openssl req: {}", finished.complaint());
    }
    Ok(files)
}

/// User name and password of somebody under [`SECRET`].
pub(super) fn credentials(user: &str) -> Result<(String, String)> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let username = format!("{}:{user}", now + CREDENTIAL_LIFETIME);
    let script = "openssl dgst -sha1 -hmac \"$0\" -binary | openssl base64";
    let mut command = Command::new("sh");
    command.args(["-c", script, SECRET]);
    let finished = process::finish_with_input(command, username.as_bytes(), TOOL_LIMIT)?;
    if !finished.success() {
        bail!("openssl dgst: {}", finished.complaint());
    }
    Ok((username, finished.stdout.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_those_of_the_rest_interface() {
        let (username, password) = credentials("lab").unwrap();
        assert!(username.ends_with(":lab"));
        // 20 bytes in base64.
        assert_eq!((password.len(), password.ends_with('=')), (28, true));
    }
}
