//! Clients, gateways and relays that have signed in.

use clap::Subcommand;
use serde_json::json;

use super::{Admin, AdminError, Column};
use crate::cli::output::{text, time};

/// What can be done with clients.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum ClientAction {
    /// List clients
    List,
    /// Vouch for a client: policies that ask for a verified device let it in
    Verify {
        /// Name or id
        device: String,
    },
    /// Vouch for a client no longer; what rests on it ends at once
    Unverify {
        /// Name or id
        device: String,
    },
    /// Delete a client; it comes back as a new one if its token is good
    Delete {
        /// Name or id
        device: String,
    },
}

/// What can be done with gateways.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum GatewayAction {
    /// List gateways
    List,
    /// Delete a gateway; it comes back as a new one if its token is good
    Delete {
        /// Name or id
        gateway: String,
    },
}

/// What can be done with relays.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum RelayAction {
    /// List relays
    List,
}

impl ClientAction {
    pub(super) async fn run(self, admin: &Admin) -> Result<(), AdminError> {
        match self {
            Self::List => {
                let verified = Column { head: "VERIFIED", show: |device| is_verified(device).to_owned() };
                let columns: Vec<Column> = device_columns().into_iter().chain([verified]).collect();
                admin.list("devices", &columns).await
            }
            Self::Verify { device } => set_verified(admin, &device, true).await,
            Self::Unverify { device } => set_verified(admin, &device, false).await,
            Self::Delete { device } => {
                let id = admin.api.find("devices", &device).await?;
                admin.delete(&format!("devices/{id}"), "deleted").await
            }
        }
    }
}

fn is_verified(device: &serde_json::Value) -> &'static str {
    if device["verified_ms"].is_null() { "no" } else { "yes" }
}

async fn set_verified(admin: &Admin, device: &str, is_verified: bool) -> Result<(), AdminError> {
    let id = admin.api.find("devices", device).await?;
    let done = if is_verified { "verified" } else { "not verified any more" };
    admin.patch(&format!("devices/{id}"), json!({ "verified": is_verified }), done).await
}

impl GatewayAction {
    pub(super) async fn run(self, admin: &Admin) -> Result<(), AdminError> {
        match self {
            Self::List => admin.list("gateways", &device_columns()).await,
            Self::Delete { gateway } => {
                let id = admin.api.find("gateways", &gateway).await?;
                admin.delete(&format!("gateways/{id}"), "deleted").await
            }
        }
    }
}

impl RelayAction {
    pub(super) async fn run(self, admin: &Admin) -> Result<(), AdminError> {
        let Self::List = self;
        let columns = [
            Column { head: "ID", show: |relay| text(&relay["id"]) },
            Column { head: "NAME", show: |relay| text(&relay["name"]) },
            Column { head: "ONLINE", show: |relay| text(&relay["online"]) },
            Column { head: "IPV4", show: |relay| text(&relay["ipv4"]) },
            Column { head: "PORT", show: |relay| text(&relay["port"]) },
            Column { head: "TCP", show: |relay| text(&relay["tcp_port"]) },
            Column { head: "TLS", show: |relay| text(&relay["tls_port"]) },
        ];
        admin.list("relays", &columns).await
    }
}

fn device_columns() -> [Column; 5] {
    [
        Column { head: "ID", show: |device| text(&device["id"]) },
        Column { head: "NAME", show: |device| text(&device["name"]) },
        Column { head: "ONLINE", show: |device| text(&device["online"]) },
        Column { head: "TUNNEL", show: |device| text(&device["ipv4"]) },
        Column { head: "LAST SEEN", show: |device| time(&device["last_seen_ms"]) },
    ]
}
