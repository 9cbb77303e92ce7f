//! What TLS towards clients and TLS towards upstreams share: the cryptography, versions and ALPN, and reading PEM files
//! with errors that name the file and the cure.

#[cfg(test)]
pub(crate) mod testing;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::SupportedProtocolVersion;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::TlsVersion;

/// Largest PEM file that is read, bytes. The bundle of all public authorities has a quarter of it.
const MAX_PEM_FILE: u64 = 1024 * 1024;

/// HTTP's names in Application-Layer Protocol Negotiation (RFC 7301 §6, RFC 9113 §3.1), most wanted first.
const H2: &[u8] = b"h2";
const HTTP11: &[u8] = b"http/1.1";

/// The version of HTTP on a TLS connection: the highest that is offered, or the one that was agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    Http1,
    Http2,
}

impl Alpn {
    /// What is offered where this is the highest version wanted: HTTP/1.1 always.
    pub fn offer(self) -> Vec<Vec<u8>> {
        match self {
            Self::Http1 => vec![HTTP11.to_vec()],
            Self::Http2 => vec![H2.to_vec(), HTTP11.to_vec()],
        }
    }

    /// What the other side's choice means. Without one it is HTTP/1.1 (RFC 9113 §3.2: HTTP/2 over TLS needs `h2`).
    pub fn agreed(choice: Option<&[u8]>) -> Self {
        match choice {
            Some(H2) => Self::Http2,
            _ => Self::Http1,
        }
    }
}

/// The cryptography that all TLS here uses; the same that Pingora brings, so that only one is compiled in.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The versions from `min` up.
pub fn versions_from(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_1_2: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
    static FROM_1_3: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];
    match min {
        TlsVersion::Tls12 => &FROM_1_2,
        TlsVersion::Tls13 => &FROM_1_3,
    }
}

/// Why a TLS section of the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsConfigError {
    #[error("{}: {problem}", path.display())]
    File { path: PathBuf, problem: FileProblem },
    #[error("{}: the key does not belong to the first certificate of {} (the server's own certificate must come first)",
        key.display(), cert.display())]
    KeyMismatch { cert: PathBuf, key: PathBuf },
    #[error("\"{0}\" is neither a host name nor an IP address that a certificate could be verified for")]
    ServerName(String),
    #[error(
        "no certificate authorities of the system: {0} (install the package ca-certificates, or name a file in `ca`)"
    )]
    SystemAuthorities(String),
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// What is wrong with a PEM file.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("is larger than {MAX_PEM_FILE} bytes, which no PEM file should be")]
    TooLarge,
    #[error("is not valid PEM: {0}")]
    Pem(&'static str),
    #[error("holds no certificate (expected a section \"BEGIN CERTIFICATE\")")]
    NoCertificate,
    #[error("holds a certificate that cannot be used: {0}")]
    Certificate(String),
    #[error("holds no private key (expected a section \"BEGIN PRIVATE KEY\")")]
    NoKey,
    #[error("holds an encrypted private key (decrypt it: openssl pkey -in encrypted.key -out plain.key)")]
    EncryptedKey,
    #[error(
        "holds a private key that cannot be used: {0} (RSA from 2048 bits, ECDSA P-256 and P-384, and Ed25519 can)"
    )]
    Key(String),
}

impl FileProblem {
    pub fn in_file(self, path: &Path) -> TlsConfigError {
        TlsConfigError::File {
            path: path.to_owned(),
            problem: self,
        }
    }
}

/// Tells a file from what it was before: rewriting it in place changes the times, replacing it changes the inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStamp {
    /// `None` where there is no such file, or none that may be seen.
    pub fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|metadata| Self::from_metadata(&metadata))
    }

    fn from_metadata(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A PEM file's bytes, with the stamp that the file had before they were read: if it changes meanwhile, the stamp is
/// already an old one.
pub fn read_pem_file(path: &Path) -> Result<(Vec<u8>, FileStamp), FileProblem> {
    let file = File::open(path).map_err(FileProblem::Unreadable)?;
    let stamp = FileStamp::from_metadata(&file.metadata().map_err(FileProblem::Unreadable)?);
    let mut bytes = Vec::new();
    file.take(MAX_PEM_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(FileProblem::Unreadable)?;
    if bytes.len() as u64 > MAX_PEM_FILE {
        return Err(FileProblem::TooLarge);
    }
    Ok((bytes, stamp))
}

/// All certificates of a PEM file, in order; at least one. Other sections are skipped.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, FileProblem> {
    let mut certificates = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        certificates.push(certificate.map_err(|error| FileProblem::Pem(pem_problem(&error)))?);
    }
    match certificates.is_empty() {
        true => Err(FileProblem::NoCertificate),
        false => Ok(certificates),
    }
}

/// The first private key of a PEM file: PKCS #8, PKCS #1 or SEC 1. Other sections are skipped.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, FileProblem> {
    // RFC 7468 §11 names the section so; the older form has a field inside the section (RFC 1421 §4.6.1.1).
    for mark in ["-----BEGIN ENCRYPTED PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED"] {
        if pem.windows(mark.len()).any(|window| window == mark.as_bytes()) {
            return Err(FileProblem::EncryptedKey);
        }
    }
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => Err(FileProblem::NoKey),
        Err(error) => Err(FileProblem::Pem(pem_problem(&error))),
    }
}

/// Says what is wrong without quoting the file, which may be a key.
fn pem_problem(error: &pem::Error) -> &'static str {
    match error {
        pem::Error::MissingSectionEnd { .. } => "it ends inside a section",
        pem::Error::IllegalSectionStart { .. } => "a \"-----BEGIN\" line is malformed",
        pem::Error::Base64Decode(_) => "a section is not base64",
        _ => "it cannot be understood",
    }
}
