//! What a run came to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::schedule::Kind;
use super::teller::Telling;

/// What a run came to; all texts were right and all servers idle at the end.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What each client has seen.
    pub told: Vec<Telling>,
    /// What each server that lives at the end had left of its sessions.
    pub left: Vec<Left>,
    /// Disturbances.
    pub counts: BTreeMap<Kind, usize>,
}

/// A server at the end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left {
    /// Bytes of resident memory when it was ready.
    pub memory_before: u64,
    /// Bytes of resident memory at the end.
    pub memory: u64,
    /// Open files and connections when it was ready.
    pub files_before: usize,
    /// Open files and connections at the end.
    pub files: usize,
}

impl Outcome {
    /// Texts of all clients.
    pub fn texts(&self) -> usize {
        self.told.iter().map(|telling| telling.texts).sum()
    }

    /// How often a session has replaced a server.
    pub fn reroutes(&self) -> usize {
        self.told.iter().map(|telling| telling.reroutes.len()).sum()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let longest = self.told.iter().map(|telling| telling.longest_wait).max().unwrap_or(Duration::ZERO);
        let each: Vec<_> = self.told.iter().map(|telling| (telling.texts, telling.reroutes.len())).collect();
        writeln!(f, "{:?}: {each:?} texts and reroutes, longest wait {longest:.1?}", self.counts)?;
        self.left.iter().try_for_each(|left| {
            let grown = left.memory as i64 - left.memory_before as i64;
            writeln!(f, "{} bytes grown by {grown}, {} files, {} before", left.memory, left.files, left.files_before)
        })
    }
}
