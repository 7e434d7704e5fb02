//! nginx: takes requests and writes down what they were, slowly, not at all, over TLS, or only from those it knows.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Pki, Server, free_port, listens, occurrences, program, write};

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    _server: Server,
    dir: PathBuf,
    /// HTTP: `/` is written down, `/slow` too, five a second; `/refused` answers 400, `/broken` 500, `/moved` leads to `/`.
    pub plain: u16,
    /// HTTPS for those who show a certificate.
    pub mutual: u16,
    /// HTTPS and HTTP/2; `/` is passed on to the collector's gRPC.
    pub grpc: u16,
}

impl Nginx {
    /// Starts it; `collector` is where gRPC is passed on to.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(dir: &Path, pki: &Pki, collector: u16) -> Result<Nginx, String> {
        Self::start_at(dir, pki, collector, free_port()?)
    }

    /// The same with HTTP on this port.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_at(dir: &Path, pki: &Pki, collector: u16, plain: u16) -> Result<Nginx, String> {
        let [inner, mutual, grpc] = [free_port()?, free_port()?, free_port()?];
        let (dir, there) = (dir.join("nginx"), dir.join("nginx").display().to_string());
        std::fs::create_dir_all(&dir).map_err(|error| format!("{there}: {error}"))?;
        let tls = format!(
            "ssl_certificate {}; ssl_certificate_key {};",
            pki.file("leaf.pem"),
            pki.file("leaf.key")
        );
        let noted =
            |name: &str| format!("access_log {there}/{name}.log noted; proxy_pass http://127.0.0.1:{inner};");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {there}/{kind};\n"))
            .concat();
        let config = format!(
            "daemon off; master_process off; pid {there}/pid;
events {{ worker_connections 256; }}
http {{
access_log off; client_body_buffer_size 4m; client_max_body_size 8m;
{temporary}
log_format noted escape=none '$request_method\\t$request_uri\\t$http_authorization\\t$http_x_scope\\t$ssl_client_verify\\t$request_body';
limit_req_zone $server_name zone=slow:1m rate=5r/s;
server {{ listen 127.0.0.1:{inner}; location / {{ return 200; }} }}
server {{
  listen 127.0.0.1:{plain};
  location / {{ {} }}
  location /slow {{ limit_req zone=slow burst=10000; {} }}
  location /refused {{ return 400; }}
  location /broken {{ return 500; }}
  location /moved {{ return 302 http://127.0.0.1:{plain}/; }}
}}
server {{
  listen 127.0.0.1:{mutual} ssl; {tls} ssl_client_certificate {}; ssl_verify_client on;
  location / {{ {} }}
}}
server {{ listen 127.0.0.1:{grpc} ssl http2; {tls} location / {{ grpc_pass grpc://127.0.0.1:{collector}; }} }}
}}
",
            noted("plain"),
            noted("slow"),
            pki.file("ca.pem"),
            noted("mutual"),
        );
        write(&dir.join("nginx.conf"), &config)?;
        let mut command = Command::new(program("nginx")?);
        command
            .arg("-p")
            .arg(&dir)
            .arg("-c")
            .arg(dir.join("nginx.conf"))
            .arg("-e")
            .arg(dir.join("error.log"));
        let mut server = Server::start(command, &dir.join("output.log"))?;
        server.await_ready(|| listens(grpc))?;
        Ok(Nginx { _server: server, dir, plain, mutual, grpc })
    }

    /// How often a text stands in what was written down of `plain`, `slow` or `mutual`.
    pub fn noted(&self, log: &str, text: &str) -> u64 {
        occurrences(&self.dir.join(format!("{log}.log")), text)
    }

    /// Requests written down whose line begins so.
    pub fn requests(&self, log: &str, start: &str) -> Vec<String> {
        let bytes = std::fs::read(self.dir.join(format!("{log}.log"))).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        text.lines().filter(|line| line.starts_with(start)).map(str::to_owned).collect()
    }
}
