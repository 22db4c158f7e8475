//! Exit codes, and how failures are reported.

use std::io::Write as _;
use std::path::Path;

use adit_client_ipc::{CallError, ErrorCode, Reason, Response, SCHEMA, Status};
use serde_json::json;

/// What `adit` exits with; scripts rely on these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCode {
    /// Done.
    Ok = 0,
    /// Failed for a reason that has no code of its own.
    Failure = 1,
    /// The arguments make no sense.
    Usage = 2,
    /// The daemon cannot be reached.
    DaemonUnreachable = 3,
    /// Nobody is signed in, or the session ended.
    SignedOut = 4,
    /// The tunnel is not up.
    NotConnected = 5,
    /// The caller may not do this.
    Denied = 6,
    /// It took too long.
    Timeout = 7,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}

fn said(reason: Reason) -> String {
    format!("{} {}", reason.cause(), reason.fix())
}

/// Why a command failed.
#[derive(Debug)]
pub(super) struct Failure {
    code: ExitCode,
    message: String,
}

impl Failure {
    /// Whoever read the output has gone away: the end, and no failure.
    pub(super) const fn reader_gone() -> Self {
        Self { code: ExitCode::Ok, message: String::new() }
    }

    /// What was found has been printed.
    pub(super) fn found() -> Self {
        Self { code: ExitCode::Failure, message: "something is wrong; see above".to_owned() }
    }

    /// For people.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    pub(super) fn usage(message: String) -> Self {
        Self { code: ExitCode::Usage, message }
    }

    /// What the process will end with.
    pub(super) fn code(&self) -> ExitCode {
        self.code
    }

    pub(super) fn timeout(message: String) -> Self {
        Self { code: ExitCode::Timeout, message }
    }

    /// No conversation began; where it was tried tells a wrong `--socket` from a daemon that does not run.
    pub(super) fn connecting(error: CallError, socket: &Path) -> Self {
        let mut failure = Self::from(error);
        if failure.code == ExitCode::DaemonUnreachable {
            failure.message = format!("{} (socket {})", failure.message, socket.display());
        }
        failure
    }

    pub(super) fn denied(message: String) -> Self {
        Self { code: ExitCode::Denied, message }
    }

    /// Whoever asked does not want it any more.
    pub(super) fn cancelled() -> Self {
        Self { code: ExitCode::Failure, message: "given up".to_owned() }
    }

    pub(super) fn signed_out() -> Self {
        Self { code: ExitCode::SignedOut, message: said(Reason::NoToken) }
    }

    pub(super) fn unexpected(response: &Response) -> Self {
        Self { code: ExitCode::Failure, message: format!("the daemon answered with {response:?}") }
    }

    /// The session cannot go on; the status says why.
    pub(super) fn blocked(status: &Status) -> Self {
        let reason = status.reason.unwrap_or(Reason::Unknown);
        let code = match reason {
            Reason::InvalidToken | Reason::ExpiredToken | Reason::RevokedToken => ExitCode::SignedOut,
            _ => ExitCode::NotConnected,
        };
        let mut message = said(reason);
        if let Some(detail) = &status.detail {
            message = format!("{message} ({detail})");
        }
        Self { code, message }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { code: ExitCode::Failure, message: format!("{error:#}") }
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Self {
        let code = match &error {
            CallError::Unreachable(cause) if cause.kind() == std::io::ErrorKind::PermissionDenied => {
                ExitCode::Denied
            }
            CallError::Unreachable(_) | CallError::Frame(_) => ExitCode::DaemonUnreachable,
            CallError::Timeout => ExitCode::Timeout,
            CallError::Incompatible { .. } => ExitCode::Failure,
            CallError::Refused(refusal) => match refusal.code {
                ErrorCode::Denied => ExitCode::Denied,
                ErrorCode::SignedOut => ExitCode::SignedOut,
                ErrorCode::NotConnected => ExitCode::NotConnected,
                ErrorCode::Timeout => ExitCode::Timeout,
                ErrorCode::NotFound | ErrorCode::Cancelled | ErrorCode::Invalid | ErrorCode::Internal => {
                    ExitCode::Failure
                }
            },
        };
        let message = match &error {
            CallError::Unreachable(_) => format!("{error}; is aditd running?"),
            _ => error.to_string(),
        };
        Self { code, message }
    }
}

/// Prints what clap has to say; help and version are no failures.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    // Nothing can be done about a terminal that is gone.
    let _ = error.print();
    if error.use_stderr() { ExitCode::Usage } else { ExitCode::Ok }
}

/// Prints `failure` to standard error and returns its code.
pub(super) fn report(failure: &Failure, as_json: bool) -> ExitCode {
    if failure.code == ExitCode::Ok {
        return ExitCode::Ok;
    }
    let line = if as_json {
        json!({"schema": SCHEMA, "error": failure.message, "exit_code": failure.code as u8}).to_string()
    } else {
        format!("adit: {}", failure.message)
    };
    // Nothing can be done about a terminal that is gone.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
    failure.code
}
