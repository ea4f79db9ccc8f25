//! Requests to the hub, and to the servers of files that it points to.

use std::io::Read;
use std::ops::Range;
use std::time::Duration;

use ureq::http::{HeaderMap, Response, Uri};
use ureq::{Agent, Body};

use crate::config::{HubConfig, Retries, Token};
use crate::retry::{Failure, Pauses, Refusal};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may be silent, before its answer or in the middle of it.
const SILENCE: Duration = Duration::from_secs(30);
/// Redirections followed: the hub's own for a renamed repository, and the one to the server of files.
const MOST_REDIRECTS: usize = 5;
/// The failure at which people are told that there is trouble: one passes in half a second, all take some 15.
const TOLD_AT: u32 = 2;
/// The longest answer of the API that is read, in bytes: a repository of ten thousand files has a few MiB.
const MOST_JSON: u64 = 64 << 20;
/// The most bytes of a refusal that are read.
const MOST_REFUSAL: u64 = 16 << 10;
/// The most characters of a server's message that are shown.
const SHOWN: usize = 200;
/// Connections kept open to one server; see [`crate::transfer`].
const IDLE: usize = 8;

/// An answer with what was asked for.
pub(crate) struct Answer {
    pub(crate) response: Response<Body>,
    /// Where it came from in the end.
    pub(crate) url: String,
    /// What the hub names the file's contents by, if it says so.
    pub(crate) etag: Option<String>,
}

impl Answer {
    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(self.response.headers(), name)
    }
}

/// A connection to a hub.
#[derive(Debug)]
pub(crate) struct Http {
    agent: Agent,
    endpoint: String,
    token: Option<Token>,
    retries: Retries,
}

