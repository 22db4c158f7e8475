//! Prometheus metrics behind the `metrics` façade.
//!
//! Code anywhere says `metrics::counter!("adit_…").increment(1)`. Names start with `adit_`, counters end in
//! `_total`, durations are histograms in seconds and end in `_seconds`. Nothing is exported unless a program
//! asks for it.

use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Bounds of duration histograms, in seconds: 0.5 ms to 10 s.
const SECONDS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How often recorded samples are folded into histograms; bounds the memory they wait in.
const UPKEEP: Duration = Duration::from_secs(10);

/// Renders the metrics of this process; cheap to clone.
#[derive(Clone)]
pub struct MetricsHandle {
    prometheus: PrometheusHandle,
}

impl std::fmt::Debug for MetricsHandle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("MetricsHandle").finish_non_exhaustive()
    }
}

/// Why metrics could not be set up.
#[derive(Debug)]
pub struct MetricsError(String);

impl std::fmt::Display for MetricsError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "cannot set up metrics: {}", self.0)
    }
}

impl std::error::Error for MetricsError {}

/// Installs the recorder of this process and a thread that folds samples every ten seconds.
///
/// # Errors
/// When a recorder is already installed or the thread is refused.
pub fn install() -> Result<MetricsHandle, MetricsError> {
    let prometheus = PrometheusBuilder::new()
        .set_buckets(&SECONDS)
        .and_then(PrometheusBuilder::install_recorder)
        .map_err(|error| MetricsError(error.to_string()))?;
    let upkeep = prometheus.clone();
    std::thread::Builder::new()
        .name("metrics".to_owned())
        .spawn(move || {
            loop {
                std::thread::sleep(UPKEEP);
                upkeep.run_upkeep();
            }
        })
        .map_err(|error| MetricsError(error.to_string()))?;
    Ok(MetricsHandle { prometheus })
}

impl MetricsHandle {
    /// The Prometheus text exposition of this moment.
    #[must_use]
    pub fn render(&self) -> String {
        self.prometheus.render()
    }
}
