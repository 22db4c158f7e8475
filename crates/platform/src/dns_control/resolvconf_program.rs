//! `resolvconf`, the program: openresolv's or Debian's. It merges what interfaces want into `/etc/resolv.conf`.
//!
//! openresolv knows *exclusive* settings (`-x`), which hide all others while they are there. Debian's has no such
//! thing; there, a record whose name sorts first is put first, and resolvers ask it first. Either keeps our
//! record until it is deleted, on a crash too: [`recover`](DnsControl::recover) deletes it.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::{DnsControl, DnsControlError, DnsFuture, DnsSettings, resolv_conf};

/// How long the program may take; it runs other programs.
const DONE_WITHIN: Duration = Duration::from_secs(5);

/// Runs `resolvconf`.
#[derive(Clone, Debug)]
pub struct Resolvconf {
    program: PathBuf,
    record: String,
    /// What the program writes.
    path: PathBuf,
    /// The servers of the host before ours hid them.
    known: Vec<IpAddr>,
    is_ours: bool,
}

impl Resolvconf {
    /// Runs `program` for the tunnel's `interface`; `path` is what it writes, normally `/etc/resolv.conf`.
    #[must_use]
    pub fn new(program: &Path, interface: &str, path: &Path) -> Self {
        // Debian's order of interfaces puts `tun*` first of all that we may call ourselves.
        let record = format!("tun-{interface}.adit");
        Self { program: program.to_owned(), record, path: path.to_owned(), known: Vec::new(), is_ours: false }
    }

    fn failed(&self, reason: impl ToString) -> DnsControlError {
        DnsControlError::Program { program: self.program.clone(), reason: reason.to_string() }
    }

    async fn run(&self, words: &[&str], input: &str) -> Result<String, DnsControlError> {
        let mut child = Command::new(&self.program)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| self.failed(error))?;
        if let Some(mut stdin) = child.stdin.take() {
            match stdin.write_all(input.as_bytes()).await {
                Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(self.failed(error)),
                _ => {}
            }
        }
        let output = tokio::time::timeout(DONE_WITHIN, child.wait_with_output())
            .await
            .map_err(|_| self.failed("it does not end"))?
            .map_err(|error| self.failed(error))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(self.failed(format!("{}: {}", output.status, said.trim())));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    async fn put(&mut self, settings: &DnsSettings) -> Result<(), DnsControlError> {
        if settings.servers.is_empty() {
            return Err(DnsControlError::NoServers);
        }
        if !self.is_ours {
            self.known = self.servers_now();
        }
        let text = record(settings);
        let exclusive = self.run(&["-x", "-m", "0", "-a", &self.record], &text).await;
        if exclusive.is_err() {
            self.run(&["-a", &self.record], &text).await?;
        }
        self.is_ours = true;
        Ok(())
    }

    async fn take_back(&mut self) -> Result<(), DnsControlError> {
        let gone = self.run(&["-f", "-d", &self.record], "").await;
        if gone.is_err() {
            self.run(&["-d", &self.record], "").await?;
        }
        self.is_ours = false;
        Ok(())
    }

    fn servers_now(&self) -> Vec<IpAddr> {
        resolv_conf::servers_in(&std::fs::read_to_string(&self.path).unwrap_or_default())
    }

    /// openresolv lists the records of all interfaces, or ours alone while it is exclusive; Debian's lists none.
    async fn servers(&self) -> Vec<IpAddr> {
        if !self.is_ours {
            return self.servers_now();
        }
        let listed = self.run(&["-l"], "").await.unwrap_or_default();
        let foreign = foreign_servers(&listed, &self.record);
        if foreign.is_empty() { self.known.clone() } else { foreign }
    }
}

fn record(settings: &DnsSettings) -> String {
    let mut text = String::new();
    for server in &settings.servers {
        text += &format!("nameserver {server}\n");
    }
    if !settings.search.is_empty() {
        text += &format!("search {}\n", settings.search.join(" "));
    }
    text
}

/// The servers in a list of records, each of which begins with `# resolv.conf from NAME`.
fn foreign_servers(listed: &str, own: &str) -> Vec<IpAddr> {
    let mut is_own = false;
    let mut foreign = String::new();
    for line in listed.lines() {
        if let Some(name) =
            line.strip_prefix("# resolv.conf ").and_then(|rest| rest.split_whitespace().nth(1))
        {
            is_own = name == own;
        } else if !is_own {
            foreign += line;
            foreign.push('\n');
        }
    }
    resolv_conf::servers_in(&foreign)
}

impl DnsControl for Resolvconf {
    fn apply<'a>(&'a mut self, settings: &'a DnsSettings) -> DnsFuture<'a, ()> {
        Box::pin(self.put(settings))
    }

    fn clear(&mut self) -> DnsFuture<'_, ()> {
        Box::pin(self.take_back())
    }

    fn recover(&mut self) -> DnsFuture<'_, ()> {
        Box::pin(self.take_back())
    }

    fn recover_interface(&mut self) -> DnsFuture<'_, ()> {
        Box::pin(self.take_back())
    }

    fn upstreams(&mut self) -> BoxFuture<'_, Vec<IpAddr>> {
        Box::pin(self.servers())
    }

    fn name(&self) -> &'static str {
        "resolvconf"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_record_is_no_upstream() {
        let listed = "# resolv.conf from eth0\nnameserver 192.0.2.53\n\n# resolv.conf from tun-adit0.adit\nnameserver 100.64.0.53\n\n# resolv.conf from wlan0\nnameserver 192.0.2.54\n";
        let expected: Vec<IpAddr> = vec![[192, 0, 2, 53].into(), [192, 0, 2, 54].into()];
        assert_eq!(foreign_servers(listed, "tun-adit0.adit"), expected);
    }
}
