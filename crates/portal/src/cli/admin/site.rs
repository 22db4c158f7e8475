//! Sites.

use clap::Subcommand;

use super::{Admin, AdminError, Column};
use crate::cli::output::text;

/// What can be done with sites.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Action {
    /// Create a site
    Create {
        /// Its name
        name: String,
    },
    /// List sites
    List,
    /// Give a site another name
    Rename {
        /// Name or id
        site: String,
        /// Its new name
        name: String,
    },
    /// Delete a site with its resources, gateways and their tokens
    Delete {
        /// Name or id
        site: String,
    },
}

impl Action {
    pub(super) async fn run(self, admin: &Admin) -> Result<(), AdminError> {
        match self {
            Self::Create { name } => admin.create("sites", "site", serde_json::json!({ "name": name })).await,
            Self::List => {
                let columns = [
                    Column { head: "ID", show: |site| text(&site["id"]) },
                    Column { head: "NAME", show: |site| text(&site["name"]) },
                ];
                admin.list("sites", &columns).await
            }
            Self::Rename { site, name } => {
                let id = admin.api.find("sites", &site).await?;
                admin.patch(&format!("sites/{id}"), serde_json::json!({ "name": name }), "renamed").await
            }
            Self::Delete { site } => {
                let id = admin.api.find("sites", &site).await?;
                admin.delete(&format!("sites/{id}"), &format!("deleted site {id}")).await
            }
        }
    }
}
