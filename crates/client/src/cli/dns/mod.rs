//! `adit dns`: who resolves names, and what becomes of one.

mod query;

use std::fmt::Write as _;

use adit_client_ipc::{DnsReport, FrontEnd, Request, Response, UpstreamSource};

pub(super) use self::query::query;
use super::exit::Failure;
use super::{CALL_LIMIT, print, render};

/// `adit dns status`.
pub(super) async fn status(daemon: &mut FrontEnd, json: bool) -> Result<(), Failure> {
    let report = fetch(daemon).await?;
    print(&if json { render::json(&report)? } else { text(&report) })
}

async fn fetch(daemon: &mut FrontEnd) -> Result<DnsReport, Failure> {
    match daemon.call(Request::DnsStatus {}, CALL_LIMIT).await? {
        Response::DnsStatus(report) => Ok(*report),
        other => Err(Failure::unexpected(&other)),
    }
}

fn text(report: &DnsReport) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<15} {value}");
    };
    let asks = if report.is_controlled { "it asks the tunnel's resolver" } else { "it does not ask us" };
    line("Set through", &format!("{} ({asks})", report.controller));
    line("Resolver", &list(&report.resolvers));
    let from = match report.upstreams_from {
        UpstreamSource::Portal => "set in the portal",
        UpstreamSource::System => "of the network",
        UpstreamSource::Https => "over HTTPS, by --doh",
    };
    line("Other names go", &format!("to {} ({from})", list(&report.upstreams)));
    line("Search domains", &list(&report.search_domains));
    line("Names in tunnel", &list(&report.match_domains));
    text
}

fn list(values: &[impl ToString]) -> String {
    if values.is_empty() {
        return "none".to_owned();
    }
    values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_who_answers_for_what() {
        let report = DnsReport {
            controller: "systemd-resolved".to_owned(),
            is_controlled: true,
            resolvers: vec!["100.96.0.1".parse().unwrap()],
            upstreams: vec!["192.0.2.53:53".parse().unwrap()],
            upstreams_from: UpstreamSource::System,
            search_domains: Vec::new(),
            match_domains: vec!["*.corp".to_owned()],
        };
        let expected = "\
Set through     systemd-resolved (it asks the tunnel's resolver)
Resolver        100.96.0.1
Other names go  to 192.0.2.53:53 (of the network)
Search domains  none
Names in tunnel *.corp
";
        assert_eq!(text(&report), expected);
    }
}
