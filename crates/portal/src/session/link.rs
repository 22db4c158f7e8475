//! One WebSocket: frames in, frames out, keepalive, and every way in which it can end.

use std::collections::VecDeque;
use std::time::Duration;

use adit_protocol::client::{Disconnect, DisconnectReason};
use adit_protocol::frame::{self, Decoded};
use adit_protocol::{DecodeError, MAX_MESSAGE, Message, PortalToClient, PortalToGateway, PortalToRelay};
use axum::extract::ws::{self, CloseFrame, WebSocket};
use tokio::time::Instant;

use crate::clock::Deadline;
use crate::hub::{Push, Receiver};

/// Hello must come within this time.
pub(crate) const HELLO_TIME: Duration = Duration::from_secs(5);

/// How often a peer is asked whether it is there.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// A peer that has let this many pings pass unanswered is gone.
const MAX_MISSED: u32 = 3;

/// A peer that takes longer to take a message off our hands is gone.
const SEND_TIME: Duration = Duration::from_secs(10);

/// What waits for a peer that is sent away is handed over within this time, or not at all.
const FLUSH_TIME: Duration = Duration::from_secs(1);

/// Why a session ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ended {
    /// The peer closed it, or the network did.
    #[error("closed")]
    Closed,
    /// The peer answers no more.
    #[error("silent")]
    Silent,
    /// The peer did not take a message off our hands.
    #[error("too slow")]
    Slow,
    /// Hello did not come in time.
    #[error("no hello")]
    NoHello,
    /// The peer sent what it should not have.
    #[error("{0}")]
    Misbehaved(&'static str),
    /// The portal ended it.
    #[error("{}", disconnect_name(*.0))]
    Disconnected(DisconnectReason),
    /// The portal failed.
    #[error("the portal failed: {0}")]
    Failed(String),
}

impl Ended {
    /// For a metric's label.
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Silent => "silent",
            Self::Slow => "slow",
            Self::NoHello => "no_hello",
            Self::Misbehaved(_) => "misbehaved",
            Self::Disconnected(reason) => disconnect_name(*reason),
            Self::Failed(_) => "failed",
        }
    }
}

const fn disconnect_name(reason: DisconnectReason) -> &'static str {
    match reason {
        DisconnectReason::ExpiredToken => "expired_token",
        DisconnectReason::RevokedToken => "revoked_token",
        DisconnectReason::Superseded => "superseded",
        DisconnectReason::Restart => "restart",
    }
}

impl From<crate::store::StoreError> for Ended {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// A set of messages that has a goodbye.
pub(crate) trait Outbound: Message + Send {
    /// The portal is about to close the session.
    fn disconnect(reason: DisconnectReason) -> Self;
}

impl Outbound for PortalToClient {
    fn disconnect(reason: DisconnectReason) -> Self {
        Self::Disconnect(Disconnect { reason })
    }
}

impl Outbound for PortalToGateway {
    fn disconnect(reason: DisconnectReason) -> Self {
        Self::Disconnect(Disconnect { reason })
    }
}

impl Outbound for PortalToRelay {
    fn disconnect(reason: DisconnectReason) -> Self {
        Self::Disconnect(Disconnect { reason })
    }
}

/// What a session has to look at next.
#[derive(Debug)]
pub(crate) enum Step<I, O> {
    /// The peer said something.
    Received(I),
    /// The hub has something to be told or looked at.
    Push(Push<O>),
    /// The alarm that the session set has gone off.
    Alarm,
}

/// A WebSocket with its keepalive.
#[derive(Debug)]
pub(crate) struct Link {
    socket: WebSocket,
    next_ping: Instant,
    missed: u32,
    /// Answered when the next pong comes.
    probes: VecDeque<tokio::sync::oneshot::Sender<()>>,
    /// The token ends then.
    expires: Option<Deadline>,
}

/// Questions of newcomers that wait for one pong; more are not asked.
const MAX_PROBES: usize = 16;

impl Link {
    /// Over a socket whose peer has presented a token that ends at `expires_ms`.
    pub(crate) fn new(socket: WebSocket, expires_ms: Option<i64>) -> Self {
        let now = Instant::now();
        Self {
            socket,
            next_ping: now + PING_INTERVAL,
            missed: 0,
            probes: VecDeque::new(),
            expires: expires_ms.map(Deadline::new),
        }
    }

