//! Settings of the installation.
//!
//! Address ranges and DNS are laid down by `bootstrap` and shown here; the portal reads them when
//! it starts.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::view::{Block, Button, Cell, Empty, Page, Table};
use super::visitor::Visitor;
use crate::portal::SharedPortal;
use crate::store::Find;
use crate::web::Refusal;

fn listed(values: impl Iterator<Item = String>, otherwise: &str) -> Cell {
    let values = values.collect::<Vec<_>>().join(", ");
    if values.is_empty() { Cell::Muted(otherwise.to_owned()) } else { Cell::Code(values) }
}

fn count_days(days: i64) -> String {
    if days == 1 { "1 day".to_owned() } else { format!("{days} days") }
}

pub(super) async fn show(
    State(portal): State<SharedPortal>,
    visitor: Visitor,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let account = portal.account();
    let settings = &account.settings;
    let url = crate::web::peer_url(&portal, &headers).await?;
    let sign_in = portal.store.sign_in_setting().await?;
    let most = sign_in.devices_per_user.map_or_else(|| "any number".to_owned(), |most| most.to_string());
    let general = vec![
        ("Account", Cell::text(&settings.name)),
        ("Peers connect to", Cell::Code(url)),
        ("Version", Cell::Code(env!("CARGO_PKG_VERSION").to_owned())),
        ("Tunnel addresses", Cell::Code(format!("{}, {}", settings.ipv4_range, settings.ipv6_range))),
        (
            "Addresses of names",
            Cell::Code(format!("{}, {}", settings.ipv4_proxy_range, settings.ipv6_proxy_range)),
        ),
        (
            "Upstream resolvers",
            listed(settings.dns_upstreams.iter().map(ToString::to_string), "those of each device"),
        ),
        ("Search domains", listed(settings.search_domains.iter().cloned(), "none")),
        ("Devices stay signed in", Cell::text(count_days(sign_in.device_session_days))),
        ("Devices of a person", Cell::text(most)),
    ];
    let find = Find { text: "api".to_owned(), ..Find::first(100) };
    let tokens = portal.store.find_tokens(&find).await?;
    let row = |token: &crate::store::Token| {
        vec![Cell::text(&token.name), Cell::Time(token.created_ms), Cell::moment(token.expires_ms, "never")]
    };
    let keys = tokens.iter().filter(|token| token.kind == "api" && token.revoked_ms.is_none());
    let rows = keys.map(row).collect();
    let empty = Empty::new("No key", "Scripts use the API with a token of their own.");
    let providers = portal.store.auth_providers(crate::store::Page::FIRST).await?;
    let row = |provider: &crate::store::AuthProvider| {
        let state = if provider.enabled { "yes" } else { "no" };
        vec![Cell::text(&provider.name), Cell::Code(provider.issuer.clone()), Cell::text(state)]
    };
    let provider_rows = providers.iter().map(row).collect();
    let no_provider =
        Empty::new("No provider", "People sign in with OpenID Connect: adit-portal provider add.");
    Ok(Page::new(&visitor, "settings", "Settings")
        .action(Button::link("All tokens", "/admin/tokens?q=api"))
        .block(Block::Facts(general))
        .table(Table::titled("API keys", &["Name", "Created", "Ends"], rows, empty))
        .table(Table::titled(
            "Identity providers",
            &["Name", "Issuer", "Enabled"],
            provider_rows,
            no_provider,
        ))
        .answer())
}
