//! Which failures pass by themselves, and how long to wait before the next try.

use std::time::Duration;

use crate::config::Retries;

/// Why one request did not give what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Nobody answers.
    Unreachable(String),
    /// The connection broke, or fell silent.
    Broken(String),
    /// The answer is a refusal.
    Status(Refusal),
    /// The answer is about other bytes than those asked for: the file changed.
    Changed,
    /// The answer breaks the rules.
    Odd(String),
    /// Something here failed that no other try mends.
    Local(String),
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The status.
    pub(crate) status: u16,
    /// The hub's word for it, such as `GatedRepo`.
    pub(crate) code: String,
    /// What it says to people.
    pub(crate) message: String,
    /// How long it asks to wait.
    pub(crate) retry_after: Option<Duration>,
    /// Whether the hub itself said it, not the server of files that it pointed to.
    pub(crate) of_hub: bool,
}

impl Failure {
    /// Whether the same request may succeed later.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Broken(_) => true,
            // Addresses of the server of files are good for a while only.
            Self::Status(Refusal { status: 401 | 403, of_hub: false, .. }) => true,
            Self::Status(Refusal { status, .. }) => matches!(status, 408 | 425 | 429 | 500..=599),
            Self::Changed | Self::Odd(_) | Self::Local(_) => false,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status(refusal) => refusal.retry_after,
            _ => None,
        }
    }

    /// For people.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Unreachable(reason) | Self::Broken(reason) | Self::Odd(reason) | Self::Local(reason) => {
                reason.clone()
            }
            Self::Changed => "it changed".to_string(),
            Self::Status(Refusal { status, message, .. }) if message.is_empty() => format!("it answers {status}"),
            Self::Status(Refusal { status, message, .. }) => format!("it answers {status}, {message}"),
        }
    }
}

/// The pauses between tries of one thing.
#[derive(Debug, Clone)]
pub(crate) struct Pauses {
    retries: Retries,
    failures: u32,
}

impl Pauses {
    pub(crate) fn new(retries: Retries) -> Self {
        Self { retries, failures: 0 }
    }

    /// How long to wait after `failure`; `None` if there is no use in another try.
    pub(crate) fn after(&mut self, failure: &Failure) -> Option<Duration> {
        self.failures += 1;
        if !failure.passes() || self.failures >= self.retries.most {
            return None;
        }
        let doubled = self.retries.first_pause.saturating_mul(1 << (self.failures - 1).min(16));
        match failure.retry_after() {
            Some(asked) => (asked <= self.retries.longest_pause).then_some(asked),
            None => Some(doubled.min(self.retries.longest_pause)),
        }
    }

    /// How many failures there were without anything coming between.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Something came: what fails next is the first failure.
    pub(crate) fn progressed(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, of_hub: bool, seconds: Option<u64>) -> Failure {
        let (code, message, retry_after) = (String::new(), String::new(), seconds.map(Duration::from_secs));
        Failure::Status(Refusal { status, code, message, retry_after, of_hub })
    }

    #[test]
    fn pauses_double_and_end() {
        let mut pauses = Pauses::new(Retries { most: 4, ..Retries::default() });
        let broken = Failure::Broken("cut".to_string());
        let taken: Vec<_> = (0..4).map(|_| pauses.after(&broken).map(|pause| pause.as_millis())).collect();
        assert_eq!(taken, [Some(500), Some(1000), Some(2000), None]);
        pauses.progressed();
        assert_eq!(pauses.after(&broken), Some(Duration::from_millis(500)));
    }

    #[test]
    fn the_hub_says_how_long_to_wait_unless_that_is_too_long() {
        let mut pauses = Pauses::new(Retries::default());
        assert_eq!(pauses.after(&refused(429, true, Some(7))), Some(Duration::from_secs(7)));
        assert_eq!(pauses.after(&refused(503, true, Some(0))), Some(Duration::ZERO));
        assert_eq!(pauses.after(&refused(429, true, Some(3600))), None);
    }

    #[test]
    fn what_does_not_pass_is_not_tried_again() {
        for failure in [refused(404, true, None), refused(403, true, None), Failure::Changed] {
            assert_eq!(Pauses::new(Retries::default()).after(&failure), None, "{failure:?}");
        }
        assert!(Pauses::new(Retries::default()).after(&refused(403, false, None)).is_some());
    }
}
