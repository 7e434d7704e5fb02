//! Certificates of an authority that nobody else knows.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{program, write};

/// Extensions that rustls and OpenSSL ask for.
const EXTENSIONS: &str = "[req]
distinguished_name = dn
prompt = no
[dn]
CN = localhost
[ca]
basicConstraints = critical,CA:TRUE
[leaf]
basicConstraints = critical,CA:FALSE
subjectAltName = DNS:localhost,IP:127.0.0.1
extendedKeyUsage = serverAuth,clientAuth
";

/// Files in PEM, in a directory.
#[derive(Debug)]
pub struct Pki {
    dir: PathBuf,
}

impl Pki {
    /// Makes an authority and a certificate for `localhost` that serves both ends, and the same of a stranger.
    ///
    /// # Errors
    /// What OpenSSL says.
    pub fn make(dir: &Path) -> Result<Pki, String> {
        write(&dir.join("extensions.cnf"), EXTENSIONS)?;
        let pki = Pki { dir: dir.to_owned() };
        pki.openssl("ca", "ca", &[])?;
        pki.openssl("stranger", "ca", &[])?;
        pki.openssl("leaf", "leaf", &["-CA", "ca.pem", "-CAkey", "ca.key"])?;
        pki.openssl("other", "leaf", &["-CA", "stranger.pem", "-CAkey", "stranger.key"])?;
        Ok(pki)
    }

    fn openssl(&self, name: &str, extensions: &str, more: &[&str]) -> Result<(), String> {
        let mut command = Command::new(program("openssl")?);
        command.current_dir(&self.dir).args(["req", "-config", "extensions.cnf", "-x509", "-newkey", "ec"]);
        command.args([
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-extensions",
            extensions,
        ]);
        command.args(["-subj", &format!("/CN={name}"), "-out", &format!("{name}.pem")]);
        command.args(["-keyout", &format!("{name}.key")]).args(more);
        let output = command.output().map_err(|error| format!("openssl: {error}"))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("openssl: {}", String::from_utf8_lossy(&output.stderr))),
        }
    }

    /// A file: `ca.pem` with `leaf.pem` and `leaf.key`, or `stranger.pem` with `other.pem` and `other.key`.
    pub fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }
}
