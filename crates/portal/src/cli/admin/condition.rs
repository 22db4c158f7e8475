//! The conditions of a policy as options.

use adit_policy::{ClockTime, Day, ProviderName, Window};
use clap::Args;
use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::cli::duration;

/// What must be true besides group and resource; nothing by default.
#[derive(Debug, Args)]
// The command `policy conditions` has a group of that name already.
#[group(id = "condition")]
pub(in crate::cli) struct Conditions {
    /// Only from these networks, as the portal sees the client: 192.0.2.0/24,2001:db8::/32
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',', conflicts_with = "not_from")]
    from: Vec<IpNet>,
    /// Not from these networks; name some of both address families
    #[arg(long, value_name = "NETWORKS", value_delimiter = ',')]
    not_from: Vec<IpNet>,
    /// Only in this time, several times for several: "mon-fri 08:00-18:00", "sat,sun 22:00-06:00"
    #[arg(long, value_name = "WINDOW", value_parser = window, requires = "time_zone")]
    during: Vec<Window>,
    /// By the clock of this zone: Europe/Berlin
    #[arg(long, value_name = "ZONE", requires = "during")]
    time_zone: Option<String>,
    /// Only from clients that an administrator has verified
    #[arg(long)]
    verified_device: bool,
    /// Only after signing in by these providers; `local` is the portal itself
    #[arg(long, value_name = "PROVIDERS", value_delimiter = ',', conflicts_with = "not_signed_in_by")]
    signed_in_by: Vec<ProviderName>,
    /// Not after signing in by these providers
    #[arg(long, value_name = "PROVIDERS", value_delimiter = ',')]
    not_signed_in_by: Vec<ProviderName>,
    /// Only for so long after signing in: 12h, 7d
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    authentication_age: Option<u64>,
}

impl Conditions {
    /// As the API reads them.
    pub(super) fn to_json(&self) -> Value {
        let mut conditions = Map::new();
        let mut set = |name: &str, value: Value| drop(conditions.insert(name.to_owned(), value));
        if !self.from.is_empty() {
            set("remote_address", json!({ "any_of": self.from }));
        }
        if !self.not_from.is_empty() {
            set("remote_address", json!({ "none_of": self.not_from }));
        }
        if !self.signed_in_by.is_empty() {
            set("auth_provider", json!({ "any_of": self.signed_in_by }));
        }
        if !self.not_signed_in_by.is_empty() {
            set("auth_provider", json!({ "none_of": self.not_signed_in_by }));
        }
        if let Some(zone) = &self.time_zone {
            set("time", json!({ "time_zone": zone, "windows": self.during }));
        }
        if self.verified_device {
            set("verified_device", json!(true));
        }
        if let Some(age) = self.authentication_age {
            set("authentication_age", json!(age));
        }
        Value::Object(conditions)
    }
}

/// The kinds of conditions that a policy has, for a table.
pub(super) fn kinds(conditions: &Value) -> String {
    let names: Vec<&str> =
        conditions.as_object().into_iter().flat_map(Map::keys).map(String::as_str).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Days and times: `mon-fri 08:00-18:00`.
fn window(text: &str) -> Result<Window, String> {
    let form = "write DAYS FROM-TO, as in mon-fri 08:00-18:00";
    let (days, times) = text.trim().split_once(' ').ok_or(form)?;
    let (from, to) = times.trim().split_once('-').ok_or(form)?;
    let time = |text: &str| text.parse::<ClockTime>().map_err(|error| error.to_string());
    let (from, to) = (time(from)?, time(to)?);
    let days = days.split(',').map(span).collect::<Result<Vec<_>, _>>()?.concat();
    Ok(Window { days, from, to })
}

/// One day, or several in a row; `sat-mon` goes over the end of the week.
fn span(text: &str) -> Result<Vec<Day>, String> {
    const WEEK: [Day; 7] = [Day::Mon, Day::Tue, Day::Wed, Day::Thu, Day::Fri, Day::Sat, Day::Sun];
    let day = |text: &str| {
        let named: Result<Day, _> = serde_json::from_value(json!(text.to_lowercase()));
        let named =
            named.map_err(|_| format!("`{text}` is not a day (mon, tue, wed, thu, fri, sat, sun)"))?;
        Ok::<usize, String>(WEEK.iter().position(|day| *day == named).unwrap_or_default())
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (day(first)?, day(last)?);
    let count = (last + WEEK.len() - first) % WEEK.len() + 1;
    Ok(WEEK.into_iter().cycle().skip(first).take(count).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_read_as_people_write_them() {
        let read = |text: &str| serde_json::to_value(window(text).unwrap()).unwrap();
        assert_eq!(
            read("mon-wed 08:00-18:00"),
            json!({ "days": ["mon", "tue", "wed"], "from": "08:00", "to": "18:00" })
        );
        assert_eq!(read("Sat-Mon,thu 22:00-06:00")["days"], json!(["sat", "sun", "mon", "thu"]));
        for wrong in ["", "mon", "mon 08:00", "someday 08:00-09:00", "mon- 08:00-09:00", "mon 8-9"] {
            assert!(window(wrong).is_err(), "{wrong}");
        }
    }
}
