//! Backups: written while the portal runs, restored on an empty machine, and nothing half-way.

use std::path::Path;
use std::process::{Command, Output};

use reqwest::Method;
use tempfile::TempDir;

use crate::backend::Backend;
use crate::program::Program;
use crate::world::World;

/// Runs the program on a data directory.
pub(crate) fn run(arguments: &[&str], data_dir: &Path, database: &[String]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_adit-portal"))
        .args(arguments)
        .arg("--data-dir")
        .arg(data_dir)
        .args(database)
        .env_remove("ADIT_PORTAL_DATABASE")
        .output()
        .unwrap()
}

pub(crate) fn succeeds(arguments: &[&str], data_dir: &Path, database: &[String]) -> String {
    let output = run(arguments, data_dir, database);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn fails(arguments: &[&str], data_dir: &Path, database: &[String]) -> String {
    let output = run(arguments, data_dir, database);
    assert!(!output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr).unwrap()
}

/// Everything that an administrator can list, without who is online.
pub(crate) async fn inventory(world: &World) -> Vec<serde_json::Value> {
    let mut all = Vec::new();
    for list in
        ["sites", "resources", "groups", "actors", "policies", "tokens", "devices", "gateways", "relays"]
            .into_iter()
            .chain(["authorizations", "audit"])
    {
        let mut items = world.admin(Method::GET, list, None).await["items"].take();
        for item in items.as_array_mut().unwrap() {
            item.as_object_mut().unwrap().remove("online");
        }
        all.push(items);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_restored_on_an_empty_machine_and_peers_come_back() {
    let mut world = World::new().await;
    let office = world.office().await;
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    let mut client = world.client(&office.client_token, 2, 2).await;
    client.request(1, office.resource).await;
    let before = client.granted().await;
    gateway.told().await;
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("backup");
    let path = file.to_str().unwrap();
    let data = world.directory.path().join("data");
    succeeds(&["backup", path], &data, &world.backend.arguments());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o077, 0);
    }
    let error = fails(&["backup", path], &data, &world.backend.arguments());
    assert!(error.contains("cannot create"), "no backup is overwritten: {error}");
    let mut wanted = inventory(&world).await;
    world.stop().await;

    let (machine, backend) = (TempDir::new().unwrap(), Backend::new());
    let restored = machine.path().join("data");
    let said = succeeds(&["restore", path], &restored, &backend.arguments());
    assert!(said.contains("rows restored"), "{said}");
    let error = fails(&["restore", path], &restored, &backend.arguments());
    assert!(error.contains("exists already"), "{error}");
    let program = Program::serve(&restored, &backend.arguments());
    world.address = program.address;
    let mut found = inventory(&world).await;
    // Leases are granted anew.
    let leases = 9;
    assert_eq!(
        (wanted[leases].take().as_array().unwrap().len(), &found[leases].take()),
        (1, &serde_json::json!([]))
    );
    assert_eq!(found, wanted);
    let mut gateway = world.gateway(&office.gateway_token, 1, 1).await;
    assert_eq!(gateway.init.authorizations, []);
    let mut client = world.client(&office.client_token, 2, 2).await;
    client.request(2, office.resource).await;
    let again = client.granted().await;
    assert_eq!(gateway.told().await.id, again.id);
    assert!(again.gateway.epoch > before.gateway.epoch, "no epoch returns");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_backup_is_refused_and_leaves_nothing_behind() {
    let world = World::new().await;
    world.office().await;
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("backup");
    let data = world.directory.path().join("data");
    succeeds(&["backup", file.to_str().unwrap()], &data, &world.backend.arguments());
    let whole = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    let cut = lines[..lines.len() - 1].join("\n");
    let missing = [&lines[..lines.len() - 2], &lines[lines.len() - 1..]].concat().join("\n");
    let changed = whole.replacen("\"ana\"", "\"eve\"", 1);
    let escaping = whole.replacen("secrets/portal.key", "../../portal.key", 1);
    let newer = whole.replacen("\"adit_backup\":1", "\"adit_backup\":2", 1);
    let schema = whole.split("\"schema\":").nth(1).unwrap().split([',', '}']).next().unwrap();
    let older = whole.replacen(&format!("\"schema\":{schema}"), "\"schema\":1", 1);
    let later = whole.replacen(&format!("\"schema\":{schema}"), "\"schema\":1000", 1);
    for (number, (text, complaint)) in [
        (cut, "cut off"),
        (missing, "not those that were written"),
        (changed, "not those that were written"),
        (escaping, "a strange file"),
        (newer, "newer adit-portal"),
        (later, "newer adit-portal"),
        (older, "with the adit-portal that wrote it"),
        (String::new(), "no end"),
        ("hello".to_owned(), "damaged"),
    ]
    .into_iter()
    .enumerate()
    {
        let damaged = scratch.path().join(format!("damaged-{number}"));
        std::fs::write(&damaged, text).unwrap();
        let (machine, backend) = (TempDir::new().unwrap(), Backend::new());
        let restored = machine.path().join("data");
        let error = fails(&["restore", damaged.to_str().unwrap()], &restored, &backend.arguments());
        assert!(error.contains(complaint), "{number}: {error}");
        assert!(!restored.join("secrets/portal.key").exists() && !restored.join("portal.db").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_without_secrets_needs_the_right_ones() {
    let world = World::new().await;
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("backup");
    let path = file.to_str().unwrap();
    let data = world.directory.path().join("data");
    succeeds(&["backup", path, "--without-secrets"], &data, &world.backend.arguments());
    let secret = std::fs::read_to_string(data.join("secrets/portal.key")).unwrap();
    assert!(!std::fs::read_to_string(&file).unwrap().contains(secret.trim()));
    let (machine, backend) = (TempDir::new().unwrap(), Backend::new());
    let restored = machine.path().join("data");
    let error = fails(&["restore", path], &restored, &backend.arguments());
    assert!(error.contains("holds no secrets"), "{error}");
    for name in ["secrets/portal.key", "secrets/token-pepper.key"] {
        std::fs::copy(data.join(name), restored.join(name)).unwrap();
    }
    succeeds(&["restore", path], &restored, &backend.arguments());
}
