//! A file that one run of a program leaves for the next one on the same host.
//!
//! It holds secrets (mode 0600), is read at most once, and only while it is fresh: the first line names the
//! format, a checksum, the boot of the machine and the time since boot, which no change of the wall clock touches.
//! Whatever is wrong with it, the next run starts as if it were not there.
//!
//! ```text
//! adit-handover 1 <SHA-256 of the rest, hex> <boot id> <seconds since boot> <seconds that it stays fresh>
//! <contents>
//! ```

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use crate::atomic_file;

/// Largest file in bytes.
const MAX_SIZE: u64 = 256 << 20;

const FORMAT: &str = "adit-handover 1";

/// Why a handover was not used.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// Others could have read or written it.
    #[error("{path} has mode {mode:04o}: others could have read or changed it", path = .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It does not say what it should, or not all of it.
    #[error("{} is damaged", .0.display())]
    Damaged(PathBuf),
    /// Another version of the program wrote it in a form that this one does not know.
    #[error("{} has another format", .0.display())]
    OtherFormat(PathBuf),
    /// The machine was started anew since: the kernel has forgotten what the file rests on.
    #[error("{} is from before the machine was started", .0.display())]
    OtherBoot(PathBuf),
    /// It is too old.
    #[error("{path} is {age:?} old and was good for {fresh_for:?}", path = .path.display())]
    Stale {
        /// The file.
        path: PathBuf,
        /// Its age.
        age: Duration,
        /// How old it might have been.
        fresh_for: Duration,
    },
    /// Anything else.
    #[error("cannot {action} {path}: {error}", path = .path.display())]
    System {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
}

/// Where one run leaves something for the next.
#[derive(Debug, Clone)]
pub struct HandoverFile {
    path: PathBuf,
}

impl HandoverFile {
    /// The file in a state directory.
    #[must_use]
    pub fn new(state_directory: &Path) -> Self {
        Self { path: state_directory.join("handover") }
    }

    /// Leaves `contents`, good for `fresh_for`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn leave(&self, contents: &[u8], fresh_for: Duration) -> Result<(), HandoverError> {
        let (boot, since_boot) =
            moment().map_err(|error| self.system("read the time since boot for", error))?;
        let checksum = hex(contents);
        let (at, fresh) = (since_boot.as_secs_f64(), fresh_for.as_secs_f64());
        let mut file = format!("{FORMAT} {checksum} {boot} {at:.2} {fresh:.2}\n").into_bytes();
        file.extend_from_slice(contents);
        atomic_file::replace(&self.path, &file, 0o600).map_err(|error| self.system("write", error))
    }

    /// Takes what an earlier run left, and how long ago that was; the file is gone afterwards, good or not.
    ///
    /// # Errors
    /// When there is a file and it must not be used.
    pub fn take(&self) -> Result<Option<(Vec<u8>, Duration)>, HandoverError> {
        let metadata = match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(|error| self.system("read", error))?,
        };
        let contents = if metadata.is_file() && metadata.len() <= MAX_SIZE {
            fs::read(&self.path).map_err(|error| self.system("read", error))
        } else {
            Err(HandoverError::Damaged(self.path.clone()))
        };
        // Before anything is done with it: a run that it makes fail must not meet it again.
        fs::remove_file(&self.path).map_err(|error| self.system("remove", error))?;
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(HandoverError::Exposed { path: self.path.clone(), mode });
        }
        self.judge(&contents?).map(Some)
    }

    fn judge(&self, file: &[u8]) -> Result<(Vec<u8>, Duration), HandoverError> {
        let damaged = || HandoverError::Damaged(self.path.clone());
        let end = file.iter().position(|byte| *byte == b'\n').ok_or_else(damaged)?;
        let (head, contents) = (&file[..end], &file[end + 1..]);
        let head = std::str::from_utf8(head).map_err(|_| damaged())?;
        let rest = head.strip_prefix(FORMAT).ok_or_else(|| HandoverError::OtherFormat(self.path.clone()))?;
        let words: Vec<&str> = rest.split_whitespace().collect();
        let [checksum, boot, at, fresh_for] = words[..] else { return Err(damaged()) };
        if checksum != hex(contents) {
            return Err(damaged());
        }
        let seconds = |text: &str| text.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
        let (Some(at), Some(fresh_for)) = (seconds(at), seconds(fresh_for)) else { return Err(damaged()) };
        let (this_boot, now) =
            moment().map_err(|error| self.system("read the time since boot for", error))?;
        if boot != this_boot {
            return Err(HandoverError::OtherBoot(self.path.clone()));
        }
        let age = now.saturating_sub(at);
        if age > fresh_for {
            return Err(HandoverError::Stale { path: self.path.clone(), age, fresh_for });
        }
        Ok((contents.to_vec(), age))
    }

    fn system(&self, action: &'static str, error: io::Error) -> HandoverError {
        HandoverError::System { action, path: self.path.clone(), error }
    }
}

