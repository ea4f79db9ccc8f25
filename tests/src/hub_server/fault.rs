//! How a hub misbehaves.

use super::Role;
use super::request::Asked;

/// What is done instead of a proper answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A refusal.
    Refuse {
        /// The status.
        status: u16,
        /// The hub's word for it.
        code: &'static str,
        /// Seconds to wait.
        retry_after: Option<u64>,
    },
    /// The connection is cut after so many bytes of the body.
    Cut(u64),
    /// All of the file is sent, whatever was asked for.
    IgnoreRange,
    /// One bit of the first byte of the body is another.
    WrongBytes,
    /// The file is another one, of the same length.
    Changed,
    /// After so many bytes of the body nothing comes until the hub is told to go on.
    Hold(u64),
    /// The API says neither lengths nor digests, as mirrors do.
    NoDigests,
}

/// When to misbehave, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// A part of the path.
    pub path: String,
    /// Which of the two servers; both, if none is named.
    pub role: Option<Role>,
    /// How many times.
    pub times: usize,
    /// What is done.
    pub fault: Fault,
}

impl Rule {
    /// `fault`, once, for paths that contain `path`.
    pub fn once(path: &str, fault: Fault) -> Self {
        Self { path: path.to_string(), role: None, times: 1, fault }
    }

    /// `fault`, once, of the server of large files.
    pub fn of_files(path: &str, fault: Fault) -> Self {
        Self { role: Some(Role::Files), ..Self::once(path, fault) }
    }

    /// `fault`, always.
    pub fn always(path: &str, fault: Fault) -> Self {
        Self { times: usize::MAX, ..Self::once(path, fault) }
    }
}

/// The fault for a request, if there is one; it is used up.
pub(super) fn next(rules: &mut [Rule], asked: &Asked) -> Option<Fault> {
    let meant = |rule: &&mut Rule| rule.role.is_none_or(|role| role == asked.role) && asked.path.contains(&rule.path);
    let rule = rules.iter_mut().filter(|rule| rule.times > 0).find(meant)?;
    rule.times -= 1;
    Some(rule.fault.clone())
}
