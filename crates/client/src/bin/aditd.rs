//! The daemon of the Adit client.

fn main() -> std::process::ExitCode {
    adit_client::daemon::run()
}
