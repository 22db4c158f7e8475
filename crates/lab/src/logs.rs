//! Reading what the programs logged: every line is the agreed JSON, and nothing went wrong unannounced.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// Keys of a line, in the order in which they must come.
const KEYS: [&str; 6] = ["time", "severity", "message", "target", "fields", "spans"];

const SEVERITIES: [&str; 4] = ["DEBUG", "INFO", "WARNING", "ERROR"];

/// Complaints shown in full; the others are counted.
const SHOWN: usize = 10;

/// Warnings and errors that a scenario provokes on purpose.
#[derive(Clone, Debug, Default)]
pub struct Expectations {
    announced: Vec<Announcement>,
}

#[derive(Clone, Debug)]
struct Announcement {
    program: String,
    text: String,
}

impl Expectations {
    /// Nothing may go wrong.
    pub fn none() -> Self {
        Self::default()
    }

    /// Announces that the log of `program` (the file's name up to its first dot; empty: any) may hold warnings
    /// and errors whose line contains `text`.
    pub fn announce(&mut self, program: &str, text: &str) -> &mut Self {
        self.announced.push(Announcement { program: program.to_owned(), text: text.to_owned() });
        self
    }

    fn covers(&self, file: &Path, line: &str) -> bool {
        let name = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let program = name.split('.').next().unwrap_or_default();
        self.announced.iter().any(|announced| {
            (announced.program.is_empty() || announced.program == program) && line.contains(&announced.text)
        })
    }
}

/// What was found in a log directory.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Files whose name ends in `.log`, or in `.log` and a rotation number.
    pub files: usize,
    /// Lines in them.
    pub lines: usize,
    /// Warnings and errors that were announced.
    pub announced: usize,
    /// Lines that are not the agreed JSON, and warnings and errors nobody announced: file, line number, reason.
    pub complaints: Vec<String>,
}

impl Report {
    /// Fails with the first complaints.
    ///
    /// # Errors
    /// When there is any.
    pub fn require_clean(&self) -> Result<()> {
        if self.complaints.is_empty() {
            return Ok(());
        }
        let shown = self.complaints.iter().take(SHOWN).map(|complaint| format!("\n  {complaint}"));
        bail!("{} complaints about the logs:{}", self.complaints.len(), shown.collect::<String>())
    }
}

/// Reads every log below `directory`.
///
/// # Errors
/// When a file or directory cannot be read.
pub fn check(directory: &Path, expectations: &Expectations) -> Result<Report> {
    let mut report = Report::default();
    for file in log_files(directory)? {
        report.files += 1;
        let bytes = fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let text = String::from_utf8_lossy(&bytes);
        for (number, line) in text.lines().enumerate() {
            report.lines += 1;
            let complaint = match check_line(line) {
                Ok(Severity::Quiet) => continue,
                Ok(Severity::Loud) if expectations.covers(&file, line) => {
                    report.announced += 1;
                    continue;
                }
                Ok(Severity::Loud) => "not announced".to_owned(),
                Err(reason) => reason,
            };
            let shown = file.strip_prefix(directory).unwrap_or(&file);
            report.complaints.push(format!("{}:{}: {complaint}: {line}", shown.display(), number + 1));
        }
    }
    Ok(report)
}

/// Logs below a directory, in a stable order.
fn log_files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if is_log(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn is_log(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    name.ends_with(".log") || name.contains(".log.")
}

enum Severity {
    Quiet,
    Loud,
}

fn check_line(line: &str) -> Result<Severity, String> {
    let Pairs(pairs) = serde_json::from_str(line).map_err(|error| format!("not JSON ({error})"))?;
    let keys: Vec<&str> = pairs.iter().map(|(key, _)| key.as_str()).collect();
    if keys != KEYS {
        return Err(format!("keys {keys:?}"));
    }
    let text =
        |index: usize| pairs[index].1.as_str().ok_or_else(|| format!("{} is not a string", KEYS[index]));
    let (time, severity) = (text(0)?, text(1)?);
    text(2)?;
    text(3)?;
    if !is_timestamp(time) {
        return Err(format!("time {time}"));
    }
    if !pairs[4].1.is_object() || !pairs[5].1.is_array() {
        return Err("fields is not an object or spans is not an array".to_owned());
    }
    match severity {
        "WARNING" | "ERROR" => Ok(Severity::Loud),
        known if SEVERITIES.contains(&known) => Ok(Severity::Quiet),
        unknown => Err(format!("severity {unknown}")),
    }
}

/// RFC 3339 in UTC with nanoseconds: `2026-01-02T03:04:05.678901234Z`.
fn is_timestamp(time: &str) -> bool {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00.000000000Z";
    time.len() == SHAPE.len()
        && time.bytes().zip(SHAPE).all(|(byte, shape)| match shape {
            b'0' => byte.is_ascii_digit(),
            exact => byte == *exact,
        })
}

/// A JSON object with its keys in the order of the text.
struct Pairs(Vec<(String, Value)>);

impl<'de> de::Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Pairs;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(severity: &str, message: &str) -> String {
        format!(
            r#"{{"time":"2026-01-02T03:04:05.678901234Z","severity":"{severity}","message":"{message}","target":"t","fields":{{}},"spans":[]}}"#
        )
    }

    #[test]
    fn the_agreed_line_is_accepted_and_its_severity_told() {
        assert!(matches!(check_line(&line("INFO", "up")), Ok(Severity::Quiet)));
        assert!(matches!(check_line(&line("ERROR", "down")), Ok(Severity::Loud)));
    }

    #[test]
    fn deviations_are_named() {
        let good = line("INFO", "up");
        for (from, to, complaint) in [
            ("\"message\":\"up\",\"target\":\"t\"", "\"target\":\"t\",\"message\":\"up\"", "keys"),
            ("\"up\"", "7", "message is not a string"),
            ("\"fields\":{}", "\"fields\":[]", "fields"),
            ("INFO", "WARN", "severity WARN"),
            (".678901234Z", "Z", "time"),
            ("]}", "]", "not JSON"),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good);
            let reason = check_line(&bad).err().unwrap_or_default();
            assert!(reason.contains(complaint), "{bad}: {reason}");
        }
    }

    #[test]
    fn only_announced_warnings_pass() {
        let directory = std::env::temp_dir().join(format!("adit-lab-logs-{}", std::process::id()));
        let host = directory.join("gateway0");
        fs::create_dir_all(&host).unwrap();
        let text = format!("{}\n{}\npanicked at\n", line("WARNING", "portal gone"), line("INFO", "up"));
        fs::write(host.join("adit-gateway.log"), &text).unwrap();
        fs::write(host.join("adit-gateway.stderr"), "free text").unwrap();

        let silent = check(&directory, &Expectations::none()).unwrap();
        assert_eq!((silent.files, silent.lines, silent.complaints.len()), (1, 3, 2));
        assert!(
            silent.require_clean().unwrap_err().to_string().contains("adit-gateway.log:1: not announced")
        );

        let mut expectations = Expectations::none();
        expectations.announce("adit-gateway", "portal gone").announce("aditd", "panicked");
        let announced = check(&directory, &expectations).unwrap();
        assert_eq!((announced.announced, announced.complaints.len()), (1, 1), "{announced:?}");
        fs::remove_dir_all(directory).unwrap();
    }
}
