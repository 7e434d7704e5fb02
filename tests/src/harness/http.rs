//! The metrics page, fetched by a plain HTTP request and read as numbers.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// Fetches a page: status and body.
///
/// # Errors
/// The connection's, or `InvalidData` for an answer that is not HTTP.
pub fn get(address: &str, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(super::PATIENCE))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    parse(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP"))
}

/// The status and the body of an answer; `None` if it is not HTTP.
pub(crate) fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Some((status, if chunked { unchunk(body)? } else { body.to_owned() }))
}

fn unchunk(mut body: &str) -> Option<String> {
    let mut whole = String::new();
    loop {
        let (size, rest) = body.split_once("\r\n")?;
        let size = usize::from_str_radix(size.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.push_str(rest.get(..size)?);
        body = rest.get(size + 2..)?;
    }
}

/// A scrape of `/metrics`.
#[derive(Clone, Debug)]
pub struct Metrics {
    text: String,
}

impl Metrics {
    /// From the page's text.
    pub fn new(text: String) -> Metrics {
        Metrics { text }
    }

    /// The sum over the series of `name` whose labels hold each of `labels` (as `("call", "setns")`);
    /// `None` if there is no such series.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = None;
        for line in self.text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (series_name, series_labels) = series.split_once('{').unwrap_or((series, ""));
            let fits = |(key, value): &(&str, &str)| {
                series_labels
                    .trim_end_matches('}')
                    .split(',')
                    .any(|label| label == format!("{key}=\"{value}\""))
            };
            if series_name == name && labels.iter().all(fits) {
                *found.get_or_insert(0.0) += value.parse::<f64>().unwrap_or(f64::NAN);
            }
        }
        found
    }

    /// The lines whose names start with `prefix`, for messages.
    pub fn lines(&self, prefix: &str) -> String {
        self.text.lines().filter(|line| line.starts_with(prefix)).collect::<Vec<&str>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_labels() {
        let metrics = Metrics::new(
            "# HELP a_total x\na_total{call=\"setns\",reason=\"ring\"} 2\na_total{call=\"setns\",reason=\"b\"} 3\n\
             a_total{call=\"capset\",reason=\"ring\"} 10\nb 4"
                .to_owned(),
        );
        assert_eq!(metrics.sum("a_total", &[("call", "setns")]), Some(5.0));
        assert_eq!(metrics.sum("a_total", &[]), Some(15.0));
        assert_eq!(metrics.sum("b", &[]), Some(4.0));
        assert_eq!(metrics.sum("a_total", &[("call", "clone")]), None);
        assert_eq!(metrics.sum("a", &[]), None);
    }

    #[test]
    fn answers_are_read_whole_or_chunked() {
        assert_eq!(parse("HTTP/1.1 200 OK\r\nx: y\r\n\r\nbody"), Some((200, "body".to_owned())));
        let chunked = "HTTP/1.1 503 No\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        assert_eq!(parse(chunked), Some((503, "abcde".to_owned())));
        assert_eq!(parse("nonsense"), None);
    }
}