impl Http {
    pub(crate) fn new(config: &HubConfig) -> Self {
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            // Followed here, since the token must not go elsewhere, and the last address is used again.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .max_idle_connections_per_host(IDLE)
            .user_agent(concat!("swarm-node/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Self { agent, endpoint: config.endpoint.clone(), token: config.token.clone(), retries: config.retries }
    }

    /// Whether requests carry a token.
    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The hub's address.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The pauses between tries.
    pub(crate) fn pauses(&self) -> Pauses {
        Pauses::new(self.retries)
    }

    /// The address of a file at a commit.
    pub(crate) fn file_url(&self, repository: &str, commit: &str, file: &str) -> String {
        format!("{}/{repository}/resolve/{commit}/{}", self.endpoint, escaped(file, "/"))
    }

    /// What the API says of a repository at a revision, tried patiently.
    pub(crate) fn repository(&self, repository: &str, revision: &str) -> Result<Vec<u8>, Failure> {
        let revision = escaped(revision, "");
        let url = format!("{}/api/models/{repository}/revision/{revision}?blobs=true", self.endpoint);
        self.patiently(|| {
            let mut answer = self.get(&url, None)?;
            let mut json = Vec::new();
            let body = answer.response.body_mut().as_reader();
            body.take(MOST_JSON).read_to_end(&mut json).map_err(|error| broken(&error))?;
            Ok(json)
        })
    }

    /// The length and the name of a file's contents, where the API did not say them.
    pub(crate) fn stat(&self, url: &str) -> Result<(u64, String), Failure> {
        self.patiently(|| {
            // One byte: some servers do not say a file's length to HEAD.
            let answer = self.get(url, Some((&(0..1), None)))?;
            let whole = answer.header("content-range").and_then(|range| range.rsplit('/').next());
            let length = whole.or_else(|| answer.header("content-length")).and_then(|length| length.parse().ok());
            match (length, answer.etag) {
                (Some(length), Some(etag)) => Ok((length, etag)),
                _ => Err(Failure::Odd("it says neither length nor ETag".to_string())),
            }
        })
    }

    fn patiently<T>(&self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
        let mut pauses = self.pauses();
        loop {
            let failure = match attempt() {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            let Some(pause) = pauses.after(&failure) else { return Err(failure) };
            match pauses.failures() == TOLD_AT {
                true => tracing::warn!(reason = failure.reason(), "the hub does not answer as it should; still trying"),
                false => tracing::debug!(reason = failure.reason(), ?pause, "the hub is asked again"),
            }
            std::thread::sleep(pause);
        }
    }

    /// One try: the bytes of a range, which with an ETag must be of the same contents; or everything.
    pub(crate) fn get(&self, url: &str, range: Option<(&Range<u64>, Option<&str>)>) -> Result<Answer, Failure> {
        let (mut url, mut etag) = (url.to_string(), None);
        for _ in 0..=MOST_REDIRECTS {
            let response = self.send(&url, range)?;
            let of_hub = same_origin(&url, &self.endpoint);
            if of_hub {
                let headers = response.headers();
                let linked = header(headers, "x-linked-etag").or_else(|| header(headers, "etag"));
                etag = etag.or_else(|| linked.map(str::to_string));
            }
            match response.status().as_u16() {
                200 | 206 => return Ok(Answer { response, url, etag }),
                301 | 302 | 303 | 307 | 308 => {
                    let to = header(response.headers(), "location").and_then(|to| joined(&url, to));
                    url = to.ok_or_else(|| Failure::Odd("a redirection leads nowhere".to_string()))?;
                }
                status => return Err(Failure::Status(refusal(status, response, of_hub))),
            }
        }
        Err(Failure::Odd("redirections lead in circles".to_string()))
    }

    fn send(&self, url: &str, range: Option<(&Range<u64>, Option<&str>)>) -> Result<Response<Body>, Failure> {
        let mut request = self.agent.get(url).header("Accept-Encoding", "identity");
        if let Some(token) = self.token.as_ref().filter(|_| same_origin(url, &self.endpoint)) {
            request = request.header("Authorization", format!("Bearer {}", token.secret()));
        }
        if let Some((range, etag)) = range {
            request = request.header("Range", format!("bytes={}-{}", range.start, range.end - 1));
            if let Some(etag) = etag {
                request = request.header("If-Range", etag);
            }
        }
        request.call().map_err(|error| match error {
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed => Failure::Unreachable(error.to_string()),
            ureq::Error::Io(ref io) if io.kind() == std::io::ErrorKind::ConnectionRefused => {
                Failure::Unreachable("connection refused".to_string())
            }
            ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl => {
                Failure::Local(error.to_string())
            }
            error => Failure::Broken(error.to_string()),
        })
    }
}

/// A body that ended too early.
pub(crate) fn broken(error: &std::io::Error) -> Failure {
    Failure::Broken(error.to_string())
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn refusal(status: u16, mut response: Response<Body>, of_hub: bool) -> Refusal {
    let headers = response.headers().clone();
    let said = |name| header(&headers, name).map(str::to_string);
    let mut body = Vec::new();
    // What cannot be read says nothing.
    let _ = response.body_mut().as_reader().take(MOST_REFUSAL).read_to_end(&mut body);
    let in_json = || {
        let json: serde_json::Value = serde_json::from_slice(&body).ok()?;
        Some(json.get("error")?.as_str()?.to_string())
    };
    let message = said("x-error-message").or_else(in_json).unwrap_or_default();
    Refusal {
        status,
        code: said("x-error-code").unwrap_or_default(),
        message: message.chars().filter(|c| !c.is_control()).take(SHOWN).collect(),
        // A date is not understood: then the pauses are our own.
        retry_after: said("retry-after").and_then(|text| text.trim().parse().ok()).map(Duration::from_secs),
        of_hub,
    }
}

/// Whether both addresses lead to the same server over the same protocol.
fn same_origin(url: &str, other: &str) -> bool {
    let origin = |url: &str| {
        let uri: Uri = url.parse().ok()?;
        Some((uri.scheme()?.clone(), uri.authority()?.clone()))
    };
    let (ours, theirs) = (origin(url), origin(other));
    ours.is_some() && ours == theirs
}

/// Where a redirection from `url` leads.
fn joined(url: &str, to: &str) -> Option<String> {
    if to.starts_with("http://") || to.starts_with("https://") {
        return Some(to.to_string());
    }
    let from: Uri = url.parse().ok()?;
    let absolute = to.starts_with('/') && !to.starts_with("//");
    absolute.then_some(format!("{}://{}{to}", from.scheme()?, from.authority()?))
}

/// `text` as part of an address: all but letters, digits and a few others as `%XX`.
fn escaped(text: &str, kept: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.as_bytes().contains(&byte);
    let mut escaped = String::new();
    for byte in text.bytes() {
        match plain(byte) {
            true => escaped.push(char::from(byte)),
            false => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_stays_with_the_hub() {
        let hub = "https://hub.test";
        assert!(same_origin("https://hub.test/org/name?x=1", hub));
        for other in
            ["http://hub.test/x", "https://hub.test:444/x", "https://cdn.hub.test/x", "https://hub.test.evil/x"]
        {
            assert!(!same_origin(other, hub), "{other}");
        }
    }

    #[test]
    fn redirections_are_followed_within_http() {
        assert_eq!(joined("http://a:1/b/c?d", "/e").as_deref(), Some("http://a:1/e"));
        assert_eq!(joined("http://a:1/b", "https://x/y").as_deref(), Some("https://x/y"));
        assert_eq!(joined("http://a:1/b", "file:///etc/passwd"), None);
        assert_eq!(joined("http://a:1/b", "//evil/y"), None);
    }

    #[test]
    fn names_are_escaped() {
        assert_eq!(escaped("refs/pr/1", ""), "refs%2Fpr%2F1");
        assert_eq!(escaped("sub/a b?.json", "/"), "sub/a%20b%3F.json");
    }
}
