//! `adit config list`: every setting of the daemon, and who decided it.

use std::fmt::Write as _;

use adit_client_ipc::{FrontEnd, Request, Response, Setting, SettingSource};

use super::exit::Failure;
use super::{CALL_LIMIT, print, render};

pub(super) async fn list(daemon: &mut FrontEnd, json: bool) -> Result<(), Failure> {
    let settings = match daemon.call(Request::Settings {}, CALL_LIMIT).await? {
        Response::Settings(settings) => settings,
        other => return Err(Failure::unexpected(&other)),
    };
    print(&if json { render::json_list("settings", &settings)? } else { table(&settings) })
}

fn table(settings: &[Setting]) -> String {
    let widest = settings.iter().map(|setting| setting.name.len()).max().unwrap_or_default().max(4);
    let mut text = format!("{:widest$}  {:7}  VALUE\n", "NAME", "FROM");
    for setting in settings {
        let value = setting.value.as_deref().unwrap_or("-");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:widest$}  {:7}  {value}", setting.name, source_name(setting.source));
    }
    text
}

const fn source_name(source: SettingSource) -> &'static str {
    match source {
        SettingSource::Flag => "flag",
        SettingSource::Environment => "env",
        SettingSource::File => "file",
        SettingSource::Default => "default",
        SettingSource::Other => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_is_a_line() {
        let setting = |name: &str, value: Option<&str>, source| Setting {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            source,
        };
        let settings = [
            setting("interface", Some("adit0"), SettingSource::Default),
            setting("ca", None, SettingSource::Environment),
        ];
        let text = table(&settings);
        assert_eq!(text, "NAME       FROM     VALUE\ninterface  default  adit0\nca         env      -\n");
    }
}
