//! The daemon's side of the socket: front ends come, ask, and go.
//!
//! Each front end gets a task of its own. What it asks for goes over a bounded queue to the
//! session, which alone acts; what it may ask for follows from the kernel's credentials of
//! its socket. Nothing that a front end sends, or fails to read, can stop the daemon.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use adit_client_ipc::{
    Access, ErrorCode, Event, FrameError, FromDaemon, FromFrontEnd, Hello, LoginEnd, LoginPrompt, Outcome,
    Reason, Reply, Request, RequestError, ResourceStatus, Response, State, Status, read_frame, write_frame,
};
use anyhow::Context as _;
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::access::{Authority, Standing};

/// Front ends served at once that may only look on; more are turned away.
const MOST_OBSERVERS: usize = 32;

/// Front ends served at once that may do something: whoever only looks on cannot keep them out.
const MOST_OPERATORS: usize = 32;

/// How long a front end may take for its hello, or to read what is sent to it.
const PATIENCE: Duration = Duration::from_secs(5);

/// A request on its way to the session.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) request: Request,
    pub(super) reply: oneshot::Sender<Result<Response, RequestError>>,
}

/// What the session publishes for everybody to see.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    pub(super) status: Status,
    pub(super) resources: Vec<ResourceStatus>,
    /// How the last sign-in of this run ended.
    pub(super) last_login: Option<LoginEnd>,
}

impl View {
    /// Somebody signs in; what is connected stays what is shown first.
    pub(super) fn wait_for_browser(&mut self, prompt: Option<&LoginPrompt>) {
        if matches!(self.status.state, State::SignedOut | State::Blocked) {
            self.status.state = State::WaitingBrowser;
            self.status.reason = Some(Reason::WaitingBrowser);
            self.status.detail = None;
        }
        self.status.login = prompt.cloned();
    }

    /// What a front end may see.
    fn status_for(&self, access: Access) -> Status {
        let mut status = self.status.clone();
        if access < Access::Operate {
            status.login = None;
        }
        status
    }
}

/// Listens for front ends.
#[derive(Debug)]
pub(super) struct Server {
    listener: UnixListener,
    path: PathBuf,
    authority: Arc<Authority>,
    calls: mpsc::Sender<Call>,
    view: watch::Receiver<View>,
    seats: Seats,
}

/// Who may still come in.
#[derive(Debug)]
struct Seats {
    observers: Arc<Semaphore>,
    operators: Arc<Semaphore>,
}

impl Seats {
    fn new() -> Self {
        Self {
            observers: Arc::new(Semaphore::new(MOST_OBSERVERS)),
            operators: Arc::new(Semaphore::new(MOST_OPERATORS)),
        }
    }

    fn take(&self, access: Access) -> Option<OwnedSemaphorePermit> {
        let seats = if access == Access::Observe { &self.observers } else { &self.operators };
        Arc::clone(seats).try_acquire_owned().ok()
    }
}

impl Server {
    /// Binds `path`, replacing the socket of a daemon that is gone.
    ///
    /// # Errors
    ///
    /// When another daemon listens there, or the socket cannot be made.
    pub(super) fn bind(
        path: &Path,
        authority: Authority,
        calls: mpsc::Sender<Call>,
        view: watch::Receiver<View>,
    ) -> anyhow::Result<Self> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)
                .with_context(|| format!("cannot create {}", directory.display()))?;
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            anyhow::bail!("another daemon already listens at {}", path.display());
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot replace {}", path.display()));
            }
            _ => {}
        }
        let listener =
            UnixListener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))?;
        // Anybody may connect: what they may do is decided for each request.
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .with_context(|| format!("cannot set the mode of {}", path.display()))?;
        Ok(Self {
            listener,
            path: path.to_owned(),
            authority: Arc::new(authority),
            calls,
            view,
            seats: Seats::new(),
        })
    }

    /// Serves front ends until it is dropped.
    pub(super) async fn run(&self) {
        loop {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a front end");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let standing = self.authority.standing(&stream);
            let Some(seat) = self.seats.take(standing.access()) else {
                tracing::debug!("turned a front end away: too many are connected");
                continue;
            };
            let conversation = Conversation { standing, calls: self.calls.clone(), view: self.view.clone() };
            tokio::spawn(async move {
                let _seat = seat;
                match conversation.run(stream).await {
                    Ok(()) | Err(FrameError::Closed) => {}
                    Err(error) => tracing::debug!(%error, "a front end was dropped"),
                }
            });
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Best effort: the next daemon replaces a socket that nobody listens at.
        let _ = std::fs::remove_file(&self.path);
    }
}

struct Conversation {
    standing: Standing,
    calls: mpsc::Sender<Call>,
    view: watch::Receiver<View>,
}

