//! Answers, right and wrong ones.

use std::fs::File;
use std::io::{self, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::contents::{Commit, Stored};
use super::fault::{self, Fault};
use super::request::Asked;
use super::{Role, State};

/// Bytes written at a time.
const CHUNK: u64 = 64 << 10;

/// The head of an answer.
struct Head {
    status: u16,
    headers: Vec<(&'static str, String)>,
}

impl Head {
    fn new(status: u16) -> Self {
        Self { status, headers: Vec::new() }
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }

    fn write(&self, mut to: impl Write, length: u64) -> io::Result<()> {
        let mut head = format!("HTTP/1.1 {} .\r\nContent-Length: {length}\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        to.write_all(head.as_bytes())
    }
}

/// Answers; says whether the connection lives on.
pub(super) fn answer(stream: &TcpStream, asked: &Asked, state: &State) -> io::Result<bool> {
    let fault = fault::next(&mut State::lock(&state.rules), asked);
    if let Some(Fault::Refuse { status, code, retry_after }) = fault {
        let mut head = Head::new(status).with("X-Error-Code", code).with("X-Error-Message", "as told");
        if let Some(seconds) = retry_after {
            head = head.with("Retry-After", seconds);
        }
        return small(stream, &head, b"", state);
    }
    let path = asked.path.split('?').next().unwrap_or_default();
    let parts: Vec<&str> = path.trim_start_matches('/').splitn(5, '/').collect();
    match parts[..] {
        ["api", "models", organisation, name, rest] => {
            let revision = rest.trim_start_matches("revision/").replace("%2F", "/");
            about(stream, &format!("{organisation}/{name}"), &revision, fault.as_ref(), state)
        }
        [organisation, name, "resolve", revision, file] => {
            let repository = format!("{organisation}/{name}");
            resolve(stream, asked, &repository, revision, file, fault.as_ref(), state)
        }
        _ => refuse(stream, 404, "", state),
    }
}

fn refuse(stream: &TcpStream, status: u16, code: &str, state: &State) -> io::Result<bool> {
    small(stream, &Head::new(status).with("X-Error-Code", code), b"", state)
}

fn small(mut stream: &TcpStream, head: &Head, body: &[u8], state: &State) -> io::Result<bool> {
    head.write(stream, body.len() as u64)?;
    stream.write_all(body)?;
    state.sent.fetch_add(body.len() as u64, Ordering::SeqCst);
    Ok(true)
}

/// What the API says of a repository.
fn about(
    stream: &TcpStream,
    repository: &str,
    revision: &str,
    fault: Option<&Fault>,
    state: &State,
) -> io::Result<bool> {
    let json = match State::lock(&state.repositories).find(repository, revision) {
        Ok((commit, files)) => description(commit, files, fault == Some(&Fault::NoDigests)),
        // The real hub does not tell a private repository from none.
        Err("RepoNotFound") => return refuse(stream, 401, "RepoNotFound", state),
        Err(code) => return refuse(stream, 404, code, state),
    };
    small(stream, &Head::new(200), json.to_string().as_bytes(), state)
}

fn description(commit: &str, files: &Commit, bare: bool) -> Value {
    let of = |(name, file): (&String, &Stored)| match (&file.sha256, bare) {
        (_, true) => json!({ "rfilename": name }),
        (None, _) => json!({ "rfilename": name, "size": file.size, "blobId": file.blob }),
        (Some(sha256), _) => json!({
            "rfilename": name, "size": file.size, "blobId": file.blob,
            "lfs": { "sha256": sha256, "size": file.size, "pointerSize": 134 },
        }),
    };
    json!({ "sha": commit, "siblings": files.iter().map(of).collect::<Vec<_>>() })
}

fn resolve(
    stream: &TcpStream,
    asked: &Asked,
    repository: &str,
    revision: &str,
    file: &str,
    fault: Option<&Fault>,
    state: &State,
) -> io::Result<bool> {
    let found = {
        let repositories = State::lock(&state.repositories);
        let found = repositories.find(repository, revision);
        found.map(|(commit, files)| (commit.clone(), files.get(file).cloned()))
    };
    let (commit, stored) = match found {
        Ok((commit, Some(stored))) => (commit, stored),
        Ok((_, None)) => return refuse(stream, 404, "EntryNotFound", state),
        Err(code) => return refuse(stream, 404, code, state),
    };
    let elsewhere = State::lock(&state.files_address).filter(|_| asked.role == Role::Hub && stored.sha256.is_some());
    match elsewhere {
        Some(address) => {
            let etag = if fault == Some(&Fault::Changed) { "0".repeat(64) } else { stored.etag().to_string() };
            let head = Head::new(302)
                .with("Location", format!("http://{address}{}", asked.path))
                .with("X-Repo-Commit", commit)
                .with("X-Linked-Size", stored.size)
                .with("X-Linked-Etag", format!("\"{etag}\""));
            small(stream, &head, b"", state)
        }
        None => send(stream, asked, &stored, &commit, fault, state),
    }
}

/// Sends a file, or a range of it.
fn send(
    stream: &TcpStream,
    asked: &Asked,
    stored: &Stored,
    commit: &str,
    fault: Option<&Fault>,
    state: &State,
) -> io::Result<bool> {
    // The second server has names of its own for what it stores, as the real one.
    let name = match (asked.role, fault) {
        (Role::Files, Some(Fault::Changed)) => "another".to_string(),
        (Role::Files, _) => format!("own-{}", &stored.etag()[..8]),
        (Role::Hub, _) => stored.etag().to_string(),
    };
    let etag = format!("\"{name}\"");
    let fits = asked.if_range.as_ref().is_none_or(|wanted| *wanted == etag) && fault != Some(&Fault::IgnoreRange);
    let head = |status| Head::new(status).with("ETag", &etag).with("X-Repo-Commit", commit);
    let (head, range) = match asked.range.clone().filter(|_| fits) {
        Some(range) if range.start >= stored.size => {
            let head = head(416).with("Content-Range", format!("bytes */{}", stored.size));
            return small(stream, &head, b"", state);
        }
        Some(range) => {
            let range = range.start..range.end.min(stored.size);
            let said = format!("bytes {}-{}/{}", range.start, range.end - 1, stored.size);
            (head(206).with("Content-Range", said), range)
        }
        None => (head(200), 0..stored.size),
    };
    head.write(stream, range.end - range.start)?;
    if asked.method == "HEAD" {
        return Ok(true);
    }
    body(stream, &stored.path, range, fault, state)
}

fn body(
    mut stream: &TcpStream,
    path: &std::path::Path,
    range: Range<u64>,
    fault: Option<&Fault>,
    state: &State,
) -> io::Result<bool> {
    let file = File::open(path)?;
    let stop = match fault {
        Some(Fault::Cut(after) | Fault::Hold(after)) => (range.start + after).min(range.end),
        _ => range.end,
    };
    let mut at = range.start;
    while at < range.end {
        if at == stop {
            if let Some(Fault::Cut(_)) = fault {
                stream.shutdown(Shutdown::Both)?;
                return Ok(false);
            }
            hold(state);
        }
        let end = if at < stop { stop } else { range.end };
        let mut chunk = vec![0; CHUNK.min(end - at) as usize];
        file.read_exact_at(&mut chunk, at)?;
        if at == range.start && fault == Some(&Fault::WrongBytes) {
            chunk[0] ^= 1;
        }
        wait_for_link(state, chunk.len() as u64);
        stream.write_all(&chunk)?;
        state.sent.fetch_add(chunk.len() as u64, Ordering::SeqCst);
        at += chunk.len() as u64;
    }
    Ok(true)
}

/// Waits until the hub is told to go on.
fn hold(state: &State) {
    let mut held = State::lock(&state.held);
    held.0 += 1;
    state.changed.notify_all();
    let closed = || state.closed.load(Ordering::SeqCst);
    let released = state.changed.wait_while(held, |(_, released)| !*released && !closed());
    drop(released);
}

/// Waits until `bytes` would have crossed the link that all connections share.
fn wait_for_link(state: &State, bytes: u64) {
    let rate = state.rate.load(Ordering::SeqCst);
    if rate == 0 {
        return;
    }
    let now = Instant::now();
    let crossed = {
        let mut link = State::lock(&state.link);
        let crossed = link.map_or(now, |free| free.max(now)) + Duration::from_secs_f64(bytes as f64 / rate as f64);
        *link = Some(crossed);
        crossed
    };
    std::thread::sleep(crossed.saturating_duration_since(now));
}
