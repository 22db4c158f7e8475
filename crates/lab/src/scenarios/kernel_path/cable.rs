//! What is attached to an interface.

use anyhow::Result;

use crate::world::Host;

/// Whether a program is attached to an interface.
pub(super) fn has_program(host: &Host, interface: &str) -> Result<bool> {
    Ok(host.run(&["ip", "link", "show", "dev", interface])?.contains("prog/xdp"))
}
