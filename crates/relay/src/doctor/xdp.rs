//! Whether the kernel's fast path is, or could be, used here.

use std::path::Path;

use adit_relay_xdp::{Engine, Mode};

use super::addresses::interfaces;
use super::report::Finding;
use crate::fast_path::choice;
use crate::settings::Place;

const CHECK: &str = "xdp";

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
/// Capabilities that loading a program takes, by their numbers in `linux/capability.h`: `CAP_NET_ADMIN`, `CAP_BPF` and `CAP_PERFMON`; or
/// `CAP_SYS_ADMIN`.
const NET_ADMIN: u32 = 12;
const PERFMON: u32 = 38;
const BPF: u32 = 39;
const SYS_ADMIN: u32 = 21;

pub(super) fn check(place: &Place) -> Vec<Finding> {
    match choice::wanted(place.xdp.mode) {
        Some((mode, is_certain)) => vec![rehearse(place, mode, is_certain)],
        None => describe(place),
    }
}

/// What a relay with these settings will do. The kernel is given the program, but no interface is.
fn rehearse(place: &Place, mode: Mode, is_certain: bool) -> Finding {
    let chosen = choice::choose(place, mode, is_certain).and_then(|config| {
        Engine::check(&config)?;
        Ok(config)
    });
    match chosen {
        Ok(config) => {
            let interfaces: Vec<String> = config.interfaces.iter().map(|name| driver(name)).collect();
            let detail = format!("{mode} mode; the kernel takes the program; {}", interfaces.join("; "));
            Finding::ok(CHECK, detail)
        }
        Err(error) if is_certain => {
            let advice = "see docs/xdp.md for what it needs, or leave --xdp out";
            Finding::failure(CHECK, format!("--xdp {mode} cannot be had: {error:#}"), advice)
        }
        Err(error) => Finding::ok(CHECK, format!("--xdp auto will do without: {error:#}")),
    }
}

/// What could be had, where nothing is asked for.
fn describe(place: &Place) -> Vec<Finding> {
    let binds: Vec<_> = [place.v4, place.v6].into_iter().flatten().map(|address| address.bind).collect();
    let interfaces = interfaces();
    let mut names: Vec<&String> =
        interfaces.iter().filter(|(_, ip)| binds.contains(ip)).map(|(name, _)| name).collect();
    names.dedup();
    let rights = rights(&std::fs::read_to_string("/proc/self/status").unwrap_or_default());
    let built = if adit_relay_xdp::IS_BUILT_IN {
        "this build has the program"
    } else {
        "this build lacks the program"
    };
    let may = if rights { "this process may load it" } else { "this process may not load programs" };
    let of = |name| Finding::ok(CHECK, format!("off; {}; {built}; {may}", driver(name)));
    names.into_iter().map(|name| of(name)).collect()
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
    has(SYS_ADMIN) || [NET_ADMIN, BPF, PERFMON].into_iter().all(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_read_from_the_capabilities() {
        assert!(rights("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        assert!(rights("CapEff:\t000000c000001000\n"));
        assert!(!rights("CapEff:\t0000008000001000\n"));
        assert!(!rights("CapEff:\t0000000000001000\n"));
        assert!(!rights("CapEff:\t0000000000000400\n"));
        assert!(!rights(""));
    }
}
