//! Why a sign-in with a provider does not come to its end, for the person and for the audit log. Nothing that a provider
//! or a browser says is repeated, except an error code of the few characters that RFC 6749 gives them.

use axum::http::StatusCode;

use crate::web::page::Refusal;

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// The provider cannot be asked.
    #[error("the provider does not answer")]
    Silent,
    /// The provider answers, but not as the specification has it; what is wrong.
    #[error("the provider's answer is wrong: {0}")]
    Answer(&'static str),
    /// There are too many sign-ins at this moment.
    #[error("too many questions to providers at once")]
    Busy,
    /// The browser began no sign-in with this provider, or not this one, or too long ago.
    #[error("no sign-in is under way in this browser")]
    NotUnderWay,
    /// Another provider has answered.
    #[error("the answer is from another issuer")]
    OtherIssuer,
    /// The provider or the person said no.
    #[error("the provider declined: {0}")]
    Declined(String),
    /// There is neither code nor error.
    #[error("the answer holds no code")]
    NoCode,
    /// No key of the provider has signed the ID token.
    #[error("the ID token is not signed by a key of the provider")]
    Signature,
    /// The ID token is not for this sign-in.
    #[error("the ID token is refused: {0}")]
    Token(&'static str),
    /// The person was to be authenticated anew and was not.
    #[error("the provider did not authenticate the person anew")]
    NotAnew,
    /// Their address is not of a domain that is let in.
    #[error("the email address is not verified, or not of a domain that is let in")]
    Domain,
    /// Nobody knows them here, or they are disabled.
    #[error("not known here, or disabled")]
    Unknown,
    /// The secret was sealed under other keys.
    #[error("the client secret was sealed under other keys")]
    Secret,
}

impl Trouble {
    /// What a provider says instead of a code.
    pub(super) fn declined(error: &str) -> Self {
        let is_plain = |error: &str| {
            (1..=64).contains(&error.len())
                && error.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        };
        Self::Declined(if is_plain(error) { error.to_owned() } else { "unknown error".to_owned() })
    }

    /// Whether the person can do nothing about it.
    pub(super) const fn is_providers_fault(&self) -> bool {
        matches!(self, Self::Silent | Self::Answer(_) | Self::Busy | Self::Secret)
    }

    /// What the person is told.
    pub(super) fn page(&self, provider: &str) -> Refusal {
        let (status, title, detail) = match self {
            Self::Silent | Self::Answer(_) => (
                StatusCode::BAD_GATEWAY,
                format!("{provider} cannot be reached properly"),
                "Try again later. An administrator finds the reason in the audit log, and can sign in without a provider.",
            ),
            Self::Busy => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Not now".to_owned(),
                "Too many people sign in at this moment. Try again in a few seconds.",
            ),
            Self::NotUnderWay => (
                StatusCode::BAD_REQUEST,
                "This sign-in is not under way here".to_owned(),
                "It took too long, was finished already, or was begun in another browser. Sign in again.",
            ),
            Self::Declined(_) => (
                StatusCode::FORBIDDEN,
                format!("{provider} did not sign you in"),
                "It declined, or you did. Sign in again, or ask your administrator.",
            ),
            Self::Unknown => (
                StatusCode::FORBIDDEN,
                "You have no access here".to_owned(),
                "You are not known here, or were disabled. Ask your administrator.",
            ),
            Self::Domain => (
                StatusCode::FORBIDDEN,
                "You have no access here".to_owned(),
                "Your email address is not verified, or not of a domain that is let in. Ask your administrator.",
            ),
            Self::Secret => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "The portal cannot use this provider".to_owned(),
                "Its secret has to be set again by the owner.",
            ),
            Self::OtherIssuer | Self::NoCode | Self::Signature | Self::Token(_) | Self::NotAnew => (
                StatusCode::FORBIDDEN,
                format!("What {provider} says is not accepted"),
                "Sign in again. If that does not help, an administrator finds the reason in the audit log.",
            ),
        };
        Refusal::Page { status, title, detail: detail.to_owned(), retry_after: None }
    }
}
