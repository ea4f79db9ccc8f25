//! What a failure of the hub means to the user.

use crate::error::HubError;
use crate::http::Http;
use crate::retry::{Failure, Refusal};

/// What was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) repository: &'a str,
    /// A branch, tag or commit, as the user named it.
    pub(crate) revision: &'a str,
    /// A file; otherwise the repository itself.
    pub(crate) file: Option<&'a str>,
}

impl Asked<'_> {
    fn what(&self) -> String {
        match self.file {
            Some(file) => format!("{}/{file}", self.repository),
            None => self.repository.to_string(),
        }
    }

    /// What `failure` of a request to `http` means.
    pub(crate) fn explain(&self, http: &Http, failure: Failure) -> HubError {
        let (what, reason) = (self.what(), failure.reason());
        match failure {
            Failure::Unreachable(reason) => HubError::Unreachable { endpoint: http.endpoint().to_string(), reason },
            Failure::Changed => HubError::Changed { file: what },
            Failure::Odd(reason) | Failure::Local(reason) => HubError::BadAnswer { what, reason },
            Failure::Status(refusal) if (400..500).contains(&refusal.status) => self.refused(http.has_token(), refusal),
            Failure::Broken(_) | Failure::Status(_) => match self.file {
                Some(_) => HubError::Interrupted { what, reason },
                None => HubError::Unreachable { endpoint: http.endpoint().to_string(), reason },
            },
        }
    }

    fn refused(&self, token: bool, refusal: Refusal) -> HubError {
        let Refusal { status, code, message, retry_after, .. } = refusal;
        let repository = self.repository.to_string();
        let reason = if message.is_empty() { format!("it answers {status}") } else { message };
        match (status, code.as_str()) {
            (429, _) => HubError::RateLimited { seconds: retry_after.map(|time| time.as_secs()) },
            (_, "GatedRepo") => HubError::Gated { repository, token },
            (_, "RepoNotFound") => HubError::NoRepository { repository, token },
            (_, "RevisionNotFound") => HubError::NoRevision { repository, revision: self.revision.to_string() },
            // Without a token a repository that is private looks like none.
            (401, _) if !token => HubError::NoRepository { repository, token },
            (401, _) => HubError::BadToken { reason },
            (404, _) => match self.file {
                Some(file) => HubError::NoFile { repository, file: file.to_string(), others: Vec::new() },
                None => HubError::NoRepository { repository, token },
            },
            _ => HubError::Refused { what: self.what(), reason },
        }
    }
}