    /// The token ends at another time than was said before.
    pub(crate) fn set_end(&mut self, expires_ms: Option<i64>) {
        self.expires = expires_ms.map(Deadline::new);
    }

    /// The first message.
    pub(crate) async fn hello<I: Message>(&mut self) -> Result<I, Ended> {
        let first = async {
            loop {
                if let Some(message) = self.receive().await? {
                    return Ok(message);
                }
            }
        };
        tokio::time::timeout(HELLO_TIME, first).await.unwrap_or(Err(Ended::NoHello))
    }

    /// The next thing to look at.
    ///
    /// Safe to drop and call again: no message is lost.
    pub(crate) async fn step<I: Message, O: Outbound>(
        &mut self,
        hub: &mut Receiver<O>,
        alarm: Option<Instant>,
    ) -> Result<Step<I, O>, Ended> {
        loop {
            let next_ping = self.next_ping;
            let expires = self.expires.map(Deadline::instant);
            tokio::select! {
                biased;
                reason = ended(&mut hub.end) => return Err(Ended::Disconnected(reason)),
                () = at(expires) => return Err(Ended::Disconnected(DisconnectReason::ExpiredToken)),
                push = hub.queue.recv() => match push {
                    Some(Push::Probe(answer)) => self.probe(answer).await?,
                    Some(push) => return Ok(Step::Push(push)),
                    None => return Err(Ended::Disconnected(DisconnectReason::Restart)),
                },
                received = self.receive() => if let Some(message) = received? {
                    return Ok(Step::Received(message));
                },
                () = tokio::time::sleep_until(next_ping) => self.ping_on_schedule().await?,
                () = at(alarm) => return Ok(Step::Alarm),
            }
        }
    }

    /// Sends one message.
    pub(crate) async fn send<O: Message>(&mut self, message: &O) -> Result<(), Ended> {
        let text = frame::encode(message, None).map_err(|error| Ended::Failed(error.to_string()))?;
        if text.len() > MAX_MESSAGE {
            return Err(Ended::Failed(format!("a {} message is too large to send", message.kind())));
        }
        self.send_frame(ws::Message::Text(text.into())).await
    }

    /// Hands over what still waits when the portal ends a session: the revocations that came
    /// with it must not be lost. Events up to `seq` are known to the peer.
    pub(crate) async fn flush<O: Outbound>(&mut self, hub: &mut Receiver<O>, seq: i64, ended: &Ended) {
        if !matches!(ended, Ended::Disconnected(_)) {
            return;
        }
        let flush = async {
            while let Ok(push) = hub.queue.try_recv() {
                if let Push::Message { seq: event, message } = push
                    && event.is_none_or(|event| event > seq)
                {
                    self.send(&*message).await?;
                }
            }
            Ok::<(), Ended>(())
        };
        let _ = tokio::time::timeout(FLUSH_TIME, flush).await;
    }

