//! State of the programs under test: files with secrets, for one run.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A directory only this user can read; removed when dropped.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
}

impl StateDir {
    /// A new, empty one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create() -> Result<Self> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // Named as namespaces are, so that the same sweep finds what a killed run left.
        let name = format!("{}{number}-state", crate::world::own_prefix()?);
        let path = std::env::temp_dir().join(name);
        make_private(&path)?;
        Ok(Self { path })
    }

    /// A directory within, made when missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn of(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        make_private(&path)?;
        Ok(path)
    }

    /// Writes a secret to a file and returns its path.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_secret(&self, name: &str, secret: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::write(&path, secret).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

fn make_private(path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("making {}", path.display()))
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // What cannot be removed lies in the temporary directory and harms nobody.
        let _ = fs::remove_dir_all(&self.path);
    }
}
