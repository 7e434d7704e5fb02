//! rsyslog: takes messages by its socket, by TCP and by TLS, and writes down what it understood of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Pki, Server, free_port, listens, program, write};

/// A running rsyslog.
#[derive(Debug)]
pub struct Rsyslog {
    _server: Server,
    out: PathBuf,
    /// Its socket.
    pub socket: PathBuf,
    /// TCP with octet counting.
    pub tcp: u16,
    /// TLS for those who show a certificate.
    pub tls: u16,
}

/// A message as it was understood.
#[derive(Debug)]
pub struct Message {
    /// `unix`, `tcp` or `tls`.
    pub by: String,
    /// Facility and severity.
    pub pri: String,
    /// `APP-NAME`.
    pub app: String,
    /// `MSGID`.
    pub id: String,
    /// All of the structured data.
    pub data: String,
    /// The message.
    pub text: String,
}

impl Rsyslog {
    /// Starts it.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(dir: &Path, pki: &Pki) -> Result<Rsyslog, String> {
        let (tcp, tls) = (free_port()?, free_port()?);
        let (dir, there) = (dir.join("rsyslog"), dir.join("rsyslog").display().to_string());
        std::fs::create_dir_all(&dir).map_err(|error| format!("{there}: {error}"))?;
        let config = format!(
            r#"global(workDirectory="{there}" maxMessageSize="64k" DefaultNetstreamDriverCAFile="{}"
  DefaultNetstreamDriverCertFile="{}" DefaultNetstreamDriverKeyFile="{}")
module(load="imuxsock" SysSock.Use="off")
module(load="imtcp")
template(name="all" type="string"
  string="%inputname%\t%PRI%\t%APP-NAME%\t%MSGID%\t%STRUCTURED-DATA%\t%msg%\n")
input(type="imuxsock" Socket="{there}/log" UseSpecialParser="off" RateLimit.Interval="0")
input(type="imtcp" port="{tcp}" address="127.0.0.1" name="tcp")
input(type="imtcp" port="{tls}" address="127.0.0.1" name="tls"
  StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="x509/certvalid")
action(type="omfile" file="{there}/out" template="all")
"#,
            pki.file("ca.pem"),
            pki.file("leaf.pem"),
            pki.file("leaf.key"),
        );
        write(&dir.join("rsyslog.conf"), &config)?;
        let daemon = program("rsyslogd")?;
        let mut command = Command::new(&daemon);
        command.arg("-n").arg("-f").arg(dir.join("rsyslog.conf")).arg("-i").arg(dir.join("pid"));
        // Its modules lie beside it, installed or only unpacked.
        let modules = daemon.parent().map(|bin| bin.join("../lib/x86_64-linux-gnu/rsyslog"));
        command.args(modules.iter().flat_map(|modules| ["-M".as_ref(), modules.as_os_str()]));
        let mut server = Server::start(command, &dir.join("output.log"))?;
        let socket = dir.join("log");
        server.await_ready(|| socket.exists() && listens(tcp) && listens(tls))?;
        Ok(Rsyslog { _server: server, out: dir.join("out"), socket, tcp, tls })
    }

    /// What came by `unix`, `tcp` or `tls` and has this text in it.
    pub fn messages(&self, by: &str, text: &str) -> Vec<Message> {
        let bytes = std::fs::read(&self.out).unwrap_or_default();
        let lines = String::from_utf8_lossy(&bytes).into_owned();
        let messages = lines.lines().filter(|line| line.contains(text)).filter_map(|line| {
            let mut parts = line.splitn(6, '\t').map(str::to_owned);
            let mut next = || parts.next();
            let (from, pri, app, id, data) = (next()?, next()?, next()?, next()?, next()?);
            let by = if from == "imuxsock" { "unix".to_owned() } else { from };
            Some(Message { by, pri, app, id, data, text: next()? })
        });
        messages.filter(|message| message.by == by).collect()
    }
}
