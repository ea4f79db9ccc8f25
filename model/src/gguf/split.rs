//! A model in several files: their names, and that they belong together.

use std::collections::BTreeMap;

use super::header::Header;
use super::value::Value;
use crate::error::ModelError;

/// The number of this file, from 0.
const NUMBER: &str = "split.no";
/// The number of files.
const COUNT: &str = "split.count";
/// Tensors of all files.
const TENSORS: &str = "split.tensors.count";
/// Digits of a number in a file's name.
const DIGITS: usize = 5;
/// What a file's name ends with.
pub(super) const ENDING: &str = ".gguf";

/// The name of a part: `stem-00001-of-00003.gguf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PartName<'a> {
    pub(super) stem: &'a str,
    pub(super) count: u64,
}

impl<'a> PartName<'a> {
    /// `None` if `name` is none of a part.
    pub(super) fn parse(name: &'a str) -> Option<Self> {
        let rest = name.strip_suffix(ENDING)?;
        let (rest, count) = rest.rsplit_once("-of-")?;
        let (stem, number) = rest.rsplit_once('-')?;
        let (number, count) = (digits(number)?, digits(count)?);
        (1..=count).contains(&number).then_some(Self { stem, count })
    }

    /// The name of part `index`, from 0.
    pub(super) fn of(&self, index: u64) -> String {
        format!("{}-{:0DIGITS$}-of-{:0DIGITS$}{ENDING}", self.stem, index + 1, self.count)
    }
}

fn digits(text: &str) -> Option<u64> {
    let plain = text.len() == DIGITS && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok())?
}

fn number(metadata: &BTreeMap<String, Value>, key: &str) -> Option<u64> {
    metadata.get(key).and_then(Value::as_u64)
}

/// How many files the model of this header has; 1 if it does not say.
pub(super) fn count(header: &Header) -> u64 {
    number(&header.metadata, COUNT).unwrap_or(1).max(1)
}

/// That `header` is part `index` of as many as its name says.
pub(super) fn check_part(label: &str, name: &PartName<'_>, index: u64, header: &Header) -> Result<(), ModelError> {
    let (found, count) = (number(&header.metadata, NUMBER), number(&header.metadata, COUNT));
    if (found, count) == (Some(index), Some(name.count)) {
        return Ok(());
    }
    let said = |value: Option<u64>| value.map_or("nothing".to_string(), |value| value.to_string());
    Err(ModelError::file(
        label,
        format!(
            "by its name it is part {index} (from 0) of {}, but {NUMBER} says {} and {COUNT} {}",
            name.count,
            said(found),
            said(count)
        ),
    ))
}

/// That the parts have all tensors that the first one promises.
pub(super) fn check_tensors(label: &str, first: &Header, found: u64) -> Result<(), ModelError> {
    match number(&first.metadata, TENSORS) {
        Some(promised) if promised != found => {
            Err(ModelError::file(label, format!("its parts have {found} tensors, but {TENSORS} says {promised}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_names_all_others() {
        let name = PartName::parse("a/b-00002-of-00003.gguf").unwrap();
        assert_eq!(name, PartName { stem: "a/b", count: 3 });
        assert_eq!(name.of(0), "a/b-00001-of-00003.gguf");
        for other in ["b.gguf", "b-1-of-3.gguf", "b-00004-of-00003.gguf", "b-00000-of-00003.gguf", "b-00001-of-00003"] {
            assert_eq!(PartName::parse(other), None, "{other}");
        }
    }
}
