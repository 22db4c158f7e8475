//! Giving back the pages of the program that only its start needed.
//!
//! Most code of a daemon runs once: reading arguments and certificates, building tables, connecting. Its pages stay mapped,
//! and count as memory of the process, until the kernel is short of it. [`release`] unmaps what the program's file holds
//! unchanged; whatever is used again comes back out of the page cache, one fault for 64 KiB. What the loader has changed
//! (relocated constants, which follow the code) is left alone, for the file does not have it.

use std::fs;
use std::io;
use std::ops::Range;

/// Unmaps the program's pages; returns of how many bytes.
///
/// # Errors
///
/// When `/proc` cannot be read, or the kernel refuses; nothing is lost then.
pub fn release() -> io::Result<usize> {
    let program = fs::read_link("/proc/self/exe")?;
    let maps = fs::read_to_string("/proc/self/maps")?;
    let ranges = unchanged(&maps, &program.to_string_lossy());
    for range in &ranges {
        forget(range)?;
    }
    Ok(ranges.iter().map(|range| range.end - range.start).sum())
}

#[expect(unsafe_code, reason = "madvise has no safe wrapper")]
fn forget(range: &Range<usize>) -> io::Result<()> {
    let (start, length) = (range.start as *mut libc::c_void, range.end - range.start);
    // SAFETY: the range is a mapping of the program's own file that nothing may write, and that is still as the file has
    // it, so every later access reads the same bytes again.
    match unsafe { libc::madvise(start, length, libc::MADV_DONTNEED) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The mappings of `program` in the text of `/proc/self/maps` that cannot differ from its file: the code, and what lies
/// before it in the file.
fn unchanged(maps: &str, program: &str) -> Vec<Range<usize>> {
    let own = maps.lines().filter_map(Mapping::parse).filter(|mapping| mapping.path == program);
    let mut before_code = true;
    let mut ranges = Vec::new();
    for mapping in own {
        let is_code = mapping.permissions == "r-xp";
        if is_code || before_code && mapping.permissions == "r--p" {
            ranges.push(mapping.range);
        }
        before_code &= !is_code;
    }
    ranges
}

struct Mapping<'a> {
    range: Range<usize>,
    permissions: &'a str,
    path: &'a str,
}

impl<'a> Mapping<'a> {
    /// `START-END PERMISSIONS OFFSET DEVICE INODE PATH`
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.splitn(6, ' ');
        let (start, end) = words.next()?.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        let range = address(start)?..address(end)?;
        let permissions = words.next()?;
        Some(Self { range, permissions, path: words.nth(3)?.trim_start() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
560818844000-560818c25000 r--p 00000000 fe:00 10045761                   /usr/bin/aditd
560818c25000-56081958d000 r-xp 003e0000 fe:00 10045761                   /usr/bin/aditd
56081958d000-560819607000 r--p 00d47000 fe:00 10045761                   /usr/bin/aditd
560819607000-56081960c000 rw-p 00dc0000 fe:00 10045761                   /usr/bin/aditd
56081a000000-56081a021000 rw-p 00000000 00:00 0                          [heap]
7f2a00000000-7f2a00026000 r--p 00000000 fe:00 1234                       /usr/lib/libc.so.6
7f2a00026000-7f2a0017b000 r-xp 00026000 fe:00 1234                       /usr/lib/libc.so.6
";

    #[test]
    fn relocated_constants_and_other_files_stay() {
        let ranges = unchanged(MAPS, "/usr/bin/aditd");
        assert_eq!(ranges, [0x5608_1884_4000..0x5608_18c2_5000, 0x5608_18c2_5000..0x5608_1958_d000]);
        assert_eq!(unchanged(MAPS, "/usr/bin/other"), []);
        assert_eq!(unchanged("nonsense\n1-2\n-\n", "x"), []);
    }

    #[test]
    fn the_program_goes_on_and_needs_less() {
        let resident = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap().to_owned();
            line.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
        };
        let before = resident();
        assert!(release().unwrap() > 1_000_000, "this test's own code");
        let after = resident();
        assert!(after < before, "{after} of {before} KiB are left");
        // Code and constants are as they were.
        assert_eq!(format!("{:?}", "1.5".parse::<f64>()), "Ok(1.5)");
    }
}
