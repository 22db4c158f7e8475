//! What the daemon gives back when it has nothing to do.

use std::time::Duration;

use adit_platform::startup_pages;
use tokio::sync::watch;

use super::server::View;

/// After so long in one state, whatever led to it is over.
const SETTLED: Duration = Duration::from_secs(10);

/// Gives back the code that connecting, signing in and the like needed, each time that the state has settled.
pub(super) async fn give_back(mut view: watch::Receiver<View>) {
    loop {
        let state = view.borrow_and_update().status.state;
        let changed = view.wait_for(|view| view.status.state != state);
        match tokio::time::timeout(SETTLED, changed).await {
            Ok(Ok(_)) => continue,
            Ok(Err(_)) => return,
            Err(_) => {}
        }
        match startup_pages::release() {
            Ok(bytes) => tracing::debug!(bytes, "gave unused pages of the program back"),
            Err(error) => tracing::debug!(%error, "cannot give unused pages of the program back"),
        }
        if view.wait_for(|view| view.status.state != state).await.is_err() {
            return;
        }
    }
}
