//! Masquerading with nftables, through the `nft` program.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ipnet::IpNet;

use super::{MasqueradeControl, MasqueradeError, MasqueradeState};
use crate::sysctl::Journal;

const SYSCTL: &str = "/proc/sys";

/// The table `inet adit` and the kernel's forwarding settings.
#[derive(Debug)]
pub struct NftablesMasquerade {
    record: PathBuf,
}

impl NftablesMasquerade {
    /// Keeps its record of changed settings in `state_directory`.
    #[must_use]
    pub fn new(state_directory: &Path) -> Self {
        Self { record: state_directory.join("forwarding-changes.json") }
    }

    fn enable_forwarding(&self, ipv4: bool, ipv6: bool) -> Result<(), MasqueradeError> {
        let mut journal = Journal::open(Path::new(SYSCTL), &self.record);
        let mut set = |key: &str, value: &str| {
            journal
                .set(key, value)
                .map_err(|error| MasqueradeError::System { action: format!("set {key}"), error })
        };
        if ipv4 {
            set("net/ipv4/ip_forward", "1")?;
        }
        if ipv6 && Path::new(SYSCTL).join("net/ipv6/conf/all/forwarding").exists() {
            // A forwarding host ignores router advertisements unless told otherwise and would lose its own
            // default route.
            for interface in accepting_advertisements() {
                set(&format!("net/ipv6/conf/{interface}/accept_ra"), "2")?;
            }
            set("net/ipv6/conf/all/forwarding", "1")?;
        }
        Ok(())
    }
}

impl MasqueradeControl for NftablesMasquerade {
    fn apply(&mut self, desired: &MasqueradeState) -> Result<(), MasqueradeError> {
        let has = |ipv4: bool| desired.ranges.iter().any(|net| net.addr().is_ipv4() == ipv4);
        nft(&ruleset(desired))?;
        self.enable_forwarding(has(true), has(false))
    }

    fn clear(&mut self) -> Result<(), MasqueradeError> {
        let rules = nft("add table inet adit\ndelete table inet adit\n");
        let settings = Journal::open(Path::new(SYSCTL), &self.record).restore().map_err(|error| {
            MasqueradeError::System { action: "restore the forwarding settings".to_owned(), error }
        });
        match rules {
            Err(MasqueradeError::NoNft) => settings, // then there cannot be rules of ours
            other => other.and(settings),
        }
    }
}

/// One transaction that replaces our table, whatever it held.
fn ruleset(state: &MasqueradeState) -> String {
    let interface = &state.interface;
    let mut nat = String::new();
    for (keyword, ipv4) in [("ip", true), ("ip6", false)] {
        let ranges: Vec<String> = state
            .ranges
            .iter()
            .filter(|net| net.addr().is_ipv4() == ipv4)
            .map(|net: &IpNet| net.trunc().to_string())
            .collect();
        if !ranges.is_empty() {
            nat += &format!(
                "    {keyword} saddr {{ {} }} oifname != \"{interface}\" masquerade\n",
                ranges.join(", ")
            );
        }
    }
    format!(
        "add table inet adit
delete table inet adit
table inet adit {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
{nat}  }}
  chain forward {{
    type filter hook forward priority filter; policy accept;
    oifname \"{interface}\" ct state new counter drop comment \"only clients open connections\"
    iifname \"{interface}\" tcp flags syn tcp option maxseg size set rt mtu
    oifname \"{interface}\" tcp flags syn tcp option maxseg size set rt mtu
  }}
}}
"
    )
}

fn nft(script: &str) -> Result<(), MasqueradeError> {
    let system = |error| MasqueradeError::System { action: "run nft".to_owned(), error };
    let spawned = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(MasqueradeError::NoNft),
        other => other.map_err(system)?,
    };
    if let Some(mut input) = child.stdin.take() {
        // When nft stops early its own message says more than a broken pipe.
        let _ = input.write_all(script.as_bytes());
    }
    let output = child.wait_with_output().map_err(system)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(MasqueradeError::Refused(message.split_whitespace().collect::<Vec<_>>().join(" ")))
}

fn accepting_advertisements() -> Vec<String> {
    let Ok(entries) = fs::read_dir(Path::new(SYSCTL).join("net/ipv6/conf")) else { return Vec::new() };
    let accepts =
        |path: PathBuf| fs::read_to_string(path.join("accept_ra")).is_ok_and(|text| text.trim() == "1");
    entries
        .filter_map(Result::ok)
        .filter(|entry| accepts(entry.path()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name != "all" && name != "default" && name != "lo")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(ranges: &[&str]) -> MasqueradeState {
        MasqueradeState {
            interface: "adit-gw".to_owned(),
            ranges: ranges.iter().map(|text| text.parse().expect("range")).collect(),
        }
    }

    #[test]
    fn every_family_has_its_own_rule_and_the_tunnel_is_excepted() {
        let text = ruleset(&state(&["100.64.0.0/11", "10.9.0.1/16", "fd00:ad17::/107"]));
        assert!(
            text.contains("ip saddr { 100.64.0.0/11, 10.9.0.0/16 } oifname != \"adit-gw\" masquerade"),
            "{text}"
        );
        assert!(text.contains("ip6 saddr { fd00:ad17::/107 } oifname != \"adit-gw\" masquerade"), "{text}");
    }

    #[test]
    fn a_family_without_ranges_has_no_rule() {
        let text = ruleset(&state(&["100.64.0.0/11"]));
        assert!(!text.contains("ip6 saddr"), "{text}");
    }

    #[test]
    fn the_replacement_is_one_transaction() {
        assert!(
            ruleset(&state(&[]))
                .starts_with("add table inet adit\ndelete table inet adit\ntable inet adit {")
        );
    }
}