/// Names the machine's boot, and how long ago it was, suspended time included.
fn moment() -> io::Result<(String, Duration)> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    let uptime = fs::read_to_string("/proc/uptime")?;
    let seconds = uptime.split_whitespace().next().and_then(|text| text.parse::<f64>().ok());
    let since = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    Ok((boot, since.ok_or_else(|| io::Error::other("/proc/uptime says no number"))?))
}

fn hex(contents: &[u8]) -> String {
    Sha256::digest(contents).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file() -> (tempfile::TempDir, HandoverFile) {
        let directory = tempfile::tempdir().expect("makes");
        let file = HandoverFile::new(directory.path());
        (directory, file)
    }

    #[test]
    fn what_is_left_is_taken_once() {
        let (_directory, file) = file();
        assert!(file.take().expect("nothing there").is_none());
        file.leave(b"state\nwith lines", Duration::from_secs(10)).expect("writes");
        let mode = fs::metadata(&file.path).expect("is there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let (contents, age) = file.take().expect("reads").expect("is there");
        assert_eq!(contents, b"state\nwith lines");
        assert!(age < Duration::from_secs(5));
        assert!(file.take().expect("gone").is_none());
    }

    /// Leaves a good file, lets `edit` change its text, and takes it.
    fn edited(edit: impl Fn(String) -> String) -> HandoverError {
        let (_directory, file) = file();
        file.leave(b"state", Duration::from_secs(10)).expect("writes");
        let text = fs::read_to_string(&file.path).expect("reads");
        fs::write(&file.path, edit(text)).expect("writes");
        let error = file.take().expect_err("must be refused");
        assert!(!file.path.exists(), "a bad one is removed too");
        error
    }

    #[test]
    fn what_is_damaged_stale_or_foreign_is_refused() {
        assert!(matches!(edited(|text| text.replace("state", "stale")), HandoverError::Damaged(_)));
        assert!(matches!(edited(|text| text[..text.len() - 1].to_owned()), HandoverError::Damaged(_)));
        assert!(matches!(edited(|_| "\n".to_owned()), HandoverError::OtherFormat(_)));
        assert!(matches!(edited(|_| String::new()), HandoverError::Damaged(_)));
        let next = edited(|text| text.replace("handover 1", "handover 2"));
        assert!(matches!(next, HandoverError::OtherFormat(_)));
        let (boot, _) = moment().expect("reads");
        let other = edited(move |text| text.replace(&boot, "00000000-0000-0000-0000-000000000000"));
        assert!(matches!(other, HandoverError::OtherBoot(_)));
        let old = edited(|text| {
            let mut words: Vec<&str> = text.split(' ').collect();
            words[4] = "0.00";
            words.join(" ")
        });
        assert!(matches!(old, HandoverError::Stale { .. }), "{old}");
    }

    #[test]
    fn what_others_could_read_is_refused() {
        let (_directory, file) = file();
        file.leave(b"state", Duration::from_secs(10)).expect("writes");
        fs::set_permissions(&file.path, fs::Permissions::from_mode(0o644)).expect("changes");
        assert!(matches!(file.take(), Err(HandoverError::Exposed { mode: 0o644, .. })));
    }
}
