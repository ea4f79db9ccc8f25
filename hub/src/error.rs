//! Why a model cannot be had from the hub, in one line each, with what to do.

use std::path::PathBuf;

use swarm_model::ModelError;
use thiserror::Error;

/// Why a model cannot be had from the hub.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HubError {
    /// The owner wants to know who uses the model.
    #[error("{repository} is gated: {}", if *.token {
        format!("this token's account may not read it (yet); ask for access on the page of {repository} on the hub, and check that \
                 the token may read gated repositories")
    } else {
        format!("ask for access on the page of {repository} on the hub, then set HF_TOKEN or log in (the file `token` in HF_HOME)")
    })]
    Gated {
        /// `org/name`.
        repository: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// The hub knows no such repository, or does not show it.
    #[error("the hub shows no repository {repository}{}", if *.token {
        ": check the name; if it is private, this token must be allowed to read it"
    } else {
        ": check the name; if it is private, set HF_TOKEN or log in (the file `token` in HF_HOME)"
    })]
    NoRepository {
        /// `org/name`.
        repository: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// The repository has no such branch, tag or commit.
    #[error("{repository} has no revision {revision}; leave @{revision} out for its main branch")]
    NoRevision {
        /// `org/name`.
        repository: String,
        /// What was asked for.
        revision: String,
    },
    /// The repository has no such file.
    #[error("{repository} has no file {file}{}", named(.others))]
    NoFile {
        /// `org/name`.
        repository: String,
        /// What was asked for.
        file: String,
        /// Files of the same kind that it has.
        others: Vec<String>,
    },
    /// The repository has weights only in formats that are not read.
    #[error("{repository} has no safetensors files{}; look for a repository that has them", named(.found))]
    NoSafetensors {
        /// `org/name`.
        repository: String,
        /// Weights in other formats.
        found: Vec<String>,
    },
    /// The hub does not accept the token.
    #[error("the hub does not accept the token: {reason}; make a new one, and set HF_TOKEN or log in again")]
    BadToken {
        /// What the hub says.
        reason: String,
    },
    /// The hub refuses.
    #[error("the hub refuses {what}: {reason}")]
    Refused {
        /// What was asked for.
        what: String,
        /// What the hub says.
        reason: String,
    },
    /// The hub has been asked too often.
    #[error("the hub has had too many requests from here{}; wait, or set HF_TOKEN for a higher limit",
            seconds.map(|s| format!(" and asks to wait {s} s")).unwrap_or_default())]
    RateLimited {
        /// How long it asks to wait.
        seconds: Option<u64>,
    },
    /// The hub cannot be reached, or does not answer as it should.
    #[error("{endpoint} cannot be reached: {reason}; check the connection{}, or use --offline with what is cached", proxy(.endpoint))]
    Unreachable {
        /// Its address.
        endpoint: String,
        /// What went wrong.
        reason: String,
    },
    /// Transfers break again and again.
    #[error("fetching {what} failed again and again: {reason}; what has come is kept, run the same command to go on")]
    Interrupted {
        /// What was fetched.
        what: String,
        /// What went wrong last.
        reason: String,
    },
    /// The hub's answer makes no sense.
    #[error("the hub's answer about {what} is not understood: {reason}")]
    BadAnswer {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Only what is cached may be used, and this is not.
    #[error(
        "{what} is not cached, and --offline (or HF_HUB_OFFLINE) forbids to fetch it; run `swarm-node pull {repository}` while online"
    )]
    NotCached {
        /// `org/name`.
        repository: String,
        /// What is missing.
        what: String,
    },
    /// The bytes are not those the hub names.
    #[error(
        "{file} came damaged: its {kind} is not the one the hub names; it was deleted, run the same command to fetch it again"
    )]
    Damaged {
        /// The file.
        file: String,
        /// The digest's name.
        kind: &'static str,
    },
    /// The file is no longer the same.
    #[error("{file} changed on the hub while it was fetched; run the same command to fetch it as it is now")]
    Changed {
        /// The file.
        file: String,
    },
    /// The disk is full, or would be.
    #[error("{} has no room for {} more ({} free); free some space, use --blocks for fewer blocks, or set HF_HOME to another disk",
            .folder.display(), size(*.needed), size(*.free))]
    DiskFull {
        /// The cache.
        folder: PathBuf,
        /// Bytes still to come.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// The limit would be passed.
    #[error("{} more would pass --max-disk {}: {} are in use by live processes or needed now; raise the limit, or use --blocks for fewer blocks",
            size(*.needed), size(*.limit), size(*.kept))]
    OverLimit {
        /// Bytes still to come.
        needed: u64,
        /// The limit.
        limit: u64,
        /// Bytes that cannot be deleted.
        kept: u64,
    },
    /// A live process uses it.
    #[error("{repository} is in use by a running swarm-node; stop it first")]
    InUse {
        /// `org/name`.
        repository: String,
    },
    /// Nothing of it is cached.
    #[error("nothing of {repository} is cached; `swarm-node models` lists what is")]
    NothingCached {
        /// `org/name`.
        repository: String,
    },
    /// It is not a model of the hub.
    #[error("{what} is no model of the hub; give org/name[@revision]")]
    NotOfHub {
        /// The model as given.
        what: String,
    },
    /// A file of the cache cannot be read or written.
    #[error("{}: {error}{}", .path.display(), if is_full(.error) {
        "; free some space, or set HF_HOME to another disk"
    } else {
        ""
    })]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: std::io::Error,
    },
}

impl HubError {
    /// Makes an error of the system one that names its file.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |error| Self::Io { path, error }
    }

    /// Whether the hub could not be asked at all, so that what is cached is the best there is.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::RateLimited { .. })
    }
}

/// Whether that is what a full disk answers.
pub(crate) fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

impl From<HubError> for ModelError {
    fn from(error: HubError) -> Self {
        Self::Source(Box::new(error))
    }
}

fn named(names: &[String]) -> String {
    /// As many as fit in a line.
    const SHOWN: usize = 4;
    match names {
        [] => String::new(),
        names => {
            let more = if names.len() > SHOWN { ", ..." } else { "" };
            format!(", only {}{more}", names[..names.len().min(SHOWN)].join(", "))
        }
    }
}

fn proxy(endpoint: &str) -> &'static str {
    if endpoint.contains("://127.") || endpoint.contains("://localhost") { "" } else { " and HTTPS_PROXY" }
}

/// Bytes for people, in the units of `--max-disk`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let mut shown = bytes as f64 / 1000.0;
    let mut unit = 0;
    while shown >= 1000.0 && unit + 1 < UNITS.len() {
        shown /= 1000.0;
        unit += 1;
    }
    if bytes < 1000 { format!("{bytes} B") } else { format!("{shown:.1} {}", UNITS[unit]) }
}
