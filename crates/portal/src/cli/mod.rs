//! The command line.
//!
//! `bootstrap`, `serve`, `backup`, `restore`, `migrate`, `doctor` and `admin-link` work on a data directory; every other command is a client of the
//! JSON API and works from anywhere.
//!
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 3 portal unreachable, 4 token refused,
//! 6 forbidden.

mod acme;
mod admin;
mod client;
mod doctor;
mod generate;
mod output;
mod run;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use url::Url;

use crate::store::Database;

/// The portal of Adit: identity, policy, and the introduction of peers.
#[derive(Debug, Parser)]
#[command(name = "adit-portal", version, max_term_width = 80, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a portal in an empty directory
    Bootstrap(Bootstrap),
    /// Run the portal
    Serve(Serve),
    /// Write database, secrets and certificates to one file; the portal may run
    Backup(Backup),
    /// Restore a backup into an empty data directory
    Restore(Restore),
    /// Move a portal that does not run to another database
    Migrate(Migrate),
    /// Look for what is wrong with an installation; changes nothing
    Doctor(doctor::Doctor),
    /// Make a link with which somebody chooses password and authenticator
    /// anew
    AdminLink(AdminLink),
    /// Print a script that completes commands in your shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages to a directory
    #[command(hide = true)]
    Man {
        /// The directory
        directory: PathBuf,
    },
    #[command(flatten)]
    Admin(admin::Command),
}

#[derive(Debug, Args)]
struct Bootstrap {
    /// Where to keep the database and the secrets
    #[arg(long, env = "ADIT_PORTAL_DATA_DIR", default_value = "/var/lib/adit-portal")]
    data_dir: PathBuf,
    /// Another database than portal.db in the data directory: sqlite:PATH or
    /// postgres://USER@HOST/NAME
    #[arg(long, env = "ADIT_PORTAL_DATABASE", value_name = "URL", hide_env_values = true)]
    database: Option<Database>,
    /// How peers reach the portal: https://HOST:PORT
    #[arg(long, env = "ADIT_PORTAL_URL")]
    url: Url,
    /// Further host name or address for the certificate (repeatable)
    #[arg(long, value_name = "NAME")]
    san: Vec<String>,
    /// Use this certificate chain (PEM) instead of making a CA
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of --tls-cert (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Resolver that clients ask for other names (ADDRESS:PORT, repeatable);
    /// without it they keep their own
    #[arg(long, value_name = "ADDRESS")]
    dns_upstream: Vec<SocketAddr>,
    /// Search domain for clients (repeatable)
    #[arg(long, value_name = "DOMAIN")]
    search_domain: Vec<String>,
    /// Where devices get their addresses [default: 100.64.0.0/11]; it cannot be changed later
    #[arg(long, value_name = "NETWORK")]
    ipv4_range: Option<Ipv4Net>,
    /// Where names get their addresses [default: 100.96.0.0/11]
    #[arg(long, value_name = "NETWORK")]
    ipv4_proxy_range: Option<Ipv4Net>,
    /// Where devices get their addresses [default: a /107 of a random unique local network]
    #[arg(long, value_name = "NETWORK")]
    ipv6_range: Option<Ipv6Net>,
    /// Where names get their addresses [default: the /107 beside it]
    #[arg(long, value_name = "NETWORK")]
    ipv6_proxy_range: Option<Ipv6Net>,
    /// Replace the owner's API token of an existing portal
    #[arg(long)]
    rotate_admin_token: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Serve {
    /// The directory that bootstrap made
    #[arg(long, env = "ADIT_PORTAL_DATA_DIR", default_value = "/var/lib/adit-portal")]
    data_dir: PathBuf,
    /// Another database than portal.db in the data directory: sqlite:PATH or
    /// postgres://USER@HOST/NAME
    #[arg(long, env = "ADIT_PORTAL_DATABASE", value_name = "URL", hide_env_values = true)]
    database: Option<Database>,
    /// If there is no portal here yet, make one first that is reached at
    /// https://HOST:PORT, and print what `bootstrap` prints
    #[arg(long, env = "ADIT_PORTAL_BOOTSTRAP", value_name = "URL")]
    bootstrap: Option<Url>,
    /// Listen here (repeatable)
    #[arg(
        long,
        env = "ADIT_PORTAL_LISTEN",
        value_delimiter = ',',
        default_value = "[::]:443",
        value_name = "ADDRESS:PORT"
    )]
    listen: Vec<SocketAddr>,
    /// Certificate chain (PEM); default: the one in the data directory
    #[arg(long, env = "ADIT_PORTAL_TLS_CERT", value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of --tls-cert (PEM)
    #[arg(long, env = "ADIT_PORTAL_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    #[command(flatten)]
    acme: acme::Acme,
    /// Serve without TLS: for tests, or behind a proxy on the same machine
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key"])]
    insecure_plain: bool,
    /// Believe X-Forwarded-For of requests from here: a proxy (repeatable)
    #[arg(long, env = "ADIT_PORTAL_BEHIND_PROXY", value_delimiter = ',', value_name = "CIDR")]
    behind_proxy: Vec<IpNet>,
    /// Requests a second that one token may make of the API, in the long run
    #[arg(
        long,
        env = "ADIT_PORTAL_API_RATE",
        value_name = "N",
        default_value_t = crate::serve::API_RATE,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    api_rate: u32,
    /// Take over from the portal that listens here now: wait until it stops,
    /// and keep whoever connects meanwhile
    #[arg(long)]
    take_over: bool,
    /// Serve /healthz, /readyz and /metrics here
    #[arg(long, env = "ADIT_PORTAL_HEALTH", value_name = "ADDRESS:PORT")]
    health: Option<SocketAddr>,
    /// Forget entries of the audit log after this time (400d); never by default
    #[arg(long, env = "ADIT_PORTAL_KEEP_AUDIT", value_name = "TIME", value_parser = duration, default_value = "never")]
    keep_audit: u64,
    /// Write logs (JSON Lines) to this directory instead of standard error
    #[arg(long, env = "ADIT_LOG_DIR", value_name = "DIR")]
    log_dir: Option<PathBuf>,
    /// Log level or filter, for example info or info,adit_portal=debug
    #[arg(long, env = "ADIT_LOG_LEVEL", default_value = "info", value_name = "LEVEL")]
    log_level: String,
}

