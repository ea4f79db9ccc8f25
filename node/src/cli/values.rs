//! The values of flags: what they are made of, or in plain words what to write instead.

use std::fmt::Display;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;

/// The smallest room for a conversation: chat templates alone take a dozen tokens.
const LEAST_CONTEXT: usize = 32;

/// A whole number of at least 1.
///
/// # Errors
/// What is wrong, for the person who wrote it.
pub(crate) fn at_least_one<T: FromStr + PartialOrd + From<u8>>(text: &str) -> Result<T, String> {
    let number = text.trim().parse().ok().filter(|number: &T| *number >= T::from(1));
    number.ok_or_else(|| format!("write a whole number of at least 1{}", limit(text)))
}

/// So many blocks.
///
/// # Errors
/// What is wrong, for the person who wrote it.
pub(crate) fn blocks(text: &str) -> Result<NonZeroU32, String> {
    let range = if text.contains("..") { "; blocks by their numbers are `--block-range`'s" } else { "" };
    let number: u32 = at_least_one(text).map_err(|error| format!("{error}{range}"))?;
    NonZeroU32::new(number).ok_or_else(|| "write at least 1".to_string())
}

/// So many threads.
///
/// # Errors
/// What is wrong, for the person who wrote it.
pub(crate) fn threads(text: &str) -> Result<NonZeroUsize, String> {
    let most = u16::MAX;
    let number: u16 = at_least_one(text).map_err(|_| format!("write a whole number from 1 to {most}"))?;
    NonZeroUsize::new(number.into()).ok_or_else(|| "write at least 1".to_string())
}

/// Room for a conversation, in tokens.
///
/// # Errors
/// What is wrong, for the person who wrote it.
pub(crate) fn context(text: &str) -> Result<usize, String> {
    let least = LEAST_CONTEXT;
    let tokens = text.trim().parse().ok().filter(|tokens| *tokens >= least);
    tokens
        .ok_or_else(|| format!("write a whole number of at least {least}: a question and its answer need so much room"))
}

/// A prompt; `-` stands for stdin.
///
/// # Errors
/// If there is nothing to continue.
pub(crate) fn prompt(text: &str) -> Result<String, String> {
    match text.trim().is_empty() {
        true => Err("the prompt is empty; give some text to continue".to_string()),
        false => Ok(text.to_string()),
    }
}

/// A file that is read. It is not opened yet: a pipe would notice.
///
/// # Errors
/// If there is none.
pub(crate) fn input_file(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match std::fs::metadata(&path) {
        Ok(about) if about.is_dir() => Err("it is a folder; name a file".to_string()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err("there is no such file; check its path".to_string())
        }
        _ => Ok(path),
    }
}

/// The name of a host, as it stands in addresses of pages.
///
/// # Errors
/// What is wrong, for the person who wrote it.
pub(crate) fn host_name(text: &str) -> Result<String, String> {
    let name = text.trim().trim_end_matches('.');
    let strange = |letter: char| letter.is_whitespace() || "/:@".contains(letter);
    match name.is_empty() || name.contains(strange) {
        true => Err("write a name alone, for example box.example.org".to_string()),
        false => Ok(name.to_string()),
    }
}

/// A port.
///
/// # Errors
/// What is wrong, for the person who wrote it.
pub(crate) fn port(text: &str) -> Result<u16, String> {
    text.trim().parse().map_err(|_| format!("write a port: a whole number up to {}", u16::MAX))
}

/// A whole number, zero among them.
///
/// # Errors
/// What is wrong, for the person who wrote it.
pub(crate) fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| format!("write a whole number of at least 0{}", limit(text)))
}

/// A number, with a point where it is none of the whole ones.
///
/// # Errors
/// What is wrong, for the person who wrote it.
pub(crate) fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.trim().parse().map_err(|_| "write a number, for example 0.7".to_string())
}

/// What only digits have against them.
fn limit(text: &str) -> impl Display {
    let digits = text.trim();
    let large = digits.len() > 1 && digits.chars().all(|c| c.is_ascii_digit());
    if large { "; this one is too large" } else { "" }
}

/// Where pages come from that may ask: a scheme, a host, and a port if it is not the usual one; or `*`.
///
/// # Errors
/// What is wrong, for the person who wrote it.
pub(crate) fn origin(text: &str) -> Result<String, String> {
    let text = text.trim();
    // Pages without an origin, as those of files are, say `null`.
    if ["*", "null"].contains(&text) {
        return Ok(text.to_string());
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        let host = if text.is_empty() { "example.org" } else { text };
        return Err(format!("an origin begins with its scheme: write https://{host}, or `*` for any"));
    };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let plain = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_graphic());
    if !plain(scheme) || !plain(host) {
        return Err("write an origin such as https://example.org, or `*` for any".to_string());
    }
    if !path.is_empty() {
        // Browsers name no path.
        return Err(format!("an origin has no path: write {scheme}://{host}"));
    }
    Ok(text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_numbers() {
        assert_eq!(at_least_one::<u32>("7"), Ok(7));
        assert_eq!(blocks("8"), Ok(NonZeroU32::new(8).unwrap()));
        assert_eq!(threads("2"), Ok(NonZeroUsize::new(2).unwrap()));
        assert_eq!((whole::<u64>("0"), number::<f64>("-0.5")), (Ok(0), Ok(-0.5)));
        for wrong in ["0", "-3", "abc", "", "1.5"] {
            assert!(at_least_one::<u32>(wrong).is_err_and(|error| error.ends_with("at least 1")), "{wrong}");
            assert!(blocks(wrong).is_err() && threads(wrong).is_err(), "{wrong}");
        }
        assert!(at_least_one::<u32>("4294967296").is_err_and(|error| error.ends_with("too large")));
        assert!(blocks("0..6").is_err_and(|error| error.contains("--block-range")));
        assert!(threads("65536").is_err());
        assert!(whole::<usize>("-1").is_err_and(|error| error.ends_with("at least 0")));
        assert!(number::<f64>("abc").is_err_and(|error| error.starts_with("write a number")));
    }

    #[test]
    fn what_is_read_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prompt.txt");
        let text = file.to_str().unwrap();
        assert!(input_file(text).is_err_and(|error| error.contains("no such file")));
        assert!(input_file(folder.path().to_str().unwrap()).is_err_and(|error| error.contains("folder")));
        std::fs::write(&file, "Once").unwrap();
        assert_eq!(input_file(text), Ok(file));
        assert_eq!((prompt("-"), prompt(" \n").is_err()), (Ok("-".to_string()), true));
        assert_eq!((context("2048"), context("5").is_err(), context("-1").is_err()), (Ok(2048), true, true));
    }

    #[test]
    fn an_origin_has_a_scheme_and_no_path() {
        for right in ["*", "null", "https://example.org", "http://localhost:3000"] {
            assert_eq!(origin(right).as_deref(), Ok(right));
        }
        for (wrong, instead) in [
            ("example.org", "https://example.org"),
            ("", "https://example.org"),
            ("https://example.org/", "write https://example.org"),
            ("https://", "such as"),
        ] {
            assert!(origin(wrong).is_err_and(|error| error.contains(instead)), "{wrong}: {:?}", origin(wrong));
        }
    }
}
