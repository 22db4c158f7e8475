//! TLS towards the portal: aws-lc-rs, the hybrid key exchange first, a private CA if given.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// Why the given CA cannot be used. The caller's fault.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// Not PEM.
    #[error("the CA file is not PEM: {0}")]
    Pem(rustls_pki_types::pem::Error),
    /// PEM without a certificate.
    #[error("the CA file holds no certificate")]
    Empty,
    /// A certificate that cannot be trusted as a CA.
    #[error("the CA certificate is unusable: {0}")]
    Certificate(rustls::Error),
    /// The cryptography library refused the configuration.
    #[error("TLS cannot be set up: {0}")]
    Tls(rustls::Error),
}

/// The configuration for a server whose certificate `ca` (PEM) signed, or a public CA without one.
///
/// # Errors
///
/// When `ca` is none.
pub fn client_config(ca: Option<&[u8]>) -> Result<Arc<ClientConfig>, RootsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(RootsError::Tls)?
        .with_root_certificates(roots(ca)?)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn roots(ca: Option<&[u8]>) -> Result<RootCertStore, RootsError> {
    let Some(pem) = ca else {
        return Ok(RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()));
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.map_err(RootsError::Pem)?).map_err(RootsError::Certificate)?;
    }
    if roots.is_empty() { Err(RootsError::Empty) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_file_without_a_certificate_is_refused() {
        assert!(matches!(client_config(Some(b"hello")), Err(RootsError::Empty)));
    }

    #[test]
    fn the_hybrid_key_exchange_comes_first() {
        let config = client_config(None).unwrap();
        assert_eq!(config.crypto_provider().kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
    }
}
