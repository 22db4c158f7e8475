//! The arguments of `adit`.

use std::path::PathBuf;

use adit_client_ipc::DEFAULT_SOCKET;
use clap::{Parser, Subcommand};

/// Reach private resources through Adit.
#[derive(Debug, Parser)]
#[command(
    name = "adit",
    version,
    after_help = "Exit codes: 0 ok, 1 failure, 2 usage, 3 daemon unreachable, 4 signed out,\n\
                  5 not connected, 6 denied, 7 timeout."
)]
pub(super) struct Arguments {
    /// Where the daemon listens.
    #[arg(long, global = true, env = "ADIT_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    pub(super) socket: PathBuf,

    /// Print JSON with a stable schema instead of text.
    #[arg(long, global = true, env = "ADIT_JSON", value_parser = clap::builder::BoolishValueParser::new(), num_args = 0, default_missing_value = "true", default_value = "false")]
    pub(super) json: bool,

    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Connect; sign in first if a token is given.
    Up {
        /// File with a sign-in token, `-` for standard input. It is kept for the next start.
        #[arg(long, env = "ADIT_TOKEN_FILE", value_name = "FILE")]
        token_file: Option<PathBuf>,
        /// Return only when resources can be reached.
        #[arg(long)]
        wait: bool,
        /// Give up waiting after this many seconds.
        #[arg(long, default_value_t = 30, value_name = "SECONDS")]
        timeout: u64,
    },
    /// Disconnect, but stay signed in.
    Down,
    /// Show what the client is doing.
    Status {
        /// Keep printing whenever it changes.
        #[arg(long)]
        watch: bool,
    },
    /// List the resources that you may reach.
    Resources,
    /// Connect to a resource's gateway and show the path to it.
    Ping {
        /// The resource's name or id, an address, or a host name.
        resource: String,
        /// Give up after this many seconds.
        #[arg(long, default_value_t = 10, value_name = "SECONDS")]
        timeout: u64,
    },
    /// Sign out: end the session on the server and forget the token.
    Logout,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn json_is_a_plain_flag_anywhere() {
        let arguments = Arguments::parse_from(["adit", "status", "--json"]);
        assert!(arguments.json);
        assert!(!Arguments::parse_from(["adit", "status"]).json);
    }
}
