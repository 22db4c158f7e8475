//! The certificate for TLS connections: from files that are read again when they change, or made by the relay itself.
//!
//! A certificate of the relay's own making is vouched for by the portal, which hands out its hash; so a relay under a portal needs no
//! certificate authority. It lives as long as the process. One from files is verified by name, and may be replaced at any time:
//! connections that are open keep the old one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use rustls::ServerConfig;
use rustls::server::ParsedCertificate;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use sha2::{Digest as _, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Where a certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// PEM files: the chain, and its key.
    Files { chain: PathBuf, key: PathBuf },
    /// The relay makes one.
    Own,
}

/// A certificate ready for use.
#[derive(Clone, Debug)]
pub(crate) struct Certificate {
    pub(crate) config: Arc<ServerConfig>,
    /// The name that clients verify.
    pub(crate) server_name: String,
    /// SHA-256 in hexadecimal if clients must know the very certificate, because no authority stands behind it.
    pub(crate) sha256: Option<String>,
    /// When it is good no more.
    pub(crate) not_after: SystemTime,
}

/// The contents of both files.
type Pem = (Vec<u8>, Vec<u8>);

/// A certificate and what it was made of.
#[derive(Debug)]
pub(crate) struct Store {
    source: Source,
    name: Option<String>,
    current: Certificate,
    /// Also of files that were no good, so that they are complained about once.
    read: Pem,
}

impl Store {
    /// Loads or makes the certificate; `name` is the name that clients verify, unless the certificate itself tells it.
    ///
    /// # Errors
    ///
    /// When the files cannot be read, do not fit together, or are for another name.
    pub(crate) fn open(source: Source, name: Option<String>) -> anyhow::Result<Self> {
        let (current, read) = match &source {
            Source::Own => (
                own(name.as_deref().context("a certificate needs a name: give --tls-name")?)?,
                Pem::default(),
            ),
            Source::Files { chain, key } => {
                let pem = read(chain, key)?;
                (from_pem(&pem, name.as_deref())?, pem)
            }
        };
        Ok(Self { source, name, current, read })
    }

    /// The certificate in use.
    pub(crate) fn current(&self) -> &Certificate {
        &self.current
    }

    /// Reads the files again; `Some` if there is another certificate now.
    ///
    /// # Errors
    ///
    /// When the new files are no good; the old certificate stays in use.
    pub(crate) fn reload(&mut self) -> anyhow::Result<Option<&Certificate>> {
        let Source::Files { chain, key } = &self.source else { return Ok(None) };
        let pem = read(chain, key)?;
        if pem == self.read {
            return Ok(None);
        }
        let loaded = from_pem(&pem, self.name.as_deref());
        self.read = pem;
        self.current = loaded?;
        Ok(Some(&self.current))
    }
}

impl Certificate {
    /// How long it is still good, in seconds; negative when it is not.
    pub(crate) fn seconds_left(&self, now: SystemTime) -> f64 {
        match self.not_after.duration_since(now) {
            Ok(left) => left.as_secs_f64(),
            Err(over) => -over.duration().as_secs_f64(),
        }
    }
}

fn read(chain: &Path, key: &Path) -> anyhow::Result<Pem> {
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    Ok((read(chain)?, read(key)?))
}

fn from_pem((chain, key): &Pem, name: Option<&str>) -> anyhow::Result<Certificate> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .context("the certificate is not PEM")?;
    let key = PrivateKeyDer::from_pem_slice(key).context("the key is not PEM")?;
    let Some(leaf) = chain.first() else { bail!("the certificate file holds no certificate") };
    let (names, not_after) = describe(leaf)?;
    let server_name = name.map(str::to_owned).or_else(|| names.into_iter().next());
    let server_name = server_name.context("the certificate names no host: give --tls-name")?;
    let parsed = ParsedCertificate::try_from(leaf).context("the certificate is damaged")?;
    let asked =
        ServerName::try_from(server_name.as_str()).with_context(|| format!("{server_name} is no name"))?;
    rustls::client::verify_server_name(&parsed, &asked)
        .with_context(|| format!("the certificate is not valid for {server_name}"))?;
    Ok(Certificate { config: server_config(chain, key)?, server_name, sha256: None, not_after })
}

