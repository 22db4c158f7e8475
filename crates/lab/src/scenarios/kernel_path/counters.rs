//! What a relay says of its path through the kernel, at `/metrics`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::probe::http;
use crate::scenario::{Context, Target};
use crate::system;
use crate::world::Host;

/// Longer than the interval at which a relay publishes its figures.
const SETTLE: Duration = Duration::from_millis(2_500);

/// Packets by direction and path.
const FORWARDED: &str = "adit_relay_forwarded_packets_total";

/// Figures of one moment, by name and label.
#[derive(Clone, Debug, Default)]
pub(in crate::scenarios) struct Counters(BTreeMap<String, f64>);

impl Counters {
    /// The figures of a relay, after they had time to be published.
    pub(in crate::scenarios) fn settled(host: &Host) -> Result<Self> {
        std::thread::sleep(SETTLE);
        let page = http::get(host, system::health(), "/metrics")?;
        let counters = Self::parse(&page.body);
        ensure!(counters.0.contains_key("adit_relay_channels"), "no relay's figures: {}", page.body);
        Ok(counters)
    }

    fn parse(page: &str) -> Self {
        let lines = page.lines().filter(|line| !line.starts_with('#'));
        let figures = lines.filter_map(|line| {
            let (name, figure) = line.rsplit_once(' ')?;
            Some((name.to_owned(), figure.parse().ok()?))
        });
        Self(figures.collect())
    }

    fn get(&self, name: &str) -> f64 {
        self.0.get(name).copied().unwrap_or(0.0)
    }

    fn sum(&self, prefix: &str) -> u64 {
        self.0.iter().filter(|(name, _)| name.starts_with(prefix)).map(|(_, figure)| *figure as u64).sum()
    }

    /// Packets that the kernel forwarded; those within the relay count twice.
    pub(in crate::scenarios) fn forwarded(&self) -> u64 {
        self.forwarded_to("to_peer") + self.forwarded_to("to_client")
    }

    /// Packets that the kernel forwarded in one direction.
    pub(in crate::scenarios) fn forwarded_to(&self, direction: &str) -> u64 {
        self.get(&format!("{FORWARDED}{{direction=\"{direction}\",path=\"xdp\"}}")) as u64
    }

    /// Packets that went from client to client of the relay in the kernel.
    pub(in crate::scenarios) fn within_relay(&self) -> u64 {
        self.get("adit_relay_xdp_within_relay_packets_total") as u64
    }

    /// Packets that the relay itself forwarded.
    pub(super) fn by_sockets(&self) -> u64 {
        self.sum(FORWARDED) - self.forwarded()
    }

    /// Frames that the program left to the relay for this reason.
    pub(super) fn passed(&self, reason: &str) -> u64 {
        self.get(&format!("adit_relay_xdp_passed_total{{reason=\"{reason}\"}}")) as u64
    }

    /// Routes that did not fit into the table.
    pub(super) fn refused(&self, reason: &str) -> u64 {
        self.get(&format!("adit_relay_xdp_refused_routes_total{{reason=\"{reason}\"}}")) as u64
    }

    /// Whether the program is attached, in whatever mode.
    pub(super) fn is_attached(&self) -> bool {
        self.sum("adit_relay_xdp_attached") > 0
    }

    /// Writes down why frames were left to the relay.
    pub(in crate::scenarios) fn record_passed(&self, under: &str, context: &mut Context) {
        let prefix = "adit_relay_xdp_passed_total{reason=\"";
        for (name, figure) in &self.0 {
            if let Some(reason) = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix("\"}"))
                && *figure > 0.0
            {
                context.record(
                    &format!("left to the relay: {reason}{under}"),
                    *figure,
                    "packets",
                    Target::Shown,
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_by_name_and_label() {
        let page = "# TYPE adit_relay_channels gauge\nadit_relay_channels 3\n\
            adit_relay_forwarded_packets_total{direction=\"to_peer\",path=\"xdp\"} 7\n\
            adit_relay_forwarded_packets_total{direction=\"to_client\",path=\"xdp\"} 5\n\
            adit_relay_forwarded_packets_total{direction=\"to_peer\",path=\"udp\"} 3\n\
            adit_relay_xdp_passed_total{reason=\"control\"} 2\nadit_relay_xdp_attached{mode=\"driver\"} 1\n";
        let counters = Counters::parse(page);
        assert_eq!(
            (counters.forwarded(), counters.forwarded_to("to_client"), counters.by_sockets()),
            (12, 5, 3)
        );
        assert_eq!((counters.passed("control"), counters.passed("fragment")), (2, 0));
        assert!(counters.is_attached());
    }
}
