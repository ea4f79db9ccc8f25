//! One request, as far as it is understood.

use std::io::{self, BufRead, Read};
use std::ops::Range;

use super::Role;

/// The longest head of a request, in bytes.
const MOST_HEAD: u64 = 16 << 10;

/// What somebody asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Which server.
    pub role: Role,
    /// `GET` or `HEAD`.
    pub method: String,
    /// The path with its query.
    pub path: String,
    /// The bytes asked for; an end of `u64::MAX` is the file's.
    pub range: Option<Range<u64>>,
    /// The ETag under which the range is wanted.
    pub if_range: Option<String>,
    /// The token sent.
    pub token: Option<String>,
}

/// Reads one request; `None` at the end of the connection.
pub(super) fn read(reader: &mut impl BufRead, role: Role) -> io::Result<Option<Asked>> {
    let mut head = reader.take(MOST_HEAD);
    let mut line = String::new();
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let odd = || io::Error::from(io::ErrorKind::InvalidData);
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().ok_or_else(odd)?.to_string(), words.next().ok_or_else(odd)?.to_string());
    let mut asked = Asked { role, method, path, range: None, if_range: None, token: None };
    loop {
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Err(odd());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "range" => asked.range = range(value),
            "if-range" => asked.if_range = Some(value.to_string()),
            "authorization" => asked.token = value.strip_prefix("Bearer ").map(str::to_string),
            _ => {}
        }
    }
    Ok(Some(asked))
}

fn range(text: &str) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let end = if last.is_empty() { u64::MAX } else { last.parse::<u64>().ok()?.saturating_add(1) };
    Some(first.parse().ok()?..end)
}
