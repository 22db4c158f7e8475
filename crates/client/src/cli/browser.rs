//! Opening a page in the browser of whoever calls.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// How long a program that opens pages may take to say that it cannot.
const VERDICT_WITHIN: Duration = Duration::from_secs(3);

/// Why there is no browser here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Neither X11 nor Wayland, and no `$BROWSER`.
    Display,
    /// We are root for somebody else: a browser of root's in that one's session helps nobody.
    SomebodyElse,
}

impl Missing {
    /// For people.
    pub(super) const fn sentence(self) -> &'static str {
        match self {
            Self::Display => "There is no display here to open a browser on.",
            Self::SomebodyElse => "No browser is opened as root for somebody else.",
        }
    }
}

/// Whether a browser can be opened here, by the environment.
pub(super) fn missing() -> Option<Missing> {
    judge(nix::unistd::geteuid().is_root(), &|name| std::env::var_os(name))
}

fn judge(is_root: bool, variable: &dyn Fn(&str) -> Option<OsString>) -> Option<Missing> {
    let is_set = |name: &&str| variable(name).is_some_and(|value| !value.is_empty());
    if is_root && ["SUDO_UID", "DOAS_USER", "PKEXEC_UID"].iter().any(&is_set) {
        return Some(Missing::SomebodyElse);
    }
    let has_display = ["WAYLAND_DISPLAY", "DISPLAY", "BROWSER"].iter().any(is_set);
    if has_display { None } else { Some(Missing::Display) }
}

/// Opens `url`; whether a program took it.
pub(super) async fn open(url: &str) -> bool {
    let browser = std::env::var("BROWSER").unwrap_or_default();
    for words in commands(&browser, url) {
        if start(&words).await {
            return true;
        }
    }
    false
}

/// `$BROWSER` holds commands between colons, tried in order, each with `%s` for the address or none; then the
/// desktop's own.
fn commands(browser: &str, url: &str) -> Vec<Vec<String>> {
    let own = browser.split(':').map(|command| {
        let mut words: Vec<String> = command.split_whitespace().map(|word| word.replace("%s", url)).collect();
        if !words.is_empty() && !command.contains("%s") {
            words.push(url.to_owned());
        }
        words
    });
    let desktop = vec!["xdg-open".to_owned(), url.to_owned()];
    own.filter(|words| !words.is_empty()).chain([desktop]).collect()
}

/// Whether the program started and did not soon say that it cannot.
async fn start(words: &[String]) -> bool {
    let Some((program, arguments)) = words.split_first() else { return false };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Whoever interrupts us does not mean the browser.
    command.process_group(0);
    let Ok(mut child) = command.spawn() else { return false };
    match tokio::time::timeout(VERDICT_WITHIN, child.wait()).await {
        Ok(status) => status.is_ok_and(|status| status.success()),
        // It is the browser itself.
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(is_root: bool, set: &[&str]) -> Option<Missing> {
        judge(is_root, &|name| set.contains(&name).then(|| "1".into()))
    }

    #[test]
    fn a_browser_needs_a_display_and_its_own_user() {
        assert_eq!(given(false, &["DISPLAY"]), None);
        assert_eq!(given(false, &["WAYLAND_DISPLAY"]), None);
        assert_eq!(given(false, &["BROWSER"]), None, "it may be one for terminals");
        assert_eq!(given(false, &[]), Some(Missing::Display));
        assert_eq!(given(true, &["DISPLAY"]), None);
        assert_eq!(given(true, &["DISPLAY", "SUDO_UID"]), Some(Missing::SomebodyElse));
        assert_eq!(given(false, &["DISPLAY", "SUDO_UID"]), None, "sudo to somebody who is not root");
        assert_eq!(judge(false, &|_| Some("".into())), Some(Missing::Display));
    }

    #[test]
    fn the_address_is_one_word_of_the_command() {
        let url = "https://x/?a=b;rm&c=d";
        let words = |browser: &str| commands(browser, url);
        assert_eq!(words(""), [["xdg-open", url]]);
        assert_eq!(
            words("w3m:lynx -x %s"),
            [vec!["w3m", url], vec!["lynx", "-x", url], vec!["xdg-open", url]]
        );
    }

    #[tokio::test]
    async fn a_program_that_fails_opened_nothing() {
        assert!(start(&["true".to_owned()]).await);
        assert!(!start(&["false".to_owned()]).await);
        assert!(!start(&["/nowhere/browser".to_owned()]).await);
    }
}
