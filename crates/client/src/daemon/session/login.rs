//! What a sign-in means for the session: one at a time, and what its token is good for.

use adit_client_ipc::{ErrorCode, LoginEnd, RequestError, Token};
use adit_engine::host_name;
use adit_platform::network::Bypass;
use adit_platform::secrets::SecretStore as _;
use adit_protocol::sign_in::IssuedToken;

use super::{Reply, Session, TOKEN, internal};
use crate::daemon::server::refuse;
use crate::daemon::sign_in::{News, SignIn, Wish};

impl Session {
    /// Answers with what to open. One sign-in at a time: whoever asks meanwhile is told of the same.
    pub(super) fn log_in(&mut self, is_device_code: bool, reply: Reply) {
        let sign_in = match self.sign_in.as_mut() {
            Some(sign_in) if sign_in.is_device_code == is_device_code => return sign_in.tell(reply),
            Some(_) => Err(refuse(
                ErrorCode::Invalid,
                "another way to sign in is under way: finish it, or `adit login --cancel`",
            )),
            None => self.start_sign_in(is_device_code),
        };
        match sign_in {
            Ok(sign_in) => self.sign_in.insert(sign_in).tell(reply),
            // The front end may have gone away.
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    fn start_sign_in(&mut self, is_device_code: bool) -> Result<SignIn, RequestError> {
        let renews = self.token().map_err(internal)?.map(|token| token.0);
        let client = self
            .portal(String::new())
            .sign_in("aditd", Some(Bypass::default().fwmark))
            .map_err(|error| refuse(ErrorCode::Internal, &error.to_string()))?;
        self.logins += 1;
        let device_name = self.config.name.clone().unwrap_or_else(host_name);
        tracing::info!(id = self.logins, is_device_code, is_renewal = renews.is_some(), "somebody signs in");
        Ok(SignIn::start(client, Wish { id: self.logins, is_device_code, device_name, renews }))
    }

    pub(super) async fn take_news(&mut self, news: News) {
        let outcome = match news {
            News::Prompt(prompt) => {
                if let Some(sign_in) = &mut self.sign_in {
                    sign_in.show(prompt);
                }
                return;
            }
            News::Ended(outcome) => outcome,
        };
        let outcome = match outcome {
            Ok(token) => self.accept(token).await,
            Err(error) => Err(error),
        };
        self.end_login(outcome);
    }

    /// Keeps a token that somebody signed in for, and connects with it.
    async fn accept(&mut self, issued: IssuedToken) -> Result<Option<String>, RequestError> {
        let token = Token(issued.access_token);
        // The same token again lives longer: whatever rests on it goes on.
        if self.token().map_err(internal)?.as_ref() != Some(&token) {
            self.secrets.write(TOKEN, token.0.as_bytes()).map_err(internal)?;
            self.shut_down().await;
        }
        self.go_online(&token).await?;
        Ok(Some(issued.actor_name).filter(|name| !name.is_empty()))
    }

    pub(super) fn cancel_login(&mut self, why: &str) {
        if self.sign_in.is_some() {
            self.end_login(Err(refuse(ErrorCode::Cancelled, why)));
        }
    }

    fn end_login(&mut self, outcome: Result<Option<String>, RequestError>) {
        let Some(mut sign_in) = self.sign_in.take() else { return };
        let (actor, error) = match outcome {
            Ok(actor) => (actor, None),
            Err(error) => (None, Some(error)),
        };
        match &error {
            None => tracing::info!(id = sign_in.id, "somebody signed in"),
            Some(error) => {
                tracing::info!(id = sign_in.id, reason = error.message, "the sign-in did not work");
                sign_in.give_up(error);
            }
        }
        self.last_login = Some(LoginEnd { id: sign_in.id, actor, error });
    }
}

/// What happens in a sign-in; nothing without one.
pub(super) async fn news(sign_in: Option<&mut SignIn>) -> News {
    match sign_in {
        Some(sign_in) => sign_in.news().await,
        None => std::future::pending().await,
    }
}
