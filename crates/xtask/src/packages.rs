//! Debian packages that the lab and the bench need: found by the programs they bring, installed when this is root.

use std::path::{Path, PathBuf};
use std::process::Command;

use adit_lab::world;
use anyhow::{Context, Result, bail};

use crate::{PackagesArguments, Verdict, unpacked};

/// A program, the package that brings it, and what it is for.
type Needed = (&'static str, &'static str, &'static str);

/// What demo, test and lab need.
const NEEDED: [Needed; 19] = [
    ("ip", "iproute2", "network namespaces"),
    ("nft", "nftables", "NAT and firewalls"),
    ("ethtool", "ethtool", "links without offloads"),
    ("curl", "curl", "fetching pages as users do"),
    ("ping", "iputils-ping", "round trips"),
    ("jq", "jq", "reading logs"),
    ("dbus-daemon", "dbus-daemon", "tests of the client's DNS control"),
    ("openssl", "openssl", "saying the wrong thing over TLS"),
    ("wg", "wireguard-tools", "interop"),
    ("wireguard-go", "wireguard-go", "interop"),
    ("turnserver", "coturn", "interop"),
    ("turnutils_uclient", "coturn", "interop"),
    ("chromium-headless-shell", "chromium-headless-shell", "interop and the admin pages"),
    ("node", "nodejs", "the admin pages in a browser, and an identity provider"),
    ("npm", "npm", "the admin pages in a browser, and an identity provider"),
    // The package has no program of its own; this list is there once it is installed.
    ("/var/lib/dpkg/info/python3-venv.list", "python3-venv", "interop: aiortc, schemathesis"),
    (CLANG, "clang-19", "the relay's XDP program"),
    ("/usr/lib/postgresql/15/bin/postgres", "postgresql-15", "the portal's other database"),
    ("pebble", "pebble", "an authority that gives the portal certificates"),
];

/// The compiler for programs in the kernel.
const CLANG: &str = "clang-19";

/// What only `bench` needs.
const NEEDED_FOR_BENCH: [Needed; 2] =
    [("iperf3", "iperf3", "bench: TCP throughput"), ("perf", "linux-perf", "bench: profiles")];

/// What only `package` needs.
const NEEDED_FOR_PACKAGE: [Needed; 3] = [
    ("rpmbuild", "rpm", "package: rpm"),
    ("dpkg-deb", "dpkg", "package: deb"),
    ("strip", "binutils", "package: programs without debug information"),
];

/// What `bench pure` needs.
const NEEDED_FOR_PURE: [Needed; 1] = [("valgrind", "valgrind", "bench: counting instructions")];

/// What `bench crypto` needs for the part that others have written in C. A header is as good a sign as a program.
const NEEDED_FOR_AVX512: [Needed; 2] = [
    ("gcc", "gcc", "bench: ciphers with AVX-512"),
    ("/usr/include/intel-ipsec-mb.h", "libipsec-mb-dev", "bench: ciphers with AVX-512"),
];

/// Directories for administrators' programs, which a user's `PATH` may lack.
const ALSO: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

const POLICY: &str = "/usr/sbin/policy-rc.d";

pub(crate) fn run(arguments: &PackagesArguments) -> Result<Verdict> {
    if arguments.install {
        return Ok(Verdict::from_ok(ensure()?));
    }
    let for_bench = NEEDED_FOR_BENCH
        .into_iter()
        .chain(NEEDED_FOR_PURE)
        .chain(NEEDED_FOR_AVX512)
        .chain(NEEDED_FOR_PACKAGE);
    for (program, package, purpose) in NEEDED.into_iter().chain(for_bench) {
        let state = if is_installed(program) { "installed" } else { "missing" };
        println!("{package:<18} {program:<35} {state:<10} {purpose}");
    }
    for (package, purpose) in unpacked::UNPACKED {
        let state = if unpacked::place(package)?.is_dir() { "unpacked" } else { "missing" };
        println!("{package:<18} {:<18} {state:<10} {purpose}", "");
    }
    Ok(Verdict::Good)
}

/// Makes sure that everything is installed; `false`, with the packages named, when that needs root.
pub(crate) fn ensure() -> Result<bool> {
    let is_ready = ensure_all(&NEEDED)?;
    if is_ready && world::is_permitted() {
        unpacked::ensure()?;
    }
    Ok(is_ready)
}

/// As [`ensure`] for what only `bench` needs.
pub(crate) fn ensure_for_bench() -> Result<bool> {
    ensure_all(&NEEDED_FOR_BENCH)
}

/// As [`ensure`] for what only `package` needs.
pub(crate) fn ensure_for_package() -> Result<bool> {
    ensure_all(&NEEDED_FOR_PACKAGE)
}

/// As [`ensure`] for what only `bench pure` needs.
pub(crate) fn ensure_for_pure() -> Result<bool> {
    ensure_all(&NEEDED_FOR_PURE)
}

/// As [`ensure`] for what only the AVX-512 figures of `bench crypto` need.
pub(crate) fn ensure_for_avx512() -> Result<bool> {
    ensure_all(&NEEDED_FOR_AVX512)
}

fn ensure_all(needed: &[Needed]) -> Result<bool> {
    let missing = missing(needed);
    if missing.is_empty() {
        return Ok(true);
    }
    let command = format!("apt-get install -y --no-install-recommends {}", missing.join(" "));
    if !world::is_permitted() {
        eprintln!("These Debian packages are missing; install them as root with:\n    {command}");
        return Ok(false);
    }
    println!("{command}");
    let quiet = ServicesStayOff::set();
    apt(&["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(&missing);
    apt(&arguments)?;
    drop(quiet);
    let missing = self::missing(needed);
    if !missing.is_empty() {
        bail!("still missing after the installation: {}", missing.join(" "));
    }
    Ok(true)
}

/// Whether the relay can be built with its XDP program.
pub(crate) fn has_clang() -> bool {
    is_installed(CLANG) || is_installed("clang")
}

fn missing(needed: &[Needed]) -> Vec<&'static str> {
    let mut packages: Vec<&str> = Vec::new();
    for (program, package, _) in needed {
        if !is_installed(program) && !packages.contains(package) {
            packages.push(package);
        }
    }
    packages
}

fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(ALSO.iter().map(PathBuf::from));
    // An absolute path stays as it is.
    directories.into_iter().any(|directory| directory.join(program).is_file())
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
    let status = command.status().context("starting apt-get: is this Debian?")?;
    if !status.success() {
        bail!("apt-get {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}

/// Keeps installed servers (coturn) from being started on this machine, with Debian's own means for that.
struct ServicesStayOff {
    /// Whether the policy file is ours to remove.
    ours: bool,
}

impl ServicesStayOff {
    fn set() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let policy = Path::new(POLICY);
        if policy.exists() {
            return Self { ours: false };
        }
        let ours = std::fs::write(policy, "#!/bin/sh\nexit 101\n").is_ok()
            && std::fs::set_permissions(policy, std::fs::Permissions::from_mode(0o755)).is_ok();
        Self { ours }
    }
}

impl Drop for ServicesStayOff {
    fn drop(&mut self) {
        if self.ours {
            // A file that stays keeps services off, which is the safe side.
            let _ = std::fs::remove_file(POLICY);
        }
    }
}
