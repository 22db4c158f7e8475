//! Policies.

use clap::Subcommand;
use serde_json::json;
use uuid::Uuid;

use super::condition::{Conditions, kinds};
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
        #[command(flatten)]
        conditions: Conditions,
    },
    /// Replace a policy's conditions by these; what they do not allow ends at once
    Conditions {
        /// Its id
        policy: Uuid,
        #[command(flatten)]
        conditions: Conditions,
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
            Self::Create { group, resource, conditions } => {
                let group = admin.api.find("groups", &group).await?;
                let resource = admin.api.find("resources", &resource).await?;
                let conditions = conditions.to_json();
                let body = json!({ "group": group, "resource": resource, "conditions": conditions });
                admin.create("policies", "policy", body).await
            }
            Self::Conditions { policy, conditions } => {
                let body = json!({ "conditions": conditions.to_json() });
                admin.patch(&format!("policies/{policy}"), body, "changed").await
            }
            Self::List => {
                let columns = [
                    Column { head: "ID", show: |policy| text(&policy["id"]) },
                    Column { head: "GROUP", show: |policy| text(&policy["group_name"]) },
                    Column { head: "RESOURCE", show: |policy| text(&policy["resource_name"]) },
                    Column { head: "ENABLED", show: |policy| text(&policy["enabled"]) },
                    Column { head: "CONDITIONS", show: |policy| kinds(&policy["conditions"]) },
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
