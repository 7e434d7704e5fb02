//! The engine's HTTP API over its socket, as far as a thousand short containers need it: a client program for each
//! step would cost more than the step.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::{PATIENCE, http};

/// The version that Docker Engine 20.10 and all later ones know.
const VERSION: &str = "v1.41";

/// An engine's socket.
#[derive(Clone, Debug)]
pub struct Api {
    socket: PathBuf,
}

/// What a container is made from.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its image, by name.
    pub image: &'a str,
    /// Its program and arguments.
    pub command: &'a [&'a str],
}

impl Api {
    /// The engine that listens there.
    pub fn new(socket: PathBuf) -> Api {
        Api { socket }
    }

    /// One request; a body that is not JSON comes back as null.
    fn request(&self, method: &str, path: &str, body: &Value) -> io::Result<Value> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let request = format!(
            "{method} /{VERSION}{path} HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        // Output of programs comes in frames with lengths of any bytes.
        let (status, text) = http::parse(&String::from_utf8_lossy(&answer))
            .ok_or_else(|| io::Error::other(format!("{method} {path}: the answer is not HTTP")))?;
        if status >= 400 {
            return Err(io::Error::other(format!("{method} {path}: {status} {}", text.trim())));
        }
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }

    fn post(&self, path: &str, body: &Value) -> io::Result<Value> {
        self.request("POST", path, body)
    }

    /// The id in an answer.
    fn id(answer: &Value) -> io::Result<String> {
        answer["Id"].as_str().map(str::to_owned).ok_or_else(|| io::Error::other(format!("no id in {answer}")))
    }

    /// Makes a container without a network and without a log, which would take half of the time; gives its id.
    ///
    /// # Errors
    /// The engine's words.
    pub fn create(&self, plan: &Plan) -> io::Result<String> {
        let body = json!({
            "Image": plan.image, "Cmd": plan.command, "NetworkDisabled": true,
            "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": "none"}},
        });
        Self::id(&self.post(&format!("/containers/create?name={}", plan.name), &body)?)
    }

    /// Starts it.
    ///
    /// # Errors
    /// The engine's words.
    pub fn start(&self, id: &str) -> io::Result<()> {
        self.post(&format!("/containers/{id}/start"), &Value::Null).map(drop)
    }

    /// Waits for its end and gives the exit code of its program.
    ///
    /// # Errors
    /// The engine's words, or that it does not end.
    pub fn wait(&self, id: &str) -> io::Result<i64> {
        let answer = self.post(&format!("/containers/{id}/wait"), &Value::Null)?;
        answer["StatusCode"].as_i64().ok_or_else(|| io::Error::other(format!("{id} does not end: {answer}")))
    }

    /// Runs a program in it, as another process from outside, to its end.
    ///
    /// # Errors
    /// The engine's words, or that the program did not end well.
    pub fn exec(&self, id: &str, command: &[&str]) -> io::Result<()> {
        let made =
            self.post(&format!("/containers/{id}/exec"), &json!({"Cmd": command, "AttachStdout": true}))?;
        let exec = Self::id(&made)?;
        // The answer is what it prints: it ends with the program.
        self.post(&format!("/exec/{exec}/start"), &json!({"Detach": false}))?;
        let told = self.request("GET", &format!("/exec/{exec}/json"), &Value::Null)?;
        match told["ExitCode"].as_i64() {
            Some(0) => Ok(()),
            _ => Err(io::Error::other(format!("{command:?} in {id}: {told}"))),
        }
    }

    /// Stops or lets go on all processes of it, by the freezer.
    ///
    /// # Errors
    /// The engine's words.
    pub fn freeze(&self, id: &str, frozen: bool) -> io::Result<()> {
        let verb = if frozen { "pause" } else { "unpause" };
        self.post(&format!("/containers/{id}/{verb}"), &Value::Null).map(drop)
    }

    /// Ends it by SIGTERM, and by SIGKILL some seconds later.
    ///
    /// # Errors
    /// The engine's words.
    pub fn stop(&self, id: &str) -> io::Result<()> {
        self.post(&format!("/containers/{id}/stop?t=5"), &Value::Null).map(drop)
    }

    /// Removes it, also while it runs.
    ///
    /// # Errors
    /// The engine's words.
    pub fn remove(&self, id: &str) -> io::Result<()> {
        self.request("DELETE", &format!("/containers/{id}?force=1"), &Value::Null).map(drop)
    }
}
