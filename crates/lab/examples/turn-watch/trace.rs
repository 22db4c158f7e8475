//! When datagrams of one direction came.

use std::time::SystemTime;

use anyhow::Result;
use serde_json::{Value, json};

/// A time without datagrams that is worth telling.
const SILENCE: f64 = 0.3;

/// Seconds since 1970.
pub(crate) fn unix_now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs_f64())
}

/// Arrivals in one direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    received: u64,
    last: Option<f64>,
    silences: Vec<(f64, f64)>,
}

impl Trace {
    /// A datagram came at this time.
    pub(crate) fn add(&mut self, at: f64) {
        if let Some(last) = self.last.filter(|last| at - last > SILENCE) {
            self.silences.push((last, at));
        }
        self.received += 1;
        self.last = Some(at);
    }

    pub(crate) fn report(&self) -> Value {
        json!({ "received": self.received, "last": self.last, "silences": self.silences })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_gaps_are_silences() {
        let mut trace = Trace::default();
        for at in [10.0, 10.2, 11.0, 11.1] {
            trace.add(at);
        }
        let report = trace.report();
        assert_eq!(report["received"], 4);
        assert_eq!(report["last"], 11.1);
        assert_eq!(report["silences"], json!([[10.2, 11.0]]));
    }
}
