//! Settings from a file, below flags and environment.
//!
//! A program's settings file is TOML whose keys are the program's long flags:
//!
//! ```toml
//! portal = "wss://portal.example.com"
//! ca = "/etc/adit/ca.pem"
//! port = 51820
//! allow-peer = ["192.0.2.0/24"]
//! ```
//!
//! What is not given as a flag or an environment variable is taken from there, and read by
//! the same code as a flag would be, so a wrong value leads to the same message. A key that
//! is no flag is an error: a setting that is silently ignored is worse than none.

mod manual;

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, Parser};
use toml::{Table, Value};

/// The flag that names the settings file; the program declares it.
const FLAG: &str = "config";

/// The environment variable that names the settings file.
const VARIABLE: &str = "ADIT_CONFIG";

/// The flags whose values must not be readable by others.
const SECRETS: [&str; 3] = ["token", "static-secret", "previous-static-secret"];

/// Who decided a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A flag.
    Flag,
    /// An environment variable.
    Environment,
    /// The settings file.
    File,
    /// Nobody.
    Default,
}

/// A setting as it is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Its name: the flag without dashes, the key in a settings file.
    pub name: String,
    /// Its value; several are separated by commas; nothing if it has none. Of a secret only that there is one.
    pub value: Option<String>,
    /// Who decided it.
    pub source: Source,
}

/// What is shown instead of a secret.
const HIDDEN: &str = "(hidden)";

/// Reads the arguments of the process: flags, then environment, then the settings file.
///
/// # Errors
///
/// When an argument is wrong, or the file cannot be read or understood. Show it with
/// [`clap::Error::exit`].
pub fn parse<T: Parser>() -> Result<T, clap::Error> {
    parse_described().map(|(parsed, _)| parsed)
}

/// As [`parse`], with every setting and who decided it.
///
/// # Errors
///
/// See [`parse`].
pub fn parse_described<T: Parser>() -> Result<(T, Vec<Setting>), clap::Error> {
    let variable = |name: &OsStr| std::env::var_os(name);
    parse_from(std::env::args_os().collect(), &variable)
}

fn parse_from<T: Parser>(
    mut arguments: Vec<OsString>,
    variable: &dyn Fn(&OsStr) -> Option<OsString>,
) -> Result<(T, Vec<Setting>), clap::Error> {
    let mut command = T::command();
    if let Some(outcome) = manual::if_asked_for(&command, &arguments) {
        return Err(outcome);
    }
    let Some(path) = settings_file(&arguments, variable) else {
        return parse_arguments(arguments, &[]);
    };
    let from_file = read(&path)
        .and_then(|table| flags(&command, &table, &arguments, variable))
        .map_err(|message| command.error(ErrorKind::Io, format!("{}: {message}", path.display())))?;
    let rest = arguments.split_off(1.min(arguments.len()));
    arguments.extend(from_file.iter().cloned().chain(rest));
    parse_arguments(arguments, &from_file).map_err(|error| {
        // Help and version are no errors of the file.
        if error.use_stderr() && !matches!(error.kind(), ErrorKind::MissingRequiredArgument) {
            let kind = error.kind();
            let text = error.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            let first = text.lines().next().unwrap_or(text);
            return command.error(kind, format!("{first}\nSome settings come from {}", path.display()));
        }
        error
    })
}

fn parse_arguments<T: Parser>(
    arguments: Vec<OsString>,
    from_file: &[OsString],
) -> Result<(T, Vec<Setting>), clap::Error> {
    let mut command = T::command();
    let matches = command.try_get_matches_from_mut(arguments)?;
    let settings =
        command.get_arguments().filter_map(|argument| describe(argument, &matches, from_file)).collect();
    let parsed = T::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
    Ok((parsed, settings))
}

fn describe(argument: &Arg, matches: &ArgMatches, from_file: &[OsString]) -> Option<Setting> {
    let name = argument.get_long()?;
    let is_switch = matches!(argument.get_action(), ArgAction::SetTrue);
    if !is_switch && !matches!(argument.get_action(), ArgAction::Set | ArgAction::Append) {
        return None;
    }
    let source = match matches.value_source(argument.get_id().as_str()) {
        Some(ValueSource::CommandLine) if is_from_file(name, from_file) => Source::File,
        Some(ValueSource::CommandLine) => Source::Flag,
        Some(ValueSource::EnvVariable) => Source::Environment,
        _ => Source::Default,
    };
    let values = matches.try_get_raw(argument.get_id().as_str()).ok().flatten().map(|values| {
        let values: Vec<_> = values.map(|value| value.to_string_lossy().into_owned()).collect();
        values.join(",")
    });
    let value = match values {
        Some(_) if SECRETS.contains(&name) => Some(HIDDEN.to_owned()),
        values => values,
    };
    Some(Setting { name: name.to_owned(), value, source })
}

