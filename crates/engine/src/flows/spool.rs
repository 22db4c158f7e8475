//! Reports of flows on disk, numbered, until the portal has stored them.
//!
//! A directory of [`Segment`]s. Reports are appended to the last one and become durable together (`fsync`) before any
//! of them is sent: a number that the portal has seen never comes back with another content, whatever the moment of a
//! crash. What the portal has stored is noted in `stored`, which may be lost without harm, for the portal skips what it
//! has seen. Segments whose reports are all stored are deleted, except the last one, which keeps the numbering.
//!
//! The whole is bounded: when it is full, the oldest segment goes, and what was not stored in it is counted.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use adit_protocol::flow::{FlowReport, Flows, MAX_FLOWS, NumberedFlow};
use uuid::Uuid;

use super::segment::{Segment, line};

/// A segment that is longer gets a successor.
const SEGMENT: u64 = 1024 * 1024;

/// The most bytes of reports in one batch.
const BATCH: u64 = 256 * 1024;

/// Names the numbering.
const NAME: &str = "name";
/// The number of the last report that is stored.
const STORED: &str = "stored";

/// A numbered queue of reports in a directory.
#[derive(Debug)]
pub(super) struct Spool {
    directory: PathBuf,
    name: Uuid,
    segments: Vec<Segment>,
    file: File,
    /// Lines that are not written yet, and how many.
    pending: (Vec<u8>, u64),
    /// Something may stand behind what the last segment is known to hold.
    is_torn: bool,
    stored: u64,
    most_bytes: u64,
    dropped: u64,
}

impl Spool {
    /// Opens the spool in `directory`, which is made if it is not there; it may hold `most_bytes`.
    pub(super) fn open(directory: &Path, most_bytes: u64, new_name: Uuid) -> io::Result<Self> {
        make(directory)?;
        let mut segments = segments_in(directory)?;
        let stored = read(directory, STORED)?.unwrap_or(0);
        let kept = read(directory, NAME)?;
        // Numbers that are behind what was stored were lost: nobody may take them for the ones before.
        let is_whole = segments.last().is_some_and(|last| last.end() > stored);
        let name = match kept.filter(|_| is_whole) {
            Some(name) => name,
            None => {
                for segment in segments.drain(..) {
                    fs::remove_file(segment.path)?;
                }
                write(directory, NAME, &new_name.to_string())?;
                write(directory, STORED, "0")?;
                new_name
            }
        };
        let stored = if segments.is_empty() { 0 } else { stored };
        if segments.is_empty() {
            segments.push(Segment::new(directory, 1));
        }
        let file = segments[segments.len() - 1].writer()?;
        synchronise(directory)?;
        let directory = directory.to_owned();
        Ok(Self {
            directory,
            name,
            segments,
            file,
            pending: (Vec::new(), 0),
            is_torn: false,
            stored,
            most_bytes: most_bytes.max(2 * SEGMENT),
            dropped: 0,
        })
    }

    /// Reports that were dropped because the portal did not take them in time.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Bytes on disk.
    pub(super) fn length(&self) -> u64 {
        self.segments.iter().map(|segment| segment.length).sum()
    }

    /// Takes a report; it is kept once [`flush`](Self::flush) was called.
    pub(super) fn push(&mut self, report: &FlowReport) -> io::Result<()> {
        self.pending.0.extend(line(report)?);
        self.pending.1 += 1;
        Ok(())
    }

    /// How many reports wait to be written.
    pub(super) const fn pending(&self) -> u64 {
        self.pending.1
    }

    /// Makes everything durable that was taken. After a failure those reports are dropped.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let (lines, count) = std::mem::take(&mut self.pending);
        if count == 0 {
            return Ok(());
        }
        let written = self.write(&lines, count);
        if written.is_err() {
            self.dropped += count;
            self.is_torn = true;
        }
        written
    }

    fn write(&mut self, lines: &[u8], count: u64) -> io::Result<()> {
        if self.is_torn {
            // What was written of a failed attempt must not stand in front of what comes next.
            self.file = self.segments[self.segments.len() - 1].writer()?;
            self.is_torn = false;
        }
        self.make_room(lines.len() as u64)?;
        let last = self.segments.len() - 1;
        let segment = &mut self.segments[last];
        let before = (segment.count, segment.length);
        let written = segment.append(&mut self.file, lines, count).and_then(|()| self.file.sync_data());
        if written.is_err() {
            (segment.count, segment.length) = before;
        }
        written
    }

    /// Begins a new segment if the last one is full, and drops the oldest ones beyond the limit.
    fn make_room(&mut self, bytes: u64) -> io::Result<()> {
        let last = &self.segments[self.segments.len() - 1];
        if last.length >= SEGMENT {
            let next = Segment::new(&self.directory, last.end());
            self.file = next.writer()?;
            self.segments.push(next);
            synchronise(&self.directory)?;
        }
        while self.segments.len() > 1 && self.length() + bytes > self.most_bytes {
            let oldest = self.segments.remove(0);
            let lost = oldest.end().saturating_sub(oldest.first.max(self.stored + 1));
            self.dropped += lost;
            fs::remove_file(&oldest.path)?;
        }
        Ok(())
    }

    /// The oldest durable reports that are not stored; `None` if there are none.
    pub(super) fn batch(&self) -> io::Result<Option<Flows>> {
        let wanted = self.stored + 1;
        let Some(segment) = self.segments.iter().find(|segment| segment.end() > wanted && segment.count > 0)
        else {
            return Ok(None);
        };
        let reports = segment.read(wanted, MAX_FLOWS, BATCH)?;
        let flows = reports.into_iter().map(|(number, report)| NumberedFlow { number, report });
        let flows = Flows { spool: self.name, flows: flows.collect() };
        Ok((!flows.flows.is_empty()).then_some(flows))
    }

    /// The portal has stored everything up to `number`. Answers about another numbering, or about what was never
    /// sent, are ignored.
    pub(super) fn stored(&mut self, spool: Uuid, number: u64) -> io::Result<()> {
        let end = self.segments.last().map_or(0, Segment::end);
        if spool != self.name || number <= self.stored || number >= end {
            return Ok(());
        }
        self.stored = number;
        write(&self.directory, STORED, &number.to_string())?;
        while self.segments.len() > 1 && self.segments[0].end() <= number + 1 {
            fs::remove_file(&self.segments.remove(0).path)?;
        }
        Ok(())
    }
}

/// Makes the directory: what people reach is nobody else's business on this machine.
pub(super) fn make(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

fn segments_in(directory: &Path) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if let Some(first) = Segment::first_of(&path) {
            segments.push(Segment::open(path, first)?);
        }
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}

/// Reads one of the small files; what cannot be read as `T` counts as absent.
fn read<T: std::str::FromStr>(directory: &Path, name: &str) -> io::Result<Option<T>> {
    match fs::read_to_string(directory.join(name)) {
        Ok(text) => Ok(text.trim().parse().ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(None),
        Err(error) => Err(error),
    }
}

/// Replaces one of the small files as a whole.
fn write(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    let next = directory.join(format!("{name}.next"));
    fs::write(&next, text)?;
    File::open(&next)?.sync_data()?;
    fs::rename(next, directory.join(name))
}

fn synchronise(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests;
