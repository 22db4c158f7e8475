//! The published schema of what `adit --json` prints, held against the types.

use std::path::Path;

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::{
    DnsQueryReport, DnsReport, LoginPrompt, NetcheckReport, PingReport, ProfileStatus, ResourceStatus,
    RouteReport, SCHEMA, Setting, Status,
};

/// Set it to write the file anew after a change that was meant.
const WRITE: &str = "ADIT_BLESS";

#[derive(JsonSchema)]
#[expect(dead_code, reason = "its schema alone is of use")]
struct Resources {
    /// The version of everything that `--json` prints.
    schema: u16,
    /// Every resource of the user.
    resources: Vec<ResourceStatus>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "its schema alone is of use")]
struct Settings {
    /// The version of everything that `--json` prints.
    schema: u16,
    /// Every setting of the daemon.
    settings: Vec<Setting>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "its schema alone is of use")]
struct Profiles {
    /// The version of everything that `--json` prints.
    schema: u16,
    /// Every daemon of this device that runs.
    profiles: Vec<ProfileStatus>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "its schema alone is of use")]
struct Done {
    /// The version of everything that `--json` prints.
    schema: u16,
    /// Always true; what did not work is a failure.
    ok: bool,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "its schema alone is of use")]
struct SignedIn {
    /// The version of everything that `--json` prints.
    schema: u16,
    /// Always true; what did not work is a failure.
    signed_in: bool,
    /// Who is signed in, if the portal said so.
    actor: Option<String>,
}

#[derive(JsonSchema)]
#[expect(dead_code, reason = "its schema alone is of use")]
struct Failure {
    /// The version of everything that `--json` prints.
    schema: u16,
    /// One sentence for people.
    error: String,
    /// The exit code of the command.
    exit_code: u8,
}

fn document() -> Value {
    let mut generator: SchemaGenerator = SchemaSettings::draft2020_12().into_generator();
    let commands = json!({
        "status": generator.subschema_for::<Status>(),
        "login": generator.subschema_for::<LoginPrompt>(),
        "signed_in": generator.subschema_for::<SignedIn>(),
        "resources": generator.subschema_for::<Resources>(),
        "profiles": generator.subschema_for::<Profiles>(),
        "config list": generator.subschema_for::<Settings>(),
        "dns status": generator.subschema_for::<DnsReport>(),
        "dns query": generator.subschema_for::<DnsQueryReport>(),
        "done": generator.subschema_for::<Done>(),
        "ping": generator.subschema_for::<PingReport>(),
        "route": generator.subschema_for::<RouteReport>(),
        "netcheck": generator.subschema_for::<NetcheckReport>(),
        "failure": generator.subschema_for::<Failure>(),
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("What `adit COMMAND --json` prints, schema {SCHEMA}"),
        "description": "One object a line; a command without a result prints `done`, a failed one prints `failure` to standard error.",
        "properties": commands,
        "$defs": generator.take_definitions(true),
    })
}

#[test]
fn the_published_schema_is_the_one_of_this_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema/adit.json");
    let now = serde_json::to_string_pretty(&document()).expect("JSON") + "\n";
    if std::env::var_os(WRITE).is_some() {
        std::fs::write(&path, &now).expect("writes the schema");
    }
    let published = std::fs::read_to_string(&path).expect("the schema is published");
    assert!(published == now, "docs/schema/adit.json is old: run this test with {WRITE}=1");
}
