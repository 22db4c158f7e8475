//! Somebody signs in with a browser: one task that ends with a token, a refusal, or its time.
//!
//! The [session](super::session) owns it, so that front ends may come and go meanwhile; dropping it gives the
//! sign-in up. What the token is then good for is the session's business.

mod loopback;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_client_ipc::{ErrorCode, LoginPrompt, RequestError, Response};
use adit_control_client::sign_in::{CodeGrant, ExchangeError, SignInClient};
use adit_protocol::sign_in::{IssuedToken, SignInError};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::TryRngCore as _;
use rand::rngs::OsRng;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use self::loopback::{Loopback, Page, Secrets, Start};
use super::server::refuse;
use super::session::Reply;

/// How long the browser on this machine may take.
const BROWSER_LIMIT: Duration = Duration::from_secs(600);

/// Front ends that wait for what to open; more are told to ask again.
const MOST_WAITING: usize = 16;

/// What is signed in with.
pub(super) struct Wish {
    /// Counts the sign-ins.
    pub(super) id: u64,
    /// Whether the browser is on another machine.
    pub(super) is_device_code: bool,
    /// Shown to whoever approves.
    pub(super) device_name: String,
    /// The token that the device has.
    pub(super) renews: Option<String>,
}

/// What happens in a sign-in.
pub(super) enum News {
    /// This is to be opened.
    Prompt(LoginPrompt),
    /// It is over.
    Ended(Result<IssuedToken, RequestError>),
}

/// A sign-in that has not ended.
pub(super) struct SignIn {
    pub(super) id: u64,
    pub(super) is_device_code: bool,
    prompt: Option<LoginPrompt>,
    waiting: Vec<Reply>,
    news: mpsc::Receiver<News>,
    task: JoinHandle<()>,
}

impl Drop for SignIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SignIn {
    pub(super) fn start(client: SignInClient, wish: Wish) -> Self {
        let (sender, news) = mpsc::channel(2);
        let (id, is_device_code) = (wish.id, wish.is_device_code);
        let task = tokio::spawn(async move {
            let outcome = if is_device_code {
                with_device_code(&client, wish, &sender).await
            } else {
                with_browser(&client, wish, &sender).await
            };
            // The session is gone when the daemon stops.
            let _ = sender.send(News::Ended(outcome)).await;
        });
        Self { id, is_device_code, prompt: None, waiting: Vec::new(), news, task }
    }

    /// What to open, once it is known.
    pub(super) const fn prompt(&self) -> Option<&LoginPrompt> {
        self.prompt.as_ref()
    }

    /// Answers `reply` with what to open, now or when it is known.
    pub(super) fn tell(&mut self, reply: Reply) {
        // Whoever asked may have gone away.
        match &self.prompt {
            Some(prompt) => drop(reply.send(Ok(Response::Login(prompt.clone())))),
            None if self.waiting.len() < MOST_WAITING => self.waiting.push(reply),
            None => drop(reply.send(Err(refuse(ErrorCode::Timeout, "too many ask at once: ask again")))),
        }
    }

    /// Learns what to open, and tells everybody who waits.
    pub(super) fn show(&mut self, prompt: LoginPrompt) {
        self.prompt = Some(prompt);
        for reply in std::mem::take(&mut self.waiting) {
            self.tell(reply);
        }
    }

    /// Tells everybody who still waits that there is nothing to open.
    pub(super) fn give_up(&mut self, error: &RequestError) {
        for reply in self.waiting.drain(..) {
            // Whoever asked may have gone away.
            let _ = reply.send(Err(error.clone()));
        }
    }

    /// What happens next. Safe to drop while it waits.
    pub(super) async fn news(&mut self) -> News {
        let panicked = || News::Ended(Err(refuse(ErrorCode::Internal, "the sign-in failed; see the log")));
        self.news.recv().await.unwrap_or_else(panicked)
    }
}

/// RFC 8252: the code comes back to this machine.
async fn with_browser(
    client: &SignInClient,
    wish: Wish,
    news: &mpsc::Sender<News>,
) -> Result<IssuedToken, RequestError> {
    let grant = CodeGrant::new(&random()?);
    let loopback = Loopback::bind().await.map_err(|error| {
        refuse(ErrorCode::Internal, &format!("cannot listen on the loopback interface: {error}"))
    })?;
    let redirect_uri = loopback.redirect_uri().to_owned();
    let url = String::from(client.authorize_url(&grant, &redirect_uri, &wish.device_name));
    let start = Start::new(URL_SAFE_NO_PAD.encode(random::<32>()?), url.clone());
    let prompt = LoginPrompt {
        id: wish.id,
        url,
        url_to_open: Some(loopback.start_uri(&start)),
        user_code: None,
        expires_at_ms: ends(BROWSER_LIMIT),
    };
    let secrets = Arc::new(Secrets { grant, start });
    // The session is gone when the daemon stops.
    let _ = news.send(News::Prompt(prompt)).await;
    let callback = tokio::time::timeout(BROWSER_LIMIT, loopback.callback(&secrets))
        .await
        .map_err(|_| refuse(ErrorCode::Timeout, "nobody signed in within ten minutes"))?;
    let outcome = match callback.outcome {
        Ok(code) => client.redeem_code(&secrets.grant, code, redirect_uri, wish.renews).await,
        Err(error) => Err(error),
    };
    let page = if outcome.is_ok() { Page::SignedIn } else { Page::Failed };
    // The window may be closed already.
    let _ = callback.answer.send(page);
    outcome.map_err(|error| refusal(&error))
}

/// RFC 8628: the browser is anywhere.
async fn with_device_code(
    client: &SignInClient,
    wish: Wish,
    news: &mpsc::Sender<News>,
) -> Result<IssuedToken, RequestError> {
    let code = client.device_code(&wish.device_name).await.map_err(|error| refusal(&error))?;
    let prompt = LoginPrompt {
        id: wish.id,
        url: code.verification_uri.clone(),
        user_code: Some(code.user_code.clone()),
        url_to_open: code.verification_uri_complete.clone(),
        expires_at_ms: ends(Duration::from_secs(code.expires_in)),
    };
    // The session is gone when the daemon stops.
    let _ = news.send(News::Prompt(prompt)).await;
    client.redeem_device_code(&code, wish.renews).await.map_err(|error| refusal(&error))
}

fn random<const SIZE: usize>() -> Result<[u8; SIZE], RequestError> {
    let mut bytes = [0; SIZE];
    OsRng.try_fill_bytes(&mut bytes).map_err(|error| refuse(ErrorCode::Internal, &error.to_string()))?;
    Ok(bytes)
}

fn ends(limit: Duration) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from((now + limit).as_millis()).unwrap_or(u64::MAX)
}

fn refusal(error: &ExchangeError) -> RequestError {
    let code = match error {
        ExchangeError::Refused { error: SignInError::AccessDenied, .. } => ErrorCode::Denied,
        ExchangeError::Refused { error: SignInError::ExpiredToken, .. } => ErrorCode::Timeout,
        ExchangeError::Refused { .. }
        | ExchangeError::Unreachable(_)
        | ExchangeError::Lost(_)
        | ExchangeError::Malformed(_) => ErrorCode::Internal,
    };
    refuse(code, &error.to_string())
}
