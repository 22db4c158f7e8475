//! A download whose every byte must be right.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::stage::Stage;

/// Downloads `bytes` zeros through the tunnel, and says how long it took.
///
/// # Errors
/// When it takes longer than `limit`, or a byte is wrong or missing.
pub(super) fn download(stage: &Stage, bytes: usize, limit: Duration) -> Result<Duration> {
    let url = format!("{}bytes/{bytes}", stage.page_by_address());
    let host = stage.client().host();
    let begin = Instant::now();
    let script = format!("curl -sS --max-time {} {url} | sha256sum", limit.as_secs().saturating_sub(5));
    let finished = host.finish(&["sh", "-c", &script], limit)?;
    let took = begin.elapsed();
    ensure!(finished.success(), "{}", finished.complaint());
    let expected = host.run(&["sh", "-c", &format!("head -c {bytes} /dev/zero | sha256sum")])?;
    let sum = |text: &str| text.split_whitespace().next().map(str::to_owned);
    ensure!(sum(&finished.stdout) == sum(&expected), "the download is damaged");
    Ok(took)
}