/// A certificate that nobody else has signed.
fn own(name: &str) -> anyhow::Result<Certificate> {
    ensure!(ServerName::try_from(name).is_ok(), "--tls-name {name} is neither a host name nor an address");
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).context("cannot make a certificate")?;
    let leaf = made.cert.der().clone();
    let (_, not_after) = describe(&leaf)?;
    let sha256 = Sha256::digest(&leaf).iter().map(|byte| format!("{byte:02x}")).collect();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = server_config(vec![leaf], key)?;
    Ok(Certificate { config, server_name: name.to_owned(), sha256: Some(sha256), not_after })
}

fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> anyhow::Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.context("TLS cannot be set up")?.with_no_client_auth().with_single_cert(chain, key);
    let mut config = config.context("certificate and key do not fit together")?;
    // A connection lasts for hours: resuming one saves little, and tickets cost every client.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}

/// The host names and addresses that a certificate is for, and when it ends.
fn describe(certificate: &CertificateDer<'_>) -> anyhow::Result<(Vec<String>, SystemTime)> {
    let (_, certificate) = X509Certificate::from_der(certificate).context("the certificate is damaged")?;
    let names = certificate.subject_alternative_name().context("the certificate is damaged")?;
    let names = names.into_iter().flat_map(|names| &names.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) if !name.starts_with('*') => Some((*name).to_owned()),
        GeneralName::IPAddress(octets) => address(octets),
        _ => None,
    });
    let until = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
    Ok((names.collect(), SystemTime::UNIX_EPOCH + Duration::from_secs(until)))
}

fn address(octets: &[u8]) -> Option<String> {
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Some(std::net::Ipv4Addr::from(octets).to_string());
    }
    <[u8; 16]>::try_from(octets).ok().map(|octets| std::net::Ipv6Addr::from(octets).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, names: &[&str]) -> Source {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("made");
        let (chain, key) = (directory.join("chain.pem"), directory.join("key.pem"));
        std::fs::write(&chain, made.cert.pem()).expect("writes");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("writes");
        Source::Files { chain, key }
    }

    #[test]
    fn files_are_read_again_when_they_change_and_the_old_certificate_survives_bad_ones() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let source = write(directory.path(), &["*.example.com", "relay.example.com", "192.0.2.1"]);
        let mut store = Store::open(source, None).expect("loads");
        assert_eq!(
            (store.current().server_name.as_str(), &store.current().sha256),
            ("relay.example.com", &None)
        );
        assert!(store.reload().expect("unchanged").is_none());
        std::fs::write(directory.path().join("key.pem"), "half a key").expect("writes");
        assert!(store.reload().is_err());
        assert!(store.reload().expect("complained once").is_none());
        assert_eq!(store.current().server_name, "relay.example.com");
        write(directory.path(), &["other.example.com"]);
        assert_eq!(
            store.reload().expect("loads").map(|new| new.server_name.as_str()),
            Some("other.example.com")
        );
        assert!(store.current().seconds_left(SystemTime::now()) > 0.0);
    }

    #[test]
    fn a_certificate_for_another_name_or_key_is_refused() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let source = write(directory.path(), &["relay.example.com"]);
        let open = |name: &str| Store::open(source.clone(), Some(name.to_owned()));
        assert!(open("relay.example.com").is_ok());
        let error = format!("{:#}", open("other.example.com").expect_err("another name"));
        assert!(error.contains("other.example.com"), "{error}");
        let other = tempfile::tempdir().expect("temporary directory");
        write(other.path(), &["relay.example.com"]);
        std::fs::copy(other.path().join("key.pem"), directory.path().join("key.pem")).expect("copies");
        assert!(open("relay.example.com").is_err(), "the key of another certificate");
    }

    #[test]
    fn an_own_certificate_has_a_hash_and_a_name() {
        let store = Store::open(Source::Own, Some("192.0.2.1".to_owned())).expect("made");
        let certificate = store.current();
        assert_eq!(certificate.sha256.as_ref().map(String::len), Some(64));
        assert_eq!(certificate.server_name, "192.0.2.1");
        assert!(Store::open(Source::Own, None).is_err());
        assert!(Store::open(Source::Own, Some("two words".to_owned())).is_err());
    }
}