fn is_from_file(name: &str, from_file: &[OsString]) -> bool {
    let (flag, joined) = (format!("--{name}"), format!("--{name}="));
    from_file.iter().any(|given| *given == *flag || given.to_string_lossy().starts_with(&joined))
}

/// The settings file that the flag names, else the environment.
fn settings_file(arguments: &[OsString], variable: &dyn Fn(&OsStr) -> Option<OsString>) -> Option<PathBuf> {
    let flag = format!("--{FLAG}");
    let joined = format!("--{FLAG}=");
    let mut rest = arguments.iter().skip(1);
    while let Some(argument) = rest.next() {
        if *argument == *flag {
            return rest.next().map(PathBuf::from);
        }
        if let Some(path) = argument.to_str().and_then(|text| text.strip_prefix(&joined)) {
            return Some(PathBuf::from(path));
        }
    }
    variable(OsStr::new(VARIABLE)).filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn read(path: &Path) -> Result<Table, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let table: Table = text.parse().map_err(|error: toml::de::Error| error.to_string())?;
    if let Some(secret) = SECRETS.iter().find(|name| table.keys().any(|key| key.replace('_', "-") == **name))
    {
        let mode = std::fs::metadata(path).map_err(|error| error.to_string())?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(format!("it holds `{secret}`, but others may read it: chmod 600 it"));
        }
    }
    Ok(table)
}

/// The flags that the file stands for, less those given otherwise.
fn flags(
    command: &Command,
    table: &Table,
    arguments: &[OsString],
    variable: &dyn Fn(&OsStr) -> Option<OsString>,
) -> Result<Vec<OsString>, String> {
    let mut flags = Vec::new();
    for (key, value) in table {
        let name = key.replace('_', "-");
        let argument = command
            .get_arguments()
            .find(|argument| argument.get_long() == Some(&name) && name != FLAG)
            .ok_or_else(|| format!("`{key}` is no setting of {}", command.get_name()))?;
        if !is_given(argument, &name, arguments, variable) {
            push(&mut flags, argument, &name, value)?;
        }
    }
    Ok(flags)
}

fn is_given(
    argument: &Arg,
    name: &str,
    arguments: &[OsString],
    variable: &dyn Fn(&OsStr) -> Option<OsString>,
) -> bool {
    let flag = format!("--{name}");
    let joined = format!("--{name}=");
    let is_flag = |text: &OsString| *text == *flag || text.to_string_lossy().starts_with(&joined);
    arguments.iter().any(is_flag) || argument.get_env().is_some_and(|name| variable(name).is_some())
}

