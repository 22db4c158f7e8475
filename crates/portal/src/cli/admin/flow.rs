//! The flow log.

use std::io::Write as _;
use std::time::Duration;

use clap::Subcommand;
use jiff::{Span, Timestamp, Zoned};
use reqwest::Method;
use serde_json::Value;

use super::{Admin, AdminError, Column};
use crate::cli::output::{self, text, time};

/// How often a followed export asks for more.
const INTERVAL: Duration = Duration::from_secs(2);

/// What can be done with the flow log.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Action {
    /// List flows, newest first
    List {
        /// How many
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
        limit: u32,
        /// As which end of the tunnel reports them
        #[arg(long, value_name = "END", default_value = "gateway", value_parser = ["gateway", "client"])]
        reported_by: String,
    },
    /// Print flows as lines of JSON, in the order of their last reports
    Export {
        /// Flows that were open then or later: 90m, 24h, 7 days, or a time such as 2026-11-28T10:00:00Z
        #[arg(long, value_name = "TIME", value_parser = parse_since)]
        since: Option<i64>,
        /// Reports with larger numbers than this: what follows an earlier export
        #[arg(long, value_name = "SEQ", default_value_t = 0)]
        after: i64,
        /// Go on with what is reported from now on
        #[arg(long)]
        follow: bool,
    },
}

impl Action {
    pub(super) async fn run(self, admin: &Admin) -> Result<(), AdminError> {
        match self {
            Self::List { limit, reported_by } => list(admin, limit, &reported_by).await,
            Self::Export { since, after, follow } => export(admin, since, after, follow).await,
        }
    }
}

async fn list(admin: &Admin, limit: u32, reported_by: &str) -> Result<(), AdminError> {
    let path = format!("flows?limit={limit}&reported_by={reported_by}");
    let page = admin.api.call(Method::GET, &path, None).await?;
    let items = page["items"].as_array().cloned().unwrap_or_default();
    if admin.json {
        output::json(&items);
    } else {
        let columns = [
            Column { head: "OPENED", show: |row| time(&row["opened_ms"]) },
            Column { head: "WHO", show: |row| text(&row["actor_name"]) },
            Column { head: "RESOURCE", show: |row| text(&row["resource_name"]) },
            Column { head: "DESTINATION", show: |row| text(&row["destination"]) },
            Column { head: "PORT", show: |row| text(&row["destination_port"]) },
            Column { head: "SENT", show: |row| text(&row["sent_bytes"]) },
            Column { head: "RECEIVED", show: |row| text(&row["received_bytes"]) },
            Column { head: "END", show: |row| text(&row["end_reason"]) },
        ];
        output::table(&items, &columns);
    }
    Ok(())
}

/// Prints lines until there are no more, or until nobody reads them.
async fn export(admin: &Admin, since: Option<i64>, mut after: i64, follow: bool) -> Result<(), AdminError> {
    let since = since.map(|since_ms| format!("&since_ms={since_ms}")).unwrap_or_default();
    let mut out = std::io::stdout();
    loop {
        let mut is_read = true;
        let path = format!("flows/export?after_seq={after}{since}");
        let print = |line: &str| {
            let row: Value =
                serde_json::from_str(line).map_err(|error| AdminError::Answer(error.to_string()))?;
            after = row["seq"].as_i64().unwrap_or(after);
            is_read &= writeln!(out, "{line}").is_ok();
            Ok(is_read)
        };
        admin.api.lines(&path, print).await?;
        if !is_read || out.flush().is_err() || !follow {
            return Ok(());
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// A time, or how long ago it was, as Unix milliseconds.
pub(super) fn parse_since(text: &str) -> Result<i64, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.as_millisecond());
    }
    let wrong = |_| format!("`{text}` is neither a time nor how long ago one was");
    let ago: Span = text.parse().map_err(wrong)?;
    let time = Zoned::now().checked_sub(ago.abs()).map_err(wrong)?;
    Ok(time.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_may_be_said_in_both_ways() {
        assert_eq!(parse_since("2026-11-28T10:00:00Z"), Ok(1_795_860_000_000));
        let now = Timestamp::now().as_millisecond();
        for (text, ago) in [("90m", 5_400_000), ("24h", 86_400_000), ("2 days", 2 * 86_400_000)] {
            let off = parse_since(text).unwrap() - (now - ago);
            assert!((0..=3_700_000).contains(&off.abs()), "{text}: {off}");
        }
        assert!(parse_since("yesterday").is_err());
    }
}
