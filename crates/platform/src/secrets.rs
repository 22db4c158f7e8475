//! Keys and tokens on the disk.
//!
//! A secret is a file of mode 0600 in a directory of mode 0700. Writing is atomic. A file that others could
//! have read is refused instead of quietly repaired, because the secret in it must be taken for known and
//! replaced.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::atomic_file;

/// Largest secret in bytes.
pub const MAX_SECRET: usize = 64 * 1024;

/// Why a secret could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The name is no plain file name.
    #[error(
        "`{0}` cannot be the name of a secret (lower-case letters, digits, `-`, `_`, `.`; not starting with a dot)"
    )]
    BadName(String),
    /// Others may read or write it.
    #[error(
        "{path} has mode {mode:04o}: others can read or change it; replace the secret, or `chmod {wanted:04o} {path}` \
         if nobody else could have used it", path = .path.display()
    )]
    Exposed {
        /// The file or directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        wanted: u32,
    },
    /// More than [`MAX_SECRET`] bytes.
    #[error("{} is larger than a secret can be", .0.display())]
    TooLarge(PathBuf),
    /// Anything else.
    #[error("cannot {action} {path}: {error}", path = .path.display())]
    System {
        /// What was being done.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
}

/// A place for small secrets by name.
pub trait SecretStore: Send + Sync {
    /// The secret, or `None` when there is none of that name.
    ///
    /// # Errors
    /// See [`SecretError`].
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, SecretError>;

    /// Writes a secret over an older one; it is on the disk when this returns.
    ///
    /// # Errors
    /// See [`SecretError`]; the older secret is intact then.
    fn write(&self, name: &str, secret: &[u8]) -> Result<(), SecretError>;

    /// Removes a secret; one that does not exist is no error.
    ///
    /// # Errors
    /// See [`SecretError`].
    fn remove(&self, name: &str) -> Result<(), SecretError>;
}

/// Secrets as files of one directory.
#[derive(Clone, Debug)]
pub struct FileSecrets {
    directory: PathBuf,
}

impl FileSecrets {
    /// Opens the directory, making it with mode 0700 when it is missing.
    ///
    /// # Errors
    /// When it cannot be made, or others may write to it.
    pub fn open(directory: &Path) -> Result<Self, SecretError> {
        let system = |action| move |error| SecretError::System { action, path: directory.to_owned(), error };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(system("make"))?;
        let mode = fs::metadata(directory).map_err(system("read"))?.permissions().mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(SecretError::Exposed { path: directory.to_owned(), mode, wanted: 0o700 });
        }
        Ok(Self { directory: directory.to_owned() })
    }

    fn path(&self, name: &str) -> Result<PathBuf, SecretError> {
        check_name(name)?;
        Ok(self.directory.join(name))
    }
}

impl SecretStore for FileSecrets {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, SecretError> {
        let path = self.path(name)?;
        let metadata = match fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SecretError::System { action: "read", path, error }),
        };
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(SecretError::Exposed { path, mode, wanted: 0o600 });
        }
        if metadata.len() > MAX_SECRET as u64 {
            return Err(SecretError::TooLarge(path));
        }
        fs::read(&path).map(Some).map_err(|error| SecretError::System { action: "read", path, error })
    }

    fn write(&self, name: &str, secret: &[u8]) -> Result<(), SecretError> {
        let path = self.path(name)?;
        if secret.len() > MAX_SECRET {
            return Err(SecretError::TooLarge(path));
        }
        atomic_file::replace(&path, secret, 0o600).map_err(|error| SecretError::System {
            action: "write",
            path,
            error,
        })
    }

    fn remove(&self, name: &str) -> Result<(), SecretError> {
        let path = self.path(name)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(SecretError::System { action: "remove", path, error })
            }
            _ => Ok(()),
        }
    }
}

fn check_name(name: &str) -> Result<(), SecretError> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.bytes().all(legal) {
        return Err(SecretError::BadName(name.to_owned()));
    }
    Ok(())
}

/// Secrets in memory, for tests.
#[derive(Debug, Default)]
pub struct FakeSecrets {
    secrets: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl FakeSecrets {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SecretStore for FakeSecrets {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, SecretError> {
        check_name(name)?;
        Ok(self.lock().get(name).cloned())
    }

    fn write(&self, name: &str, secret: &[u8]) -> Result<(), SecretError> {
        check_name(name)?;
        self.lock().insert(name.to_owned(), secret.to_owned());
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), SecretError> {
        check_name(name)?;
        self.lock().remove(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_back_and_go_away() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let root = directory.path().join("state");
        let stores: [Box<dyn SecretStore>; 2] =
            [Box::new(FileSecrets::open(&root).expect("opens")), Box::<FakeSecrets>::default()];
        for store in stores {
            assert_eq!(store.read("token").expect("reads"), None);
            store.write("token", b"one").expect("writes");
            store.write("token", b"two").expect("writes");
            assert_eq!(store.read("token").expect("reads").as_deref(), Some(&b"two"[..]));
            store.remove("token").expect("removes");
            store.remove("token").expect("removes again");
            assert_eq!(store.read("token").expect("reads"), None);
            for bad in ["", "../token", ".hidden", "a/b", "UPPER", "nul\0"] {
                assert!(matches!(store.write(bad, b"x"), Err(SecretError::BadName(_))), "{bad}");
            }
        }
    }

    #[test]
    fn files_and_directory_are_private() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let root = directory.path().join("state");
        let store = FileSecrets::open(&root).expect("opens");
        store.write("key", b"secret").expect("writes");
        let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode(&root), 0o700);
        assert_eq!(mode(&root.join("key")), 0o600);
    }

    #[test]
    fn exposed_secrets_are_refused_with_the_cure() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let root = directory.path().join("state");
        let store = FileSecrets::open(&root).expect("opens");
        store.write("key", b"secret").expect("writes");
        fs::set_permissions(root.join("key"), fs::Permissions::from_mode(0o640)).expect("chmod");
        let error = store.read("key").expect_err("exposed");
        assert!(error.to_string().contains("0640") && error.to_string().contains("chmod 0600"), "{error}");
        fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).expect("chmod");
        assert!(matches!(FileSecrets::open(&root), Err(SecretError::Exposed { .. })));
    }

    #[test]
    fn oversized_secrets_are_refused() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = FileSecrets::open(&directory.path().join("state")).expect("opens");
        let huge = vec![0; MAX_SECRET + 1];
        assert!(matches!(store.write("key", &huge), Err(SecretError::TooLarge(_))));
    }
}
