//! The audit log.

use clap::{Args, Subcommand};
use reqwest::Method;
use uuid::Uuid;

use super::flow::parse_since;
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
        #[command(flatten)]
        filter: Filter,
    },
}

/// Which entries.
#[derive(Debug, Args)]
pub(in crate::cli) struct Filter {
    /// Only by whoever has this name, exactly
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// Only this action (policy.conditions), or all of one noun (policy)
    #[arg(long, value_name = "ACTION")]
    action: Option<String>,
    /// Only about the thing with this id
    #[arg(long, value_name = "ID")]
    object: Option<Uuid>,
    /// Only from then on: 90m, 24h, 7 days, or a time such as 2026-11-28T10:00:00Z
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<i64>,
    /// Only from before then
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    until: Option<i64>,
}

impl Filter {
    /// The path of the API with what restricts it.
    fn path(self, limit: u32) -> String {
        let mut query = url::form_urlencoded::Serializer::for_suffix("audit?".to_owned(), "audit?".len());
        query.append_pair("limit", &limit.to_string());
        let filters = [
            ("who", self.actor),
            ("action", self.action),
            ("subject", self.object.map(|id| id.to_string())),
            ("since_ms", self.since.map(|at_ms| at_ms.to_string())),
            ("until_ms", self.until.map(|at_ms| at_ms.to_string())),
        ];
        for (name, value) in filters {
            query.extend_pairs(value.map(|value| (name, value)));
        }
        query.finish()
    }
}

impl Action {
    pub(super) async fn run(self, admin: &Admin) -> Result<(), AdminError> {
        let Self::List { limit, filter } = self;
        let page = admin.api.call(Method::GET, &filter.path(limit), None).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_becomes_a_query() {
        let none = Filter { actor: None, action: None, object: None, since: None, until: None };
        assert_eq!(none.path(50), "audit?limit=50");
        let all = Filter {
            actor: Some("ana & ben".to_owned()),
            action: Some("policy".to_owned()),
            object: Some(Uuid::nil()),
            since: Some(-1),
            until: Some(2),
        };
        let query = "audit?limit=1&who=ana+%26+ben&action=policy\
                     &subject=00000000-0000-0000-0000-000000000000&since_ms=-1&until_ms=2";
        assert_eq!(all.path(1), query);
    }
}
