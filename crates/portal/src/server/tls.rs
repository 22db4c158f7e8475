//! TLS of the listeners: TLS 1.3 and 1.2, hybrid key exchange preferred, certificates that can
//! be replaced while the portal runs.
//!
//! Whoever renews a certificate writes two files. They are looked at now and then; once they have
//! changed and fit together, new connections get the new certificate. Files that are damaged or
//! half-written change nothing: the old certificate stays, and the log says so. The portal itself
//! may be the one who writes, see [`crate::acme`]; its file is preferred once it is there.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::acme::{self, Challenges};

/// How often the files are looked at.
const INTERVAL: Duration = Duration::from_secs(10);

/// A certificate and key in two PEM files, as they were when they last fitted together.
#[derive(Clone)]
pub(crate) struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    /// Chain and key in one file, which goes first once it is there.
    preferred: Option<PathBuf>,
    challenges: Challenges,
    current: Arc<RwLock<TlsAcceptor>>,
}

/// What tells two states of a file apart.
type Stamp = Option<(SystemTime, u64)>;

impl Tls {
    /// Reads the files.
    pub(crate) fn load(certificate: PathBuf, key: PathBuf) -> Result<Self> {
        let current = Arc::new(RwLock::new(acceptor(&certificate, &key)?));
        Ok(Self { certificate, key, preferred: None, challenges: Challenges::default(), current })
    }

    /// The same, with a file of chain and key that goes first, and answers for the authority that gives it.
    pub(crate) fn load_preferring(preferred: PathBuf, certificate: PathBuf, key: PathBuf) -> Result<Self> {
        let challenges = Challenges::default();
        let first = resolving(certified(&certificate, &key)?, Some(challenges.clone()));
        let current = Arc::new(RwLock::new(first));
        let tls = Self { certificate, key, preferred: Some(preferred), challenges, current };
        if tls.preferred().is_some() {
            tls.reload();
        }
        Ok(tls)
    }

    /// What an authority is answered with.
    pub(crate) const fn challenges(&self) -> &Challenges {
        &self.challenges
    }

    fn preferred(&self) -> Option<&PathBuf> {
        self.preferred.as_ref().filter(|path| path.exists())
    }

    /// Where certificate and key are now.
    fn files(&self) -> [&PathBuf; 2] {
        self.preferred().map_or([&self.certificate, &self.key], |both| [both, both])
    }

    /// For the next connection.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files again whenever they have changed, until the task is aborted.
    pub(crate) async fn watch(self) {
        let mut known = self.stamps();
        loop {
            tokio::time::sleep(INTERVAL).await;
            let stamps = self.stamps();
            if stamps != known {
                self.reload();
                known = stamps;
            }
        }
    }

    /// Serves what the files hold now, if it can be used.
    pub(crate) fn reload(&self) {
        let [certificate, key] = self.files();
        match certified(certificate, key) {
            Ok(certified) => {
                let challenges = self.preferred.is_some().then(|| self.challenges.clone());
                let acceptor = resolving(certified, challenges);
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
                tracing::info!(certificate = %certificate.display(), "a new certificate is served");
            }
            Err(error) => {
                metrics::counter!("adit_portal_certificate_reload_failures_total").increment(1);
                let error = format!("{error:#}");
                tracing::error!(error, "the new certificate cannot be used; the old one is still served");
            }
        }
    }

    fn stamps(&self) -> [Stamp; 2] {
        self.files().map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }
}

/// An acceptor for the certificate chain and key in two PEM files.
pub(crate) fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    Ok(resolving(certified(certificate, key)?, None))
}

fn certified(certificate: &Path, key: &Path) -> Result<CertifiedKey> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .with_context(|| format!("cannot read the certificate {}", certificate.display()))?;
    if chain.is_empty() {
        bail!("{} holds no certificate", certificate.display());
    }
    let key = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("cannot read the key {}", key.display()))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .context("certificate and key do not fit together")
}

/// The process's provider is aws-lc-rs with X25519MLKEM768 first, so that a recording of the
/// control traffic, which carries the pre-shared keys, stays closed to a later quantum computer.
fn resolving(certified: CertifiedKey, challenges: Option<Challenges>) -> TlsAcceptor {
    let mut protocols = vec![b"http/1.1".to_vec()];
    protocols.extend(challenges.as_ref().map(|_| acme::PROTOCOL.to_vec()));
    let resolver = Resolver { certified: Arc::new(certified), challenges };
    let mut config = ServerConfig::builder().with_no_client_auth().with_cert_resolver(Arc::new(resolver));
    config.alpn_protocols = protocols;
    TlsAcceptor::from(Arc::new(config))
}

/// The certificate for everybody, and those for an authority that looks.
#[derive(Debug)]
struct Resolver {
    certified: Arc<CertifiedKey>,
    challenges: Option<Challenges>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let is_challenge = hello.alpn().into_iter().flatten().eq([acme::PROTOCOL]);
        match &self.challenges {
            Some(challenges) if is_challenge => challenges.answer(hello.server_name()?),
            _ => Some(Arc::clone(&self.certified)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let (certificate, key) = (directory.join("server.pem"), directory.join("server.key"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        (certificate, key)
    }

    fn same(one: &TlsAcceptor, other: &TlsAcceptor) -> bool {
        Arc::ptr_eq(one.config(), other.config())
    }

    #[test]
    fn a_new_certificate_is_taken_and_a_damaged_one_is_not() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = write(directory.path(), "one.example");
        let tls = Tls::load(certificate.clone(), key).unwrap();
        let (first, stamps) = (tls.acceptor(), tls.stamps());
        // The certificate of another key, as between two writes of a renewal.
        let other = rcgen::generate_simple_self_signed(vec!["two.example".to_owned()]).unwrap();
        std::fs::write(&certificate, other.cert.pem() + "\n").unwrap();
        assert_ne!(tls.stamps(), stamps);
        tls.reload();
        assert!(same(&tls.acceptor(), &first), "the old one is still served");
        write(directory.path(), "two.example");
        tls.reload();
        assert!(!same(&tls.acceptor(), &first));
    }
}
