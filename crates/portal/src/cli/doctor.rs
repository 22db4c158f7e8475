//! `adit-portal doctor`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use url::Url;

use super::{Installation, output};
use crate::doctor::{Check, Options, State, examine};

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// How peers reach the portal; default: what bootstrap was told
    #[arg(long, env = "ADIT_PORTAL_URL")]
    url: Option<Url>,
    /// The certificate that is served, if not the one in the data directory
    #[arg(long, env = "ADIT_PORTAL_TLS_CERT", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// An entry of the audit log that was noted earlier must still be there
    #[arg(long, value_name = "NUMBER:SEAL", value_parser = noted)]
    noted_entry: Option<(i64, String)>,
    #[command(flatten)]
    installation: Installation,
}

fn noted(text: &str) -> Result<(i64, String), String> {
    let wrong = || "write it as doctor prints it: NUMBER:SEAL".to_owned();
    let (number, seal) = text.split_once(':').ok_or_else(wrong)?;
    Ok((number.parse().map_err(|_| wrong())?, seal.to_ascii_lowercase()))
}

/// Examines an installation; fails when something has failed.
pub(super) fn run(arguments: Doctor) -> ExitCode {
    let Doctor { url, tls_cert, noted_entry, installation: at } = arguments;
    let options = Options {
        data_dir: at.data_dir,
        database: at.database,
        url,
        certificate: tls_cert,
        noted: noted_entry,
    };
    let checks = match super::run::one_thread() {
        Ok(runtime) => runtime.block_on(examine(&options)),
        Err(error) => return super::run::failed(&error),
    };
    let is_sound = checks.iter().all(|check| check.state != State::Failed);
    if at.json {
        let code = output::json(&serde_json::json!({ "ok": is_sound, "checks": checks }));
        if code != ExitCode::SUCCESS {
            return code;
        }
    } else {
        checks.iter().for_each(print);
    }
    if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print(check: &Check) {
    let state = match check.state {
        State::Ok => "ok",
        State::Skipped => "skipped",
        State::Warning => "WARNING",
        State::Failed => "FAILED",
    };
    println!("{state:<8} {:<12} {}", check.name, check.detail);
}
