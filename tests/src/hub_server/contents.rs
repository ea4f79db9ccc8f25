//! What the hub has: repositories, their commits and files.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Files that lie on the second server.
const LARGE: [&str; 2] = [".safetensors", ".gguf"];

/// A file.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// Git's name for it.
    pub(super) blob: String,
    /// Its sha256, if it is a large one.
    pub(super) sha256: Option<String>,
}

impl Stored {
    pub(super) fn etag(&self) -> &str {
        self.sha256.as_deref().unwrap_or(&self.blob)
    }
}

/// The files of a commit by name.
pub(super) type Commit = BTreeMap<String, Stored>;

#[derive(Debug, Default)]
pub(super) struct Repositories(BTreeMap<String, Vec<(String, Commit)>>);

/// The name of the commit of `repository` that was added after `before` others.
pub fn commit(repository: &str, before: usize) -> String {
    hex(&Sha1::digest(format!("{repository} {before}")))
}

impl Repositories {
    pub(super) fn add(&mut self, repository: &str, directory: &Path) {
        let files = fs::read_dir(directory).expect("the repository's directory").flatten();
        let files = files.filter(|entry| entry.path().is_file());
        let files =
            files.map(|entry| (entry.file_name().to_string_lossy().into_owned(), stored(&entry.path()))).collect();
        let commits = self.0.entry(repository.to_string()).or_default();
        let name = commit(repository, commits.len());
        commits.push((name, files));
    }

    /// The commit that `revision` is: `main` is the newest.
    pub(super) fn find(&self, repository: &str, revision: &str) -> Result<&(String, Commit), &'static str> {
        let commits = self.0.get(repository).ok_or("RepoNotFound")?;
        let found = match revision {
            "main" => commits.last(),
            revision => commits.iter().find(|(name, _)| name == revision),
        };
        found.ok_or("RevisionNotFound")
    }
}

fn stored(path: &Path) -> Stored {
    let mut file = File::open(path).expect("a file of the repository");
    let size = file.metadata().expect("its length").len();
    let large = LARGE.iter().any(|ending| path.to_string_lossy().ends_with(ending));
    let (mut sha256, mut blob) = (Sha256::new(), Sha1::new());
    blob.update(format!("blob {size}\0"));
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).expect("its bytes") {
            0 => break,
            // Git's name of a large file is that of a note about it; nobody looks at it.
            read if large => sha256.update(&buffer[..read]),
            read => blob.update(&buffer[..read]),
        }
    }
    let sha256 = large.then(|| hex(&sha256.finalize()));
    Stored { path: path.to_path_buf(), size, blob: hex(&blob.finalize()), sha256 }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
