//! How the portal is reached, and the commands that tell it to machines.

use axum::http::{HeaderMap, header};

use crate::portal::Portal;
use crate::store::StoreError;

/// Where browsers reach the portal, without a slash at the end.
pub(crate) async fn browser_url(portal: &Portal, headers: &HeaderMap) -> Result<String, StoreError> {
    let setting = portal.store.sign_in_setting().await?;
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("portal.example.com");
    let url = setting.public_url.unwrap_or_else(|| format!("https://{host}"));
    Ok(url.trim_end_matches('/').to_owned())
}

/// Where gateways and clients connect to.
pub(crate) async fn peer_url(portal: &Portal, headers: &HeaderMap) -> Result<String, StoreError> {
    let url = browser_url(portal, headers).await?;
    Ok(match url.split_once("://") {
        Some(("http", rest)) => format!("ws://{rest}"),
        Some((_, rest)) => format!("wss://{rest}"),
        None => format!("wss://{url}"),
    })
}

/// What to run on a machine: it writes the settings of a service into the file that its unit reads, for the superuser
/// alone, and starts it.
pub(crate) fn service_command(unit: &str, file: &str, settings: &[(&str, &str)]) -> String {
    let lines: String = settings.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    format!(
        "sudo install -D -m 600 /dev/stdin /etc/adit/{file}.env <<'X'\n{lines}X\nsudo systemctl enable --now {unit}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_writes_the_settings_and_nothing_else() {
        let command =
            service_command("aditd", "client", &[("ADIT_PORTAL", "wss://a"), ("ADIT_CA", "sha256:0")]);
        let (before, rest) = command.split_once("<<'X'\n").unwrap();
        assert!(before.ends_with("/etc/adit/client.env "), "{before}");
        assert_eq!(rest, "ADIT_PORTAL=wss://a\nADIT_CA=sha256:0\nX\nsudo systemctl enable --now aditd");
    }
}
