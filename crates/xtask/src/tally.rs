//! Passed and failed, added up over all kinds of tests, and read from what test runners print.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result};

/// Counts of one or more test runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Tally {
    /// One check that went well or not.
    pub(crate) const fn one(ok: bool) -> Self {
        if ok { Self { passed: 1, failed: 0 } } else { Self { passed: 0, failed: 1 } }
    }

    pub(crate) const fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// Runs a test command with its output shown, and counts what it reports.
///
/// A command that fails without reporting a failed test, for example because nothing compiles, counts as one.
pub(crate) fn run(command: Command) -> Result<Tally> {
    count(command, std::io::stdout(), std::io::stderr())
}

fn count(mut command: Command, stdout_to: impl Write + Send, stderr_to: impl Write + Send) -> Result<Tally> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting the tests")?;
    let tally = Mutex::new(Tally::default());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::scope(|scope| {
        scope.spawn(|| pass_on(stdout, stdout_to, &tally));
        scope.spawn(|| pass_on(stderr, stderr_to, &tally));
    });
    let status = child.wait()?;
    let mut tally = tally.into_inner().unwrap_or_default();
    if !status.success() && tally.failed == 0 {
        tally.failed = 1;
    }
    Ok(tally)
}

fn pass_on(from: Option<impl Read>, mut to: impl Write, tally: &Mutex<Tally>) {
    let Some(from) = from else {
        return;
    };
    for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        // A closed terminal does not end the tests.
        let _ = writeln!(to, "{line}");
        if let (Some(counts), Ok(mut tally)) = (parse(&line), tally.lock()) {
            tally.add(counts);
        }
    }
}

/// Reads the summary lines of `cargo nextest run` and of `cargo test`; `None` for all other lines.
fn parse(line: &str) -> Option<Tally> {
    let nextest = line
        .trim_start()
        .starts_with("Summary [")
        .then(|| line.split_once("tests run: ").or(line.split_once("test run: ")));
    let counts = match nextest {
        Some(split) => split?.1,
        None => line.strip_prefix("test result: ")?.split_once(". ")?.1,
    };
    let mut tally = Tally::default();
    for part in counts.split([',', ';']) {
        let Some((number, word)) = part.trim().split_once(' ') else {
            continue;
        };
        let Ok(number) = number.parse::<u64>() else {
            continue;
        };
        match word.split_whitespace().next() {
            Some("passed") => tally.passed += number,
            Some("failed" | "timed" | "exec") => tally.failed += number,
            _ => {}
        }
    }
    Some(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_of_both_runners_are_read() {
        for (line, passed, failed) in [
            ("     Summary [   1.270s] 28 tests run: 28 passed, 0 skipped", 28, 0),
            (
                "     Summary [   9.1s] 28/30 tests run: 20 passed (1 slow), 5 failed, 2 timed out, 1 exec failed, 4 skipped",
                20,
                8,
            ),
            ("     Summary [   0.002s] 1 test run: 1 passed, 0 skipped", 1, 0),
            (
                "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
                3,
                0,
            ),
            (
                "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s",
                3,
                2,
            ),
        ] {
            assert_eq!(parse(line), Some(Tally { passed, failed }), "{line}");
        }
        assert_eq!(parse("test tests::a ... ok"), None);
    }

    #[test]
    fn a_command_that_fails_in_silence_counts_as_a_failure() {
        let shell = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]);
            count(command, std::io::sink(), std::io::sink()).unwrap()
        };
        assert_eq!(shell("exit 101"), Tally { passed: 0, failed: 1 });
        assert_eq!(shell("echo 'test result: ok. 2 passed; 0 failed' >&2"), Tally { passed: 2, failed: 0 });
    }
}
