//! The flags of `serve` for a certificate from an ACME authority.

use std::path::PathBuf;

use clap::Args;
use url::Url;

use crate::acme;

#[derive(Debug, Args)]
pub(super) struct Acme {
    /// Get the certificate for this name from an ACME authority, and renew it (repeatable). The
    /// authority connects to port 443 of the name; its terms of service are agreed to
    #[arg(
        long = "acme",
        env = "ADIT_PORTAL_ACME",
        value_delimiter = ',',
        value_name = "NAME",
        value_parser = host_name,
        conflicts_with_all = ["tls_cert", "tls_key", "insecure_plain"]
    )]
    pub(super) names: Vec<String>,
    /// Where the authority may write to before a certificate ends
    #[arg(long, env = "ADIT_PORTAL_ACME_CONTACT", value_name = "EMAIL", requires = "names")]
    acme_contact: Option<String>,
    /// The authority
    #[arg(
        long,
        env = "ADIT_PORTAL_ACME_DIRECTORY",
        value_name = "URL",
        default_value = acme::LETS_ENCRYPT
    )]
    acme_directory: Url,
    /// CA certificate (PEM) of the authority's own site, if no public CA signed it
    #[arg(long, env = "ADIT_PORTAL_ACME_CA", value_name = "FILE", requires = "names")]
    acme_ca: Option<PathBuf>,
}

impl Acme {
    pub(super) fn options(self) -> acme::Options {
        acme::Options {
            names: self.names,
            contact: self.acme_contact,
            directory: self.acme_directory,
            authority_ca: self.acme_ca,
        }
    }
}

/// Authorities give certificates for names in the DNS, and this challenge none for wildcards.
fn host_name(text: &str) -> Result<String, String> {
    match url::Host::parse(text) {
        Ok(url::Host::Domain(name)) if name.contains('.') && !name.contains('*') => Ok(name),
        _ => Err("a name in the DNS is expected, such as portal.example.com".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_in_the_dns_are_asked_for() {
        assert_eq!(host_name("Portal.Example.com").as_deref(), Ok("portal.example.com"));
        for none in ["192.0.2.1", "[2001:db8::1]", "*.example.com", "localhost", "a b.example", ""] {
            assert!(host_name(none).is_err(), "{none}");
        }
    }
}
