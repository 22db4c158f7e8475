//! What the authority sees when it looks whether the portal is what its name leads to: TLS-ALPN-01 (RFC 8737).

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use anyhow::{Context as _, Result};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::PrivateKeyDer;

/// The protocol that the authority offers, alone (RFC 8737, section 6.2).
pub(crate) const PROTOCOL: &[u8] = b"acme-tls/1";

/// Certificates that answer, by name, while an order is under way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Challenges(Arc<RwLock<BTreeMap<String, Arc<CertifiedKey>>>>);

impl Challenges {
    /// The answer for a name.
    pub(crate) fn answer(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&name.to_ascii_lowercase()).cloned()
    }

    /// Answers for a name from now on, with the SHA-256 of its key authorization (RFC 8737, section 3).
    pub(super) fn add(&self, name: &str, digest: &[u8; 32]) -> Result<()> {
        let key = KeyPair::generate().context("cannot make a key")?;
        let mut params = CertificateParams::new([name.to_owned()]).context("the name is no host name")?;
        params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
        let certificate = params.self_signed(&key).context("cannot make a certificate")?;
        let private = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        // Not compared with the key: that would read the certificate, whose critical extension nobody else knows.
        let key = aws_lc_rs::default_provider().key_provider.load_private_key(private)?;
        let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(name.to_ascii_lowercase(), Arc::new(certified));
        Ok(())
    }

    /// Answers nobody any more.
    pub(super) fn clear(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
