//! The login manager: when the machine sleeps, and who sits at it.
//!
//! logind tells both over the system bus. [`Logind`] follows it for as long as the program runs; a machine without it
//! never sleeps and nobody sits at it, as far as is known here. When the bus is lost, nobody sits there until it is
//! back: who may do something because of it has no more right to it.
//!
//! Whatever a signal says, users are asked for anew, by the service's name, so that nobody can claim to be at the
//! machine by a signal of their own; a false word of sleep costs a check of the connections.
//!
//! Deliberately absent: delaying the sleep, since nothing has to be said before it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zbus::{Connection, DynamicType, MatchRule, MessageStream, OwnedObjectPath, OwnedVariant, Type, message};

use crate::dns_control::Bus;

const SERVICE: &str = "org.freedesktop.login1";
const MANAGER_PATH: &str = "/org/freedesktop/login1";
const MANAGER: &str = "org.freedesktop.login1.Manager";
const SEAT: &str = "org.freedesktop.login1.Seat";
const SESSION: &str = "org.freedesktop.login1.Session";
const PROPERTIES: &str = "org.freedesktop.DBus.Properties";

/// How long one answer may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// How long until a bus that was not there is tried again.
const PAUSE: Duration = Duration::from_secs(15);

/// Seats that are looked at; machines have one, rarely a handful.
const MOST_SEATS: usize = 64;

/// Something about the machine and its people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginEvent {
    /// The machine is about to sleep.
    Sleeping,
    /// It has woken up.
    Resumed,
    /// The users, by number, whose sessions are active at a seat now.
    ActiveUsers(BTreeSet<u32>),
}

/// Tells of sleep and of people.
pub trait LoginManager: Send {
    /// Waits for the next event; for ever where there is nothing to tell.
    ///
    /// An event may be lost if the future is dropped.
    fn next(&mut self) -> BoxFuture<'_, LoginEvent>;
}

/// systemd-logind.
#[derive(Debug)]
pub struct Logind {
    bus: Bus,
    link: Option<Link>,
    users: BTreeSet<u32>,
    /// Whether it was said that the service is not there.
    has_complained: bool,
}

/// A subscription that stands.
#[derive(Debug)]
struct Link {
    connection: Connection,
    signals: MessageStream,
    /// Whether users have been asked for since something changed.
    knows_users: bool,
}

impl Logind {
    /// Follows the logind of `bus`.
    #[must_use]
    pub const fn new(bus: Bus) -> Self {
        Self { bus, link: None, users: BTreeSet::new(), has_complained: false }
    }

    async fn next_event(&mut self) -> LoginEvent {
        loop {
            if self.link.is_none() {
                match Link::open(&self.bus).await {
                    Ok(link) => self.link = Some(link),
                    Err(error) => self.complain(&error),
                }
            }
            let Some(link) = &mut self.link else {
                if let Some(event) = self.note_users(BTreeSet::new()) {
                    return event;
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            match link.turn().await {
                Ok(Some(LoginEvent::ActiveUsers(users))) => {
                    self.has_complained = false;
                    if let Some(event) = self.note_users(users) {
                        return event;
                    }
                }
                Ok(Some(event)) => return event,
                Ok(None) => {}
                Err(error) => {
                    self.complain(&error);
                    self.link = None;
                    if let Some(event) = self.note_users(BTreeSet::new()) {
                        return event;
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn note_users(&mut self, users: BTreeSet<u32>) -> Option<LoginEvent> {
        if users == self.users {
            return None;
        }
        self.users.clone_from(&users);
        Some(LoginEvent::ActiveUsers(users))
    }

    fn complain(&mut self, error: &zbus::Error) {
        if !self.has_complained {
            tracing::info!(%error, "no login manager: sleep goes unnoticed, and nobody is known to sit here");
        }
        self.has_complained = true;
    }
}

impl LoginManager for Logind {
    fn next(&mut self) -> BoxFuture<'_, LoginEvent> {
        Box::pin(self.next_event())
    }
}

impl Link {
    async fn open(bus: &Bus) -> zbus::Result<Self> {
        let connection = bus.connect(ANSWER_WITHIN).await?;
        let rule = MatchRule::builder()
            .msg_type(message::Type::Signal)
            .sender(SERVICE)
            .path_namespace(MANAGER_PATH)
            .build()?;
        let signals = MessageStream::for_match_rule(rule, &connection, None).await?;
        Ok(Self { connection, signals, knows_users: false })
    }

    /// Asks for users if something changed, else waits for a signal.
    async fn turn(&mut self) -> zbus::Result<Option<LoginEvent>> {
        if !self.knows_users {
            let users = self.active_users().await?;
            self.knows_users = true;
            return Ok(Some(LoginEvent::ActiveUsers(users)));
        }
        let gone = || zbus::Error::InputOutput(std::sync::Arc::new(std::io::ErrorKind::BrokenPipe.into()));
        let signal = self.signals.next().await.ok_or_else(gone)??;
        let header = signal.header();
        if header.member().is_none_or(|member| member.as_str() != "PrepareForSleep") {
            self.knows_users = false;
            return Ok(None);
        }
        // Signals can be sent to us by anybody: one that is wrong in itself is nothing.
        Ok(signal.body().deserialize().ok().map(|begins| match begins {
            true => LoginEvent::Sleeping,
            false => LoginEvent::Resumed,
        }))
    }

    async fn active_users(&self) -> zbus::Result<BTreeSet<u32>> {
        let seats: Vec<(String, OwnedObjectPath)> =
            self.call(MANAGER_PATH, MANAGER, "ListSeats", &()).await?;
        let mut users = BTreeSet::new();
        for (_, seat) in seats.iter().take(MOST_SEATS) {
            let (id, session): (String, OwnedObjectPath) =
                self.property(seat.as_str(), SEAT, "ActiveSession").await?;
            // A session that ends meanwhile is nobody's.
            if !id.is_empty()
                && let Ok(Some(user)) = self.user_of(session.as_str()).await
            {
                users.insert(user);
            }
        }
        Ok(users)
    }

    /// Whose session it is, if a person's: a greeter and a lock screen have one too.
    async fn user_of(&self, session: &str) -> zbus::Result<Option<u32>> {
        let class: String = self.property(session, SESSION, "Class").await?;
        let (user, _): (u32, OwnedObjectPath) = self.property(session, SESSION, "User").await?;
        Ok((class == "user").then_some(user))
    }

    async fn property<T>(&self, path: &str, interface: &str, name: &str) -> zbus::Result<T>
    where
        T: TryFrom<OwnedVariant>,
    {
        let value: OwnedVariant = self.call(path, PROPERTIES, "Get", &(interface, name)).await?;
        T::try_from(value).map_err(|_| zbus::Error::Failure(format!("{name} is of another type")))
    }

    async fn call<B, R>(&self, path: &str, interface: &str, method: &str, body: &B) -> zbus::Result<R>
    where
        B: Serialize + DynamicType,
        R: DeserializeOwned + Type,
    {
        let reply = self.connection.call_method(Some(SERVICE), path, Some(interface), method, body).await?;
        reply.body().deserialize()
    }
}
