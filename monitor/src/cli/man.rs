//! The manual pages: one for each command, made from what `--help` says.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;

/// What the program's own page has besides the help.
const MORE: &str = "\
.SH FILES
.TP
/etc/ringfence/config.yaml, /etc/ringfence/config.d/*.yaml
the configuration: see ringfence.yaml(5)
.TP
/usr/share/ringfence/rules, /etc/ringfence/rules.d
the shipped rules and local ones
.TP
/var/lib/ringfence
what outlives the daemon
.TP
/run/ringfence/ringfence.sock
where the running daemon is asked
.SH SEE ALSO
.BR ringfence.yaml (5)
";

/// Writes them into a directory that exists: `ringfence.1`, `ringfence-run.1` and so on.
///
/// # Errors
/// The file system's.
pub(super) fn write(command: clap::Command, directory: &Path) -> io::Result<()> {
    clap_mangen::generate_to(command, directory)?;
    OpenOptions::new().append(true).open(directory.join("ringfence.1"))?.write_all(MORE.as_bytes())
}
