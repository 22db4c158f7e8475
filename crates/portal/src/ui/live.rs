//! Events that have live pages look again.
//!
//! An event says only that something happened: the page then asks for its blocks like anybody
//! else, so that there is one way to see something, with one check of who may. Events are merged
//! while a reader is slow and come at most once a second. A stream ends with its session, with
//! the portal, and after an hour at the latest; browsers then come back.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use super::visitor::Visitor;
use crate::portal::SharedPortal;
use crate::web::Refusal;

/// Streams at the same time.
const MAX_STREAMS: usize = 500;

/// The shortest time between two events.
const PAUSE: Duration = Duration::from_secs(1);

/// How often the session is looked at when nothing happens.
const SESSION_INTERVAL: Duration = Duration::from_secs(2);

/// A stream lasts no longer; browsers come back.
const LONGEST: Duration = Duration::from_secs(60 * 60);

static STREAMS: std::sync::LazyLock<Arc<Semaphore>> =
    std::sync::LazyLock::new(|| Arc::new(Semaphore::new(MAX_STREAMS)));

/// One reader.
struct Reader {
    portal: SharedPortal,
    visitor: Visitor,
    activity: watch::Receiver<u64>,
    until: Instant,
    earliest: Instant,
    has_ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl Reader {
    /// Waits for the next event; `None` ends the stream.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        if self.has_ended {
            return None;
        }
        loop {
            let changed = tokio::time::timeout(SESSION_INTERVAL, self.activity.changed()).await;
            if self.portal.hub.is_closing() || Instant::now() >= self.until {
                return None;
            }
            if !self.visitor.is_still_signed_in(&self.portal).await {
                self.has_ended = true;
                return Some((Ok(Event::default().event("end").data("session")), self));
            }
            match changed {
                Err(_) => {}
                Ok(Err(_)) => return None,
                Ok(Ok(())) => {
                    tokio::time::sleep_until(self.earliest).await;
                    self.earliest = Instant::now() + PAUSE;
                    let count = *self.activity.borrow_and_update();
                    return Some((Ok(Event::default().event("change").data(count.to_string())), self));
                }
            }
        }
    }
}

/// A stream of events for one page.
pub(super) async fn events(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
) -> Result<Response, Refusal> {
    let permit = Arc::clone(&STREAMS).try_acquire_owned();
    let permit = permit.map_err(|_| Refusal::unavailable("Too many pages are open"))?;
    let activity = portal.hub.activity();
    let now = Instant::now();
    let reader = Reader {
        portal,
        visitor,
        activity,
        until: now + LONGEST,
        earliest: now,
        has_ended: false,
        _permit: permit,
    };
    let events = stream::unfold(reader, Reader::next);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response())
}
