//! Virtual cables (`veth`) on which an XDP program can send.
//!
//! What a program at one end sends, the other end must fetch, and the kernel only wakes it up for that if it has a
//! program of its own. GRO alone is not enough: the end then has a ring for frames, but nobody tells it of them, so they
//! lie there until something else comes (seen with Linux 6.18).

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::End;
use crate::process;

/// What clang may be called.
const CLANG: [&str; 2] = ["clang-19", "clang"];

/// A program that lets everything pass.
const PASS: &str =
    "__attribute__((section(\"xdp\"), used)) int pass(void *frame) { (void)frame; return 2; }\n";

const LIMIT: Duration = Duration::from_secs(30);

impl End {
    /// Prepares this end for a program at the other one: it fetches what that sends, and finishes the checksums of what
    /// it sends itself, as a wire would want it.
    ///
    /// # Errors
    /// Without a clang, or when the kernel refuses.
    pub(crate) fn face_program(&self) -> Result<()> {
        let object = self.host.log_dir()?.join("pass.o");
        compile(&object.to_string_lossy())?;
        self.host.run(&["ethtool", "-K", &self.interface, "tx", "off"])?;
        let device = ["ip", "link", "set", "dev", &self.interface];
        let program = ["xdpdrv", "obj", &object.to_string_lossy(), "section", "xdp"];
        self.host.run(&[&device[..], &program].concat()).map(drop)
    }

    /// Makes it as it is by default: what a program at the other end sends is lost.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn face_no_program(&self) -> Result<()> {
        self.host.run(&["ip", "link", "set", "dev", &self.interface, "xdpdrv", "off"])?;
        self.host.run(&["ethtool", "-K", &self.interface, "gro", "off"]).map(drop)
    }
}

fn compile(object: &str) -> Result<()> {
    let works =
        |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|run| run.status.success());
    let clang = CLANG.into_iter().find(works).context("there is no clang")?;
    let mut command = Command::new(clang);
    command.args(["-target", "bpf", "-O2", "-x", "c", "-c", "-", "-o", object]);
    let finished = process::finish_with_input(command, PASS.as_bytes(), LIMIT)?;
    ensure!(finished.success(), "{clang}: {}", finished.complaint());
    Ok(())
}
