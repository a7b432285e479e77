//! Certificates that are made here, in the hands of the library that checks them.

use super::*;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

struct Loaded {
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

fn load(dir: &Path) -> Loaded {
    let Ok(Security::MutualTls { authority, certificate, key }) = security(dir) else {
        panic!("three files")
    };
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority).expect("authority")).expect("it is an authority");
    Loaded {
        roots: Arc::new(roots),
        chain: vec![CertificateDer::from_pem_file(certificate).expect("certificate")],
        key: PrivateKeyDer::from_pem_file(key).expect("key"),
    }
}

fn client(of: &Loaded, name: &str) -> Connection {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("version")
        .with_root_certificates(Arc::clone(&of.roots))
        .with_client_auth_cert(of.chain.clone(), of.key.clone_key())
        .expect("key and certificate belong together");
    let name = ServerName::try_from(name.to_owned()).expect("name");
    ClientConnection::new(Arc::new(config), name).expect("client").into()
}

fn server(of: &Loaded) -> Connection {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::clone(&of.roots), Arc::clone(&provider));
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("version")
        .with_client_cert_verifier(verifier.build().expect("verifier"))
        .with_single_cert(of.chain.clone(), of.key.clone_key())
        .expect("key and certificate belong together");
    ServerConnection::new(Arc::new(config)).expect("server").into()
}

/// Shakes hands in memory; the first refusal, of either side.
fn shake(mut a: Connection, mut b: Connection) -> Result<(), rustls::Error> {
    while a.is_handshaking() || b.is_handshaking() || a.wants_write() || b.wants_write() {
        for turn in [true, false] {
            let (from, to) = if turn { (&mut a, &mut b) } else { (&mut b, &mut a) };
            let mut bytes = vec![];
            while from.wants_write() {
                from.write_tls(&mut bytes).expect("memory");
            }
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                to.read_tls(&mut rest).expect("memory");
                to.process_new_packets()?;
            }
        }
    }
    Ok(())
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("file").permissions().mode() & 0o777
}

#[test]
fn two_hosts_of_an_authority_believe_each_other_and_nobody_else() {
    let dir = tempfile::tempdir().expect("directory");
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    for authority in [&ours, &theirs] {
        let made = Authority::init(authority, false).expect("init");
        assert_eq!((mode(&made.key), mode(&made.certificate), mode(authority)), (0o600, 0o644, 0o700));
    }
    let issue = |authority: &Path, name: &str| {
        let issued = Authority::open(authority).expect("open").issue(name, None, false).expect("issue");
        assert_eq!((mode(&issued.key), issued.directory.as_path()), (0o600, authority.join(name).as_path()));
        load(&issued.directory)
    };
    let (a, b, evil) = (issue(&ours, "alpha"), issue(&ours, "192.0.2.7"), issue(&theirs, "alpha"));
    for (one, other, own) in [(&a, &b, "192.0.2.7"), (&b, &a, "alpha")] {
        shake(client(one, HOST_NAME), server(other)).expect("hosts of one authority");
        shake(client(one, own), server(other)).expect("by its own name");
        shake(client(one, "gamma"), server(other)).expect_err("by another's name");
        shake(client(&evil, HOST_NAME), server(one)).expect_err("a stranger calls");
        shake(client(one, HOST_NAME), server(&evil)).expect_err("a stranger answers");
        // Who has our authority's certificate has no key of ours.
        let half =
            Loaded { roots: Arc::clone(&a.roots), chain: evil.chain.clone(), key: evil.key.clone_key() };
        shake(client(&half, HOST_NAME), server(one)).expect_err("a stranger who trusts us calls");
    }
    // A host is no authority.
    let host = dir.path().join("host");
    std::fs::create_dir(&host).expect("directory");
    std::fs::copy(ours.join("alpha/host.pem"), host.join(AUTHORITY)).expect("copy");
    std::fs::copy(ours.join("alpha/host.key"), host.join(AUTHORITY_KEY)).expect("copy");
    let forged = Authority::open(&host).expect("open").issue("mallory", None, false).expect("forge");
    let mut mallory = load(&forged.directory);
    mallory.chain.push(a.chain[0].clone());
    mallory.roots = Arc::clone(&a.roots);
    shake(client(&mallory, HOST_NAME), server(&b)).expect_err("issued by a host");
}

#[test]
fn nothing_is_replaced_unless_that_is_asked_for() {
    let dir = tempfile::tempdir().expect("directory");
    let first = Authority::init(dir.path(), false).expect("init").sha256;
    let error = Authority::init(dir.path(), false).expect_err("it is there").to_string();
    assert!(
        error.contains("ca.pem is there already; --force") && error.contains("refused from then on"),
        "{error}"
    );
    let authority = Authority::open(dir.path()).expect("open");
    let out = dir.path().join("out");
    let one = authority.issue("alpha", Some(&out), false).expect("issue").sha256;
    let error = authority.issue("alpha", Some(&out), false).expect_err("it is there").to_string();
    assert!(error.ends_with("host.pem is there already; --force replaces it"), "{error}");
    assert_ne!(authority.issue("alpha", Some(&out), true).expect("replace").sha256, one);
    // The authority's own directory may be a host's.
    authority.issue("home", Some(dir.path()), false).expect("issue");
    load(dir.path());
    assert_ne!(Authority::init(dir.path(), true).expect("replace").sha256, first);
    let error = Authority::open(dir.path()).expect("open").issue("beta", Some(&out), false);
    assert!(matches!(error, Err(PkiError::Exists(_))));
    let left = std::fs::read_dir(dir.path()).expect("directory").count();
    assert_eq!(left, 5, "no half-written file stays");
}

#[test]
fn what_is_missing_damaged_or_misnamed_is_said_with_what_to_do() {
    let dir = tempfile::tempdir().expect("directory");
    let open = || Authority::open(dir.path()).map(drop).expect_err("no authority").to_string();
    assert!(open().contains("quasar pki init --dir"), "{}", open());
    let error = security(dir.path()).expect_err("no host").to_string();
    assert!(error.contains("quasar pki issue NAME --out"), "{error}");
    Authority::init(dir.path(), false).expect("init");
    let authority = Authority::open(dir.path()).expect("open");
    for name in ["", "a b", "../up", "a..b", "-a", "ü", "quasar-host", "a/b", &"x".repeat(64)] {
        assert!(matches!(authority.issue(name, None, false), Err(PkiError::Name { .. })), "{name}");
    }
    for name in ["a", "A-1.example.org", "::1", "10.0.0.1"] {
        authority.issue(name, None, false).expect("a good name");
    }
    let key = std::fs::read(dir.path().join(AUTHORITY_KEY)).expect("key");
    for (file, content, word) in [
        (AUTHORITY_KEY, &b"-----BEGIN"[..], "it is no key"),
        (AUTHORITY_KEY, rcgen::KeyPair::generate().expect("key").serialize_pem().as_bytes(), "another key"),
        (AUTHORITY, b"rubbish", "it is no certificate"),
    ] {
        std::fs::write(dir.path().join(file), content).expect("write");
        assert!(open().contains(word), "{}", open());
        std::fs::write(dir.path().join(AUTHORITY_KEY), &key).expect("write");
    }
    std::fs::remove_file(dir.path().join(AUTHORITY_KEY)).expect("remove");
    assert!(open().contains("ca.key is missing"), "{}", open());
}
