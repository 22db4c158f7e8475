//! The administrator's commands, one file for each noun.

mod actor;
mod audit;
mod authorization;
mod condition;
mod declaration;
mod device;
mod explain;
mod flow;
mod group;
mod policy;
mod provider;
mod resource;
mod settings;
mod site;
mod token;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;

use super::client::{AdminError, ApiClient, Connection};
use super::output::{self, Column};

/// Everything that talks to the API.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Places where gateways are
    Site(Online<site::Action>),
    /// What can be reached at a site
    Resource(Online<resource::Action>),
    /// Groups of people and service accounts
    Group(Online<group::Action>),
    /// People and service accounts
    Actor(Online<actor::Action>),
    /// Who is in which group
    Membership(Online<group::MembershipAction>),
    /// Which group may reach which resource
    Policy(Online<policy::Action>),
    /// OpenID Connect providers that people sign in with
    Provider(Online<provider::Action>),
    /// Tokens of clients, gateways, relays and API users
    Token(Online<token::Action>),
    /// Clients that have signed in
    Device(Online<device::ClientAction>),
    /// Gateways that have signed in
    Gateway(Online<device::GatewayAction>),
    /// Relays that have signed in
    Relay(Online<device::RelayAction>),
    /// Who may reach what at this moment
    Authorization(Online<authorization::Action>),
    /// What clients get from the portal besides resources
    Settings(Online<settings::Action>),
    /// What was changed, and by whom
    Audit(Online<audit::Action>),
    /// Which device reached what, and how much it was
    Flows(Online<flow::Action>),
    /// Why somebody can or cannot reach a resource
    Explain(explain::Explain),
    /// What a file would change, and who would gain or lose access
    Plan(declaration::Plan),
    /// Make everything so as a file declares it
    Apply(declaration::Apply),
    /// Print the file that declares what is there
    Export(declaration::Export),
}

/// A noun's actions, and how to reach the portal for them.
#[derive(Debug, Args)]
pub(super) struct Online<A: Subcommand> {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    action: A,
}

impl Command {
    /// Does what the command says.
    pub(super) async fn run(self) -> Result<(), AdminError> {
        macro_rules! run {
            ($online:ident) => {{
                let admin = Admin::new(&$online.connection)?;
                $online.action.run(&admin).await
            }};
        }
        match self {
            Self::Site(online) => run!(online),
            Self::Resource(online) => run!(online),
            Self::Group(online) => run!(online),
            Self::Actor(online) => run!(online),
            Self::Membership(online) => run!(online),
            Self::Policy(online) => run!(online),
            Self::Provider(online) => run!(online),
            Self::Token(online) => run!(online),
            Self::Device(online) => run!(online),
            Self::Gateway(online) => run!(online),
            Self::Relay(online) => run!(online),
            Self::Authorization(online) => run!(online),
            Self::Settings(online) => run!(online),
            Self::Audit(online) => run!(online),
            Self::Flows(online) => run!(online),
            Self::Explain(explain) => explain.run().await,
            Self::Plan(plan) => plan.run().await,
            Self::Apply(apply) => apply.run().await,
            Self::Export(export) => export.run().await,
        }
    }
}

/// The API and the form of the answers.
struct Admin {
    api: ApiClient,
    json: bool,
}

impl Admin {
    fn new(connection: &Connection) -> Result<Self, AdminError> {
        Ok(Self { api: ApiClient::new(connection)?, json: connection.json })
    }

    /// Lists everything at `path`.
    async fn list(&self, path: &str, columns: &[Column]) -> Result<(), AdminError> {
        let items = self.api.list(path).await?;
        if self.json {
            output::json(&items);
        } else {
            output::table(&items, columns);
        }
        Ok(())
    }

    /// Creates something and says what it is called now.
    async fn create(&self, path: &str, noun: &str, body: Value) -> Result<(), AdminError> {
        let made = self.api.call(Method::POST, path, Some(&body)).await?;
        self.say(&made, &format!("created {noun} {}", output::text(&made["id"])));
        Ok(())
    }

    /// Changes something in place.
    async fn patch(&self, path: &str, body: Value, done: &str) -> Result<(), AdminError> {
        let now = self.api.call(Method::PATCH, path, Some(&body)).await?;
        self.say(&now, done);
        Ok(())
    }

    /// Deletes something.
    async fn delete(&self, path: &str, done: &str) -> Result<(), AdminError> {
        let answer = self.api.call(Method::DELETE, path, None).await?;
        self.say(&answer, done);
        Ok(())
    }

    /// Prints the answer, or a sentence instead.
    fn say(&self, answer: &Value, sentence: &str) {
        if self.json {
            let done = serde_json::json!({ "ok": true });
            output::json(if answer.is_null() { &done } else { answer });
        } else {
            println!("{sentence}");
        }
    }
}
