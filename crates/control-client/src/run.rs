//! The life of a session: attempts, pauses, and what happens while a connection stands.

use std::sync::Arc;
use std::time::Duration;

use adit_protocol::client::DisconnectReason;
use adit_protocol::frame::{self, Decoded};
use adit_protocol::{DecodeError, Message};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use tokio_tungstenite::tungstenite::protocol::Message as Frame;

use crate::backoff::Backoff;
use crate::connect::{AttemptError, Endpoint, Socket};
use crate::outbox::Outbox;
use crate::{Disconnecting, Event, FatalReason};

/// How often the portal must answer a ping.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// A connection on which nothing arrived for this long is dead.
const SILENCE_LIMIT: Duration = Duration::from_secs(35);

/// Malformed frames in one connection after which we give it up and start afresh.
const MOST_MALFORMED: u32 = 16;

/// Pause before coming back after another machine took over with our identity.
const SUPERSEDED_PAUSE: Duration = Duration::from_secs(60);

/// A connection that stood this long makes the next pause short again.
const STABLE: Duration = Duration::from_secs(10);

/// After a network change a connection must be heard from within this time.
const PROBE_LIMIT: Duration = Duration::from_secs(3);

/// How long a closing connection waits for the portal to have read everything.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// The owner's end of a session.
pub(crate) struct Owner<Incoming> {
    pub(crate) events: mpsc::Sender<Event<Incoming>>,
    pub(crate) stop: oneshot::Receiver<Duration>,
    pub(crate) network_changed: Arc<Notify>,
}

/// Why a connection ended.
enum Ended {
    /// The owner asked for it, and grants this long.
    Stopped(Duration),
    /// The owner is gone.
    Abandoned,
    Lost {
        reason: String,
        after: Option<Duration>,
    },
    Fatal(FatalReason),
}

/// Runs a session until its owner stops it or the credentials are dead.
pub(crate) async fn run<Incoming, Outgoing>(
    endpoint: Endpoint,
    hello: Box<dyn Fn() -> Outgoing + Send>,
    mut owner: Owner<Incoming>,
    outbox: Outbox<Outgoing>,
) where
    Incoming: Message + Disconnecting + Send,
    Outgoing: Message + Send + Sync,
{
    let mut backoff = Backoff::new();
    loop {
        let attempt = tokio::select! {
            attempt = endpoint.connect() => attempt,
            _ = &mut owner.stop => return,
            // The attempt may hang on a path that is gone.
            () = owner.network_changed.notified() => continue,
        };
        let ended = match attempt {
            Ok(socket) => {
                let since = Instant::now();
                let mut connection = Connection { socket, malformed: 0, last_heard: since, probe: None };
                let ended = connection.serve(hello(), &mut owner, &outbox).await;
                if since.elapsed() >= STABLE {
                    backoff.reset();
                }
                if let Ended::Stopped(limit) = ended {
                    connection.finish(&outbox, limit).await;
                    return;
                }
                ended
            }
            Err(AttemptError::Retry { reason, after }) => Ended::Lost { reason, after },
            Err(AttemptError::Fatal(reason)) => Ended::Fatal(reason),
        };
        let (reason, after) = match ended {
            Ended::Stopped(_) | Ended::Abandoned => return,
            Ended::Fatal(reason) => {
                // An owner that is gone does not care.
                let _ = owner.events.send(Event::Fatal { reason }).await;
                return;
            }
            Ended::Lost { reason, after } => (reason, after),
        };
        let retry_in = backoff.pause(after);
        if owner.events.send(Event::Disconnected { reason, retry_in }).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(retry_in) => {}
            _ = &mut owner.stop => return,
            // A pause that the portal asked for is kept.
            () = owner.network_changed.notified(), if after.is_none() => backoff.reset(),
        }
    }
}

struct Connection {
    socket: Socket,
    malformed: u32,
    last_heard: Instant,
    /// When the connection is given up unless it is heard from before.
    probe: Option<Instant>,
}

