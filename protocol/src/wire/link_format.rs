//! In which format rows go over a session's links.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::rows::{ElementType, RowEncoding};

/// What becomes of rows on a link. The order of the variants is the wire format: append only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LinkFormat {
    /// They arrive bit for bit.
    #[default]
    Exact,
    /// Each cell is rounded to eight bits, by what lies in it and nothing else: a row gives the same bytes whenever and by
    /// whomever it is sent.
    Int8,
    /// They arrive bit for bit, and who sends them packs them: servers where they measure that it pays, and always what goes to
    /// the session's owner.
    Packed,
}

impl LinkFormat {
    /// Whether rows arrive bit for bit.
    pub fn is_lossless(self) -> bool {
        self != Self::Int8
    }

    /// Whether rows of `element` may come as `found` on such a link. Whoever takes exact rows takes packed ones.
    pub fn admits(self, element: ElementType, found: RowEncoding) -> bool {
        match found {
            RowEncoding::Packed { element: packed, .. } => self.is_lossless() && packed == element,
            _ => found == self.encoding(element),
        }
    }

    /// How rows of `element` are written on such a link, if they are not packed.
    pub fn encoding(self, element: ElementType) -> RowEncoding {
        match self {
            Self::Exact | Self::Packed => element.into(),
            Self::Int8 => RowEncoding::Int8,
        }
    }

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Int8 => "int8",
            Self::Packed => "packed",
        }
    }
}

impl fmt::Display for LinkFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No link format has that name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("there is no wire format {0:?}; it is exact, int8 or packed")]
pub struct UnknownLinkFormat(String);

impl FromStr for LinkFormat {
    type Err = UnknownLinkFormat;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        [Self::Exact, Self::Int8, Self::Packed]
            .into_iter()
            .find(|format| format.name() == name)
            .ok_or_else(|| UnknownLinkFormat(name.to_string()))
    }
}

/// The formats of a hop's links, all session long, whoever is at their other ends.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LinkFormats {
    /// Of the rows that it is fed.
    pub input: LinkFormat,
    /// Of the rows that it gives.
    pub output: LinkFormat,
}
