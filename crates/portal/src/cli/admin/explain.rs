//! Why somebody can or cannot reach a resource.

use clap::Args;
use reqwest::Method;

use super::{Admin, AdminError, Connection};
use crate::cli::output::text;

/// The question.
#[derive(Debug, Args)]
pub(in crate::cli) struct Explain {
    #[command(flatten)]
    connection: Connection,
    /// Name or id of the person or service account
    #[arg(long)]
    actor: String,
    /// Name or id of the resource
    #[arg(long)]
    resource: String,
    /// Name or id of one of their clients (default: the one that signed in last)
    #[arg(long)]
    device: Option<String>,
}

impl Explain {
    pub(super) async fn run(self) -> Result<(), AdminError> {
        let admin = Admin::new(&self.connection)?;
        let actor = admin.api.find("actors", &self.actor).await?;
        let resource = admin.api.find("resources", &self.resource).await?;
        let mut path = format!("explain?actor={actor}&resource={resource}");
        if let Some(device) = &self.device {
            path += &format!("&device={}", admin.api.find("devices", device).await?);
        }
        let answer = admin.api.call(Method::GET, &path, None).await?;
        admin.say(&answer, &text(&answer["text"]));
        Ok(())
    }
}
