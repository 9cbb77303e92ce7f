//! The certificates of one listener: chosen by the name that a client asks for, read anew when their files change.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, SignatureScheme};
use webpki::EndEntityCert;

use super::Reload;
use crate::config;
use crate::tls::{FileProblem, FileStamp, TlsConfigError, certificates, private_key, provider, read_pem_file};

/// All certificates of a listener.
#[derive(Debug)]
pub struct Certificates {
    /// What handshakes read, without a lock.
    names: ArcSwap<Names>,
    /// What a reload compares and replaces.
    pairs: Mutex<Vec<Pair>>,
}

/// A certificate with its key, and the files they came from.
#[derive(Debug)]
struct Pair {
    files: config::Certificate,
    /// Of the last attempt to read them, whether it succeeded or not.
    stamps: Stamps,
    usable: Usable,
}

#[derive(Debug, Clone)]
struct Usable {
    key: Arc<CertifiedKey>,
    /// Lower case; wildcards begin with `*.`.
    names: Vec<String>,
}

/// `None` is a file that was not there.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stamps {
    cert: Option<FileStamp>,
    key: Option<FileStamp>,
}

impl Stamps {
    fn of(files: &config::Certificate) -> Self {
        Self {
            cert: FileStamp::of(&files.cert),
            key: FileStamp::of(&files.key),
        }
    }
}

impl Certificates {
    /// Reads every pair; the error tells of all that are not usable.
    pub fn load(files: &[config::Certificate]) -> Result<Self, Vec<TlsConfigError>> {
        let mut pairs = Vec::new();
        let mut errors = Vec::new();
        for files in files {
            match load(files) {
                (stamps, Ok(usable)) => pairs.push(Pair {
                    files: files.clone(),
                    stamps,
                    usable,
                }),
                (_, Err(error)) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self {
            names: ArcSwap::from_pointee(Names::of(&pairs)),
            pairs: Mutex::new(pairs),
        })
    }

    /// Reads the pairs whose files changed since they were read last.
    pub fn reload_if_changed(&self) -> Reload {
        let mut reload = Reload::default();
        let mut pairs = self.pairs.lock().unwrap_or_else(PoisonError::into_inner);
        for pair in pairs.iter_mut() {
            if Stamps::of(&pair.files) == pair.stamps {
                continue;
            }
            let (stamps, usable) = load(&pair.files);
            pair.stamps = stamps;
            match usable {
                Ok(usable) => {
                    pair.usable = usable;
                    reload.taken_up.push(pair.files.cert.clone());
                }
                Err(error) => reload.errors.push(error),
            }
        }
        if !reload.taken_up.is_empty() {
            self.names.store(Arc::new(Names::of(&pairs)));
        }
        reload
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.names.load().select(hello.server_name(), hello.signature_schemes())
    }
}

/// Which certificate serves which name.
#[derive(Debug)]
struct Names {
    exact: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// By what follows the `*.`.
    wildcard: HashMap<String, Vec<Arc<CertifiedKey>>>,
    /// The first in the configuration. `None` where there is none at all.
    first: Option<Arc<CertifiedKey>>,
}

impl Names {
    fn of(pairs: &[Pair]) -> Self {
        let mut names = Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            first: pairs.first().map(|pair| Arc::clone(&pair.usable.key)),
        };
        for usable in pairs.iter().map(|pair| &pair.usable) {
            for name in &usable.names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut names.wildcard, parent),
                    None => (&mut names.exact, name.as_str()),
                };
                map.entry(name.to_owned()).or_default().push(Arc::clone(&usable.key));
            }
        }
        names
    }

    /// Exact names before wildcards, and wildcards for one label only (RFC 9525 §6.3); the first certificate if nothing
    /// matches. Where several have the name, the first whose kind of key the client can verify.
    fn select(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let name = lower_case(name.unwrap_or_default());
        // A name in SNI has no trailing dot (RFC 6066 §3), but some clients send it.
        let name = name.strip_suffix('.').unwrap_or(&name);
        let named = match self.exact.get(name) {
            Some(named) => Some(named),
            None => name.split_once('.').and_then(|(_, parent)| self.wildcard.get(parent)),
        };
        let Some(named) = named else {
            return self.first.clone();
        };
        let verifiable = named
            .iter()
            .find(|certified| certified.key.choose_scheme(schemes).is_some());
        verifiable.or(named.first()).cloned()
    }
}

