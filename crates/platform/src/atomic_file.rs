//! Writing a whole file so that a crash leaves the old one or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Replaces `path` (a symbolic link is replaced, not followed) with a file of `mode` bits that is on the disk
/// when the call returns.
pub(crate) fn replace(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let (directory, temporary) = beside(path)?;
    match fs::remove_file(&temporary) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let written = write_new(&temporary, contents, mode).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    File::open(directory)?.sync_all()
}

fn write_new(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?; // past the umask
    file.write_all(contents)?;
    file.sync_all()
}

/// The directory of `path` and the name that a file has there until it is complete.
fn beside(path: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "not a file path");
    let name = path.file_name().ok_or_else(invalid)?.to_str().ok_or_else(invalid)?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let temporary = directory.join(format!(".{name}.adit-new"));
    Ok((directory, temporary))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_with_the_mode_and_leaves_no_other_file() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let path = directory.path().join("state");
        fs::write(directory.path().join(".state.adit-new"), "left by a crash").expect("writes");
        replace(&path, b"one", 0o600).expect("replaces");
        replace(&path, b"two", 0o644).expect("replaces");
        assert_eq!(fs::read(&path).expect("reads"), b"two");
        assert_eq!(fs::metadata(&path).expect("metadata").permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(directory.path()).expect("lists").count(), 1);
    }

    #[test]
    fn a_symbolic_link_is_replaced_and_its_target_kept() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let (target, link) = (directory.path().join("target"), directory.path().join("link"));
        fs::write(&target, "old").expect("writes");
        std::os::unix::fs::symlink(&target, &link).expect("links");
        replace(&link, b"new", 0o600).expect("replaces");
        assert_eq!(fs::read(&target).expect("reads"), b"old");
        assert_eq!(fs::read(&link).expect("reads"), b"new");
    }
}
