//! The OpenAPI document: what the handlers do not say themselves.
//!
//! Handlers state path, scope, parameters, body and answer. Here is what is alike for all: the title, how to authenticate,
//! and the errors. The document is committed as `docs/schema/openapi.json`; `ADIT_BLESS=1 cargo test -p adit-portal openapi`
//! writes it.

use axum::http::{Method, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, PathItem, Ref, Required, ResponseBuilder,
};

use super::idempotency;
use super::permission::SCHEME;

/// Errors that any operation may answer with.
const ERRORS: [(&str, &str); 9] = [
    ("400", "The request cannot be read: `bad_request`"),
    ("401", "Who asks is not known: `missing_token`, `invalid_token`, `expired_token`, `revoked_token`"),
    ("403", "Not allowed: `no_role`, `role_too_low`, `scope_missing`, `wrong_token_kind`"),
    ("404", "There is no such thing: `not_found`"),
    ("409", "Not possible now: `conflict`, `in_progress`"),
    ("422", "It makes no sense: `invalid`, `idempotency_key_reused`"),
    ("429", "Too often: `too_many_requests`, with Retry-After"),
    ("500", "The portal failed: `internal`"),
    ("503", "Not now: `unavailable`, with Retry-After"),
];

/// Tags and what they are about.
const TAGS: [(&str, &str); 17] = [
    ("sites", "Places whose gateways serve resources"),
    ("resources", "What can be reached"),
    ("groups", "Groups of actors"),
    ("actors", "People and service accounts"),
    ("policies", "Which group may reach which resource, under which conditions"),
    ("tokens", "What clients, gateways, relays and users of this API present"),
    ("devices", "Clients and gateways that have signed in"),
    ("gateways", "Gateways that have signed in"),
    ("relays", "Relays that have signed in"),
    ("authorizations", "Who may reach what at this moment"),
    ("explain", "Why somebody can or cannot reach something"),
    ("declarations", "Sites, resources, groups and policies from a file"),
    ("settings", "What clients get from the portal besides resources"),
    ("providers", "OpenID Connect providers that people sign in with"),
    ("sessions", "People in a browser"),
    ("audit", "What was changed, and by whom"),
    ("flows", "Which device reached what, when, and how much it was"),
];

/// An error, as RFC 9457 has it.
#[derive(Debug, Serialize, ToSchema)]
struct Problem {
    /// Stable, for programs.
    #[schema(example = "not_found")]
    code: String,
    /// One sentence for people.
    title: String,
    /// The HTTP status.
    status: u16,
    /// What exactly went wrong, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// Everything but the operations.
pub(super) fn head() -> OpenApi {
    let token = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("adit_api_…")
        .description(Some("An API token. Each operation names the scope that it needs."));
    let components = ComponentsBuilder::new()
        .schema_from::<Problem>()
        .security_scheme(SCHEME, SecurityScheme::Http(token.build()));
    let info = InfoBuilder::new().title("Adit portal").version("1").description(Some(
        "Sites, resources, groups, policies and everything else that an Adit portal keeps.",
    ));
    let tags = TAGS.map(|(name, about)| TagBuilder::new().name(name).description(Some(about)).build());
    OpenApiBuilder::new().info(info).components(Some(components.build())).tags(Some(tags)).build()
}

/// Adds to every operation what is alike for all.
pub(super) fn complete(document: &mut OpenApi) {
    for item in document.paths.paths.values_mut() {
        for (method, operation) in operations_mut(item) {
            add_errors(operation);
            if method == Method::POST {
                add_key(operation);
            }
        }
    }
}

fn operations_mut(item: &mut PathItem) -> Vec<(Method, &mut Operation)> {
    let all = [
        (Method::GET, &mut item.get),
        (Method::POST, &mut item.post),
        (Method::PUT, &mut item.put),
        (Method::PATCH, &mut item.patch),
        (Method::DELETE, &mut item.delete),
    ];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?))).collect()
}

fn add_errors(operation: &mut Operation) {
    for (status, description) in ERRORS {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build();
        let response = ResponseBuilder::new()
            .description(description)
            .content(adit_protocol::problem::MEDIA_TYPE, content)
            .build();
        operation.responses.responses.entry(status.to_owned()).or_insert(response.into());
    }
}

fn add_key(operation: &mut Operation) {
    let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(200));
    let key = ParameterBuilder::new()
        .name(idempotency::HEADER)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("A request that is repeated with the same key within a day is done once."))
        .schema(Some(text.pattern(Some("^[!-~]+$"))))
        .build();
    operation.parameters.get_or_insert_default().push(key.into());
}

/// The document as it is served and committed.
pub(super) fn text(document: &OpenApi) -> String {
    document.to_pretty_json().map(|text| text + "\n").unwrap_or_default()
}

/// The document, for anybody: it says nothing about this portal.
pub(super) fn answer(text: &str) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.to_owned()).into_response()
}

#[cfg(test)]
mod tests {
    use super::super::permission::{operations, scope_of};
    use super::super::{documented, scope};
    use super::*;

    const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/schema/openapi.json");

    #[test]
    fn the_committed_openapi_document_is_the_one_that_is_served() {
        let text = text(&documented().1);
        if std::env::var_os("ADIT_BLESS").is_some() {
            std::fs::write(COMMITTED, text).unwrap();
            return;
        }
        let committed = std::fs::read_to_string(COMMITTED).unwrap_or_default();
        assert!(text == committed, "docs/schema/openapi.json is out of date: run with ADIT_BLESS=1");
    }

    #[test]
    fn every_operation_says_what_it_does_and_which_scope_it_needs() {
        let document = documented().1;
        let mut nouns = std::collections::BTreeSet::new();
        for (path, item) in &document.paths.paths {
            for (method, operation) in operations(item) {
                assert!(operation.summary.is_some(), "{method} {path} has no summary");
                let scope = scope_of(operation).unwrap_or_else(|| panic!("{method} {path} needs no scope"));
                let is_plan = path.ends_with("/plan");
                assert_eq!(scope.writes(), method != Method::GET && !is_plan, "{method} {path}");
                assert!(operation.responses.responses.contains_key("403"), "{method} {path}");
                nouns.extend(scope.to_string().split_once(':').map(|(noun, _)| noun.to_owned()));
            }
        }
        let known: std::collections::BTreeSet<String> = scope::NOUNS.map(str::to_owned).into();
        assert_eq!(nouns, known, "scopes that no route needs, or that are missing");
    }
}
