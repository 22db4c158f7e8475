//! TLS towards a relay: whom to believe.
//!
//! A relay with a certificate of its own making is known by the fingerprint that the portal passes on, and any other
//! as the portal itself is known. Nothing secret depends on it: what goes through a relay is sealed already.

use std::io;
use std::sync::Arc;

use adit_protocol::RelayTls;
use aws_lc_rs::digest;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// What to ask for, and how to check the answer.
pub(crate) fn client_config(
    trusted: &Arc<ClientConfig>,
    relay: &RelayTls,
) -> Result<(Arc<ClientConfig>, ServerName<'static>), Error> {
    let name = ServerName::try_from(relay.server_name.clone());
    let name = name.map_err(|_| Error::General(format!("{:?} is no server name", relay.server_name)))?;
    let Some(fingerprint) = &relay.certificate_sha256 else { return Ok((Arc::clone(trusted), name)) };
    let provider = Arc::clone(trusted.crypto_provider());
    let verifier = Pinned { fingerprint: fingerprint.clone(), provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
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

/// Accepts one certificate, whatever its issuer, name and dates.
#[derive(Debug)]
struct Pinned {
    /// SHA-256 in lower-case hexadecimal.
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let presented = fingerprint(end_entity);
        if presented == self.fingerprint {
            return Ok(ServerCertVerified::assertion());
        }
        let refusal = NotPinned { presented, expected: self.fingerprint.clone() };
        Err(CertificateError::Other(OtherError(Arc::new(refusal))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn fingerprint(certificate: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
