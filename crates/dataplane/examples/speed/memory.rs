//! Memory of this process.

use std::fs;

use crate::Failure;

/// Resident now, in bytes.
pub(crate) fn resident() -> Result<f64, Failure> {
    Ok(field("VmRSS:")? * 1024.0)
}

/// The most that was ever resident, in MiB.
pub(crate) fn peak_mebibytes() -> Result<f64, Failure> {
    Ok(field("VmHWM:")? / 1024.0)
}

/// A field of `/proc/self/status`, which counts in KiB.
fn field(name: &str) -> Result<f64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such field")?;
    Ok(line.split_whitespace().next().ok_or("an empty field")?.parse()?)
}
