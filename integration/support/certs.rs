//! Certificates for tests: those of an authority, a server and a client, as PEM files in their own directory.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// A set of PEM files; dropping the last clone deletes them.
#[derive(Debug, Clone)]
pub(crate) struct Certs(Arc<tempfile::TempDir>);

impl Certs {
    /// A new authority that signed a certificate for a server on the loopback address and one for a client.
    pub(crate) fn generate() -> Certs {
        let certs = Certs(Arc::new(tempfile::Builder::new().prefix("enlist-certs-").tempdir().unwrap()));
        certs.renew();
        certs
    }

    /// Creates all certificates again, in the same files.
    pub(crate) fn renew(&self) {
        self.write(false);
    }

    /// All of them anew, and the server's has expired.
    pub(crate) fn expire(&self) {
        self.write(true);
    }

    fn write(&self, server_expired: bool) {
        let key = KeyPair::generate().unwrap();
        let mut params = params("enlist test authority", &["127.0.0.1", "localhost"]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(self.ca(), certificate.pem()).unwrap();
        std::fs::write(self.path("ca.key"), key.serialize_pem()).unwrap();
        let issuer = Issuer::new(params, key);
        for name in ["server", "client"] {
            let key = KeyPair::generate().unwrap();
            let mut params = self::params(name, &["127.0.0.1", "localhost"]);
            if server_expired && name == "server" {
                params.not_after = rcgen::date_time_ymd(2020, 1, 1);
            }
            let certificate: Certificate = params.signed_by(&key, &issuer).unwrap();
            std::fs::write(self.path(&format!("{name}.pem")), certificate.pem()).unwrap();
            std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
        }
    }

    /// Like [`Certs::generate`], but the server presents the certificate of the authority, as many guides do.
    pub(crate) fn self_signed() -> Certs {
        let certs = Certs::generate();
        std::fs::copy(certs.ca(), certs.server_cert()).unwrap();
        std::fs::copy(certs.path("ca.key"), certs.server_key()).unwrap();
        certs
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The authority.
    pub(crate) fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// The server's certificate.
    pub(crate) fn server_cert(&self) -> PathBuf {
        self.path("server.pem")
    }

    /// The key of the server.
    pub(crate) fn server_key(&self) -> PathBuf {
        self.path("server.key")
    }

    /// The client's certificate.
    pub(crate) fn client_cert(&self) -> PathBuf {
        self.path("client.pem")
    }

    /// The key of the client.
    pub(crate) fn client_key(&self) -> PathBuf {
        self.path("client.key")
    }
}

fn params(name: &str, hosts: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::new(hosts.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