/// Which portal.
#[derive(Debug, Args)]
struct Installation {
    /// The directory that bootstrap made
    #[arg(long, env = "ADIT_PORTAL_DATA_DIR", default_value = "/var/lib/adit-portal")]
    data_dir: PathBuf,
    /// Another database than portal.db in the data directory: sqlite:PATH or
    /// postgres://USER@HOST/NAME
    #[arg(long, env = "ADIT_PORTAL_DATABASE", value_name = "URL", hide_env_values = true)]
    database: Option<Database>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Backup {
    /// The file to write; it must not exist
    file: PathBuf,
    /// Leave out secrets and certificates: restoring then needs those of the
    /// data directory from elsewhere
    #[arg(long)]
    without_secrets: bool,
    #[command(flatten)]
    installation: Installation,
}

#[derive(Debug, Args)]
struct Restore {
    /// The file that backup wrote
    file: PathBuf,
    #[command(flatten)]
    installation: Installation,
}

#[derive(Debug, Args)]
struct Migrate {
    /// The empty database to move to: sqlite:PATH or postgres://USER@HOST/NAME
    #[arg(long, env = "ADIT_PORTAL_MIGRATE_TO", value_name = "URL", hide_env_values = true)]
    to: Database,
    #[command(flatten)]
    installation: Installation,
}

#[derive(Debug, Args)]
struct AdminLink {
    /// Whose
    #[arg(default_value = "owner")]
    name: String,
    /// How browsers reach the portal, if not as bootstrap was told
    #[arg(long)]
    url: Option<Url>,
    #[command(flatten)]
    installation: Installation,
}

/// Runs the program.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // The only place where a provider is chosen; a second choice is harmless.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match cli.command {
        Command::Bootstrap(arguments) => run::bootstrap(arguments),
        Command::Serve(arguments) => run::serve(arguments),
        Command::Backup(arguments) => run::backup(arguments),
        Command::Restore(arguments) => run::restore(arguments),
        Command::Migrate(arguments) => run::migrate(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::AdminLink(arguments) => run::admin_link(arguments),
        Command::Completion { shell } => generate::completion(shell, Cli::command()),
        Command::Man { directory } => generate::manual(&directory, Cli::command()),
        Command::Admin(command) => run::admin(command),
    }
}

/// A duration as people write it, in seconds: `30d`, `12h`, `90m`, `45s`; `never` is 0.
fn duration(text: &str) -> Result<u64, String> {
    let wrong = || format!("`{text}` is no duration; write 30d, 12h, 90m, 45s or never");
    if text == "never" {
        return Ok(0);
    }
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(wrong()),
    };
    number.checked_mul(seconds).filter(|seconds| *seconds > 0).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_narrow() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        command.build();
        check_width(&mut command);
    }

    fn check_width(command: &mut clap::Command) {
        let help = command.render_long_help().to_string();
        for line in help.lines() {
            assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
        }
        command.get_subcommands_mut().for_each(check_width);
    }

    #[test]
    fn every_administrative_command_takes_the_portal_and_the_token() {
        let mut command = Cli::command();
        command.build();
        let own = [
            "bootstrap",
            "serve",
            "backup",
            "restore",
            "migrate",
            "doctor",
            "admin-link",
            "completion",
            "help",
        ];
        for name in own {
            command = command.mut_subcommand(name, |own| own.hide(true));
        }
        command.get_subcommands().filter(|one| !one.is_hide_set()).for_each(check_connection);
    }

    /// An argument of the same name would take the place of the common one.
    fn check_connection(command: &clap::Command) {
        for flag in ["url", "token", "ca", "json"] {
            let has = command.get_arguments().any(|argument| argument.get_long() == Some(flag));
            assert!(has, "{} does not take --{flag}", command.get_name());
        }
        let own = command.get_subcommands().filter(|one| one.get_name() != "help");
        own.for_each(check_connection);
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(duration("30d"), Ok(2_592_000));
        assert_eq!(duration("never"), Ok(0));
        for wrong in ["", "d", "0s", "1w", "-1d", "1.5h", "99999999999999999d", "ä"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
