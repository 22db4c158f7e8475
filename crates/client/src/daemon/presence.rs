//! What the login manager says: who sits at the machine, and that it has slept.

use std::collections::BTreeSet;

use adit_platform::login_manager::{LoginEvent, LoginManager};
use tokio::sync::{mpsc, watch};

/// Passes on what `manager` tells, for as long as somebody listens.
pub(super) async fn follow(
    mut manager: impl LoginManager,
    active_users: watch::Sender<BTreeSet<u32>>,
    resumed: mpsc::Sender<()>,
) {
    loop {
        match manager.next().await {
            LoginEvent::Sleeping => tracing::info!("the machine goes to sleep"),
            LoginEvent::Resumed => {
                tracing::info!("the machine has slept");
                // One that waits already is enough.
                if let Err(mpsc::error::TrySendError::Closed(())) = resumed.try_send(()) {
                    return;
                }
            }
            LoginEvent::ActiveUsers(users) => {
                tracing::debug!(?users, "at the machine");
                active_users.send_replace(users);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::future::BoxFuture;

    use super::*;

    struct Script(VecDeque<LoginEvent>);

    impl LoginManager for Script {
        fn next(&mut self) -> BoxFuture<'_, LoginEvent> {
            let event = self.0.pop_front();
            Box::pin(async move {
                match event {
                    Some(event) => event,
                    None => std::future::pending().await,
                }
            })
        }
    }

    #[tokio::test]
    async fn sleep_and_people_are_passed_on() {
        let script = [
            LoginEvent::ActiveUsers([1000].into()),
            LoginEvent::Sleeping,
            LoginEvent::Resumed,
            LoginEvent::Resumed,
            LoginEvent::ActiveUsers([1001].into()),
        ];
        let (users, mut seen) = watch::channel(BTreeSet::new());
        let (resumed, mut wakes) = mpsc::channel(1);
        let following = tokio::spawn(follow(Script(script.into()), users, resumed));
        seen.wait_for(|users| users.contains(&1001)).await.expect("still followed");
        assert!(wakes.recv().await.is_some());
        assert!(wakes.try_recv().is_err(), "two that nobody has heard are one");
        following.abort();
    }
}
