//! Which bytes of a file an answer carries, and whether the file is still the same.

use std::ops::Range;

use crate::http::Answer;
use crate::retry::Failure;

/// What an answer carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Carries {
    /// These bytes.
    Range(Range<u64>),
    /// The whole file, whatever was asked for.
    Whole,
}

/// What is known of an answer but its body.
#[derive(Debug, Clone, Copy, Default)]
struct Head<'a> {
    status: u16,
    content_range: Option<&'a str>,
    content_length: Option<&'a str>,
    etag: Option<&'a str>,
}

/// What `answer` carries when `asked` was asked for of a file of `size` bytes, which the same server named `etag` before.
pub(crate) fn carries(answer: &Answer, asked: &Range<u64>, size: u64, etag: Option<&str>) -> Result<Carries, Failure> {
    let head = Head {
        status: answer.response.status().as_u16(),
        content_range: answer.header("content-range"),
        content_length: answer.header("content-length"),
        etag: answer.header("etag"),
    };
    judge(head, asked, size, etag)
}

fn judge(head: Head<'_>, asked: &Range<u64>, size: u64, etag: Option<&str>) -> Result<Carries, Failure> {
    let other = |before| head.etag.and_then(strong).is_some_and(|now| now != before);
    if etag.is_some_and(other) {
        return Err(Failure::Changed);
    }
    if head.status != 206 {
        // A length that is not said is found out at the end.
        let length = head.content_length.and_then(|length| length.parse().ok());
        return if length.is_none_or(|length: u64| length == size) {
            Ok(Carries::Whole)
        } else {
            Err(Failure::Changed)
        };
    }
    let odd = || Failure::Odd(format!("content-range {:?}", head.content_range.unwrap_or_default()));
    let (range, total) = head.content_range.and_then(content_range).ok_or_else(odd)?;
    if total.is_some_and(|total| total != size) {
        return Err(Failure::Changed);
    }
    // It may carry less than was asked for, but no other bytes.
    if range.start != asked.start || range.end > asked.end || range.is_empty() {
        return Err(odd());
    }
    Ok(Carries::Range(range))
}

/// An ETag that stands for the same bytes; weak ones do not.
pub(crate) fn strong(etag: &str) -> Option<&str> {
    etag.starts_with('"').then_some(etag)
}

/// `bytes 0-9/100` as `0..10` of 100.
fn content_range(text: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let range = first.parse().ok()?..last.parse::<u64>().ok()?.checked_add(1)?;
    match total {
        "*" => Some((range, None)),
        total => Some((range, Some(total.parse().ok()?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partial(content_range: &str) -> Result<Carries, Failure> {
        judge(Head { status: 206, content_range: Some(content_range), ..Head::default() }, &(10..20), 100, None)
    }

    #[test]
    fn a_range_is_taken_only_if_it_was_asked_for() {
        assert_eq!(partial("bytes 10-19/100"), Ok(Carries::Range(10..20)));
        assert_eq!(partial("bytes 10-14/*"), Ok(Carries::Range(10..15)));
        assert_eq!(partial("bytes 10-19/101"), Err(Failure::Changed));
        for odd in
            ["bytes 0-19/100", "bytes 10-20/100", "bytes 10-9/100", "lines 1-2/3", "bytes 10-18446744073709551615/*"]
        {
            assert!(matches!(partial(odd), Err(Failure::Odd(_))), "{odd}");
        }
    }

    #[test]
    fn a_whole_file_of_another_length_or_name_is_another_file() {
        let whole = |length, etag| {
            let head = Head { status: 200, content_length: length, etag, ..Head::default() };
            judge(head, &(10..20), 100, Some("\"a\""))
        };
        assert_eq!(whole(Some("100"), Some("\"a\"")), Ok(Carries::Whole));
        assert_eq!(whole(None, None), Ok(Carries::Whole));
        assert_eq!(whole(Some("99"), None), Err(Failure::Changed));
        assert_eq!(whole(Some("100"), Some("\"b\"")), Err(Failure::Changed));
    }
}
