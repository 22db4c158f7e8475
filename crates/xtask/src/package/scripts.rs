//! What runs on a machine when a package comes, changes and goes. All of it does without systemd.

use super::contents::Contents;

/// After the files are there; `is_upgrade` is a shell condition.
pub(super) fn after_install(contents: &Contents, is_upgrade: &str) -> String {
    let users = contents.sysusers.map_or_else(String::new, |file| {
        format!(
            "if command -v systemd-sysusers >/dev/null; then systemd-sysusers {file}\n\
             elif ! getent group adit >/dev/null; then groupadd --system adit; fi\n"
        )
    });
    // A restart keeps the connections of a gateway, and those of a client for as long as it takes.
    format!(
        "{users}if [ -d /run/systemd/system ]; then\n\
         \u{20}   systemctl daemon-reload\n\
         \u{20}   if {is_upgrade}; then systemctl try-restart {unit} || true; fi\n\
         fi\n",
        unit = contents.unit
    )
}

/// Before the files go, for good and not for a newer version.
pub(super) fn before_removal(contents: &Contents) -> String {
    format!("if [ -d /run/systemd/system ]; then systemctl disable --now {} || true; fi\n", contents.unit)
}

/// After the files have gone.
pub(super) fn after_removal() -> &'static str {
    "if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi\n"
}
