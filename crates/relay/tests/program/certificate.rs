//! Certificates for the relay, and clients that trust exactly them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

/// The name that they are for.
pub(crate) const NAME: &str = "relay.example.com";

/// A directory with a chain and its key.
pub(crate) struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("temporary directory") }
    }

    pub(crate) fn chain(&self) -> PathBuf {
        self.directory.path().join("chain.pem")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }

    /// Writes a new pair, and returns a configuration for clients that trust it.
    pub(crate) fn renew(&self) -> Arc<rustls::ClientConfig> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("made");
        write(&self.key(), &made.signing_key.serialize_pem());
        write(&self.chain(), &made.cert.pem());
        trusting(made.cert.der().clone())
    }
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("writes");
}

/// Trusts one certificate.
pub(crate) fn trusting(certificate: CertificateDer<'static>) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("sound")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
