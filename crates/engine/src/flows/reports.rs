//! A machine's reports, as the control thread sees them.

use std::fs;
use std::io;
use std::path::Path;

use adit_protocol::flow::{FlowRecord, Flows, FlowsStored};
use tokio::sync::mpsc;

use super::FlowSpool;

/// Says whose reports lie in a directory.
const OWNER: &str = "owner";

/// Where reports of flows wait for the portal; nowhere if there is no place for them.
#[derive(Debug)]
pub(crate) struct Reports {
    spool: Option<FlowSpool>,
    is_online: bool,
}

impl Reports {
    /// Opens the spool in `directory` with room for `most_bytes`, for 0 none; batches to send come out of the receiver.
    ///
    /// What another `owner` left is thrown away: its reports would be taken for this one's. Where the disk fails, everything
    /// else goes on without reports.
    pub(crate) fn open(directory: &Path, most_bytes: u64, owner: &str) -> (Self, mpsc::Receiver<Flows>) {
        let nowhere = || (Self { spool: None, is_online: false }, mpsc::channel(1).1);
        if most_bytes == 0 {
            return nowhere();
        }
        let started = belong(directory, owner).and_then(|()| FlowSpool::start(directory, most_bytes));
        match started {
            Ok((spool, batches)) => (Self { spool: Some(spool), is_online: false }, batches),
            Err(error) => {
                tracing::error!(%error, "flows are not reported, for there is no place to keep the reports");
                nowhere()
            }
        }
    }

    /// Says whether the portal is there and wants reports.
    pub(crate) fn set_online(&mut self, is_online: bool) {
        self.is_online = is_online;
        if let Some(spool) = &self.spool {
            spool.set_online(is_online);
        }
    }

    /// Whether a batch may be sent: one that was given out before the portal was lost comes again.
    pub(crate) const fn is_online(&self) -> bool {
        self.is_online
    }

    /// The portal has stored a batch.
    pub(crate) fn stored(&self, stored: FlowsStored) {
        if let Some(spool) = &self.spool {
            spool.stored(stored);
        }
    }

    /// Takes what the machine has to report; never waits.
    pub(crate) fn take(&self, records: impl Iterator<Item = FlowRecord>) {
        for record in records {
            if let Some(spool) = &self.spool {
                spool.report(record);
            }
        }
    }

    /// Takes the last reports of a run, and returns when all are on disk.
    pub(crate) fn finish(self, records: impl Iterator<Item = FlowRecord>) {
        let Some(spool) = self.spool else { return };
        for record in records {
            spool.report_last(record);
        }
    }
}

/// Makes the directory the owner's.
fn belong(directory: &Path, owner: &str) -> io::Result<()> {
    let path = directory.join(OWNER);
    match fs::read_to_string(&path) {
        Ok(before) if before == owner => return Ok(()),
        Ok(_) => fs::remove_dir_all(directory)?,
        // Of before it was noted.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    super::spool::make(directory)?;
    fs::write(path, owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_reports_what_another_did() {
        let directory = std::env::temp_dir().join(format!("adit-flow-reports-{}", uuid::Uuid::new_v4()));
        let kept = directory.join("kept");
        belong(&directory, "anna").unwrap();
        fs::write(&kept, "a report").unwrap();
        belong(&directory, "anna").unwrap();
        assert!(kept.exists());
        belong(&directory, "bert").unwrap();
        assert!(!kept.exists());
        assert_eq!(fs::read_to_string(directory.join(OWNER)).unwrap(), "bert");
        fs::remove_dir_all(directory).unwrap();
    }
}
