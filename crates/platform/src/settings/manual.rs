//! The manual page of a program, made from the definition that it parses with.
//!
//! Asked for by whoever makes packages: `PROGRAM --manual DIRECTORY`, alone on the command line. It is no argument of
//! the definition, since the programs have settings that must be given, and a page needs none of them.

use std::ffi::OsString;
use std::path::Path;

use clap::Command;
use clap::error::ErrorKind;

/// What asks for the page.
const FLAG: &str = "--manual";

/// Section 8: programs for the administration of a system, and daemons.
const SECTION: &str = "8";

/// Writes the page if the arguments ask for it. The outcome ends the program as `--help` does, or as an error.
pub(super) fn if_asked_for(command: &Command, arguments: &[OsString]) -> Option<clap::Error> {
    let [_, flag, directory] = arguments else { return None };
    if *flag != *FLAG {
        return None;
    }
    match write(command.clone(), Path::new(directory)) {
        Ok(text) => said(text),
        Err(error) => {
            let text = format!("cannot write to {}: {error}\n", Path::new(directory).display());
            Some(clap::Error::raw(ErrorKind::Io, text))
        }
    }
}

/// An outcome that is no error: clap makes one for help alone.
fn said(text: String) -> Option<clap::Error> {
    Command::new("manual").override_help(text).try_get_matches_from(["manual", "--help"]).err()
}

fn write(command: Command, directory: &Path) -> std::io::Result<String> {
    std::fs::create_dir_all(directory)?;
    let path = clap_mangen::Man::new(command).section(SECTION).generate_to(directory)?;
    Ok(format!("{}\n", path.display()))
}
