//! Policies.

use clap::Subcommand;
use serde_json::json;
use uuid::Uuid;

use super::{Admin, AdminError, Column};
use crate::cli::output::text;

/// What can be done with policies.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Action {
    /// Let the members of a group reach a resource
    Create {
        /// Name or id of the group
        #[arg(long)]
        group: String,
        /// Name or id of the resource
        #[arg(long)]
        resource: String,
    },
    /// List policies
    List,
    /// Enable a policy
    Enable {
        /// Its id
        policy: Uuid,
    },
    /// Disable a policy; what it granted ends at once
    Disable {
        /// Its id
        policy: Uuid,
    },
    /// Delete a policy; what it granted ends at once
    Delete {
        /// Its id
        policy: Uuid,
    },
}

impl Action {
    pub(super) async fn run(self, admin: &Admin) -> Result<(), AdminError> {
        match self {
            Self::Create { group, resource } => {
                let group = admin.api.find("groups", &group).await?;
                let resource = admin.api.find("resources", &resource).await?;
                admin.create("policies", "policy", json!({ "group": group, "resource": resource })).await
            }
            Self::List => {
                let columns = [
                    Column { head: "ID", show: |policy| text(&policy["id"]) },
                    Column { head: "GROUP", show: |policy| text(&policy["group_name"]) },
                    Column { head: "RESOURCE", show: |policy| text(&policy["resource_name"]) },
                    Column { head: "ENABLED", show: |policy| text(&policy["enabled"]) },
                ];
                admin.list("policies", &columns).await
            }
            Self::Enable { policy } => {
                admin.patch(&format!("policies/{policy}"), json!({ "enabled": true }), "enabled").await
            }
            Self::Disable { policy } => {
                admin.patch(&format!("policies/{policy}"), json!({ "enabled": false }), "disabled").await
            }
            Self::Delete { policy } => admin.delete(&format!("policies/{policy}"), "deleted").await,
        }
    }
}
