//! The bill of materials: every package in the programs, as CycloneDX 1.5.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::workspace::{Package, Workspace};

pub(super) fn of(workspace: &Workspace, version: &str) -> Result<String> {
    let mut components: Vec<Value> = workspace.packages.iter().map(component).collect();
    components.sort_by_key(|component| component["bom-ref"].to_string());
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": { "type": "application", "name": "adit", "version": version } },
        "components": components,
    });
    serde_json::to_string_pretty(&bill).context("writing the bill of materials")
}

fn component(package: &Package) -> Value {
    let reference = format!("pkg:cargo/{}@{}", package.name, package.version);
    let mut component = json!({
        "type": "library",
        "bom-ref": reference,
        "name": package.name,
        "version": package.version,
        "purl": reference,
    });
    if let Some(license) = &package.license {
        component["licenses"] = json!([{ "expression": license }]);
    }
    component
}
