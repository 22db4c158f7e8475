//! Declarations: `plan`, `apply` and `export`.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Admin, AdminError, Connection};
use crate::cli::output::{self, text};

/// A file and what to do with it.
#[derive(Debug, Args)]
pub(in crate::cli) struct Plan {
    #[command(flatten)]
    connection: Connection,
    /// The file, in YAML
    file: PathBuf,
    /// Delete what the sections of the file do not name
    #[arg(long)]
    prune: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Apply {
    #[command(flatten)]
    plan: Plan,
    /// Do not ask before anything is changed
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Export {
    #[command(flatten)]
    connection: Connection,
}

impl Plan {
    fn body(&self) -> Result<Value, AdminError> {
        let file = std::fs::read_to_string(&self.file)
            .map_err(|error| AdminError::Usage(format!("cannot read {}: {error}", self.file.display())))?;
        Ok(json!({ "file": file, "prune": self.prune }))
    }

    async fn call(&self, admin: &Admin, path: &str, body: &Value) -> Result<Value, AdminError> {
        admin.api.call(Method::POST, path, Some(body)).await.map_err(|error| self.locate(error))
    }

    /// Errors of the file begin as those of compilers do: `FILE: line 3, column 5: …`.
    fn locate(&self, error: AdminError) -> AdminError {
        match error {
            AdminError::Refused(mut problem) if problem.code == "invalid_file" => {
                problem.title = self.file.display().to_string();
                AdminError::Refused(problem)
            }
            other => other,
        }
    }

    /// Prints what would change.
    pub(super) async fn run(self) -> Result<(), AdminError> {
        let admin = Admin::new(&self.connection)?;
        let planned = self.call(&admin, "plan", &self.body()?).await?;
        show(&admin, &planned);
        Ok(())
    }
}

impl Apply {
    /// Prints what will change, asks, and does it.
    pub(super) async fn run(self) -> Result<(), AdminError> {
        let admin = Admin::new(&self.plan.connection)?;
        let mut body = self.plan.body()?;
        let planned = self.plan.call(&admin, "plan", &body).await?;
        if planned["changes"].as_array().is_none_or(Vec::is_empty) {
            show(&admin, &planned);
            return Ok(());
        }
        if !self.yes {
            if !std::io::stdin().is_terminal() {
                return Err(AdminError::Usage("nobody can be asked here: give --yes".to_owned()));
            }
            println!("{}", describe(&planned));
            if !agrees() {
                return Err(AdminError::Usage("nothing was changed".to_owned()));
            }
        }
        body["digest"] = planned["digest"].clone();
        let applied = self.plan.call(&admin, "apply", &body).await?;
        if self.yes || admin.json {
            show(&admin, &applied);
        } else {
            println!("applied");
        }
        Ok(())
    }
}

impl Export {
    /// Prints the file.
    pub(super) async fn run(self) -> Result<(), AdminError> {
        let admin = Admin::new(&self.connection)?;
        let exported = admin.api.call(Method::GET, "export", None).await?;
        if admin.json {
            output::json(&exported);
        } else {
            // Its lines are its own; names hold nothing that controls a terminal.
            print!("{}", exported["file"].as_str().unwrap_or_default());
        }
        Ok(())
    }
}

fn agrees() -> bool {
    print!("Apply? [y/N] ");
    let _ = std::io::stdout().flush();
    let mut answer = String::new();
    let _ = std::io::stdin().read_line(&mut answer);
    matches!(answer.trim(), "y" | "Y" | "yes")
}

fn show(admin: &Admin, planned: &Value) {
    if admin.json {
        output::json(planned);
    } else {
        println!("{}", describe(planned));
    }
}

fn describe(planned: &Value) -> String {
    let none = Vec::new();
    let changes = planned["changes"].as_array().unwrap_or(&none);
    let access = planned["access"].as_array().unwrap_or(&none);
    if changes.is_empty() {
        return "Nothing is to be changed.".to_owned();
    }
    let mut lines: Vec<String> = changes.iter().map(change_line).collect();
    lines.push(String::new());
    for (head, matches) in [
        ("Gain access:", (|one: &Value| one["before"] == "never") as fn(&Value) -> bool),
        ("Lose access:", |one: &Value| one["after"] == "never"),
        ("Access under other conditions:", |one: &Value| one["before"] != "never" && one["after"] != "never"),
    ] {
        let concerned: Vec<String> = access.iter().filter(|one| matches(one)).map(access_line).collect();
        if !concerned.is_empty() {
            lines.push(head.to_owned());
            lines.extend(concerned);
        }
    }
    if access.is_empty() {
        lines.push("Nobody gains or loses access.".to_owned());
    }
    lines.join("\n")
}

fn change_line(change: &Value) -> String {
    let sign = match change["action"].as_str() {
        Some("create") => '+',
        Some("delete") => '-',
        _ => '~',
    };
    let head = format!("{sign} {} {}", text(&change["kind"]), text(&change["name"]));
    let (Some(before), Some(after)) = (change["before"].as_object(), change["after"].as_object()) else {
        return head;
    };
    let differing = after.iter().filter(|(key, value)| before.get(*key) != Some(*value));
    let lines = differing
        .map(|(key, value)| format!("\n    {key}: {} → {value}", before.get(key).unwrap_or(&Value::Null)));
    head + &lines.collect::<String>()
}

fn access_line(access: &Value) -> String {
    let how = match (access["before"].as_str(), access["after"].as_str()) {
        (Some("never"), Some("under_conditions")) => " (under conditions)",
        (Some("under_conditions"), Some("always")) => " (now always)",
        (Some("always"), Some("under_conditions")) => " (now under conditions)",
        _ => "",
    };
    format!("  {} → {}{how}", text(&access["actor"]), text(&access["resource"]))
}
