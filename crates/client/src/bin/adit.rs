//! The command line of the Adit client; everything it does, it asks the daemon to do.

fn main() -> std::process::ExitCode {
    adit_client::cli::run().into()
}
