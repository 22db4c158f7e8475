//! `adit-relay doctor`: is this machine fit to be a relay with these settings, and if not, what to do.
//!
//! It looks and changes nothing; it can run beside a relay that is at work. It cannot see from outside: whether a firewall between here and
//! the clients lets them through is theirs to try.

mod addresses;
mod kernel;
mod limits;
mod ports;
mod report;
mod services;
mod xdp;

use std::process::ExitCode;

use crate::arguments::Arguments;
use crate::settings::Place;
use report::Report;

/// Fit.
const FIT: u8 = 0;
/// Something does not work.
const NOT_FIT: u8 = 1;
/// The settings contradict each other.
const USAGE: u8 = 2;

/// Checks everything and prints what it found.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let place = match Place::new(arguments) {
        Ok(place) => place,
        Err(error) => return crate::complain(&error, USAGE),
    };
    let report = examine(arguments, &place);
    let printed = if arguments.json { report.print_json() } else { report.print() };
    // Whoever asked does not listen any more.
    let Ok(()) = printed else { return ExitCode::from(NOT_FIT) };
    ExitCode::from(if report.is_fit() { FIT } else { NOT_FIT })
}

fn examine(arguments: &Arguments, place: &Place) -> Report {
    let mut findings = addresses::check(place);
    findings.extend(ports::check(place));
    findings.extend(limits::check(place));
    findings.extend(kernel::check(place));
    findings.extend(services::check(arguments, place));
    findings.extend(xdp::check(place));
    Report { findings }
}
