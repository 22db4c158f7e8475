//! `adit log`: where the daemon's log is, its end, its level.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::exit::Failure;

/// The file that the daemon writes now.
const CURRENT: &str = "aditd.log";

/// How often a followed file is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// At most so much of a file is read for its last lines.
const TAIL_BYTES: u64 = 4 * 1024 * 1024;

/// Prints the last lines, and goes on if asked to; a file that was rotated is left for the new one.
pub(super) async fn tail(directory: &Path, lines: usize, follow: bool, json: bool) -> Result<(), Failure> {
    let path = directory.join(CURRENT);
    let mut reader = Reader::open(&path)?;
    let mut last = reader.last(lines)?;
    loop {
        let text: String =
            last.iter().map(|line| if json { format!("{line}\n") } else { readable(line) }).collect();
        super::print(&text)?;
        if !follow {
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
        last = reader.news()?;
    }
}

struct Reader {
    path: PathBuf,
    file: File,
    /// A line that is not complete yet.
    partial: Vec<u8>,
}

impl Reader {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { path: path.to_owned(), file, partial: Vec::new() })
    }

    fn last(&mut self, count: usize) -> anyhow::Result<Vec<String>> {
        let length = self.file.metadata().context("cannot read the log")?.len();
        let start = length.saturating_sub(TAIL_BYTES);
        self.file.seek(SeekFrom::Start(start)).context("cannot read the log")?;
        let mut lines = self.lines()?;
        if start > 0 && !lines.is_empty() {
            lines.remove(0); // it began before what was read
        }
        Ok(lines.split_off(lines.len().saturating_sub(count)))
    }

    fn news(&mut self) -> anyhow::Result<Vec<String>> {
        use std::os::unix::fs::MetadataExt as _;
        let mut lines = self.lines()?;
        let (ours, there) = (self.file.metadata(), std::fs::metadata(&self.path));
        let is_other = ours.ok().zip(there.ok()).is_some_and(|(ours, there)| ours.ino() != there.ino());
        if is_other {
            *self = Self::open(&self.path)?;
            lines.extend(self.lines()?);
        }
        Ok(lines)
    }

    fn lines(&mut self) -> anyhow::Result<Vec<String>> {
        self.file.read_to_end(&mut self.partial).context("cannot read the log")?;
        let mut lines = Vec::new();
        let mut from = 0;
        while let Some(length) = self.partial[from..].iter().position(|byte| *byte == b'\n') {
            lines.push(String::from_utf8_lossy(&self.partial[from..from + length]).into_owned());
            from += length + 1;
        }
        self.partial.drain(..from);
        Ok(lines)
    }
}

/// One line of JSON for people; anything else as it is.
fn readable(line: &str) -> String {
    let Ok(Value::Object(entry)) = serde_json::from_str(line) else { return format!("{line}\n") };
    let word = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut text = format!("{} {:<7} {}", word("time"), word("severity"), word("message"));
    if let Some(Value::Object(fields)) = entry.get("fields") {
        for (name, value) in fields {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text += &format!(" {name}={value}");
        }
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_last_lines_and_what_follows_across_a_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(CURRENT);
        std::fs::write(&path, "one\ntwo\nthree\nhal").unwrap();
        let mut reader = Reader::open(&path).unwrap();
        assert_eq!(reader.last(2).unwrap(), ["two", "three"]);
        assert!(reader.news().unwrap().is_empty());
        std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"f\n").unwrap();
        assert_eq!(reader.news().unwrap(), ["half"]);
        std::fs::rename(&path, directory.path().join("aditd.old.log")).unwrap();
        assert!(reader.news().unwrap().is_empty(), "no file for a moment");
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(reader.news().unwrap(), ["new"]);
    }

    #[test]
    fn a_line_reads_like_a_sentence() {
        let line = r#"{"time":"T","severity":"INFO","message":"path changed","target":"x","fields":{"a":1,"b":"c"},"spans":[]}"#;
        assert_eq!(readable(line), "T INFO    path changed a=1 b=c\n");
        assert_eq!(readable("no json"), "no json\n");
    }
}
