//! TLS towards the portal: aws-lc-rs, the hybrid key exchange first, a private CA if given.
//!
//! A CA is given as its certificate, or as `sha256:` and the SHA-256 of that in hexadecimal digits,
//! short enough to be copied by hand: then the server sends the CA's certificate along, and it must be
//! this one. Either way name, time and signatures are verified as always.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// Before the digest of a CA's certificate.
const DIGEST: &str = "sha256:";

/// Why the given CA cannot be used. The caller's fault.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// Not PEM.
    #[error("the CA file is not PEM: {0}")]
    Pem(rustls_pki_types::pem::Error),
    /// Not 64 hexadecimal digits.
    #[error("after sha256: 64 hexadecimal digits are expected")]
    Digest,
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

/// Reads what a setting says of the CA: a digest is itself, everything else a file.
///
/// # Errors
///
/// When the file cannot be read; the error names it.
pub fn read_authority(setting: &Path) -> io::Result<Vec<u8>> {
    match setting.to_str().filter(|text| text.starts_with(DIGEST)) {
        Some(digest) => Ok(digest.as_bytes().to_vec()),
        None => std::fs::read(setting).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot read {}: {error}", setting.display()))
        }),
    }
}

/// The configuration for a server whose certificate `ca` (PEM, or a digest) signed, or a public CA without one.
///
/// # Errors
///
/// When `ca` is none.
pub fn client_config(ca: Option<&[u8]>) -> Result<Arc<ClientConfig>, RootsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = match ca.and_then(|ca| std::str::from_utf8(ca).ok()?.trim().strip_prefix(DIGEST)) {
        Some(digits) => {
            let digest = read_digest(digits).ok_or(RootsError::Digest)?;
            let verifying = Arc::clone(&provider);
            checked_config(provider, move |server| verify_below(&digest, &verifying, server))
        }
        None => {
            let roots = roots(ca)?;
            ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .map(|builder| builder.with_root_certificates(roots).with_no_client_auth())
        }
    };
    config.map(Arc::new).map_err(RootsError::Tls)
}

/// Colons between the digits, as some programs show them, are left out.
fn read_digest(digits: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = digits.bytes().filter(|digit| *digit != b':').collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let is_digest = digits.len() == 64 && digits.iter().all(u8::is_ascii_hexdigit);
    let bytes: Option<Vec<u8>> = digits.chunks(2).map(byte).collect();
    bytes.filter(|_| is_digest)?.try_into().ok()
}

/// Verifies a server whose CA is the one whose certificate has this digest.
fn verify_below(
    digest: &[u8; 32],
    provider: &Arc<CryptoProvider>,
    server: &Presented<'_>,
) -> Result<(), rustls::Error> {
    let is_ca = |sent: &&CertificateDer<'_>| digest::digest(&digest::SHA256, sent).as_ref() == digest;
    let authority = server.intermediates.iter().find(is_ca).ok_or(CertificateError::UnknownIssuer)?;
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone().into_owned())?;
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?
        .verify_server_cert(server.end_entity, server.intermediates, server.name, &[], server.now)
        .map(drop)
}

/// What a server presents, and when.
#[derive(Debug, Clone, Copy)]
pub struct Presented<'a> {
    /// Its own certificate.
    pub end_entity: &'a CertificateDer<'a>,
    /// The certificates that it sends along.
    pub intermediates: &'a [CertificateDer<'a>],
    /// Whom we asked for.
    pub name: &'a ServerName<'a>,
    /// The time.
    pub now: UnixTime,
}

/// The configuration for servers whose certificates pass `check`; that they have the keys is verified as always.
///
/// # Errors
///
/// When the cryptography library refuses.
pub fn checked_config<C>(provider: Arc<CryptoProvider>, check: C) -> Result<ClientConfig, rustls::Error>
where
    C: Fn(&Presented<'_>) -> Result<(), rustls::Error> + Send + Sync + 'static,
{
    let verifier = Checked { check, provider: Arc::clone(&provider) };
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

struct Checked<C> {
    check: C,
    provider: Arc<CryptoProvider>,
}

impl<C> fmt::Debug for Checked<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checked").finish_non_exhaustive()
    }
}

impl<C> ServerCertVerifier for Checked<C>
where
    C: Fn(&Presented<'_>) -> Result<(), rustls::Error> + Send + Sync,
{
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        (self.check)(&Presented { end_entity, intermediates, name, now })?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
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

    fn signed(name: &str) -> (CertificateDer<'static>, CertificateDer<'static>) {
        use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let ca = params.self_signed(&key).unwrap();
        let site = CertificateParams::new([name.to_owned()]).unwrap();
        let site = site.signed_by(&KeyPair::generate().unwrap(), &Issuer::new(params, key)).unwrap();
        (site.der().clone(), ca.der().clone())
    }

    #[test]
    fn a_digest_stands_for_one_authority_only() {
        let (site, ca) = signed("portal.example");
        let (forged, other) = signed("portal.example");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let digest: [u8; 32] = digest::digest(&digest::SHA256, &ca).as_ref().try_into().unwrap();
        let verify =
            |site: &CertificateDer<'static>, sent: &[CertificateDer<'static>], name: &'static str| {
                let name = ServerName::try_from(name).unwrap();
                let server =
                    Presented { end_entity: site, intermediates: sent, name: &name, now: UnixTime::now() };
                verify_below(&digest, &provider, &server).is_ok()
            };
        assert!(verify(&site, std::slice::from_ref(&ca), "portal.example"));
        assert!(verify(&site, &[other.clone(), ca.clone()], "portal.example"));
        assert!(!verify(&site, std::slice::from_ref(&ca), "other.example"), "the name counts");
        assert!(!verify(&site, &[], "portal.example"), "the CA must be sent along");
        assert!(!verify(&forged, std::slice::from_ref(&other), "portal.example"), "another CA");
        assert!(!verify(&forged, &[other, ca], "portal.example"), "the CA is there and signed nothing");
    }

    #[test]
    fn a_digest_has_sixty_four_digits() {
        let digits = "0a".repeat(32);
        assert!(client_config(Some(format!("sha256:{digits}\n").as_bytes())).is_ok());
        assert_eq!(read_digest(&["0A"; 32].join(":")), Some([10; 32]));
        for wrong in ["", "0a", &digits[1..], &format!("{digits}0a"), &format!("+a{}", &digits[2..])] {
            assert!(matches!(
                client_config(Some(format!("sha256:{wrong}").as_bytes())),
                Err(RootsError::Digest)
            ));
        }
        assert_eq!(read_authority(Path::new("sha256:0a")).unwrap(), b"sha256:0a");
    }
}
