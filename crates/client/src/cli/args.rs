//! The arguments of `adit`.

use std::path::PathBuf;

use adit_client_ipc::Profile;
use clap::{Parser, Subcommand};
use domain::base::iana::Rtype;
use url::Url;

use super::bundle::Redaction;

/// Reach private resources through Adit.
#[derive(Debug, Parser)]
#[command(
    name = "adit",
    version,
    disable_help_subcommand = true,
    after_help = "Exit codes: 0 ok, 1 failure, 2 usage, 3 daemon unreachable, 4 signed out,\n\
                  5 not connected, 6 denied, 7 timeout.\n\
                  What takes longer than a second says on a terminal what it is doing, except with --json."
)]
pub(super) struct Arguments {
    /// The profile to work with, where a device is in several networks at once.
    #[arg(long, short = 'p', global = true, env = "ADIT_PROFILE", value_name = "NAME")]
    pub(super) profile: Option<Profile>,

    /// Where the daemon listens [default: /run/adit/aditd.sock, of a profile /run/adit/profiles/NAME.sock].
    #[arg(long, global = true, env = "ADIT_SOCKET", value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,

    /// Print JSON with a stable schema instead of text.
    #[arg(long, global = true, env = "ADIT_JSON", value_parser = clap::builder::BoolishValueParser::new(), num_args = 0, default_missing_value = "true", default_value = "false")]
    pub(super) json: bool,

    #[command(subcommand)]
    pub(super) command: Command,
}

impl Arguments {
    /// Where the daemon listens that this is about.
    pub(super) fn socket(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| Profile::default_socket(self.profile.as_ref()))
    }
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
    /// Sign in with a browser, or renew the sign-in, and connect.
    Login {
        /// The browser is on another machine: show a code to enter there.
        #[arg(long)]
        device_code: bool,
        /// Only print the page's address.
        #[arg(long)]
        no_browser: bool,
        /// Give up a sign-in that was begun.
        #[arg(long, conflicts_with_all = ["device_code", "no_browser"])]
        cancel: bool,
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
    /// Say where a name or an address goes, and why. Nothing is sent.
    Route {
        /// A host name or an address.
        destination: String,
    },
    /// See what the network lets through: relays over UDP, TCP and TLS, address translation, path MTU, the clock.
    Netcheck,
    /// Wait until something is so.
    Wait {
        /// `online`, `disconnected`, or `resource=NAME` (a path to its gateway stands).
        #[arg(long = "for", value_name = "WHAT")]
        what: Awaited,
        /// Give up after this many seconds.
        #[arg(long, default_value_t = 30, value_name = "SECONDS")]
        timeout: u64,
    },
    /// List the profiles whose daemons run, and what they are doing.
    Profiles,
    /// Find, follow or change the daemon's log.
    Log {
        #[command(subcommand)]
        command: LogCommand,
    },
    /// See the daemon's settings.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// See who resolves names, and what becomes of one.
    Dns {
        #[command(subcommand)]
        command: DnsCommand,
    },
    /// Make the daemon a service of this machine (root); packages do so by themselves.
    Service {
        #[command(subcommand)]
        command: ServiceCommand,
    },
    /// Find what keeps the client from working, and say what to do.
    Doctor,
    /// Gather what somebody who helps you needs to see.
    Debug {
        #[command(subcommand)]
        command: DebugCommand,
    },
    /// Explain a code such as E-NO-TOKEN, or a command.
    Help {
        /// The code or the command.
        topic: Option<String>,
    },
    /// Print a script that completes commands in your shell.
    Completion {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages to a directory.
    #[command(hide = true)]
    Man {
        /// The directory.
        directory: PathBuf,
    },
    /// Sign out: end the session on the server and forget the token.
    Logout,
}

/// What `adit wait` waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Awaited {
    Online,
    Disconnected,
    Resource(String),
}

impl std::str::FromStr for Awaited {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "online" => Ok(Self::Online),
            None if text == "disconnected" => Ok(Self::Disconnected),
            Some(("resource", name)) if !name.is_empty() => Ok(Self::Resource(name.to_owned())),
            _ => Err("say `online`, `disconnected` or `resource=NAME`".to_owned()),
        }
    }
}

/// What `adit debug` does.
#[derive(Debug, Subcommand)]
pub(super) enum DebugCommand {
    /// Write logs, state, routes and resolver settings to one file, without names, addresses and secrets.
    Bundle {
        /// The file.
        #[arg(short, long, value_name = "FILE", default_value = "adit-debug.zip")]
        output: PathBuf,
        /// How much is made unrecognizable.
        #[arg(long, value_enum, default_value = "strict")]
        redact: Redaction,
        /// Only list what would be in it.
        #[arg(long)]
        preview: bool,
    },
}

/// What `adit config` does.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// List every setting of the daemon, its value, and who decided it: flag, environment, file or nobody.
    List,
}

/// What `adit dns` does.
#[derive(Debug, Subcommand)]
pub(super) enum DnsCommand {
    /// Say who sets the system's resolver, which names are answered in the tunnel, and who is asked for others.
    Status,
    /// Ask the tunnel's resolver for a name, and say who answered and why.
    Query {
        /// A host name, or an address to find the name of.
        name: String,
        /// The type of records [default: A; PTR for an address].
        #[arg(long = "type", value_name = "TYPE")]
        rtype: Option<Rtype>,
    },
}

/// What `adit service` does.
#[derive(Debug, Subcommand)]
pub(super) enum ServiceCommand {
    /// Start the daemon now and with the machine.
    Install {
        /// The portal's address, such as wss://portal.example.com; kept in /etc/adit/client.env, or of a profile in
        /// /etc/adit/profiles/NAME.env, if there is none.
        #[arg(long, env = "ADIT_PORTAL", value_name = "URL")]
        portal: Option<Url>,
        /// Where aditd is [default: beside this program].
        #[arg(long, value_name = "PATH")]
        daemon: Option<PathBuf>,
    },
    /// Stop it for good, and give the machine its network and resolver back.
    Uninstall,
}

/// What `adit log` does.
#[derive(Debug, Subcommand)]
pub(super) enum LogCommand {
    /// Print the directory of the daemon's log.
    Path,
    /// Print the newest lines, and what follows with --follow.
    Tail {
        /// So many lines.
        #[arg(short = 'n', long, default_value_t = 20, value_name = "COUNT")]
        lines: usize,
        /// Go on with every new line.
        #[arg(short, long)]
        follow: bool,
    },
    /// Print the level, or set it until the daemon's next start (root).
    Level {
        /// error, warn, info, debug, trace, or a filter such as info,adit_peering=debug.
        filter: Option<String>,
    },
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
    fn what_is_waited_for_has_a_name() {
        assert_eq!("resource=wiki".parse(), Ok(Awaited::Resource("wiki".to_owned())));
        assert_eq!("online".parse(), Ok(Awaited::Online));
        for nonsense in ["", "resource", "resource=", "offline", "name=x"] {
            assert!(nonsense.parse::<Awaited>().is_err(), "{nonsense}");
        }
    }

    #[test]
    fn json_is_a_plain_flag_anywhere() {
        let arguments = Arguments::parse_from(["adit", "status", "--json"]);
        assert!(arguments.json);
        assert!(!Arguments::parse_from(["adit", "status"]).json);
    }
}
