//! HTTP as far as these tests need it: one request over a connection of its own, read by hand, so that everything that goes
//! over the wire is the test's own choice.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::DEADLINE;

/// Headers by their names in lower case.
type Headers = Vec<(String, String)>;

/// A client of one server, with the headers of each of its requests.
#[derive(Debug, Clone)]
pub struct HttpClient {
    /// Where the server listens.
    pub address: SocketAddr,
    headers: Headers,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    headers: Headers,
    /// Its body.
    pub body: Vec<u8>,
}

/// An answer that comes bit by bit: server-sent events.
pub struct Events {
    /// The status.
    pub status: u16,
    headers: Headers,
    body: BufReader<Body>,
}

impl HttpClient {
    /// Of the server at `address`.
    pub fn new(address: SocketAddr) -> Self {
        Self { address, headers: Vec::new() }
    }

    /// The same with another header in each request.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.push((name.to_string(), value.to_string()));
        client
    }

    /// Gets `path`.
    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[])
    }

    /// Posts JSON.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.with("content-type", "application/json").request("POST", path, body.to_string().as_bytes())
    }

    /// Posts JSON, and reads the answer as it comes.
    pub fn stream(&self, path: &str, body: &Value) -> Events {
        let client = self.with("content-type", "application/json");
        let (status, headers, body) = client.begin("POST", path, body.to_string().as_bytes()).expect("an answer");
        Events { status, headers, body: BufReader::new(body) }
    }

    /// Any request, whose body has the type that the client's headers say.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let (status, headers, mut reader) = self.begin(method, path, body).expect("an answer");
        let mut body = Vec::new();
        reader.read_to_end(&mut body).expect("the whole body");
        Answer { status, headers, body }
    }

    /// A connection on which nothing has been said.
    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the server accepts");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time-out");
        stream.set_write_timeout(Some(DEADLINE)).expect("a time-out");
        stream
    }

    fn begin(&self, method: &str, path: &str, body: &[u8]) -> io::Result<(u16, Headers, Body)> {
        let mut stream = self.connect();
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if find(&self.headers, "host").is_none() {
            head.push_str(&format!("host: {}\r\n", self.address));
        }
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        // A server that refuses a large body may have closed before all of it is written: its answer counts.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("{line:?} is no status line")))?;
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_string()));
        }
        let chunked = find(&headers, "transfer-encoding") == Some("chunked");
        let length = find(&headers, "content-length").and_then(|length| length.parse().ok());
        let left = if chunked { Left::Chunks(0) } else { length.map_or(Left::All, Left::Bytes) };
        Ok((status, headers, Body { reader, left }))
    }
}

/// Status and body of the answer to `GET url`, of plain HTTP.
///
/// # Panics
/// If nobody answers, or not in HTTP.
pub fn get(url: &str) -> (u16, String) {
    let rest = url.strip_prefix("http://").expect("plain HTTP");
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let answer = HttpClient::new(host.parse().expect("an address and a port")).get(path);
    (answer.status, String::from_utf8(answer.body).expect("text"))
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

impl Answer {
    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The body, which must be JSON, of an answer with that status.
    ///
    /// # Panics
    /// If the status is another one.
    pub fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }
}

impl Events {
    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The next event's data; `None` at the end of the answer.
    ///
    /// # Panics
    /// If nothing comes, or something that is no event.
    pub fn data(&mut self) -> Option<String> {
        let mut data = None;
        loop {
            let mut line = String::new();
            if self.body.read_line(&mut line).expect("more of the stream") == 0 {
                return data;
            }
            match line.trim_end_matches(['\r', '\n']) {
                "" if data.is_some() => return data,
                "" => {}
                comment if comment.starts_with(':') => {}
                line => {
                    let more = line.strip_prefix("data: ").unwrap_or_else(|| panic!("{line:?} is no event"));
                    data.get_or_insert_with(String::new).push_str(more);
                }
            }
        }
    }

    /// The next event as JSON; `None` at `[DONE]`.
    ///
    /// # Panics
    /// If the answer ends without `[DONE]`.
    pub fn chunk(&mut self) -> Option<Value> {
        let data = self.data().expect("the stream ends with [DONE]");
        (data != "[DONE]").then(|| serde_json::from_str(&data).unwrap_or_else(|error| panic!("{error}: {data}")))
    }

    /// All events that are still to come.
    ///
    /// # Panics
    /// If the answer ends without `[DONE]`, or goes on after it.
    pub fn rest(mut self) -> Vec<Value> {
        let chunks = std::iter::from_fn(|| self.chunk()).collect();
        assert_eq!(self.data(), None, "nothing comes after [DONE]");
        chunks
    }
}

enum Left {
    /// All until the connection closes.
    All,
    Bytes(u64),
    /// So many of the chunk that is being read.
    Chunks(u64),
    Nothing,
}

/// The body of an answer, without what it was wrapped in.
struct Body {
    reader: BufReader<TcpStream>,
    left: Left,
}

impl Body {
    /// The length of the next chunk.
    fn next_chunk(&mut self) -> io::Result<u64> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            // The end of the chunk before, or of the connection.
            line.clear();
            self.reader.read_line(&mut line)?;
        }
        let length = u64::from_str_radix(line.trim(), 16);
        length.map_err(|_| io::Error::other(format!("the stream broke off: {line:?} is no chunk")))
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Left::Chunks(0) = self.left {
            let length = self.next_chunk()?;
            self.left = if length == 0 { Left::Nothing } else { Left::Chunks(length) };
        }
        let most = match self.left {
            Left::All => u64::MAX,
            Left::Bytes(left) | Left::Chunks(left) => left,
            Left::Nothing => 0,
        };
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.reader.read(&mut buffer[..most])?;
        if count == 0 && most > 0 && !matches!(self.left, Left::All) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Left::Bytes(left) | Left::Chunks(left) = &mut self.left {
            *left -= count as u64;
        }
        Ok(count)
    }
}
