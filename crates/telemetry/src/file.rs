//! A log file that rotates by size and caps what it leaves on the disk.
//!
//! The current file is `<program>.log`; a rotated one is `<program>.<UTC time>.log`, so that `*.log` in name
//! order is also time order. Whoever writes also rotates and deletes; several processes of one program may
//! share a directory, because every flush is one appending write and starts by checking that the path still
//! leads to the open file.
//!
//! A file never keeps half a line: a write that fails midway is cut off again, and so is the torn tail that a
//! power cut left behind.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Lines are collected up to this many bytes before they are written.
const BUFFER_BYTES: usize = 128 * 1024;

/// An append-only file of lines with rotation.
#[derive(Debug)]
pub struct RotatingFile {
    directory: PathBuf,
    program: String,
    max_file_bytes: u64,
    max_total_bytes: u64,
    file: File,
    size: u64,
    buffer: Vec<u8>,
    buffered_lines: u64,
}

impl RotatingFile {
    /// Opens `<directory>/<program>.log`, making the directory when it is missing.
    ///
    /// # Errors
    /// When the directory cannot be made or the file cannot be opened for writing.
    pub fn open(
        directory: &Path,
        program: &str,
        max_file_bytes: u64,
        max_total_bytes: u64,
    ) -> io::Result<Self> {
        let (file, size) = open_current(directory, program)?;
        let opened = Self {
            directory: directory.to_owned(),
            program: program.to_owned(),
            max_file_bytes: max_file_bytes.max(1),
            max_total_bytes,
            file,
            size,
            buffer: Vec::with_capacity(BUFFER_BYTES),
            buffered_lines: 0,
        };
        opened.enforce_cap();
        Ok(opened)
    }

    /// Adds one complete line; returns how many earlier lines were lost on the way (see
    /// [`flush`](Self::flush)).
    pub fn append(&mut self, line: &str) -> u64 {
        let waiting = self.buffer.len() as u64;
        let mut lost = 0;
        let full = self.size + waiting + line.len() as u64 > self.max_file_bytes;
        if self.buffer.len() + line.len() > BUFFER_BYTES || full {
            lost += self.flush();
        }
        if full && self.size > 0 && self.rotate().is_err() && self.size > 2 * self.max_file_bytes {
            // Not rotatable (read-only directory): a bounded file is worth more than the newest line.
            return lost + 1;
        }
        self.buffer.extend_from_slice(line.as_bytes());
        self.buffered_lines += 1;
        lost
    }

    /// Writes what is buffered; returns the number of lines lost, which is all of them or none.
    pub fn flush(&mut self) -> u64 {
        if self.buffer.is_empty() {
            return 0;
        }
        let result = self.follow_path().and_then(|()| self.write_buffer());
        let lines = std::mem::take(&mut self.buffered_lines);
        self.buffer.clear();
        if result.is_ok() { 0 } else { lines }
    }

    fn write_buffer(&mut self) -> io::Result<()> {
        let mut done = 0;
        while done < self.buffer.len() {
            match self.file.write(&self.buffer[done..]) {
                Ok(0) => return self.undo(done, io::ErrorKind::WriteZero.into()),
                Ok(written) => done += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return self.undo(done, error),
            }
        }
        self.size += done as u64;
        Ok(())
    }

    /// Cuts off a partly written batch, unless another process has appended since.
    fn undo(&mut self, written: usize, error: io::Error) -> io::Result<()> {
        if written > 0 {
            let expected = self.size + written as u64;
            if self.file.metadata().is_ok_and(|metadata| metadata.len() == expected) {
                let _ = self.file.set_len(self.size);
            }
        }
        Err(error)
    }

    /// Opens the path again when it no longer leads to the open file (rotated by someone else, deleted), and
    /// learns the true size.
    fn follow_path(&mut self) -> io::Result<()> {
        match fs::metadata(current_path(&self.directory, &self.program)) {
            Ok(metadata) if same_file(&metadata, &self.file) => {
                self.size = metadata.len();
                Ok(())
            }
            _ => {
                (self.file, self.size) = open_current(&self.directory, &self.program)?;
                Ok(())
            }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.follow_path()?;
        if self.size + self.buffer.len() as u64 <= self.max_file_bytes / 2 {
            return Ok(()); // another process was faster
        }
        let stamp = crate::line::timestamp(SystemTime::now()).replace([':', '-'], "");
        let rotated = self.directory.join(format!("{}.{stamp}.log", self.program));
        fs::rename(current_path(&self.directory, &self.program), rotated)?;
        (self.file, self.size) = open_current(&self.directory, &self.program)?;
        self.enforce_cap();
        Ok(())
    }

    /// Deletes the oldest rotated files until the rest and one full current file fit under the cap.
    fn enforce_cap(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let mut rotated: Vec<(String, u64)> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let size = entry.metadata().ok()?.len();
                is_rotated(&name, &self.program).then_some((name, size))
            })
            .collect();
        rotated.sort_unstable();
        let mut total: u64 = rotated.iter().map(|(_, size)| size).sum();
        for (name, size) in rotated {
            if total + self.max_file_bytes <= self.max_total_bytes {
                break;
            }
            if fs::remove_file(self.directory.join(name)).is_ok() {
                total -= size;
            }
        }
    }
}

fn current_path(directory: &Path, program: &str) -> PathBuf {
    directory.join(format!("{program}.log"))
}

