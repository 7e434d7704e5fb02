//! TLS to a peer: whose certificates are believed, and which certificate is shown.
//!
//! rustls with ring; TLS 1.2 and 1.3. There is no switch that turns the check of certificates off: whoever stands
//! between would read every alert. The named files are read again when they change, so a renewed certificate needs no
//! restart.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

use super::secret::Stamp;
use super::{setting, unusable};
use crate::sink::OutputError;

/// A bundle of certificates has at most so many bytes.
const MAX_BYTES: u64 = 4 << 20;

/// Settings of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificates in PEM of the authorities that may have signed the peer's; none: the system's.
    pub ca: Option<PathBuf>,
    /// Our own certificate in PEM, with those between it and its authority, for peers that ask for one.
    pub cert: Option<PathBuf>,
    /// Its private key in PEM.
    pub key: Option<PathBuf>,
    /// The name that the peer's certificate must have; none: the host of the address.
    pub server_name: Option<String>,
}

impl TlsConfig {
    /// The files that are read while it is used.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        [&self.ca, &self.cert, &self.key].into_iter().flatten().map(PathBuf::as_path)
    }

    fn named(&self) -> [(&'static str, Option<&Path>); 3] {
        [("tls.ca", self.ca.as_deref()), ("tls.cert", self.cert.as_deref()), ("tls.key", self.key.as_deref())]
    }
}

/// What makes the client's side of connections.
pub(super) struct Tls {
    config: TlsConfig,
    /// The protocol that is asked for inside.
    alpn: &'static [&'static [u8]],
    name: ServerName<'static>,
    built: Arc<ClientConfig>,
    stamps: [Option<Stamp>; 3],
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// They are no certificates, do not belong together, or `host` is no name for a certificate.
    pub(super) fn new(
        config: &TlsConfig,
        host: &str,
        alpn: &'static [&'static [u8]],
    ) -> Result<Self, OutputError> {
        let wanted = config.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(wanted.to_owned())
            .map_err(|_| setting("tls.server_name", format!("`{wanted}` is no host name")))?;
        let stamps = stamps(config);
        Ok(Self { built: Arc::new(build(config, alpn)?), config: config.clone(), alpn, name, stamps })
    }

    /// The client's side as the files are now.
    pub(super) fn current(&mut self) -> Result<(Arc<ClientConfig>, ServerName<'static>), String> {
        let now = stamps(&self.config);
        if now != self.stamps {
            self.built = Arc::new(build(&self.config, self.alpn).map_err(|error| error.to_string())?);
            self.stamps = now;
        }
        Ok((self.built.clone(), self.name.clone()))
    }
}

fn stamps(config: &TlsConfig) -> [Option<Stamp>; 3] {
    config.named().map(|(_, path)| std::fs::metadata(path?).ok().map(|meta| Stamp::of(&meta)))
}

fn build(config: &TlsConfig, alpn: &[&[u8]]) -> Result<ClientConfig, OutputError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| setting("tls", error.to_string()))?
        .with_root_certificates(roots(config)?);
    let mut client = match (&config.cert, &config.key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let chain = certificates("tls.cert", cert)?;
            let bytes = read("tls.key", key)?;
            // The library's own message may quote a line of the file.
            let private = PrivateKeyDer::from_pem_slice(&bytes)
                .map_err(|_| unusable("tls.key", key, "holds no private key in PEM"))?;
            builder
                .with_client_auth_cert(chain, private)
                .map_err(|_| unusable("tls.key", key, "is not the key of the certificate in tls.cert"))?
        }
        (Some(_), None) => return Err(setting("tls.key", "a certificate needs its key")),
        (None, Some(_)) => return Err(setting("tls.cert", "a key needs its certificate")),
    };
    client.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(client)
}

fn roots(config: &TlsConfig) -> Result<RootCertStore, OutputError> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &config.ca {
        for certificate in certificates("tls.ca", path)? {
            roots
                .add(certificate)
                .map_err(|_| unusable("tls.ca", path, "holds a certificate that is no authority's"))?;
        }
        return Ok(roots);
    }
    // Bundles hold some that are not understood; that is no reason to do without the rest.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let reason =
            "the system has no certificates of authorities (Debian: package ca-certificates); name a file";
        return Err(setting("tls.ca", reason));
    }
    Ok(roots)
}

fn certificates(setting: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, OutputError> {
    let bytes = read(setting, path)?;
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match parsed {
        Ok(parsed) if !parsed.is_empty() => Ok(parsed),
        _ => Err(unusable(setting, path, "holds no certificate in PEM")),
    }
}

fn read(setting: &str, path: &Path) -> Result<Vec<u8>, OutputError> {
    let fail = |error: std::io::Error| unusable(setting, path, format!("cannot be read: {error}"));
    if !std::fs::metadata(path).map_err(fail)?.is_file() {
        return Err(unusable(setting, path, "is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(fail)?.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(unusable(setting, path, format!("has more than {MAX_BYTES} bytes")));
    }
    Ok(bytes)
}
