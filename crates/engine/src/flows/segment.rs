//! One file of the spool: lines, each with a digest in front of it.
//!
//! `DIGEST JSON\n`, where the digest is the first four bytes of SHA-256 in hex. A line that was not written to its end, or
//! whose bytes are not those that were written, does not carry its digest; nothing behind it is believed.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use adit_protocol::flow::FlowReport;
use aws_lc_rs::digest;

/// The longest line that is read; one that is written is about 600 bytes.
const LONGEST_LINE: u64 = 4096;

/// The part of the file name before the number.
const PREFIX: &str = "flows-";
/// The part behind it.
const SUFFIX: &str = ".log";

/// A file of reports with consecutive numbers.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// The number of its first report, or of the one that will be.
    pub(super) first: u64,
    /// How many reports it holds.
    pub(super) count: u64,
    /// How many bytes they take.
    pub(super) length: u64,
}

impl Segment {
    /// A file that is not there yet.
    pub(super) fn new(directory: &Path, first: u64) -> Self {
        Self { path: directory.join(format!("{PREFIX}{first:020}{SUFFIX}")), first, count: 0, length: 0 }
    }

    /// A file that is there: how much of it can be believed.
    pub(super) fn open(path: PathBuf, first: u64) -> io::Result<Self> {
        let mut reader = BufReader::new(File::open(&path)?);
        let (mut count, mut length) = (0, 0);
        while let Some((_, bytes)) = next_line(&mut reader)? {
            count += 1;
            length += bytes;
        }
        Ok(Self { path, first, count, length })
    }

    /// The number in the name of a segment's file.
    pub(super) fn first_of(path: &Path) -> Option<u64> {
        path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
    }

    /// The number behind the last report.
    pub(super) const fn end(&self) -> u64 {
        self.first + self.count
    }

    /// The file, to write behind what can be believed.
    pub(super) fn writer(&self) -> io::Result<File> {
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&self.path)?;
        file.set_len(self.length)?;
        file.seek(SeekFrom::End(0))?;
        Ok(file)
    }

    /// Writes lines and notes them; they are durable when `file` is synchronised.
    pub(super) fn append(&mut self, file: &mut File, lines: &[u8], count: u64) -> io::Result<()> {
        file.write_all(lines)?;
        self.length += lines.len() as u64;
        self.count += count;
        Ok(())
    }

    /// At most `most` reports from `number` on, with their numbers, that together take at most about `bytes`.
    pub(super) fn read(&self, number: u64, most: usize, bytes: u64) -> io::Result<Vec<(u64, FlowReport)>> {
        let mut reader = BufReader::new(File::open(&self.path)?.take(self.length));
        let (mut reports, mut at, mut taken) = (Vec::new(), self.first, 0);
        while let Some((report, length)) = next_line(&mut reader)? {
            if at >= number {
                taken += length;
                if reports.len() == most || (taken > bytes && !reports.is_empty()) {
                    break;
                }
                reports.push((at, report));
            }
            at += 1;
        }
        Ok(reports)
    }
}

/// A report as its line.
pub(super) fn line(report: &FlowReport) -> io::Result<Vec<u8>> {
    let json = serde_json::to_string(report)?;
    Ok(format!("{} {json}\n", digest_of(json.as_bytes())).into_bytes())
}

fn digest_of(json: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, json);
    digest.as_ref()[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The next report and the bytes of its line; `None` at the end of what can be believed.
fn next_line(reader: &mut impl io::BufRead) -> io::Result<Option<(FlowReport, u64)>> {
    let mut line = Vec::new();
    let length = reader.take(LONGEST_LINE).read_until(b'\n', &mut line)? as u64;
    Ok(parse(&line).map(|report| (report, length)))
}

fn parse(line: &[u8]) -> Option<FlowReport> {
    let line = line.strip_suffix(b"\n")?;
    let (digest, json) = line.split_at_checked(9)?;
    let expected = digest_of(json);
    (digest == format!("{expected} ").as_bytes()).then(|| serde_json::from_slice(json).ok())?
}
