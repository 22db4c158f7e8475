//! TLS towards a relay: whom to believe.
//!
//! A relay with a certificate of its own making is known by the fingerprint that the portal passes on, and any other
//! as the portal itself is known. Nothing secret depends on it: what goes through a relay is sealed already.

use std::io;
use std::sync::Arc;

use adit_control_client::checked_config;
use adit_protocol::RelayTls;
use aws_lc_rs::digest;
use rustls::{CertificateError, ClientConfig, Error, OtherError};
use rustls_pki_types::ServerName;

/// What to ask for, and how to check the answer.
pub(crate) fn client_config(
    trusted: &Arc<ClientConfig>,
    relay: &RelayTls,
) -> Result<(Arc<ClientConfig>, ServerName<'static>), Error> {
    let name = ServerName::try_from(relay.server_name.clone());
    let name = name.map_err(|_| Error::General(format!("{:?} is no server name", relay.server_name)))?;
    let Some(fingerprint) = &relay.certificate_sha256 else { return Ok((Arc::clone(trusted), name)) };
    let expected = fingerprint.clone();
    let provider = Arc::clone(trusted.crypto_provider());
    let config = checked_config(provider, move |relay| check(&expected, relay.end_entity))?;
    Ok((Arc::new(config), name))
}

/// Why the relay's certificate was not believed; `None` if an attempt failed for another reason.
pub(crate) fn refusal(error: &anyhow::Error) -> Option<String> {
    let inner = error.downcast_ref::<io::Error>()?.get_ref()?;
    let Error::InvalidCertificate(why) = inner.downcast_ref()? else { return None };
    let ours = if let CertificateError::Other(ours) = why { Some(ours.to_string()) } else { None };
    Some(ours.unwrap_or_else(|| why.to_string()))
}

/// The relay, or whoever answers in its place, has another certificate.
#[derive(Debug, thiserror::Error)]
#[error("SHA-256 {presented} was presented, the portal named {expected}")]
struct NotPinned {
    presented: String,
    expected: String,
}

/// Accepts the certificate with this SHA-256 (lower-case hexadecimal), whatever its issuer, name and dates.
fn check(expected: &str, certificate: &[u8]) -> Result<(), Error> {
    let presented = fingerprint(certificate);
    if presented == expected {
        return Ok(());
    }
    let refusal = NotPinned { presented, expected: expected.to_owned() };
    Err(CertificateError::Other(OtherError(Arc::new(refusal))).into())
}

fn fingerprint(certificate: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
