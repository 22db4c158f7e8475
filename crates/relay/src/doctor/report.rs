//! What the doctor has found, for people and for programs.

use std::io::{self, Write as _};

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could, or not for ever.
    Warning,
    /// It does not work.
    Failure,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was looked at; stable, for programs.
    pub(super) check: &'static str,
    pub(super) status: Status,
    /// What there is.
    pub(super) detail: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

impl Finding {
    pub(super) fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, detail: detail.into(), advice: None }
    }

    pub(super) fn warning(check: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, status: Status::Warning, detail: detail.into(), advice: Some(advice.into()) }
    }

    pub(super) fn failure(check: &'static str, detail: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, status: Status::Failure, detail: detail.into(), advice: Some(advice.into()) }
    }
}

/// Everything that was found.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) findings: Vec<Finding>,
}

/// The report for programs.
#[derive(Serialize)]
struct Json<'a> {
    /// Grows when a field changes its meaning.
    schema: u32,
    ok: bool,
    checks: &'a [Finding],
}

impl Report {
    /// True if nothing is broken.
    pub(super) fn is_fit(&self) -> bool {
        self.count(Status::Failure) == 0
    }

    pub(super) fn print_json(&self) -> io::Result<()> {
        let json = Json { schema: 1, ok: self.is_fit(), checks: &self.findings };
        let mut out = io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, &json)?;
        writeln!(out)
    }

    pub(super) fn print(&self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for finding in &self.findings {
            let mark = match finding.status {
                Status::Ok => "ok  ",
                Status::Warning => "warn",
                Status::Failure => "FAIL",
            };
            writeln!(out, "{mark}  {:<18} {}", finding.check, finding.detail)?;
            if let Some(advice) = &finding.advice {
                writeln!(out, "      {:<18} -> {advice}", "")?;
            }
        }
        let (failures, warnings) = (self.count(Status::Failure), self.count(Status::Warning));
        let verdict = if self.is_fit() { "fit to be a relay" } else { "not fit to be a relay" };
        writeln!(out, "\nThis machine is {verdict}: {failures} failures, {warnings} warnings.")
    }

    fn count(&self, status: Status) -> usize {
        self.findings.iter().filter(|finding| finding.status == status).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failure_makes_a_machine_unfit() {
        let ok = Finding::ok("a", "fine");
        let warning = Finding::warning("b", "slow", "buy another");
        let failure = Finding::failure("c", "broken", "mend it");
        assert!(Report { findings: vec![ok.clone(), warning.clone()] }.is_fit());
        assert!(!Report { findings: vec![ok, warning, failure] }.is_fit());
    }
}