    /// Says why and closes.
    pub(crate) async fn close<O: Outbound>(mut self, ended: &Ended) {
        let code = match ended {
            Ended::Closed | Ended::Silent | Ended::Slow => return,
            Ended::Misbehaved(_) | Ended::NoHello => ws::close_code::POLICY,
            Ended::Failed(_) => ws::close_code::ERROR,
            Ended::Disconnected(_) => ws::close_code::NORMAL,
        };
        let reason = match ended {
            Ended::Disconnected(reason) => *reason,
            _ => DisconnectReason::Restart,
        };
        if self.send(&O::disconnect(reason)).await.is_ok() {
            let reason = match ended {
                Ended::Failed(_) => "the portal failed".to_owned(),
                other => other.to_string(),
            };
            let _ =
                self.send_frame(ws::Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
        }
    }

    async fn send_frame(&mut self, frame: ws::Message) -> Result<(), Ended> {
        match tokio::time::timeout(SEND_TIME, self.socket.send(frame)).await {
            Err(_) => Err(Ended::Slow),
            Ok(Err(_)) => Err(Ended::Closed),
            Ok(Ok(())) => Ok(()),
        }
    }

    async fn probe(&mut self, answer: tokio::sync::oneshot::Sender<()>) -> Result<(), Ended> {
        if self.probes.len() < MAX_PROBES {
            self.probes.push_back(answer);
            self.ping().await?;
        }
        Ok(())
    }

    async fn ping(&mut self) -> Result<(), Ended> {
        self.send_frame(ws::Message::Ping(Vec::new().into())).await
    }

    async fn ping_on_schedule(&mut self) -> Result<(), Ended> {
        if self.missed >= MAX_MISSED {
            return Err(Ended::Silent);
        }
        self.missed += 1;
        self.next_ping = Instant::now() + PING_INTERVAL;
        // The timer knows nothing of a clock that was set meanwhile.
        if self.expires.is_some_and(Deadline::has_passed) {
            return Err(Ended::Disconnected(DisconnectReason::ExpiredToken));
        }
        self.ping().await
    }

    /// One frame; `None` for what carries no message.
    async fn receive<I: Message>(&mut self) -> Result<Option<I>, Ended> {
        let frame = match self.socket.recv().await {
            None => return Err(Ended::Closed),
            Some(Err(error)) => return Err(broken(&error)),
            Some(Ok(frame)) => frame,
        };
        self.missed = 0;
        match frame {
            ws::Message::Text(text) => decode(text.as_str()),
            ws::Message::Binary(_) => Err(refuse("binary", "binary frames are not part of the protocol")),
            ws::Message::Ping(_) => Ok(None),
            ws::Message::Pong(_) => {
                for answer in self.probes.drain(..) {
                    let _ = answer.send(());
                }
                Ok(None)
            }
            ws::Message::Close(_) => Err(Ended::Closed),
        }
    }
}

fn decode<I: Message>(text: &str) -> Result<Option<I>, Ended> {
    match frame::decode::<I>(text) {
        Ok(Decoded::Message { message, .. }) => Ok(Some(message)),
        Ok(Decoded::Unknown { kind }) => {
            metrics::counter!("adit_portal_frames_ignored_total").increment(1);
            tracing::debug!(kind, "a message of an unknown type is ignored");
            Ok(None)
        }
        Err(error) => {
            tracing::debug!(%error, "a frame is refused");
            Err(match error {
                DecodeError::TooLarge(_) => refuse("too_large", "the frame is too large"),
                DecodeError::NotAFrame(_) => refuse("not_a_frame", "not a frame"),
                DecodeError::Version(_) => refuse("version", "the frame version is not supported"),
                DecodeError::Payload { .. } => refuse("payload", "the payload does not fit the type"),
            })
        }
    }
}

fn refuse(reason: &'static str, text: &'static str) -> Ended {
    metrics::counter!("adit_portal_frames_refused_total", "reason" => reason).increment(1);
    Ended::Misbehaved(text)
}

/// A WebSocket error: the network's fault, or a violation of RFC 6455.
fn broken(error: &axum::Error) -> Ended {
    let text = error.to_string();
    tracing::debug!(error = text, "the connection broke");
    if text.contains("too long") || text.contains("too big") {
        refuse("too_large", "the frame is too large")
    } else if text.contains("protocol") || text.contains("UTF-8") {
        refuse("not_websocket", "not the WebSocket protocol")
    } else {
        Ended::Closed
    }
}

async fn ended(end: &mut tokio::sync::watch::Receiver<Option<DisconnectReason>>) -> DisconnectReason {
    match end.wait_for(Option::is_some).await {
        Ok(reason) => reason.unwrap_or(DisconnectReason::Restart),
        // The hub has dropped the line without a word: a newer session has taken over.
        Err(_) => DisconnectReason::Superseded,
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
