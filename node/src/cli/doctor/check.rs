//! One thing that was looked at.

use std::fmt;

use serde_json::{Value, json};

use crate::cli::output::plain;

/// `number` of what is called `one`, or `more` of it.
pub(super) fn counted(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

/// What came of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    /// It works, or nobody can tell; it could be better.
    Could,
    /// It keeps this machine from taking part.
    Bad,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) verdict: Verdict,
    pub(super) found: String,
    /// What to do; none if all is well.
    pub(super) next: Option<String>,
}

impl Check {
    pub(super) fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Good, found: found.into(), next: None }
    }

    pub(super) fn could(name: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Could, found: found.into(), next: Some(next.into()) }
    }

    pub(super) fn bad(name: &'static str, found: impl Into<String>, next: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Bad, found: found.into(), next: Some(next.into()) }
    }

    pub(super) fn json(&self) -> Value {
        let verdict = match self.verdict {
            Verdict::Good => "good",
            Verdict::Could => "could_be_better",
            Verdict::Bad => "bad",
        };
        json!({ "name": self.name, "verdict": verdict, "found": self.found, "next": self.next })
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.verdict {
            Verdict::Good => '✓',
            Verdict::Could => '!',
            Verdict::Bad => '✗',
        };
        write!(f, "{mark} {:<13} {}", self.name, plain(&self.found))?;
        match &self.next {
            Some(next) => write!(f, "; {}", plain(next)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_one_line_with_what_to_do() {
        assert_eq!(Check::good("memory", "8 GB free").to_string(), "✓ memory        8 GB free");
        let bad = Check::bad("port", "4001 is\nused", "end it");
        assert_eq!(bad.to_string(), "✗ port          4001 is\u{fffd}used; end it");
        assert_eq!(bad.json()["verdict"], "bad");
    }
}
