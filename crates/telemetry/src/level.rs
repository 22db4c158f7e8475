//! Changing the log level of a running program.

use std::sync::{Arc, Mutex, PoisonError};

use tracing_subscriber::{EnvFilter, Registry, reload};

/// Targets of libraries that warn of what any stranger can send, with the level that counts for them unless the
/// directive names them: a flood of datagrams must not become a flood of warnings. Our own code counts such
/// datagrams.
const QUIETED: &str = "is::stun=error";

/// Why a level was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelError {
    directive: String,
    reason: String,
}

impl std::fmt::Display for LevelError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "`{}` is not a log level: {} (use error, warn, info, debug, trace, or a list such as `info,adit_peering=debug`)",
            self.directive, self.reason
        )
    }
}

impl std::error::Error for LevelError {}

/// Reads and changes the level of the running program; cheap to clone.
#[derive(Clone, Debug)]
pub struct LevelHandle {
    reload: reload::Handle<EnvFilter, Registry>,
    current: Arc<Mutex<String>>,
}

impl LevelHandle {
    pub(crate) fn new(reload: reload::Handle<EnvFilter, Registry>, current: &str) -> Self {
        Self { reload, current: Arc::new(Mutex::new(current.to_owned())) }
    }

    /// The directive in force.
    #[must_use]
    pub fn get(&self) -> String {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts a new directive in force for all threads at once.
    ///
    /// # Errors
    /// When `directive` cannot be read, or the subscriber is gone; the old level stays.
    pub fn set(&self, directive: &str) -> Result<(), LevelError> {
        let filter = parse(directive)?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        self.reload
            .reload(filter)
            .map_err(|error| LevelError { directive: directive.to_owned(), reason: error.to_string() })?;
        directive.clone_into(&mut current);
        Ok(())
    }
}

/// Reads a directive; an unknown bare word is an error here, where `EnvFilter` would take it for a target.
pub(crate) fn parse(directive: &str) -> Result<EnvFilter, LevelError> {
    let refuse = |reason: String| LevelError { directive: directive.to_owned(), reason };
    let trimmed = directive.trim();
    if trimmed.is_empty() {
        return Err(refuse("it is empty".to_owned()));
    }
    for part in trimmed.split(',').map(str::trim) {
        let bare = !part.contains(['=', ':', '_', '[']);
        if bare && part.parse::<tracing_subscriber::filter::LevelFilter>().is_err() {
            return Err(refuse(format!("unknown level `{part}`")));
        }
    }
    EnvFilter::try_new(format!("{QUIETED},{trimmed}")).map_err(|error| refuse(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_lists_are_accepted() {
        for good in ["info", "DEBUG", "warn", "off", "info,adit_peering=trace", " debug "] {
            assert!(parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn strangers_cannot_fill_the_log_through_a_library_unless_asked_for() {
        let directives = |text: &str| parse(text).expect(text).to_string();
        assert!(directives("info").contains("is::stun=error"));
        let asked = directives("info,is::stun=debug");
        assert!(asked.contains("is::stun=debug") && !asked.contains("is::stun=error"), "{asked}");
    }

    #[test]
    fn nonsense_is_refused_with_a_hint() {
        for bad in ["", "loud", "info,verbose", "adit_peering=loud"] {
            let error = parse(bad).expect_err(bad);
            assert!(error.to_string().contains("info,adit_peering=debug"), "{error}");
        }
    }
}
