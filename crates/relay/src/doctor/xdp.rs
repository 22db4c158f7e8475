//! Whether the kernel's fast path could be used here.

use std::path::Path;

use super::addresses::interfaces;
use super::report::Finding;
use crate::settings::Place;

/// Drivers that run XDP programs themselves; for others the kernel does it, later and slower.
const NATIVE: [&str; 20] = [
    "bnxt_en",
    "cxgb4",
    "dpaa2-eth",
    "ena",
    "enetc",
    "gve",
    "hv_netvsc",
    "i40e",
    "iavf",
    "ice",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "mlx4_en",
    "mlx5_core",
    "nfp",
    "qede",
    "sfc",
    "virtio_net",
];
/// Capabilities that loading a program takes, by their numbers in `linux/capability.h`: `CAP_NET_ADMIN`, `CAP_BPF`; or `CAP_SYS_ADMIN`.
const NET_ADMIN: u32 = 12;
const BPF: u32 = 39;
const SYS_ADMIN: u32 = 21;

pub(super) fn check(place: &Place) -> Vec<Finding> {
    let check = "xdp";
    let binds: Vec<_> = [place.v4, place.v6].into_iter().flatten().map(|address| address.bind).collect();
    let interfaces = interfaces();
    let mut names: Vec<&String> =
        interfaces.iter().filter(|(_, ip)| binds.contains(ip)).map(|(name, _)| name).collect();
    names.dedup();
    let rights = rights(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
    let findings = names.into_iter().map(|name| {
        let detail = format!(
            "{}; {}",
            driver(name),
            if rights { "this process may load programs" } else { "this process may not load programs" }
        );
        Finding::ok(check, format!("{detail}; this build relays without XDP"))
    });
    findings.collect()
}

fn driver(interface: &str) -> String {
    let link = std::fs::read_link(Path::new("/sys/class/net").join(interface).join("device/driver"));
    let driver = link.ok().and_then(|link| Some(link.file_name()?.to_str()?.to_owned()));
    match driver {
        Some(driver) if NATIVE.contains(&driver.as_str()) => {
            format!("{interface}: its driver {driver} runs XDP programs itself")
        }
        Some(driver) => {
            format!("{interface}: its driver {driver} leaves XDP programs to the kernel (generic mode)")
        }
        None => format!("{interface} is not a hardware interface"),
    }
}

/// What `/proc/self/status` says of our capabilities.
fn rights(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let bits = effective.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0);
    let has = |capability: u32| bits >> capability & 1 == 1;
    has(SYS_ADMIN) || (has(NET_ADMIN) && has(BPF))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_read_from_the_capabilities() {
        assert!(rights("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        assert!(rights("CapEff:\t0000008000001000\n"));
        assert!(!rights("CapEff:\t0000000000001000\n"));
        assert!(!rights("CapEff:\t0000000000000400\n"));
        assert!(!rights(""));
    }
}
