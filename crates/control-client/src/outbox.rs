//! Messages that wait for a connection.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// Messages kept; when one more comes the oldest goes.
const CAPACITY: usize = 512;

/// A bounded queue of messages to the portal; clones share it.
pub struct Outbox<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    queue: Mutex<Queue<T>>,
    filled: Notify,
}

struct Queue<T> {
    messages: VecDeque<T>,
    dropped: u64,
}

impl<T: PartialEq> Outbox<T> {
    /// Queues `message`. One that says the same and still waits is replaced; when the outbox
    /// is full the oldest one is dropped and counted.
    pub fn push(&self, message: T) {
        {
            let mut queue = self.lock();
            // Only while offline is there more than one: a request that its owner repeats.
            if let Some(same) = queue.messages.iter().position(|waiting| *waiting == message) {
                queue.messages.remove(same);
            }
            if queue.messages.len() == CAPACITY {
                queue.messages.pop_front();
                queue.dropped += 1;
                let dropped = queue.dropped;
                tracing::debug!(dropped, "the outbox to the portal is full: dropped the oldest message");
            }
            queue.messages.push_back(message);
        }
        self.shared.filled.notify_one();
    }
}

impl<T> Outbox<T> {
    pub(crate) fn new() -> Self {
        let queue = Mutex::new(Queue { messages: VecDeque::new(), dropped: 0 });
        Self { shared: Arc::new(Shared { queue, filled: Notify::new() }) }
    }

    /// How many messages were dropped since the start.
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    pub(crate) fn try_pop(&self) -> Option<T> {
        self.lock().messages.pop_front()
    }

    /// Puts back a message that could not be sent; it is the oldest one.
    pub(crate) fn put_back(&self, message: T) {
        let mut queue = self.lock();
        if queue.messages.len() < CAPACITY {
            queue.messages.push_front(message);
        } else {
            queue.dropped += 1;
        }
    }

    /// The oldest message, as soon as there is one. Safe to drop while it waits.
    pub(crate) async fn pop(&self) -> T {
        loop {
            let filled = self.shared.filled.notified();
            if let Some(message) = self.try_pop() {
                return message;
            }
            filled.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue<T>> {
        // A panic while pushing leaves a usable queue behind.
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<T> fmt::Debug for Outbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("waiting", &self.lock().messages.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_when_it_is_full() {
        let outbox = Outbox::new();
        for number in 0..=CAPACITY {
            outbox.push(number);
        }
        assert_eq!(outbox.dropped(), 1);
        assert_eq!(outbox.try_pop(), Some(1));
    }

    #[test]
    fn a_repeated_message_waits_once_and_in_its_new_place() {
        let outbox = Outbox::new();
        for message in ["a", "b", "a"] {
            outbox.push(message);
        }
        assert_eq!((outbox.try_pop(), outbox.try_pop(), outbox.try_pop()), (Some("b"), Some("a"), None));
        assert_eq!(outbox.dropped(), 0);
    }

    #[test]
    fn a_message_that_was_not_sent_is_first_again() {
        let outbox = Outbox::new();
        outbox.push(1);
        outbox.push(2);
        let first = outbox.try_pop().unwrap();
        outbox.put_back(first);
        assert_eq!((outbox.try_pop(), outbox.try_pop()), (Some(1), Some(2)));
    }

    #[tokio::test]
    async fn a_waiting_reader_is_woken() {
        let outbox = Outbox::new();
        let reader = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.pop().await }
        });
        tokio::task::yield_now().await;
        outbox.push(7);
        assert_eq!(reader.await.unwrap(), 7);
    }
}