fn lower_case(name: &str) -> Cow<'_, str> {
    match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    }
}

/// Reads a pair, with the stamps that its files had before.
fn load(files: &config::Certificate) -> (Stamps, Result<Usable, TlsConfigError>) {
    let mut stamps = Stamps::default();
    let usable = load_stamped(files, &mut stamps);
    (stamps, usable)
}

fn load_stamped(files: &config::Certificate, stamps: &mut Stamps) -> Result<Usable, TlsConfigError> {
    // Both are looked at before the first is read, so that the stamps are complete even if it is not usable.
    *stamps = Stamps::of(files);
    let cert_pem = read(&files.cert, &mut stamps.cert)?;
    let key_pem = read(&files.key, &mut stamps.key)?;
    let chain = certificates(&cert_pem).map_err(|problem| problem.in_file(&files.cert))?;
    let names = names(&chain).map_err(|problem| problem.in_file(&files.cert))?;
    let key = private_key(&key_pem).map_err(|problem| problem.in_file(&files.key))?;
    match CertifiedKey::from_der(chain, key, &provider()) {
        Ok(certified) => Ok(Usable {
            key: Arc::new(certified),
            names,
        }),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err(TlsConfigError::KeyMismatch {
            cert: files.cert.clone(),
            key: files.key.clone(),
        }),
        Err(Error::General(reason)) => Err(FileProblem::Key(reason).in_file(&files.key)),
        Err(error) => Err(FileProblem::Key(error.to_string()).in_file(&files.key)),
    }
}

fn read(path: &Path, stamp: &mut Option<FileStamp>) -> Result<Vec<u8>, TlsConfigError> {
    let (pem, read_stamp) = read_pem_file(path).map_err(|problem| problem.in_file(path))?;
    *stamp = Some(read_stamp);
    Ok(pem)
}

/// The DNS names that the server's own certificate, the first of the chain, is for (RFC 5280 §4.2.1.6). A common name is
/// none (RFC 9110 §4.3.4); without any name the certificate can still be the first.
fn names(chain: &[CertificateDer<'_>]) -> Result<Vec<String>, FileProblem> {
    let Some(own) = chain.first() else {
        return Err(FileProblem::NoCertificate);
    };
    match EndEntityCert::try_from(own) {
        Ok(own) => Ok(own.valid_dns_names().map(str::to_ascii_lowercase).collect()),
        Err(error) => {
            let reason = format!("it is not a well-formed X.509 certificate of version 3 ({error})");
            Err(FileProblem::Certificate(reason))
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};

    use super::*;
    use crate::tls::testing::Files;

    #[test]
    fn of_two_certificates_for_a_name_the_client_gets_one_it_can_verify() {
        let files = Files::new();
        let pair = |name: &str, algorithm| {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let cert = CertificateParams::new(vec!["a.example".to_owned()])
                .unwrap()
                .self_signed(&key)
                .unwrap();
            config::Certificate {
                cert: files.write(&format!("{name}.pem"), &cert.pem()),
                key: files.write(&format!("{name}.key"), &key.serialize_pem()),
            }
        };
        let pairs = [pair("ed25519", &PKCS_ED25519), pair("p256", &PKCS_ECDSA_P256_SHA256)];
        let certificates = Certificates::load(&pairs).unwrap();
        let keys: Vec<_> = certificates
            .pairs
            .lock()
            .unwrap()
            .iter()
            .map(|pair| pair.usable.key.clone())
            .collect();
        let (ed25519, p256) = (SignatureScheme::ED25519, SignatureScheme::ECDSA_NISTP256_SHA256);
        let cases = [
            (vec![p256], 1),
            (vec![ed25519], 0),
            (vec![p256, ed25519], 0),
            (vec![SignatureScheme::RSA_PSS_SHA256], 0),
        ];
        for (schemes, expected) in cases {
            for name in ["a.example", "A.EXAMPLE", "a.example."] {
                let chosen = certificates.names.load().select(Some(name), &schemes).unwrap();
                assert!(Arc::ptr_eq(&chosen, &keys[expected]), "{name} {schemes:?}");
            }
        }
    }
}
