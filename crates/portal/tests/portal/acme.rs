//! A certificate from an authority: Pebble, the test server of Let's Encrypt's makers, which looks at the portal as the real
//! one would.

use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_portal::acme;
use adit_portal::serve::{self, Security};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use serde_json::json;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::world::{World, options};

const NAMES: [&str; 2] = ["portal.example.com", "portal2.example.com"];

/// Longer than an order should take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The authority, and the DNS that it asks: every name leads here.
struct Authority {
    programs: Vec<Child>,
    directory: tempfile::TempDir,
    address: SocketAddr,
}

impl Drop for Authority {
    fn drop(&mut self) {
        for program in &mut self.programs {
            let _ = program.kill();
            let _ = program.wait();
        }
    }
}

impl Authority {
    /// Starts it; it will look for portals at `port`.
    fn start(port: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [address, management] = [free_port(), free_port()];
        let dns = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        write_certificate(directory.path());
        let config = json!({ "pebble": {
            "listenAddress": address.to_string(),
            "managementListenAddress": management.to_string(),
            "certificate": directory.path().join("site.pem"),
            "privateKey": directory.path().join("site.key"),
            "httpPort": 9,
            "tlsPort": port,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": false,
        }});
        let file = directory.path().join("pebble.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let mut names = Command::new("pebble-challtestsrv");
        names.args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", ""]);
        names.args(["-tlsalpn01", "", "-management", &free_port().to_string()]);
        names.args(["-dns01", &dns.to_string()]);
        let mut pebble = Command::new("pebble");
        pebble.args(["-dnsserver", &dns.to_string(), "-config"]).arg(&file);
        // What a server does on a bad day: it refuses good nonces now and then, and takes its time.
        pebble.env("PEBBLE_WFE_NONCEREJECT", "5").env("PEBBLE_VA_SLEEPTIME", "1");
        let start = |program: &mut Command| {
            program.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap_or_else(|error| {
                panic!("{program:?}: {error}; `cargo xtask packages --install` installs it")
            })
        };
        let programs = vec![start(&mut names), start(&mut pebble)];
        let begin = Instant::now();
        while std::net::TcpStream::connect(address).is_err() {
            assert!(begin.elapsed() < PATIENCE, "pebble does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { programs, directory, address }
    }

    fn options(&self, names: &[&str]) -> acme::Options {
        acme::Options {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            contact: Some("admin@example.com".to_owned()),
            directory: format!("https://localhost:{}/dir", self.address.port()).parse().unwrap(),
            authority_ca: Some(self.directory.path().join("ca.pem")),
        }
    }
}

fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The authority's own site needs a certificate too.
fn write_certificate(directory: &Path) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap();
    let site_key = KeyPair::generate().unwrap();
    let site = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let site = site.signed_by(&site_key, &Issuer::new(params, key)).unwrap();
    std::fs::write(directory.join("ca.pem"), ca.pem()).unwrap();
    std::fs::write(directory.join("site.pem"), site.pem()).unwrap();
    std::fs::write(directory.join("site.key"), site_key.serialize_pem()).unwrap();
}

/// Believes everything: the tests look at what is presented.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// The certificate that somebody gets who offers `protocol`.
async fn presented(address: SocketAddr, protocol: &[u8]) -> Result<Vec<u8>, std::io::Error> {
    let mut config = rustls::ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(NAMES[0]).unwrap();
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    Ok(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec())
}

async fn wait_for_another(address: SocketAddr, before: &[u8]) -> Vec<u8> {
    let begin = Instant::now();
    loop {
        let now = presented(address, b"http/1.1").await.unwrap();
        if now != before {
            return now;
        }
        assert!(begin.elapsed() < PATIENCE, "no other certificate came");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_comes_from_an_authority_and_is_kept() {
    let mut world = World::new().await;
    world.stop().await;
    let port = free_port();
    let authority = Authority::start(port.port());
    let with = |names| serve::Options {
        listen: vec![port],
        security: Security::Acme(authority.options(names)),
        ..options(&world.directory, &world.backend)
    };
    let running = serve::start(&with(&NAMES[..1]), None).await.unwrap();
    let made_by_bootstrap = presented(port, b"http/1.1").await.unwrap();
    let first = wait_for_another(port, &made_by_bootstrap).await;
    let (_, certificate) = x509_parser::parse_x509_certificate(&first).unwrap();
    assert!(certificate.issuer().to_string().contains("Pebble"), "{}", certificate.issuer());
    // Outside of an order nobody is answered who asks as an authority does.
    assert!(presented(port, b"acme-tls/1").await.is_err());
    running.stop().await;

    // A restart asks nobody; another name asks for a certificate of both, from the same account.
    let account = world.directory.path().join("data/tls/acme-account.json");
    let known = std::fs::read(&account).unwrap();
    let running = serve::start(&with(&NAMES[..1]), None).await.unwrap();
    assert_eq!(presented(port, b"http/1.1").await.unwrap(), first);
    running.stop().await;
    let running = serve::start(&with(&NAMES), None).await.unwrap();
    let both = wait_for_another(port, &first).await;
    let (_, certificate) = x509_parser::parse_x509_certificate(&both).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap().value.general_names.len();
    assert_eq!((names, std::fs::read(&account).unwrap() == known), (2, true));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_authority_the_certificate_of_bootstrap_is_served() {
    let mut world = World::new().await;
    world.stop().await;
    // A port where nobody looks: the authority cannot reach the portal, and says so.
    let authority = Authority::start(9);
    let port = free_port();
    let with = serve::Options {
        listen: vec![port],
        security: Security::Acme(authority.options(&NAMES[..1])),
        ..options(&world.directory, &world.backend)
    };
    std::fs::write(world.directory.path().join("data/tls/acme.pem"), "damaged").unwrap();
    let running = serve::start(&with, None).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let pem = std::fs::read(world.directory.path().join("data/tls/server.pem")).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
    assert_eq!(presented(port, b"http/1.1").await.unwrap(), pem.contents);
    running.stop().await;
}
