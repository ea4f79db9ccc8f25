//! HTTP as plainly as it goes: one request a connection, HTTP/1.0, so that bodies come as they are and end with it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::Value;

use super::process::Process;
use super::wait::{DEADLINE, eventually};

/// An answer, its body not read yet.
pub struct Fetched {
    /// The status.
    pub status: u16,
    /// The headers, names in small letters.
    pub headers: Vec<(String, String)>,
    body: BufReader<TcpStream>,
}

impl Fetched {
    /// The header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The whole body.
    pub fn text(mut self) -> String {
        let mut text = String::new();
        self.body.read_to_string(&mut text).expect("a body to its end");
        text
    }

    /// The body as JSON.
    pub fn json(self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    /// The next of its server-sent events: kind, data; `None` when the stream has ended.
    pub fn event(&mut self) -> Option<(String, String)> {
        let (mut kind, mut data) = ("message".to_string(), None);
        loop {
            let mut line = String::new();
            if self.body.read_line(&mut line).expect("a line before the deadline") == 0 {
                return None;
            }
            let line = line.trim_end_matches(['\r', '\n']);
            match line.split_once(": ").or_else(|| line.split_once(':')) {
                Some(("event", value)) => kind = value.to_string(),
                Some(("data", value)) => data = Some(value.to_string()),
                None if line.is_empty() && data.is_some() => return Some((kind, data?)),
                _ => {}
            }
        }
    }
}

/// Asks `url` (`http://ADDRESS:PORT`) for `path`.
///
/// # Panics
/// If there is no answer within [`DEADLINE`].
pub fn fetch(url: &str, path: &str) -> Fetched {
    fetch_with(url, path, &[])
}

/// The same with more headers.
///
/// # Panics
/// If there is no answer within [`DEADLINE`].
pub fn fetch_with(url: &str, path: &str, headers: &[(&str, &str)]) -> Fetched {
    let host = url.strip_prefix("http://").expect("an http address");
    let mut stream = TcpStream::connect(host).unwrap_or_else(|error| panic!("{url}: {error}"));
    stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
    let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    stream
        .write_all(format!("GET {path} HTTP/1.0\r\nHost: {host}\r\n{more}\r\n").as_bytes())
        .expect("the request goes out");
    let mut body = BufReader::new(stream);
    let mut line = || {
        let mut line = String::new();
        body.read_line(&mut line).expect("a line before the deadline");
        line.trim_end().to_string()
    };
    let status = line().split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let mut headers = Vec::new();
    loop {
        let line = line();
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.push((name.to_lowercase(), value.trim().to_string()));
    }
    Fetched { status, headers, body }
}

/// Where a `swarm-node api` says that it listens.
///
/// # Panics
/// If it does not say so within [`DEADLINE`].
pub fn http_address(process: &Process) -> String {
    eventually("swarm-node api listens", || {
        let said = process.stderr();
        let (_, after) = said.split_once("http://")?;
        let (address, _) = after.split_once(char::is_whitespace)?;
        Some(format!("http://{address}"))
    })
}
