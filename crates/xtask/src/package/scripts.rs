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
    // Not a file of the package: whoever provides settings before the package comes, or edits them, is never asked about
    // them. They hold tokens.
    let settings = format!(
        "if [ ! -e /etc/adit/{file} ]; then\n\
         \u{20}   mkdir -p /etc/adit\n\
         \u{20}   install -m 600 /usr/share/{name}/{file} /etc/adit/{file}\n\
         fi\n",
        name = contents.name,
        file = contents.settings
    );
    // A restart keeps the connections of a gateway, and those of a client for as long as it takes.
    format!(
        "{users}{settings}if [ -d /run/systemd/system ]; then\n\
         \u{20}   systemctl daemon-reload\n\
         \u{20}   if {is_upgrade}; then systemctl try-restart {unit} || true; fi\n\
         fi\n",
        unit = contents.unit
    )
}

/// Before the files go, for good and not for a newer version.
pub(super) fn before_removal(contents: &Contents) -> String {
    // The unit does so whenever the daemon ends; a daemon that died without a unit has left something behind.
    let cleanup =
        if contents.programs.contains(&"aditd") { "/usr/bin/aditd --cleanup || true\n" } else { "" };
    format!(
        "if [ -d /run/systemd/system ]; then systemctl disable --now {} || true; fi\n{cleanup}",
        contents.unit
    )
}

/// After the files have gone.
pub(super) fn after_removal() -> &'static str {
    "if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi\n"
}

/// When nothing is to stay: state, logs, settings. What a dynamic user had is in `private`.
pub(super) fn purge(contents: &Contents) -> String {
    let Contents { state, settings, .. } = contents;
    format!(
        "for place in /var/lib /var/log /var/lib/private /var/log/private; do rm -rf \"$place/{state}\"; done\n\
         rm -f /etc/adit/{settings}\n\
         rmdir /etc/adit 2>/dev/null || true\n"
    )
}
