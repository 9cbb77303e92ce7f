//! Certificates made for one test.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use forebay::cache::recoded::digest;
use rcgen::PublicKeyData;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;

/// A self-signed certificate, which is its own authority.
pub struct Certificate {
    pem: String,
    key_pem: String,
    der: CertificateDer<'static>,
    key_der: Vec<u8>,
    spki: Vec<u8>,
}

impl Certificate {
    pub fn for_names(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        Self {
            pem: made.cert.pem(),
            key_pem: made.signing_key.serialize_pem(),
            der: made.cert.der().clone(),
            key_der: made.signing_key.serialize_der(),
            spki: made.signing_key.subject_public_key_info(),
        }
    }

    /// SHA-256 of its public key (SubjectPublicKeyInfo), in base64: by that browsers can be told to trust it.
    pub fn pin(&self) -> String {
        STANDARD.encode(digest(&self.spki))
    }

    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Writes `<name>.pem` and `<name>.key` into `directory`. Files of the same name are replaced in one step, as
    /// certificate clients do.
    pub fn write(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let place = |suffix: &str, text: &str| {
            let path = directory.join(format!("{name}.{suffix}"));
            let fresh = directory.join(format!("{name}.{suffix}.new"));
            std::fs::write(&fresh, text).unwrap();
            std::fs::rename(&fresh, &path).unwrap();
            path
        };
        // The key first: who sees the new certificate must find its key.
        let key = place("key", &self.key_pem);
        (place("pem", &self.pem), key)
    }

    /// With `clients`, only clients that show a certificate of this authority are served.
    pub fn server_config(&self, alpn: &[&str], clients: Option<&Certificate>) -> Arc<rustls::ServerConfig> {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_der.clone()));
        let builder = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = rustls::RootCertStore::empty();
                roots.add(authority.der.clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider());
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let mut config = builder.with_single_cert(vec![self.der.clone()], key).unwrap();
        config.alpn_protocols = protocols(alpn);
        Arc::new(config)
    }
}

/// A client that trusts these certificates and no others.
pub fn client_config(
    trusted: &[&Certificate],
    alpn: &[&str],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Arc<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.der.clone()).unwrap();
    }
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols(alpn);
    Arc::new(config)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn protocols(alpn: &[&str]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.as_bytes().to_vec()).collect()
}
