//! The authority: made once, issues certificates to hosts (X.509 after RFC 5280; ECDSA over P-256).

use super::files::{self, Readers};
use super::{AUTHORITY, AUTHORITY_KEY, CERTIFICATE, HOST_NAME, KEY, PkiError};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Clocks of hosts differ: certificates hold from a while ago.
const SKEW: Duration = DAY;
/// Days for which an authority holds.
const AUTHORITY_DAYS: u32 = 20 * 365;
/// Days for which a host's certificate holds.
const HOST_DAYS: u32 = 10 * 365;

/// An authority that was made.
#[derive(Debug, Serialize)]
pub struct MadeAuthority {
    /// Its directory.
    pub directory: PathBuf,
    /// Its certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// SHA-256 of its certificate, hexadecimal.
    pub sha256: String,
}

/// A host's certificate that was issued.
#[derive(Debug, Serialize)]
pub struct Issued {
    /// The host.
    pub name: String,
    /// The directory to bring to the host, for `quasar host --pki`.
    pub directory: PathBuf,
    /// The authority's certificate.
    pub authority: PathBuf,
    /// The host's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// SHA-256 of the host's certificate, hexadecimal.
    pub sha256: String,
}

fn fingerprint(der: &[u8]) -> String {
    Sha256::digest(der).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn holds_for(params: &mut CertificateParams, days: u32) {
    let now = SystemTime::now();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + days * DAY).into();
}

/// An authority that can issue.
pub struct Authority {
    directory: PathBuf,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes an authority in a directory.
    ///
    /// # Errors
    /// [`PkiError::Exists`] when there is one and `force` is not set, or when files cannot be written.
    pub fn init(dir: &Path, force: bool) -> Result<MadeAuthority, PkiError> {
        files::make_directory(dir)?;
        files::are_free(dir, &[AUTHORITY, AUTHORITY_KEY], force)?;
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // A name of its own: who has two authorities sees which one a certificate is of.
        let own = &fingerprint(&key.subject_public_key_info())[..8];
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("Quasar authority {own}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        holds_for(&mut params, AUTHORITY_DAYS);
        let certificate = params.self_signed(&key)?;
        let (certificate_file, key_file) = (dir.join(AUTHORITY), dir.join(AUTHORITY_KEY));
        files::write(&key_file, &key.serialize_pem(), Readers::Owner, force)?;
        files::write(&certificate_file, &certificate.pem(), Readers::Everyone, force)?;
        Ok(MadeAuthority {
            directory: dir.to_owned(),
            certificate: certificate_file,
            key: key_file,
            sha256: fingerprint(certificate.der()),
        })
    }

    /// Opens the authority in a directory.
    ///
    /// # Errors
    /// [`PkiError::NoAuthority`] when there is none, [`PkiError::Damaged`] when its files are not what they should be.
    pub fn open(dir: &Path) -> Result<Self, PkiError> {
        let read = |missing: &'static str| {
            let none = || PkiError::NoAuthority { dir: dir.to_owned(), missing };
            files::read(&dir.join(missing))?.ok_or_else(none)
        };
        let (pem, key) = (read(AUTHORITY)?, read(AUTHORITY_KEY)?);
        let damaged = |name: &str, why: String| PkiError::Damaged { path: dir.join(name), why };
        let key =
            KeyPair::from_pem(&key).map_err(|e| damaged(AUTHORITY_KEY, format!("it is no key ({e})")))?;
        let public = key.subject_public_key_info();
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|e| damaged(AUTHORITY, format!("it is no certificate ({e})")))?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key)
            .map_err(|e| damaged(AUTHORITY, format!("it is no certificate of an authority ({e})")))?;
        // A certificate has its public key in it as it is.
        if !certificate.windows(public.len()).any(|part| part == public) {
            let why = format!("{AUTHORITY} beside it is of another key; put back the one that belongs to it");
            return Err(damaged(AUTHORITY_KEY, why));
        }
        Ok(Self { directory: dir.to_owned(), pem, issuer })
    }

    /// Issues a certificate to a host, with a new key, into `out` (by default a directory of the host's name beside the
    /// authority).
    ///
    /// # Errors
    /// [`PkiError`].
    pub fn issue(&self, name: &str, out: Option<&Path>, force: bool) -> Result<Issued, PkiError> {
        check_name(name)?;
        let directory = out.map_or_else(|| self.directory.join(name), Path::to_owned);
        let at = |file: &str| directory.join(file);
        files::make_directory(&directory)?;
        files::are_free(&directory, &[CERTIFICATE, KEY], force)?;
        // The authority's own directory may be a host's as well: then its certificate is there already.
        let theirs = files::read(&at(AUTHORITY))?;
        let same = theirs.as_deref() == Some(&self.pem);
        if theirs.is_some() && !same && !force {
            return Err(PkiError::Exists(at(AUTHORITY)));
        }
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![HOST_NAME.to_owned(), name.to_owned()])?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        holds_for(&mut params, HOST_DAYS);
        let certificate = params.signed_by(&key, &self.issuer)?;
        files::write(&at(KEY), &key.serialize_pem(), Readers::Owner, force)?;
        files::write(&at(CERTIFICATE), &certificate.pem(), Readers::Everyone, force)?;
        if !same {
            files::write(&at(AUTHORITY), &self.pem, Readers::Everyone, force)?;
        }
        Ok(Issued {
            name: name.to_owned(),
            authority: at(AUTHORITY),
            certificate: at(CERTIFICATE),
            key: at(KEY),
            directory,
            sha256: fingerprint(certificate.der()),
        })
    }
}

/// A host's name stands in its certificate and names a directory.
fn check_name(name: &str) -> Result<(), PkiError> {
    let address = name.parse::<std::net::IpAddr>().is_ok();
    let label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        (1..=63).contains(&label.len()) && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    let why = if name == HOST_NAME {
        "that is the name which all hosts share"
    } else if !address && (name.len() > 253 || !name.split('.').all(label)) {
        "a host name (letters, digits and hyphens, with dots between labels) or an IP address is expected"
    } else {
        return Ok(());
    };
    Err(PkiError::Name { name: name.to_owned(), why })
}
