//! Resources.

use adit_policy::{Filter, ResourceAddress};
use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use super::{Admin, AdminError, Column};
use crate::cli::output::text;

/// What a resource is.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(in crate::cli) enum Kind {
    /// Names that match a pattern: * one label, ** any depth, ? one character
    Dns,
    /// One address
    Ip,
    /// A network
    Cidr,
    /// Everything that no other resource covers
    Internet,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Ip => "ip",
            Self::Cidr => "cidr",
            Self::Internet => "internet",
        }
    }
}

/// What can be done with resources.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Action {
    /// Create a resource; nobody sees it before a policy names it
    Create {
        /// Its name
        name: String,
        /// What it is
        #[arg(long = "type", value_enum, value_name = "TYPE")]
        kind: Kind,
        /// Where it is: a name pattern, an address or a network
        #[arg(long, default_value = "", required_if_eq_any = [("kind", "dns"), ("kind", "ip"), ("kind", "cidr")])]
        address: String,
        /// Name or id of its site
        #[arg(long)]
        site: String,
        /// Let only this traffic through: tcp/80,443, udp/53, icmp (repeatable)
        #[arg(long = "filter", value_name = "FILTER")]
        filters: Vec<String>,
    },
    /// List resources
    List,
    /// Change a resource
    #[command(override_usage = "adit-portal resource update [OPTIONS] <RESOURCE>")]
    Update {
        /// Name or id
        resource: String,
        #[command(flatten)]
        change: Change,
    },
    /// Delete a resource
    Delete {
        /// Name or id
        resource: String,
    },
}

/// What to change; what is not given stays.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(in crate::cli) struct Change {
    /// New name
    #[arg(long)]
    name: Option<String>,
    /// New type; needs --address unless it is internet
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    kind: Option<Kind>,
    /// New address; ends what was granted
    #[arg(long)]
    address: Option<String>,
    /// Name or id of the new site; ends what was granted
    #[arg(long)]
    site: Option<String>,
    /// New filters (repeatable)
    #[arg(long = "filter", value_name = "FILTER", conflicts_with = "no_filters")]
    filters: Vec<String>,
    /// Let all traffic through
    #[arg(long)]
    no_filters: bool,
}

fn usage(error: impl std::fmt::Display) -> AdminError {
    AdminError::Usage(error.to_string())
}

fn parse_filters(texts: &[String]) -> Result<Vec<Filter>, AdminError> {
    let lists = texts.iter().map(|text| Filter::parse_list(text)).collect::<Result<Vec<_>, _>>();
    Ok(lists.map_err(usage)?.into_iter().flatten().collect())
}

impl Action {
    pub(super) async fn run(self, admin: &Admin) -> Result<(), AdminError> {
        match self {
            Self::Create { name, kind, address, site, filters } => {
                let address = ResourceAddress::parse(kind.name(), &address).map_err(usage)?;
                let filters = parse_filters(&filters)?;
                let site = admin.api.find("sites", &site).await?;
                let body = json!({ "name": name, "address": address, "site": site, "filters": filters });
                admin.create("resources", "resource", body).await
            }
            Self::List => admin.list("resources", &columns()).await,
            Self::Update { resource, change } => {
                let id = admin.api.find("resources", &resource).await?;
                let body = change.body(admin, id).await?;
                admin.patch(&format!("resources/{id}"), body, &format!("updated resource {id}")).await
            }
            Self::Delete { resource } => {
                let id = admin.api.find("resources", &resource).await?;
                admin.delete(&format!("resources/{id}"), &format!("deleted resource {id}")).await
            }
        }
    }
}

impl Change {
    async fn body(self, admin: &Admin, id: uuid::Uuid) -> Result<Value, AdminError> {
        let mut body = Map::new();
        if let Some(name) = self.name {
            body.insert("name".to_owned(), json!(name));
        }
        if self.kind.is_some() || self.address.is_some() {
            let kind = match self.kind {
                Some(kind) => kind.name().to_owned(),
                None => {
                    let now = admin.api.call(reqwest::Method::GET, &format!("resources/{id}"), None).await?;
                    text(&now["address"]["type"])
                }
            };
            let address = self.address.unwrap_or_default();
            body.insert("address".to_owned(), json!(ResourceAddress::parse(&kind, &address).map_err(usage)?));
        }
        if let Some(site) = self.site {
            body.insert("site".to_owned(), json!(admin.api.find("sites", &site).await?));
        }
        if self.no_filters || !self.filters.is_empty() {
            body.insert("filters".to_owned(), json!(parse_filters(&self.filters)?));
        }
        Ok(Value::Object(body))
    }
}

fn columns() -> [Column; 5] {
    [
        Column { head: "ID", show: |resource| text(&resource["id"]) },
        Column { head: "NAME", show: |resource| text(&resource["name"]) },
        Column { head: "ADDRESS", show: |resource| address(&resource["address"]) },
        Column { head: "SITE", show: |resource| text(&resource["site"]["name"]) },
        Column { head: "FILTERS", show: |resource| filters(&resource["filters"]) },
    ]
}

fn address(value: &Value) -> String {
    serde_json::from_value::<ResourceAddress>(value.clone())
        .map_or_else(|_| "?".to_owned(), |a| a.to_string())
}

fn filters(value: &Value) -> String {
    match serde_json::from_value::<Vec<Filter>>(value.clone()) {
        Ok(list) if list.is_empty() => "all".to_owned(),
        Ok(list) => list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        Err(_) => "?".to_owned(),
    }
}
