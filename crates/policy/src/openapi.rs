//! Forms in OpenAPI of what is written in another form than it is kept in.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ArrayBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::{ClockTime, PortRange, ProviderName, Region};

fn text(pattern: &str, example: &str) -> RefOr<Schema> {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).examples([example]).into()
}

/// An id.
pub(crate) fn uuid() -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
        .into()
}

impl PartialSchema for ClockTime {
    fn schema() -> RefOr<Schema> {
        text("^([01][0-9]|2[0-3]):[0-5][0-9]$|^24:00$", "08:30")
    }
}

impl ToSchema for ClockTime {}

impl PartialSchema for Region {
    fn schema() -> RefOr<Schema> {
        text("^[A-Za-z]{2}$", "DE")
    }
}

impl ToSchema for Region {}

impl PartialSchema for ProviderName {
    fn schema() -> RefOr<Schema> {
        text("^[a-z][a-z0-9-]{0,31}$", "local")
    }
}

impl ToSchema for ProviderName {}

impl PartialSchema for PortRange {
    fn schema() -> RefOr<Schema> {
        let port = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(65_535));
        ArrayBuilder::new().items(port).min_items(Some(2)).max_items(Some(2)).into()
    }
}

impl ToSchema for PortRange {}
