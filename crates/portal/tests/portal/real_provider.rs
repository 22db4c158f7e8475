//! A certified OpenID Connect provider (`oidc-provider` of npm) beside the tests, see `tests/provider/provider.mjs`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

/// Tests begin together; packages are installed once.
static INSTALLING: Mutex<()> = Mutex::const_new(());

pub(crate) struct RealProvider {
    pub(crate) issuer: String,
    accounts: PathBuf,
    _directory: TempDir,
    _child: Child,
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/provider")
}

/// Where the packages are kept: beside what cargo builds. Each program of tests has its own.
async fn packages() -> PathBuf {
    let _turn = INSTALLING.lock().await;
    let test = std::env::current_exe().unwrap();
    let place = format!("identity-provider-{}", env!("CARGO_CRATE_NAME"));
    let into = test.ancestors().nth(3).unwrap().join(place);
    std::fs::create_dir_all(&into).unwrap();
    for file in ["package.json", "package-lock.json"] {
        std::fs::copy(scripts().join(file), into.join(file)).unwrap();
    }
    let modules = into.join("node_modules");
    let done = into.join("installed");
    if !done.exists() {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"]).current_dir(&into);
        let status = npm.stdout(Stdio::null()).status().await.expect("npm is there: cargo xtask packages");
        assert!(status.success(), "npm ci");
        std::fs::write(&done, "").unwrap();
    }
    modules
}

impl RealProvider {
    pub(crate) async fn new(accounts: &Value) -> Self {
        let modules = packages().await;
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("accounts.json");
        std::fs::write(&file, accounts.to_string()).unwrap();
        let mut child = Command::new("node")
            .arg(scripts().join("provider.mjs"))
            .arg(&file)
            .env("ADIT_NODE_MODULES", modules)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("node is there: cargo xtask packages");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let issuer = loop {
            let line = lines.next_line().await.unwrap().expect("the provider starts");
            if line.starts_with("http://") {
                break line;
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Self { issuer, accounts: file, _directory: directory, _child: child }
    }

    /// What it says of its people from now on.
    pub(crate) fn says(&self, accounts: &Value) {
        std::fs::write(&self.accounts, accounts.to_string()).unwrap();
    }
}
