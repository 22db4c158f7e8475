//! The audit log.

use clap::Subcommand;
use reqwest::Method;

use super::{Admin, AdminError, Column};
use crate::cli::output::{self, text, time};

/// What can be done with the audit log.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Action {
    /// List entries, newest first
    List {
        /// How many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
    },
}

impl Action {
    pub(super) async fn run(self, admin: &Admin) -> Result<(), AdminError> {
        let Self::List { limit } = self;
        let page = admin.api.call(Method::GET, &format!("audit?limit={limit}"), None).await?;
        let items = page["items"].as_array().cloned().unwrap_or_default();
        if admin.json {
            output::json(&items);
        } else {
            let columns = [
                Column { head: "TIME", show: |row| time(&row["at_ms"]) },
                Column { head: "WHO", show: |row| text(&row["who"]) },
                Column { head: "ACTION", show: |row| text(&row["action"]) },
                Column { head: "DETAIL", show: |row| text(&row["detail"]) },
            ];
            output::table(&items, &columns);
        }
        Ok(())
    }
}
