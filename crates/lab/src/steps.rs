//! Steps shown to a person one by one with their times, and written down for a machine.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde::Serialize;

const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const DIM: &str = "\x1b[2m";
const RESET: &str = "\x1b[0m";

/// One step as it is written to the JSON file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What was done.
    pub name: String,
    /// Whether it worked.
    pub ok: bool,
    /// Whole milliseconds it took.
    pub ms: u64,
}

#[derive(Serialize)]
struct Record<'a> {
    steps: &'a [Step],
    ok: bool,
}

/// Runs steps and remembers what became of them.
#[derive(Debug)]
pub struct Steps {
    done: Vec<Step>,
    colour: bool,
}

impl Steps {
    /// Shows steps on standard output, coloured when that is a terminal and `NO_COLOR` is not set.
    pub fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { done: Vec::new(), colour: wanted && std::io::stdout().is_terminal() }
    }

    /// Writes a heading.
    pub fn heading(&self, text: &str) {
        println!("\n{text}");
    }

    /// Runs one step; on success the text it returned is shown beside its time.
    ///
    /// # Errors
    /// What the step returned, after showing it; steps that need this one should then be left out.
    pub fn run<T>(&mut self, name: &str, step: impl FnOnce() -> Result<(T, String)>) -> Result<T> {
        self.announce(name);
        let begin = Instant::now();
        let result = step();
        let took = begin.elapsed();
        let detail = match &result {
            Ok((_, detail)) => detail.clone(),
            Err(error) => format!("{error:#}"),
        };
        self.finish(name, took, result.is_ok(), &detail);
        result.map(|(value, _)| value)
    }

    /// The steps so far.
    pub fn done(&self) -> &[Step] {
        &self.done
    }

    /// Whether there were steps and all of them worked.
    pub fn ok(&self) -> bool {
        !self.done.is_empty() && self.done.iter().all(|step| step.ok)
    }

    /// Writes `{"steps":[{"name","ok","ms"}…],"ok"}`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_json(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string(&Record { steps: &self.done, ok: self.ok() })?;
        std::fs::write(path, text + "\n").with_context(|| format!("writing {}", path.display()))
    }

    /// On a terminal the step is shown while it runs.
    fn announce(&self, name: &str) {
        if self.colour {
            print!("{DIM}  …  {name}{RESET}");
            // A step that cannot be shown is still run.
            let _ = std::io::stdout().flush();
        }
    }

    fn finish(&mut self, name: &str, took: Duration, ok: bool, detail: &str) {
        let (mark, colour) = if ok { ("ok", GREEN) } else { ("FAIL", RED) };
        let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        if self.colour {
            println!("\r\x1b[K{colour}{mark:>4}{RESET}  {name:<52} {ms:>7} ms  {DIM}{detail}{RESET}");
        } else {
            println!("{mark:>4}  {name:<52} {ms:>7} ms  {detail}");
        }
        self.done.push(Step { name: name.to_owned(), ok, ms });
    }
}

impl Default for Steps {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_step_fails_the_whole() {
        let mut steps = Steps::new();
        assert!(!steps.ok(), "nothing was shown yet");
        assert_eq!(steps.run("first", || Ok((7, String::new()))).unwrap(), 7);
        assert!(steps.ok());
        assert!(steps.run("second", || -> Result<((), String)> { anyhow::bail!("no") }).is_err());
        assert!(!steps.ok());
        let path = std::env::temp_dir().join(format!("adit-lab-steps-{}.json", std::process::id()));
        steps.write_json(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        assert!(text.starts_with(r#"{"steps":[{"name":"first","ok":true,"ms":"#), "{text}");
        assert!(text.trim_end().ends_with(r#"],"ok":false}"#), "{text}");
    }
}
