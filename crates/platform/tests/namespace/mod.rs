//! Runs a test in a network namespace of its own, so that the host is never touched.

use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

/// Runs `test` on a thread in fresh network and mount namespaces with the loopback interface up; without root
/// it says why it does not.
pub(crate) fn isolated<F, T>(test: F)
where
    F: FnOnce() -> T + Send + 'static,
    T: Future<Output = ()>,
{
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: network namespaces need root");
        return;
    }
    let worker = std::thread::spawn(move || {
        enter();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(test());
    });
    if let Err(panic) = worker.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Moves the calling thread into fresh namespaces.
pub(crate) fn enter() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("unshare");
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
    ip("link set lo up");
}

/// Runs `ip` with these words and returns its output.
pub(crate) fn ip(words: &str) -> String {
    run("ip", words)
}

/// Runs a program in the namespaces of this thread.
pub(crate) fn run(program: &str, words: &str) -> String {
    let output = Command::new(program).args(words.split_whitespace()).output().expect("starts");
    assert!(output.status.success(), "{program} {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("utf-8")
}

/// Reads or writes a kernel setting of this thread's network namespace.
pub(crate) fn sysctl(key: &str) -> String {
    std::fs::read_to_string(format!("/proc/sys/{key}")).expect("reads").trim().to_owned()
}

/// Writes a kernel setting of this thread's network namespace.
pub(crate) fn set_sysctl(key: &str, value: &str) {
    std::fs::write(format!("/proc/sys/{key}"), value).expect("writes");
}