/// True for `<program>.20261122T235301.123456789Z.log`; other programs' files and foreign files are never
/// deleted.
fn is_rotated(name: &str, program: &str) -> bool {
    name.strip_prefix(program)
        .and_then(|rest| rest.strip_prefix('.'))
        .and_then(|rest| rest.strip_suffix("Z.log"))
        .is_some_and(|stamp| {
            stamp.len() == 25
                && stamp.bytes().all(|byte| byte.is_ascii_digit() || byte == b'T' || byte == b'.')
        })
}

fn open_current(directory: &Path, program: &str) -> io::Result<(File, u64)> {
    create_directory(directory)?;
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o640);
    let mut file = options.open(current_path(directory, program))?;
    let size = cut_torn_tail(&mut file)?;
    Ok((file, size))
}

#[cfg(unix)]
fn create_directory(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o750).create(directory)
}

#[cfg(not(unix))]
fn create_directory(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)
}

/// Shortens the file to its last complete line and returns the size.
fn cut_torn_tail(file: &mut File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let mut end = size;
    let mut block = [0; 4096];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        #[expect(clippy::cast_possible_truncation, reason = "at most the block length")]
        let part = &mut block[..(end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(part)?;
        if let Some(at) = part.iter().rposition(|&byte| byte == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < size {
        file.set_len(end)?;
    }
    Ok(end)
}

#[cfg(unix)]
fn same_file(path: &fs::Metadata, open: &File) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    open.metadata().is_ok_and(|open| open.dev() == path.dev() && open.ino() == path.ino())
}

#[cfg(not(unix))]
fn same_file(_path: &fs::Metadata, _open: &File) -> bool {
    true // an open file can be neither renamed nor deleted there
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(directory)
            .expect("directory")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("utf-8"))
            .collect();
        names.sort_unstable();
        names
    }

    fn total(directory: &Path) -> u64 {
        names(directory).iter().map(|name| fs::metadata(directory.join(name)).expect("metadata").len()).sum()
    }

    #[test]
    fn rotates_by_size_in_name_order_and_keeps_under_the_cap() {
        let directory = tempfile::tempdir().expect("temporary directory");
        fs::write(directory.path().join("other.log"), "not ours\n").expect("writes");
        let mut file = RotatingFile::open(directory.path(), "probe", 1_000, 5_000).expect("opens");
        for index in 0..500 {
            assert_eq!(file.append(&format!("{{\"line\":{index},\"pad\":\"{}\"}}\n", "x".repeat(30))), 0);
            assert_eq!(file.flush(), 0);
        }
        let names = names(directory.path());
        assert!(names.contains(&"other.log".to_owned()));
        assert!(total(directory.path()) <= 5_000 + 9, "{names:?}");
        assert!(names.len() > 3, "{names:?}");
        let mut last = None;
        for name in names.iter().filter(|name| name.starts_with("probe")) {
            let text = fs::read_to_string(directory.path().join(name)).expect("reads");
            assert!(text.len() <= 1_000);
            for line in text.lines() {
                let value: serde_json::Value = serde_json::from_str(line).expect("JSON");
                let number = value["line"].as_u64().expect("number");
                assert!(last.is_none_or(|last| number == last + 1), "{last:?} then {number}");
                last = Some(number);
            }
        }
        assert_eq!(last, Some(499));
    }

    #[test]
    fn the_cap_is_enforced_when_the_program_starts() {
        let directory = tempfile::tempdir().expect("temporary directory");
        for second in 0..10 {
            let name = format!("probe.2026112{second}T000000.000000000Z.log");
            fs::write(directory.path().join(name), "x".repeat(100)).expect("writes");
        }
        let foreign = directory.path().join("probe.backup.log");
        fs::write(&foreign, "x".repeat(5_000)).expect("writes");
        RotatingFile::open(directory.path(), "probe", 100, 500).expect("opens");
        assert_eq!(names(directory.path()).len(), 4 + 2);
        assert!(foreign.exists());
    }

    #[test]
    fn a_torn_tail_is_cut_off() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("probe.log");
        let torn = format!("{{\"a\":1}}\n{{\"b\":\"{}", "y".repeat(10_000));
        fs::write(&path, torn).expect("writes");
        let mut file = RotatingFile::open(directory.path(), "probe", 100_000, 500_000).expect("opens");
        assert_eq!(file.append("{\"c\":3}\n") + file.flush(), 0);
        assert_eq!(fs::read_to_string(&path).expect("reads"), "{\"a\":1}\n{\"c\":3}\n");
    }

    #[cfg(unix)]
    #[test]
    fn a_deleted_or_moved_file_is_made_again() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let logs = directory.path().join("logs");
        let mut file = RotatingFile::open(&logs, "probe", 100_000, 500_000).expect("opens");
        assert_eq!(file.append("1\n") + file.flush(), 0);
        fs::remove_dir_all(&logs).expect("removes");
        assert_eq!(file.append("2\n") + file.flush(), 0);
        fs::rename(logs.join("probe.log"), logs.join("moved.log")).expect("renames");
        assert_eq!(file.append("3\n") + file.flush(), 0);
        assert_eq!(fs::read_to_string(logs.join("probe.log")).expect("reads"), "3\n");
        assert_eq!(fs::read_to_string(logs.join("moved.log")).expect("reads"), "2\n");
    }
}
