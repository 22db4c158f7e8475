//! What a program has used so far, from `/proc`.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

/// Clock ticks of `/proc/PID/stat` in a second: the kernel's `USER_HZ`, the same on every machine.
const TICKS_PER_SECOND: f64 = 100.0;

/// Processor seconds of a process, user and system together.
///
/// # Errors
/// When it has ended.
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = read(pid, "stat")?;
    let ticks = parse_ticks(&stat).with_context(|| format!("/proc/{pid}/stat: {stat}"))?;
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// Processor seconds of all threads of a process that live now, user and system together, to the nanosecond.
///
/// # Errors
/// When it has ended.
pub(super) fn exact_cpu_seconds(pid: u32) -> Result<f64> {
    let mut nanoseconds = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that ends meanwhile no longer counts.
        let schedule = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        nanoseconds += parse_time_on_processor(&schedule).unwrap_or_default();
    }
    Ok(nanoseconds as f64 / 1e9)
}

/// Peak resident memory of a process in MiB.
///
/// # Errors
/// When it has ended.
pub(super) fn peak_mebibytes(pid: u32) -> Result<f64> {
    let kibibytes = field(&read(pid, "status")?, "VmHWM:").with_context(|| format!("{pid} has no VmHWM"))?;
    Ok(kibibytes as f64 / 1024.0)
}

/// Context switches of all threads of a process that live now.
///
/// # Errors
/// When it has ended.
pub(super) fn context_switches(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread that ends meanwhile no longer counts.
        let status = fs::read_to_string(thread?.path().join("status")).unwrap_or_default();
        sum += parse_switches(&status);
    }
    Ok(sum)
}

/// How many of this machine's processors are busy now, looked at for `period`, and how many there are.
///
/// # Errors
/// When the kernel does not say.
pub(super) fn busy_processors(period: Duration) -> Result<(f64, f64)> {
    let look = || {
        let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        parse_idle(&stat).with_context(|| format!("/proc/stat: {stat}"))
    };
    let (begin, (idle_before, _)) = (Instant::now(), look()?);
    std::thread::sleep(period);
    let (idle_after, processors) = look()?;
    let ticks = idle_after.saturating_sub(idle_before) as f64;
    let idle = ticks / TICKS_PER_SECOND / begin.elapsed().as_secs_f64();
    let processors = processors as f64;
    Ok(((processors - idle).max(0.0), processors))
}

/// Ticks in which processors had nothing to do or waited for a disk, all together, and the number of processors.
fn parse_idle(stat: &str) -> Option<(u64, usize)> {
    let mut fields = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().skip(3);
    let mut next = || fields.next()?.parse::<u64>().ok();
    let is_processor = |line: &&str| {
        let number = line.strip_prefix("cpu").unwrap_or_default();
        number.starts_with(|first: char| first.is_ascii_digit())
    };
    Some((next()? + next()?, stat.lines().filter(is_processor).count()))
}

fn read(pid: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).with_context(|| format!("reading {path}"))
}

/// Fields 14 and 15. The command name is in parentheses and may hold blanks; fields are counted after the last one.
fn parse_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

/// The first of three numbers: time on a processor, time waiting for one, time slices.
fn parse_time_on_processor(schedule: &str) -> Option<u64> {
    schedule.split_whitespace().next()?.parse().ok()
}

fn parse_switches(status: &str) -> u64 {
    let names = ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"];
    names.iter().filter_map(|name| field(status, name)).sum()
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_a_name_with_blanks_and_parentheses() {
        let stat = "812 (a (b) c) S 1 812 812 0 -1 4194560 500 0 3 0 41 12 0 0 20 0 4 0 5300 1000 200";
        assert_eq!(parse_ticks(stat), Some(53));
        assert_eq!(parse_ticks("812 (cut off"), None);
        assert_eq!(parse_ticks("812 (a) S 1"), None);
        assert_eq!(parse_time_on_processor("1200345 77 9\n"), Some(1_200_345));
        assert_eq!(parse_time_on_processor(""), None);
    }

    #[test]
    fn idle_time_is_that_of_all_processors() {
        let stat = "cpu  10 1 12 900 50 0 3 0 0 0\ncpu0 5 1 6 450 25 0 1 0 0 0\ncpu1 5 0 6 450 25 0 2 0 0 0\nintr 7\n";
        assert_eq!(parse_idle(stat), Some((950, 2)));
        assert_eq!(parse_idle("cpu  1 2"), None);
        assert_eq!(parse_idle(""), None);
    }

    #[test]
    fn memory_and_switches_are_read_from_the_status() {
        let status =
            "Name:\tx\nVmHWM:\t    4096 kB\nvoluntary_ctxt_switches:\t7\nnonvoluntary_ctxt_switches:\t2\n";
        assert_eq!(field(status, "VmHWM:"), Some(4096));
        assert_eq!(parse_switches(status), 9);
        assert_eq!(parse_switches(""), 0);
    }

    #[test]
    fn this_process_can_be_read() {
        let pid = std::process::id();
        assert!(cpu_seconds(pid).unwrap() >= 0.0);
        assert!(exact_cpu_seconds(pid).unwrap() > 0.0);
        assert!(peak_mebibytes(pid).unwrap() > 0.1);
        assert!(context_switches(pid).unwrap() > 0);
    }
}
