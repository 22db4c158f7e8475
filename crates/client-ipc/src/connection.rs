//! The front end's side of the socket.

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;

use crate::message::Outcome;
use crate::{
    Event, FrameError, FromDaemon, FromFrontEnd, Hello, Request, RequestError, Response, read_frame,
    write_frame,
};

/// How long the daemon may take for its hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// Events kept while a call waits for its reply; older ones are dropped, since every event
/// carries the whole state.
const KEPT_EVENTS: usize = 64;

/// Why a call did not return what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The daemon does not listen, or the caller may not open its socket.
    #[error("cannot reach the daemon: {0}")]
    Unreachable(#[source] std::io::Error),
    /// The daemon is too old or too new.
    #[error("the daemon is version {version}, which this program does not understand")]
    Incompatible {
        /// The daemon's version.
        version: String,
    },
    /// The daemon went away or talks nonsense.
    #[error("talking to the daemon: {0}")]
    Frame(#[from] FrameError),
    /// The daemon did not answer in time.
    #[error("the daemon did not answer in time")]
    Timeout,
    /// The daemon said no.
    #[error(transparent)]
    Refused(#[from] RequestError),
}

/// A connection of a front end to the daemon.
#[derive(Debug)]
pub struct FrontEnd {
    stream: UnixStream,
    next_id: u64,
    events: VecDeque<Event>,
    daemon: Hello,
}

impl FrontEnd {
    /// Connects to the daemon that listens at `socket` and exchanges hellos.
    ///
    /// # Errors
    ///
    /// When nobody listens there, or a daemon this build does not understand.
    pub async fn connect(socket: &Path) -> Result<Self, CallError> {
        let mut stream = UnixStream::connect(socket).await.map_err(CallError::Unreachable)?;
        let hello = async {
            write_frame(&mut stream, &Hello::new()).await?;
            read_frame::<Hello>(&mut stream).await
        };
        let daemon = tokio::time::timeout(HELLO_TIMEOUT, hello).await.map_err(|_| CallError::Timeout)??;
        if !daemon.is_compatible() {
            return Err(CallError::Incompatible { version: daemon.version });
        }
        Ok(Self { stream, next_id: 1, events: VecDeque::new(), daemon })
    }

    /// The daemon's hello.
    pub fn daemon(&self) -> &Hello {
        &self.daemon
    }

    /// Sends `request` and waits at most `limit` for the reply.
    ///
    /// # Errors
    ///
    /// See [`CallError`]. After any of them but [`CallError::Refused`] the connection is of no more use.
    pub async fn call(&mut self, request: Request, limit: Duration) -> Result<Response, CallError> {
        tokio::time::timeout(limit, self.exchange(request)).await.map_err(|_| CallError::Timeout)?
    }

    async fn exchange(&mut self, request: Request) -> Result<Response, CallError> {
        let id = self.next_id;
        self.next_id += 1;
        write_frame(&mut self.stream, &FromFrontEnd { id, request }).await?;
        loop {
            match read_frame(&mut self.stream).await? {
                FromDaemon::Reply(reply) if reply.id == id => {
                    return match reply.outcome {
                        Outcome::Result(response) => Ok(response),
                        Outcome::Error(error) => Err(CallError::Refused(error)),
                    };
                }
                FromDaemon::Reply(_) => {}
                FromDaemon::Event(event) => self.keep(event),
            }
        }
    }

    /// The next event after a `subscribe` call.
    ///
    /// # Errors
    ///
    /// When the daemon goes away or talks nonsense.
    pub async fn next_event(&mut self) -> Result<Event, CallError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if let FromDaemon::Event(event) = read_frame(&mut self.stream).await? {
                return Ok(event);
            }
        }
    }

    fn keep(&mut self, event: Event) {
        if self.events.len() == KEPT_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}