fn push(flags: &mut Vec<OsString>, argument: &Arg, name: &str, value: &Value) -> Result<(), String> {
    let is_switch = matches!(argument.get_action(), ArgAction::SetTrue);
    match value {
        Value::Boolean(true) if is_switch => flags.push(format!("--{name}").into()),
        Value::Boolean(false) if is_switch => {}
        _ if is_switch => return Err(format!("`{name}` is either true or false")),
        Value::String(text) => flags.push(format!("--{name}={text}").into()),
        Value::Integer(number) => flags.push(format!("--{name}={number}").into()),
        Value::Array(values) if matches!(argument.get_action(), ArgAction::Append) => {
            for value in values {
                push(flags, argument, name, value)?;
            }
        }
        _ => return Err(format!("`{name}` is text or a number")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Parser)]
    #[command(name = "program", version)]
    struct Arguments {
        #[arg(long)]
        config: Option<PathBuf>,
        #[arg(long, env = "ADIT_TEST_PORT_UNSET", default_value_t = 1)]
        port: u16,
        #[arg(long, env = "ADIT_TEST_NAME_UNSET")]
        name: String,
        #[arg(long)]
        token: Option<String>,
        #[arg(long)]
        loud: bool,
        #[arg(long)]
        allow_peer: Vec<String>,
    }

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("settings.toml");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (directory, path)
    }

    fn parse(arguments: &[&str]) -> Result<Arguments, String> {
        let arguments = std::iter::once("program").chain(arguments.iter().copied()).map(OsString::from);
        let parsed = parse_from(arguments.collect(), &|_| None);
        parsed.map(|(parsed, _)| parsed).map_err(|error: clap::Error| error.to_string())
    }

    const GOOD: &str = "port = 7\nname = \"n\"\nloud = true\nallow_peer = [\"a\", \"b\"]\n";

    #[test]
    fn a_file_fills_in_what_is_not_given() {
        let (_directory, path) = file(GOOD, 0o644);
        let arguments = parse(&["--config", &path, "--port=9"]).unwrap();
        assert_eq!((arguments.port, arguments.name.as_str(), arguments.loud), (9, "n", true));
        assert_eq!(arguments.allow_peer, ["a", "b"]);
        assert_eq!(arguments.config.unwrap().to_str().unwrap(), path);
        assert_eq!(arguments.token, None);
    }

    #[test]
    fn the_environment_beats_the_file_and_may_name_it() {
        let (_directory, path) = file(GOOD, 0o644);
        let variable = |name: &OsStr| match name.to_str() {
            Some("ADIT_CONFIG") => Some(OsString::from(&path)),
            Some("ADIT_TEST_PORT_UNSET") => Some("8".into()),
            _ => None,
        };
        let (arguments, _): (Arguments, _) = parse_from(vec!["program".into()], &variable).unwrap();
        // Clap reads the real environment, which has no such variable: the default shows that the file was not asked.
        assert_eq!((arguments.port, arguments.name.as_str()), (1, "n"));
    }

    #[test]
    fn every_setting_says_who_decided_it() {
        let (_directory, path) = file(&format!("{GOOD}token = \"sesame\"\n"), 0o600);
        let words = ["program", "--config", &path, "--port=9"].map(OsString::from);
        let (_, settings): (Arguments, _) = parse_from(words.to_vec(), &|_| None).unwrap();
        let of = |name: &str| {
            let setting = settings.iter().find(|setting| setting.name == name).unwrap();
            (setting.value.as_deref(), setting.source)
        };
        assert_eq!(of("port"), (Some("9"), Source::Flag));
        assert_eq!(of("name"), (Some("n"), Source::File));
        assert_eq!(of("loud"), (Some("true"), Source::File));
        assert_eq!(of("allow-peer"), (Some("a,b"), Source::File));
        assert_eq!(of("token"), (Some(HIDDEN), Source::File));
        assert_eq!(of("config").1, Source::Flag);
        assert!(!format!("{settings:?}").contains("sesame"));
        assert!(settings.iter().all(|setting| setting.name != "help" && setting.name != "version"));
        let words = ["program", "--name=x"].map(OsString::from).to_vec();
        let (_, settings): (Arguments, _) = parse_from(words, &|_| None).unwrap();
        let port = settings.iter().find(|setting| setting.name == "port").unwrap();
        assert_eq!((port.value.as_deref(), port.source), (Some("1"), Source::Default));
        let token = settings.iter().find(|setting| setting.name == "token").unwrap();
        assert_eq!((&token.value, token.source), (&None, Source::Default));
    }

    #[test]
    fn every_mistake_is_named() {
        let complaint = |text: &str, mode: u32| {
            let (_directory, path) = file(text, mode);
            parse(&["--config", &path]).unwrap_err()
        };
        assert!(complaint("prot = 1", 0o644).contains("`prot` is no setting of program"));
        assert!(complaint("config = \"x\"", 0o644).contains("`config` is no setting"));
        assert!(complaint("port = ", 0o644).contains("line 1"));
        assert!(complaint("name = \"n\"\nport = \"many\"", 0o644).contains("invalid value 'many'"));
        assert!(complaint("loud = \"yes\"", 0o644).contains("true or false"));
        assert!(complaint("name = [\"n\"]", 0o644).contains("text or a number"));
        assert!(complaint("token = \"secret\"", 0o644).contains("chmod 600"));
        assert!(complaint("port = 1", 0o644).contains("--name"), "a missing setting is still missing");
        assert!(parse(&["--config", "/nowhere"]).unwrap_err().contains("/nowhere"));
    }

    #[test]
    fn the_manual_is_written_without_settings_that_must_be_given() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("man8");
        let words = ["program", "--manual", place.to_str().unwrap()].map(OsString::from);
        let outcome = parse_from::<Arguments>(words.to_vec(), &|_| None).unwrap_err();
        assert!(!outcome.use_stderr() && !outcome.to_string().contains("error"), "{outcome}");
        let page = std::fs::read_to_string(place.join("program.8")).unwrap();
        assert!(page.contains(".TH program 8") && page.contains("ADIT_TEST_PORT_UNSET"), "{page}");
        let nowhere = ["program", "--manual", "/dev/null/man8"].map(OsString::from);
        let outcome = parse_from::<Arguments>(nowhere.to_vec(), &|_| None).unwrap_err();
        assert!(outcome.use_stderr() && outcome.exit_code() != 0, "{outcome}");
    }

    #[test]
    fn a_secret_in_a_private_file_is_fine() {
        let (_directory, path) = file("token = \"secret\"\nname = \"n\"", 0o600);
        assert_eq!(parse(&["--config", &path]).unwrap().token.as_deref(), Some("secret"));
    }
}
