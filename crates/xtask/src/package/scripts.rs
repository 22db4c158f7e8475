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
    let restarts: String = std::iter::once(contents.unit.to_owned())
        .chain(contents.template.map(|unit| format!("'{}'", unit.replace('@', "@*"))))
        .map(|units| format!("\u{20}   if {is_upgrade}; then systemctl try-restart {units} || true; fi\n"))
        .collect();
    format!(
        "{users}{settings}if [ -d /run/systemd/system ]; then\n\
         \u{20}   systemctl daemon-reload\n\
         {restarts}\
         fi\n"
    )
}

/// Before the files go, for good and not for a newer version.
pub(super) fn before_removal(contents: &Contents) -> String {
    // The unit does so whenever the daemon ends; a daemon that died without a unit has left something behind.
    let cleanup = if contents.programs.contains(&"aditd") {
        "/usr/bin/aditd --cleanup || true\n\
         for state in /var/lib/adit/profiles/*/; do\n\
         \u{20}   [ ! -d \"$state\" ] || /usr/bin/aditd --cleanup --profile \"$(basename \"$state\")\" || true\n\
         done\n"
    } else {
        ""
    };
    let instances = contents.template.map_or_else(String::new, |unit| {
        format!(
            "\u{20}   for link in /etc/systemd/system/*.wants/{}; do\n\
             \u{20}       [ ! -L \"$link\" ] || systemctl disable --now \"$(basename \"$link\")\" || true\n\
             \u{20}   done\n",
            unit.replace('@', "@*")
        )
    });
    format!(
        "if [ -d /run/systemd/system ]; then\n\
         \u{20}   systemctl disable --now {} || true\n\
         {instances}fi\n{cleanup}",
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
    let profiles = if contents.template.is_some() { "rm -rf /etc/adit/profiles\n" } else { "" };
    format!(
        "for place in /var/lib /var/log /var/lib/private /var/log/private; do rm -rf \"$place/{state}\"; done\n\
         rm -f /etc/adit/{settings}\n{profiles}\
         rmdir /etc/adit 2>/dev/null || true\n"
    )
}
