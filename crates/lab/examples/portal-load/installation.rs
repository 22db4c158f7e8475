//! An installation in a temporary directory, and the program that serves it.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail, ensure};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;

use crate::Arguments;
use crate::postgres::Server;

/// A bootstrapped portal; everything is removed with it.
pub(crate) struct Installation {
    pub(crate) admin: String,
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) authority: Vec<u8>,
    program: PathBuf,
    directory: PathBuf,
    server: Option<Server>,
}

/// A portal that runs, killed when dropped.
pub(crate) struct Portal {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Installation {
    pub(crate) fn create(arguments: &Arguments) -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("adit-portal-load-{}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let server = arguments.postgres.then(Server::start).transpose()?;
        let data = directory.join("data");
        let mut command = Command::new(&arguments.portal);
        command.args([
            "bootstrap",
            "--json",
            "--url",
            "https://localhost",
            "--san",
            "127.0.0.1",
            "--data-dir",
        ]);
        command.arg(&data).args(server.iter().flat_map(|server| ["--database", &server.url]));
        let output = command.output().with_context(|| format!("running {}", arguments.portal.display()))?;
        ensure!(output.status.success(), "bootstrap: {}", String::from_utf8_lossy(&output.stderr));
        let made: Value = serde_json::from_slice(&output.stdout)?;
        let admin = made["admin_token"].as_str().context("bootstrap prints no token")?.to_owned();
        let authority = std::fs::read(data.join("tls/ca.pem"))?;
        let tls = trusting(&authority)?;
        Ok(Self { admin, tls, authority, program: arguments.portal.clone(), directory, server })
    }

    /// Starts a portal, or another node.
    pub(crate) fn serve(&self) -> Result<Portal> {
        let mut command = Command::new(&self.program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--log-level", "warn,adit_portal::serve=info"]);
        // Filling an installation is not what is measured.
        command.args(["--api-rate", "100000", "--data-dir"]).arg(self.directory.join("data"));
        command.args(self.server.iter().flat_map(|server| ["--database", &server.url]));
        let child = command.stderr(Stdio::piped()).spawn()?;
        // From here on it is killed whatever happens.
        let mut portal = Portal { child, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        portal.address = portal.wait_until_ready()?;
        Ok(portal)
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Portal {
    fn wait_until_ready(&mut self) -> Result<SocketAddr> {
        let log = self.child.stderr.take().context("a pipe was asked for")?;
        let mut lines = BufReader::new(log).lines();
        loop {
            let Some(line) = lines.next() else { bail!("the portal has ended before it was ready") };
            let line = line?;
            let entry: Value = serde_json::from_str(&line).with_context(|| line.clone())?;
            if entry["message"] != "portal is ready" {
                eprintln!("{line}");
                continue;
            }
            let text = entry["fields"]["addresses"].to_string();
            let address = text.trim_matches(|c: char| !c.is_ascii_digit()).parse()?;
            // Warnings are worth seeing, and a pipe that nobody reads would make the portal stand still.
            std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| eprintln!("{line}")));
            return Ok(address);
        }
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> Result<f64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(Path::new(&path))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()).context("no VmRSS")?;
        Ok(number.parse()?)
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.stop()
    }

    /// SIGKILL, which it must survive without loss.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Portal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn trusting(authority: &[u8]) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority)?)?;
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