impl Conversation {
    async fn run(self, mut stream: UnixStream) -> Result<(), FrameError> {
        let hello: Hello = patiently(read_frame(&mut stream)).await?;
        patiently(write_frame(&mut stream, &Hello::new())).await?;
        if !hello.is_compatible() {
            return Ok(());
        }
        let (mut reader, writer) = stream.into_split();
        let writer = Arc::new(Mutex::new(writer));
        let mut subscription = None;
        loop {
            let call: FromFrontEnd = match read_frame(&mut reader).await {
                Ok(call) => call,
                Err(FrameError::Malformed(error)) => {
                    let refusal = refuse(ErrorCode::Invalid, &format!("malformed request: {error}"));
                    send(&writer, &FromDaemon::Reply(Reply { id: 0, outcome: Outcome::Error(refusal) }))
                        .await?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let subscribes = matches!(call.request, Request::Subscribe {});
            let outcome = match self.answer(call.request).await {
                Ok(response) => Outcome::Result(response),
                Err(error) => Outcome::Error(error),
            };
            send(&writer, &FromDaemon::Reply(Reply { id: call.id, outcome })).await?;
            if subscribes && subscription.is_none() {
                subscription =
                    Some(Subscription::start(self.view.clone(), self.standing.clone(), Arc::clone(&writer)));
            }
        }
    }

    async fn answer(&self, request: Request) -> Result<Response, RequestError> {
        let access = self.standing.access();
        if access < request.needs() {
            return Err(refuse(
                ErrorCode::Denied,
                "you may not do this: sit at this machine, become a member of the group `adit`, or root",
            ));
        }
        match request {
            Request::Status {} => Ok(Response::Status(Box::new(self.view.borrow().status_for(access)))),
            Request::Resources {} => Ok(Response::Resources(self.view.borrow().resources.clone())),
            Request::Subscribe {} => Ok(Response::Done),
            request => {
                let (reply, answer) = oneshot::channel();
                let stopping = || refuse(ErrorCode::Internal, "the daemon is stopping");
                self.calls.send(Call { request, reply }).await.map_err(|_| stopping())?;
                answer.await.map_err(|_| stopping())?
            }
        }
    }
}

/// Sends every change of the view; ends with the conversation.
struct Subscription(tokio::task::JoinHandle<()>);

impl Subscription {
    fn start(
        mut view: watch::Receiver<View>,
        standing: Standing,
        writer: Arc<Mutex<OwnedWriteHalf>>,
    ) -> Self {
        view.mark_unchanged();
        Self(tokio::spawn(async move {
            let mut last = view.borrow().clone();
            while view.changed().await.is_ok() {
                let new = view.borrow_and_update().clone();
                for event in events(&last, &new, standing.access()) {
                    if send(&writer, &FromDaemon::Event(event)).await.is_err() {
                        return;
                    }
                }
                last = new;
            }
        }))
    }
}

/// What a front end is told of a change; the end of a sign-in last, when the state says so too.
fn events(last: &View, new: &View, access: Access) -> Vec<Event> {
    let mut events = Vec::new();
    let status = new.status_for(access);
    if status != last.status_for(access) {
        events.push(Event::Status(Box::new(status)));
    }
    if new.resources != last.resources {
        events.push(Event::Resources(new.resources.clone()));
    }
    if new.last_login != last.last_login {
        events.extend(new.last_login.clone().map(Event::LoginEnded));
    }
    events
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A refusal with its code and its sentence.
pub(super) fn refuse(code: ErrorCode, message: &str) -> RequestError {
    RequestError { code, message: message.to_owned() }
}

async fn send(writer: &Mutex<OwnedWriteHalf>, message: &FromDaemon) -> Result<(), FrameError> {
    patiently(async { write_frame(&mut *writer.lock().await, message).await }).await
}

async fn patiently<T>(work: impl Future<Output = Result<T, FrameError>>) -> Result<T, FrameError> {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| Err(FrameError::Io(std::io::ErrorKind::TimedOut.into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let constants = super::super::view::Constants {
            profile: None,
            portal: String::new(),
            interface: String::new(),
            log_directory: String::new(),
        };
        constants.idle(Reason::NoToken)
    }

    #[test]
    fn only_operators_see_what_signs_in() {
        let prompt = LoginPrompt {
            id: 1,
            url: "https://portal.example/".to_owned(),
            user_code: None,
            url_to_open: None,
            expires_at_ms: 0,
        };
        let (before, mut after) = (view(), view());
        after.wait_for_browser(Some(&prompt));
        assert_eq!(after.status.state, State::WaitingBrowser);
        assert_eq!(after.status_for(Access::Operate).login, Some(prompt));
        assert_eq!(after.status_for(Access::Observe).login, None);
        let [Event::Status(seen)] = &events(&before, &after, Access::Observe)[..] else {
            panic!("one event")
        };
        assert_eq!((seen.state, &seen.login), (State::WaitingBrowser, &None));
        let ended = View { last_login: Some(LoginEnd { id: 1, actor: None, error: None }), ..before.clone() };
        let told = events(&after, &ended, Access::Observe);
        assert!(matches!(&told[..], [Event::Status(_), Event::LoginEnded(end)] if end.id == 1), "{told:?}");
        let online = View { status: Status { state: State::Online, ..before.status.clone() }, ..before };
        let mut renewing = online;
        renewing.wait_for_browser(None);
        assert_eq!(renewing.status.state, State::Online, "a renewal interrupts nothing");
    }

    #[test]
    fn onlookers_leave_room_for_whoever_may_do_something() {
        let seats = Seats::new();
        let onlookers: Vec<_> = std::iter::from_fn(|| seats.take(Access::Observe)).collect();
        assert_eq!(onlookers.len(), MOST_OBSERVERS);
        assert!(seats.take(Access::Operate).is_some());
        assert!(seats.take(Access::Admin).is_some());
    }
}
