//! `adit login`: asks the daemon for something to open, opens it, and waits for the end and for the connection.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use adit_client_ipc::{CallError, Event, FrontEnd, LoginEnd, LoginPrompt, Request, Response};
use serde::Serialize;

use super::args::Awaited;
use super::browser::{self, Missing};
use super::exit::{ExitCode, Failure};
use super::progress::Progress;
use super::{CALL_LIMIT, note, print, render, wait};

/// How long the daemon may take until there is something to open: it asks the portal.
const PROMPT_LIMIT: Duration = Duration::from_secs(30);

/// What we wait beyond the end of the sign-in for the daemon to say so.
const GRACE: Duration = Duration::from_secs(100);

/// How long the connection may take after the sign-in before it is left to the daemon.
const ONLINE_LIMIT: Duration = Duration::from_secs(10);

/// How to sign in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wish {
    pub(super) device_code: bool,
    pub(super) no_browser: bool,
    pub(super) json: bool,
}

/// What is printed when it worked, with `--json`.
#[derive(Debug, Serialize)]
struct SignedIn {
    signed_in: bool,
    actor: Option<String>,
}

/// Signs in; an interrupt gives the sign-in up.
pub(super) async fn login(daemon: &mut FrontEnd, socket: &Path, wish: Wish) -> Result<(), Failure> {
    tokio::select! {
        outcome = converse(daemon, wish) => outcome,
        _ = tokio::signal::ctrl_c() => {
            // The old conversation may be in the middle of a frame.
            let mut daemon = FrontEnd::connect(socket).await?;
            daemon.call(Request::CancelLogin {}, CALL_LIMIT).await?;
            Err(Failure::cancelled())
        }
    }
}

async fn converse(daemon: &mut FrontEnd, wish: Wish) -> Result<(), Failure> {
    let missing = browser::missing();
    let device_code = wish.device_code || (missing == Some(Missing::Display) && !wish.no_browser);
    if device_code && !wish.device_code {
        note(Missing::Display.sentence());
    }
    daemon.call(Request::Subscribe {}, CALL_LIMIT).await?;
    let progress = Progress::start(wish.json, "Asking the portal for a sign-in");
    let answer = daemon.call(Request::Login { device_code }, PROMPT_LIMIT).await;
    drop(progress);
    let prompt = match answer? {
        Response::Login(prompt) => prompt,
        other => return Err(Failure::unexpected(&other)),
    };
    print(&if wish.json { render::json(&prompt)? } else { instructions(&prompt) })?;
    // Who wants a code has the browser elsewhere, and a code on its command line is for everybody to see.
    if !wish.no_browser && prompt.user_code.is_none() {
        open(&prompt, missing).await;
    }
    let progress = Progress::start(wish.json, "Waiting for the browser");
    let end = end(daemon, &prompt).await;
    drop(progress);
    let end = end?;
    match end.error {
        Some(error) => return Err(CallError::Refused(error).into()),
        None if wish.json => print(&render::json(&SignedIn { signed_in: true, actor: end.actor })?)?,
        None => print(&match end.actor {
            Some(actor) => format!("Signed in as {actor}.\n"),
            None => "Signed in.\n".to_owned(),
        })?,
    }
    connect(daemon, wish.json).await
}

/// Waits for the connection: what is started after this command finds its resources.
///
/// A connection that is only slow is no failure of the sign-in.
async fn connect(daemon: &mut FrontEnd, json: bool) -> Result<(), Failure> {
    match wait::wait(daemon, &Awaited::Online, ONLINE_LIMIT, json).await {
        Err(failure) if failure.code() == ExitCode::Timeout => {
            note("Not connected yet: the daemon goes on trying. `adit status` says more.");
            Ok(())
        }
        outcome => outcome,
    }
}

/// Opens the page, where there is a browser; what could not be done is said and no failure.
async fn open(prompt: &LoginPrompt, missing: Option<Missing>) {
    match missing {
        Some(missing) => note(missing.sentence()),
        None if browser::open(prompt.url_to_open.as_deref().unwrap_or(&prompt.url)).await => {
            note("A browser was opened.");
        }
        None => note("No browser could be opened: open the page yourself."),
    }
}

/// What to do, for people.
fn instructions(prompt: &LoginPrompt) -> String {
    match &prompt.user_code {
        None => format!(
            "To sign in, open this page in a browser on this machine:\n\n  {}\n\n\
             On another machine: `adit login --device-code`.\n",
            prompt.url
        ),
        Some(user_code) => {
            let page = &prompt.url;
            let mut text = format!(
                "To sign in, open this page in any browser:\n\n  {page}\n\nand enter the code:\n\n  {user_code}\n\n"
            );
            if let Some(page) = &prompt.url_to_open {
                text.push_str(&format!("This page has the code in it already:\n\n  {page}\n\n"));
            }
            text
        }
    }
}

async fn end(daemon: &mut FrontEnd, prompt: &LoginPrompt) -> Result<LoginEnd, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let left = Duration::from_millis(prompt.expires_at_ms).saturating_sub(now);
    let ended = async {
        loop {
            match daemon.next_event().await? {
                Event::LoginEnded(end) if end.id == prompt.id => return Ok::<_, Failure>(end),
                Event::LoginEnded(end) if end.id > prompt.id => {
                    return Err(anyhow::anyhow!("another sign-in followed; `adit status` says more").into());
                }
                _ => {}
            }
        }
    };
    let silent = || Failure::timeout("the daemon did not say how the sign-in ended".to_owned());
    tokio::time::timeout(left + GRACE, ended).await.map_err(|_| silent())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_told_where_and_what() {
        let prompt = LoginPrompt {
            id: 1,
            url: "https://portal.example/device".to_owned(),
            user_code: Some("BCDF-GHJK".to_owned()),
            url_to_open: Some("https://portal.example/device?code=BCDF-GHJK".to_owned()),
            expires_at_ms: 0,
        };
        let text = instructions(&prompt);
        assert!(text.ends_with("\n  https://portal.example/device?code=BCDF-GHJK\n\n"), "{text}");
        assert!(text.contains("\n  https://portal.example/device\n") && text.contains("\n  BCDF-GHJK\n"));
        assert!(text.lines().all(|line| line.len() <= 80));
        let here = instructions(&LoginPrompt { user_code: None, ..prompt });
        assert!(here.contains("on this machine") && here.contains("--device-code"));
        assert!(here.lines().all(|line| line.len() <= 80));
    }
}
