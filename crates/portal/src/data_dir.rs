//! The data directory: the database and the secrets that must never be inside it.
//!
//! ```text
//! portal.db                 SQLite, unless another database is named
//! secrets/portal.key        from which the pre-shared keys of connections are derived
//! secrets/token-pepper.key  under which tokens are hashed
//! tls/ca.pem, ca.key        made by bootstrap unless a certificate is given
//! tls/server.pem, server.key
//! tls/acme.pem              chain and key from an ACME authority, if one is asked
//! tls/acme-account.json     the account there
//! ```
//!
//! Directories are 0700 and secrets 0600. A backup needs the database and `secrets`; kept in
//! different places, neither lets anyone in.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::credential::{self, Secrets};
use crate::store::Database;

/// Everything that is kept besides the database.
const FILES: [&str; 8] = [
    "secrets/portal.key",
    "secrets/token-pepper.key",
    "tls/ca.key",
    "tls/ca.pem",
    "tls/server.key",
    "tls/server.pem",
    "tls/acme.pem",
    "tls/acme-account.json",
];

/// Paths below one data directory.
#[derive(Debug, Clone)]
pub(crate) struct DataDir {
    root: PathBuf,
}

impl DataDir {
    /// The directory itself; nothing is touched yet.
    pub(crate) const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// The database that is used when no other is named.
    pub(crate) fn default_database(&self) -> Database {
        Database::Sqlite(self.root.join("portal.db"))
    }

    /// A file of the TLS directory.
    pub(crate) fn tls(&self, name: &str) -> PathBuf {
        self.root.join("tls").join(name)
    }

    /// The files that a backup holds besides the database, as far as they are there.
    pub(crate) fn files(&self) -> impl Iterator<Item = &'static str> {
        FILES.into_iter().filter(|name| self.path(name).exists())
    }

    /// Whether a backup may hold a file of this name.
    pub(crate) fn is_ours(name: &str) -> bool {
        FILES.contains(&name)
    }

    /// One of the files.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn secret(&self, name: &str) -> PathBuf {
        self.root.join("secrets").join(name)
    }

    /// Makes the directories.
    pub(crate) fn create(&self) -> Result<()> {
        for directory in [self.root.clone(), self.root.join("secrets"), self.root.join("tls")] {
            private_directory(&directory)?;
        }
        Ok(())
    }

    /// Makes the secrets that are not there yet.
    pub(crate) fn create_secrets(&self) -> Result<()> {
        for name in ["portal.key", "token-pepper.key"] {
            let path = self.secret(name);
            if !path.exists() {
                let text = format!("{}\n", STANDARD.encode(credential::random_bytes()?));
                write_private(&path, text.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Reads the secrets.
    pub(crate) fn secrets(&self) -> Result<Secrets> {
        let pepper = read_key(&self.secret("token-pepper.key"))?;
        let portal = read_key(&self.secret("portal.key"))?;
        Ok(Secrets::new(&pepper, &portal))
    }
}

fn read_key(path: &Path) -> Result<[u8; 32]> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read {}; was this directory bootstrapped?", path.display()))?;
    let bytes = STANDARD.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
    match bytes {
        Some(key) => Ok(key),
        None => bail!("{} is damaged: 32 bytes in base64 are expected", path.display()),
    }
}

fn private_directory(path: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).with_context(|| format!("cannot make the directory {}", path.display()))
}

/// Writes a file that only its owner can read; one that exists is replaced, whole or not at all.
pub(crate) fn replace_private(path: &Path, content: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove {}", new.display()));
        }
        _ => {}
    }
    write_private(&new, content)?;
    std::fs::rename(&new, path).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes a file that only its owner can read; an existing file is an error.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).with_context(|| format!("cannot create {}", path.display()))?;
    file.write_all(content)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("cannot write {}", path.display()))
}
