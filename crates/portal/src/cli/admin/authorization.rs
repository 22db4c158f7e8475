//! Live authorizations.

use clap::Subcommand;
use uuid::Uuid;

use super::{Admin, AdminError, Column};
use crate::cli::output::text;

/// What can be done with authorizations.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Action {
    /// List live authorizations
    List,
    /// End an authorization at once; the client may ask for another
    Revoke {
        /// Its id
        authorization: Uuid,
    },
}

impl Action {
    pub(super) async fn run(self, admin: &Admin) -> Result<(), AdminError> {
        match self {
            Self::List => {
                let columns = [
                    Column { head: "ID", show: |row| text(&row["id"]) },
                    Column { head: "ACTOR", show: |row| text(&row["actor_name"]) },
                    Column { head: "RESOURCE", show: |row| text(&row["resource_name"]) },
                    Column { head: "GATEWAY", show: |row| text(&row["gateway_name"]) },
                ];
                admin.list("authorizations", &columns).await
            }
            Self::Revoke { authorization } => {
                admin.delete(&format!("authorizations/{authorization}"), "revoked").await
            }
        }
    }
}
