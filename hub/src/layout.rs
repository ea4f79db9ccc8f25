//! Where things lie in the cache. The layout is that of Python's `huggingface_hub`: `blobs` named by their ETag, `snapshots`
//! of a commit with links to them, `refs` from branches to commits. What is ours alone lies in each repository's folder
//! `swarm-node`, which other tools pass over, and delete together with the repository.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The folder of our own files in a repository's.
const OURS: &str = "swarm-node";

/// What the hub names a file's contents by: also the name of the blob.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Etag(String);

impl Etag {
    /// The digest of a large file (sha256, 64 hexadecimal digits) or git's of a small one (sha1, 40).
    pub(crate) fn new(text: &str) -> Option<Self> {
        let text = text.trim_start_matches("W/").trim_matches('"');
        let hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (hex && [40, 64].contains(&text.len())).then(|| Self(text.to_string()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a sha256 of the contents; else it is git's sha1.
    pub(crate) fn is_sha256(&self) -> bool {
        self.0.len() == 64
    }
}

impl TryFrom<String> for Etag {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text).ok_or("no digest of 40 or 64 hexadecimal digits")
    }
}

impl From<Etag> for String {
    fn from(etag: Etag) -> Self {
        etag.0
    }
}

impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `text` is a commit's name.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether `path`, with slashes, names something below the folder it is joined to.
pub(crate) fn is_inside(path: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.split('/').all(plain) && !path.contains(['\\', '\0', ':'])
}

/// One repository's part of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folder {
    root: PathBuf,
    locks: PathBuf,
}

impl Folder {
    /// That of `repository`, `org/name`, in `cache`.
    pub(crate) fn new(cache: &Path, repository: &str) -> Self {
        let name = format!("models--{}", repository.replace('/', "--"));
        Self { root: cache.join(&name), locks: cache.join(".locks").join(name) }
    }

    /// The repository whose folder is called `name`.
    pub(crate) fn repository(name: &str) -> Option<String> {
        let (organisation, name) = name.strip_prefix("models--")?.split_once("--")?;
        Some(format!("{organisation}/{name}"))
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }

    pub(crate) fn blob(&self, etag: &Etag) -> PathBuf {
        self.blobs().join(etag.as_str())
    }

    pub(crate) fn snapshots(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    pub(crate) fn snapshot(&self, commit: &str, file: &str) -> PathBuf {
        self.snapshots().join(commit).join(file)
    }

    pub(crate) fn references(&self) -> PathBuf {
        self.root.join("refs")
    }

    pub(crate) fn reference(&self, revision: &str) -> PathBuf {
        self.references().join(revision)
    }

    /// The folder of what is ours alone.
    pub(crate) fn ours(&self) -> PathBuf {
        self.root.join(OURS)
    }

    /// Which files a commit has.
    pub(crate) fn listing(&self, commit: &str) -> PathBuf {
        self.ours().join(format!("{commit}.json"))
    }

    /// The bytes of a file that is not whole, each at its place.
    pub(crate) fn part(&self, etag: &Etag) -> PathBuf {
        self.ours().join(format!("{etag}.part"))
    }

    /// Which of them are there.
    pub(crate) fn journal(&self, etag: &Etag) -> PathBuf {
        self.ours().join(format!("{etag}.journal"))
    }

    /// Says that we put the blob there; its time is that of its last use.
    pub(crate) fn brought(&self, etag: &Etag) -> PathBuf {
        self.ours().join(format!("{etag}.brought"))
    }

    /// The lock of whoever writes a file; `huggingface_hub` takes the same one.
    pub(crate) fn write_lock(&self, etag: &Etag) -> PathBuf {
        self.locks.join(format!("{etag}.lock"))
    }

    /// The lock of all who use a file.
    pub(crate) fn use_lock(&self, etag: &Etag) -> PathBuf {
        self.locks.join(format!("{etag}.use"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_other_tools() {
        let folder = Folder::new(Path::new("/hub"), "org/some--name");
        let etag = Etag::new(&format!("\"{}\"", "a".repeat(64))).unwrap();
        let base = "/hub/models--org--some--name";
        assert_eq!(folder.blob(&etag), Path::new(base).join("blobs").join("a".repeat(64)));
        assert_eq!(folder.snapshot("c0", "sub/x.json"), Path::new(base).join("snapshots/c0/sub/x.json"));
        assert_eq!(folder.reference("refs/pr/1"), Path::new(base).join("refs/refs/pr/1"));
        assert_eq!(Folder::repository("models--org--some--name").as_deref(), Some("org/some--name"));
        assert_eq!(Folder::repository("datasets--org--x"), None);
    }

    #[test]
    fn nothing_leaves_the_folder() {
        for bad in ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "a\\b", "a/."] {
            assert!(!is_inside(bad), "{bad}");
        }
        assert!(is_inside("a/b.json") && is_inside("..x"));
        for bad in ["../../x", "xyz", "A0", &"g".repeat(40), &"a".repeat(41)] {
            assert!(Etag::new(bad).is_none(), "{bad}");
        }
    }
}
