//! Certificates from an ACME authority (RFC 8555), got and renewed by the portal itself.
//!
//! The authority proves that the portal is what its name leads to by connecting to port 443
//! (TLS-ALPN-01, RFC 8737): no other port and no other program is needed. Chain and key are one
//! file, `tls/acme.pem`, written whole or not at all, and served from then on; until there is one
//! (and when it is damaged), the certificate that bootstrap made is. A renewal begins when a
//! third of the lifetime is left; what fails is tried again, ever more seldom.
//!
//! Deliberately absent: several nodes behind one name. The authority may ask any of them, and only
//! the one that ordered can answer: there, a proxy or certbot with a DNS challenge gives the files.

mod challenge;
mod http;
mod order;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use url::Url;
use x509_parser::extensions::GeneralName;

pub(crate) use challenge::{Challenges, PROTOCOL};

use crate::clock;
use crate::data_dir::DataDir;
use crate::server::Tls;

/// The file with chain and key, below `tls`.
pub(crate) const FILE: &str = "acme.pem";

/// The production directory of Let's Encrypt.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// An order takes no longer.
const ORDER_TIME: Duration = Duration::from_secs(5 * 60);

/// The first pause after a failure; each further one is twice as long, up to [`LONGEST_PAUSE`].
/// Authorities count failures by the hour.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 60 * 60);

/// How often the certificate is looked at: clocks are set, machines sleep.
const LOOK_INTERVAL: Duration = Duration::from_secs(60 * 60);

/// Which certificate to ask for, and whom.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names under which peers and browsers reach the portal.
    pub names: Vec<String>,
    /// Where the authority may write to (`mailto:` is put in front).
    pub contact: Option<String>,
    /// The authority.
    pub directory: Url,
    /// The CA certificate (PEM) of the authority's own site, if no public CA signed it.
    pub authority_ca: Option<PathBuf>,
}

/// Keeps a certificate, until the task is aborted.
pub(crate) async fn run(options: Options, directory: DataDir, tls: Tls) {
    let mut failures = 0;
    loop {
        let left = read(&directory.tls(FILE), &options.names).map(|validity| validity.left(clock::now_ms()));
        let pause = match left {
            Ok(left) if !left.is_zero() => left.min(LOOK_INTERVAL),
            _ => match renew(&options, &directory, &tls).await {
                Ok(()) => {
                    failures = 0;
                    continue;
                }
                Err(error) => {
                    let pause = pause(failures);
                    failures += 1;
                    metrics::counter!("adit_portal_certificate_renewal_failures_total").increment(1);
                    let error = format!("{error:#}");
                    tracing::error!(error, again_in_s = pause.as_secs(), "no certificate from the authority");
                    pause
                }
            },
        };
        tokio::time::sleep(pause).await;
    }
}

async fn renew(options: &Options, directory: &DataDir, tls: &Tls) -> Result<()> {
    let order = order::obtain(options, directory, tls.challenges());
    let pem = match tokio::time::timeout(ORDER_TIME, order).await {
        Ok(pem) => pem?,
        Err(_) => bail!("the authority did not decide within {} s", ORDER_TIME.as_secs()),
    };
    let path = directory.tls(FILE);
    crate::data_dir::replace_private(&path, pem.as_bytes())?;
    // An authority that gives what cannot be used must not be asked again and again at once.
    read(&path, &options.names).context("the authority gave a certificate that cannot be used")?;
    tls.reload();
    Ok(())
}

fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(failures.min(16))).min(LONGEST_PAUSE)
}

/// The lifetime of a certificate, in Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Validity {
    from_s: i64,
    until_s: i64,
}

impl Validity {
    /// How long it need not be renewed.
    fn left(self, now_ms: i64) -> Duration {
        let third_s = self.until_s.saturating_sub(self.from_s) / 3;
        let renew_ms = self.until_s.saturating_sub(third_s).saturating_mul(1000);
        Duration::from_millis(u64::try_from(renew_ms.saturating_sub(now_ms)).unwrap_or(0))
    }
}

/// The lifetime of a certificate that is for all of `names`.
fn read(path: &Path, names: &[String]) -> Result<Validity> {
    let der = CertificateDer::from_pem_file(path)
        .with_context(|| format!("cannot read the certificate {}", path.display()))?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der)
        .with_context(|| format!("{} is damaged", path.display()))?;
    let alternatives = certificate.subject_alternative_name()?.context("the certificate names nobody")?;
    let covers = |name: &String| {
        alternatives
            .value
            .general_names
            .iter()
            .any(|known| matches!(known, GeneralName::DNSName(known) if known.eq_ignore_ascii_case(name)))
    };
    if let Some(missing) = names.iter().find(|name| !covers(name)) {
        bail!("the certificate is not for {missing}");
    }
    let validity = certificate.validity();
    Ok(Validity { from_s: validity.not_before.timestamp(), until_s: validity.not_after.timestamp() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_before_the_end_it_is_time() {
        let validity = Validity { from_s: 0, until_s: 90 };
        assert_eq!(validity.left(0), Duration::from_secs(60));
        assert_eq!(validity.left(59_999), Duration::from_millis(1));
        assert!(validity.left(60_000).is_zero() && validity.left(i64::MAX).is_zero());
    }

    #[test]
    fn failures_are_repeated_ever_more_seldom() {
        assert_eq!([0, 1, 2].map(|failures| pause(failures).as_secs()), [60, 120, 240]);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
    }

    #[test]
    fn a_certificate_of_another_name_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("acme.pem");
        let made = rcgen::generate_simple_self_signed(vec!["one.example".to_owned()]).unwrap();
        std::fs::write(&path, made.cert.pem()).unwrap();
        assert!(read(&path, &["ONE.example".to_owned()]).is_ok());
        let names = ["one.example".to_owned(), "two.example".to_owned()];
        let error = read(&path, &names).unwrap_err();
        assert_eq!(error.to_string(), "the certificate is not for two.example");
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
        assert!(read(&path, &[]).is_err());
    }
}
