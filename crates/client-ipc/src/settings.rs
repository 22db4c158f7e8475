//! What `adit config list` shows: settings and who decided them.

use serde::{Deserialize, Serialize};

/// A setting of the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Setting {
    /// The flag without its dashes, which is also the key in a settings file.
    pub name: String,
    /// Its value as text; several are separated by commas. Of a secret only that there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Who decided it.
    pub source: SettingSource,
}

/// Who decided a setting; of several the first of this list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SettingSource {
    /// A flag of the daemon.
    Flag,
    /// An environment variable of the daemon.
    Environment,
    /// The settings file.
    File,
    /// Nobody.
    Default,
    /// Somebody whom only a newer daemon knows.
    #[serde(other)]
    Other,
}
