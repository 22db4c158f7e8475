//! The portal's own certificate authority, for installations that have no other.
//!
//! Bootstrap makes a CA and one server certificate below it, so that peers pin the CA and the
//! server certificate can be replaced without touching them.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};

use crate::data_dir::{DataDir, write_private};

/// Makes the CA and a server certificate for `names` (host names and addresses).
pub(crate) fn create(directory: &DataDir, names: &[String]) -> Result<()> {
    let ca_key = KeyPair::generate().context("cannot make the key of the CA")?;
    let ca_params = ca_params();
    let ca = ca_params.self_signed(&ca_key).context("cannot make the CA's certificate")?;
    let issuer = Issuer::new(ca_params, ca_key);
    let server_key = KeyPair::generate().context("cannot make the server's key")?;
    let server = server_params(names)?
        .signed_by(&server_key, &issuer)
        .context("cannot make the server's certificate")?;
    write_private(&directory.tls("ca.key"), issuer.key().serialize_pem().as_bytes())?;
    write_private(&directory.tls("ca.pem"), ca.pem().as_bytes())?;
    write_private(&directory.tls("server.key"), server_key.serialize_pem().as_bytes())?;
    // The CA goes along, for peers that know it by its digest.
    write_private(&directory.tls("server.pem"), (server.pem() + &ca.pem()).as_bytes())
}

/// What peers and browsers may be told instead of the CA's certificate: `sha256:` and its digest.
pub(crate) fn authority_digest(directory: &DataDir) -> Option<String> {
    let der = CertificateDer::from_pem_file(directory.tls("ca.pem")).ok()?;
    let digits: String = Sha256::digest(&der).iter().map(|byte| format!("{byte:02x}")).collect();
    Some(format!("sha256:{digits}"))
}

/// Takes over a certificate that was made elsewhere, once it is known to be usable.
pub(crate) fn copy(directory: &DataDir, chain: &Path, key: &Path) -> Result<()> {
    crate::server::acceptor(chain, key)?;
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    write_private(&directory.tls("server.key"), &read(key)?)?;
    write_private(&directory.tls("server.pem"), &read(chain)?)
}

fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "Adit portal CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, 10);
    params
}

fn server_params(names: &[String]) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    for name in names {
        params.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(
                name.as_str().try_into().with_context(|| format!("`{name}` is no host name"))?,
            ),
        });
    }
    params.distinguished_name.push(DnType::CommonName, "Adit portal");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    set_validity(&mut params, 5);
    Ok(params)
}

/// From yesterday, for peers whose clocks are late, for `years`.
fn set_validity(params: &mut CertificateParams, years: i32) {
    let today = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC);
    let date = |offset_days: i64, years: i32| {
        let day = today.checked_add(jiff::Span::new().days(offset_days)).unwrap_or_else(|_| today.clone());
        // The 29th of February has no anniversary; every month has a 28th.
        let (month, day_of_month) = (day.month().unsigned_abs(), day.day().clamp(1, 28).unsigned_abs());
        rcgen::date_time_ymd(i32::from(day.year()) + years, month, day_of_month)
    };
    params.not_before = date(-1, 0);
    params.not_after = date(0, years);
}