impl Connection {
    async fn serve<Incoming, Outgoing>(
        &mut self,
        hello: Outgoing,
        owner: &mut Owner<Incoming>,
        outbox: &Outbox<Outgoing>,
    ) -> Ended
    where
        Incoming: Message + Disconnecting + Send,
        Outgoing: Message + Send + Sync,
    {
        if let Err(ended) = self.send(&hello).await {
            return ended;
        }
        if owner.events.send(Event::Connected).await.is_err() {
            return Ended::Abandoned;
        }
        let mut pings = tokio::time::interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let probe = self.probe;
            let step = tokio::select! {
                limit = &mut owner.stop => Err(limit.map_or(Ended::Abandoned, Ended::Stopped)),
                message = outbox.pop() => {
                    let sent = self.send(&message).await;
                    if sent.is_err() {
                        outbox.put_back(message);
                    }
                    sent
                }
                _ = pings.tick() => self.ping().await,
                () = owner.network_changed.notified() => self.start_probe().await,
                () = tokio::time::sleep_until(probe.unwrap_or_else(Instant::now)), if probe.is_some() => {
                    Err(lost("nothing heard since the network changed".to_owned()))
                }
                frame = self.socket.next() => match self.receive(frame) {
                    Ok(Some(message)) => {
                        let delivered = deliver(message, &owner.events).await;
                        // A slow owner is not the portal's silence.
                        self.last_heard = Instant::now();
                        delivered
                    }
                    Ok(None) => Ok(()),
                    Err(ended) => Err(ended),
                },
            };
            if let Err(ended) = step {
                return ended;
            }
        }
    }

    async fn send(&mut self, message: &impl Message) -> Result<(), Ended> {
        let text = match frame::encode(message, None) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(kind = message.kind(), %error, "cannot write a message to the portal");
                return Ok(());
            }
        };
        let sent = tokio::time::timeout(SILENCE_LIMIT, self.socket.send(Frame::text(text))).await;
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(lost(format!("sending failed: {error}"))),
            Err(_) => Err(lost("the portal does not read".to_owned())),
        }
    }

    async fn ping(&mut self) -> Result<(), Ended> {
        if self.last_heard.elapsed() > SILENCE_LIMIT {
            return Err(lost(format!("nothing heard for {} s", SILENCE_LIMIT.as_secs())));
        }
        match tokio::time::timeout(SILENCE_LIMIT, self.socket.send(Frame::Ping(Vec::new().into()))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(lost(format!("sending failed: {error}"))),
            Err(_) => Err(lost("the portal does not read".to_owned())),
        }
    }

    async fn start_probe(&mut self) -> Result<(), Ended> {
        self.probe = Some(Instant::now() + PROBE_LIMIT);
        self.ping().await
    }

    fn receive<Incoming: Message>(
        &mut self,
        frame: Option<Result<Frame, tokio_tungstenite::tungstenite::Error>>,
    ) -> Result<Option<Incoming>, Ended> {
        let frame = match frame {
            None => return Err(lost("the portal closed the connection".to_owned())),
            Some(Err(error)) => return Err(lost(format!("receiving failed: {error}"))),
            Some(Ok(frame)) => frame,
        };
        self.last_heard = Instant::now();
        self.probe = None;
        match frame {
            Frame::Text(text) => self.decode(&text),
            Frame::Close(_) => Err(lost("the portal closed the connection".to_owned())),
            Frame::Binary(_) => self.count_malformed("a binary frame").map(|()| None),
            Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_) => Ok(None),
        }
    }

    fn decode<Incoming: Message>(&mut self, text: &str) -> Result<Option<Incoming>, Ended> {
        match frame::decode(text) {
            Ok(Decoded::Message { message, .. }) => Ok(Some(message)),
            Ok(Decoded::Unknown { kind }) => {
                tracing::debug!(kind, "ignored a message of a kind that this version does not know");
                Ok(None)
            }
            Err(
                error @ (DecodeError::Payload { .. } | DecodeError::NotAFrame(_) | DecodeError::Version(_)),
            )
            | Err(error @ DecodeError::TooLarge(_)) => {
                self.count_malformed(&error.to_string()).map(|()| None)
            }
        }
    }

    fn count_malformed(&mut self, what: &str) -> Result<(), Ended> {
        self.malformed += 1;
        tracing::warn!(error = what, count = self.malformed, "ignored a malformed message of the portal");
        if self.malformed < MOST_MALFORMED {
            return Ok(());
        }
        Err(lost("the portal sends malformed messages".to_owned()))
    }

    /// Sends what waits and closes, within `limit`.
    async fn finish<Outgoing: Message + Sync>(&mut self, outbox: &Outbox<Outgoing>, limit: Duration) {
        let work = async {
            while let Some(message) = outbox.try_pop() {
                if self.send(&message).await.is_err() {
                    return;
                }
            }
            // The portal may be gone already.
            if self.socket.close(None).await.is_ok() {
                // Leaving with unread data would make the kernel reset the connection, and the
                // portal lose our last messages: read until it has closed its side too.
                let rest = async { while let Some(Ok(_)) = self.socket.next().await {} };
                let _ = tokio::time::timeout(CLOSE_LIMIT, rest).await;
            }
        };
        if tokio::time::timeout(limit, work).await.is_err() {
            tracing::debug!("the portal did not take our last messages in time");
        }
    }
}

/// Hands a message to the owner, and acts on the one that ends the session.
async fn deliver<Incoming: Disconnecting>(
    message: Incoming,
    events: &mpsc::Sender<Event<Incoming>>,
) -> Result<(), Ended> {
    let reason = message.disconnect_reason();
    if events.send(Event::Message(message)).await.is_err() {
        return Err(Ended::Abandoned);
    }
    match reason {
        None => Ok(()),
        Some(DisconnectReason::ExpiredToken) => Err(Ended::Fatal(FatalReason::ExpiredToken)),
        Some(DisconnectReason::RevokedToken) => Err(Ended::Fatal(FatalReason::RevokedToken)),
        Some(DisconnectReason::Superseded) => Err(Ended::Lost {
            reason: "another machine took over with this identity".to_owned(),
            after: Some(SUPERSEDED_PAUSE),
        }),
        Some(DisconnectReason::Restart) => Err(lost("the portal asked us to come back".to_owned())),
    }
}

const fn lost(reason: String) -> Ended {
    Ended::Lost { reason, after: None }
}
