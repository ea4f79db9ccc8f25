//! A repository at a commit: which files it has, and what of it is cached.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::config::HubConfig;
use crate::error::HubError;
use crate::explain::Asked;
use crate::http::Http;
use crate::layout::{Etag, Folder, is_commit, is_inside};

/// The branch that is meant where none is named.
const MAIN: &str = "main";

/// A file on the hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RemoteFile {
    /// Its path in the repository.
    pub(crate) name: String,
    /// Its length in bytes.
    pub(crate) size: u64,
    /// What its contents are named by.
    pub(crate) etag: Etag,
}

/// What the API says of a repository; of other keys nothing is wanted.
#[derive(Deserialize)]
struct Answer {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

/// The files of a commit, kept beside what is cached of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Listing {
    pub(crate) files: Vec<RemoteFile>,
    /// Files of which the API says neither length nor name of contents: they are asked for one by one.
    #[serde(default)]
    pub(crate) unknown: Vec<String>,
}

/// Whether a repository has a file.
pub(crate) enum Found {
    /// It has.
    Here(RemoteFile),
    /// It has not.
    Nowhere,
    /// Nobody can be asked.
    Unknown,
}

/// A repository at a commit.
#[derive(Debug)]
pub(crate) struct Repository {
    pub(crate) name: String,
    pub(crate) revision: String,
    pub(crate) commit: String,
    /// `None` if another tool has cached it, and the hub is not asked.
    pub(crate) listing: Option<Listing>,
    pub(crate) folder: Folder,
    pub(crate) http: Http,
    pub(crate) config: HubConfig,
}

impl Repository {
    /// Finds out which commit is meant, and what files it has; from the cache if the hub is not to be asked, or cannot be.
    pub(crate) fn open(config: &HubConfig, name: &str, revision: Option<&str>) -> Result<Self, HubError> {
        let revision = revision.unwrap_or(MAIN).to_string();
        if !is_inside(&revision) {
            return Err(HubError::NoRevision { repository: name.to_string(), revision });
        }
        let mut repository = Self {
            name: name.to_string(),
            commit: revision.clone(),
            revision,
            listing: None,
            folder: Folder::new(&config.cache, name),
            http: Http::new(config),
            config: config.clone(),
        };
        let known = is_commit(&repository.revision) && repository.read_listing(&repository.revision).is_some();
        if known || config.offline {
            repository.use_cache()?;
            return Ok(repository);
        }
        match repository.ask() {
            Ok(()) => Ok(repository),
            Err(error) if error.is_unreachable() && repository.use_cache().is_ok() => {
                tracing::warn!(%error, "the hub does not answer; what is cached is used");
                Ok(repository)
            }
            Err(error) => Err(error),
        }
    }

    /// What this is in errors of requests for `file`.
    pub(crate) fn asked<'a>(&'a self, file: Option<&'a str>) -> Asked<'a> {
        Asked { repository: &self.name, revision: &self.revision, file }
    }

    fn ask(&mut self) -> Result<(), HubError> {
        let asked = self.asked(None);
        let json = self.http.repository(&self.name, &self.revision);
        let json = json.map_err(|failure| asked.explain(&self.http, failure))?;
        let bad = |reason: String| HubError::BadAnswer { what: self.name.clone(), reason };
        let answer: Answer = serde_json::from_slice(&json).map_err(|error| bad(error.to_string()))?;
        if !is_commit(&answer.sha) {
            return Err(bad("its commit has no name".to_string()));
        }
        let listing = listing(answer.siblings);
        self.remember(&answer.sha, &listing)?;
        (self.commit, self.listing) = (answer.sha, Some(listing));
        Ok(())
    }

    /// Writes down which commit the revision is, as other tools do, and its files.
    fn remember(&self, commit: &str, listing: &Listing) -> Result<(), HubError> {
        let json = serde_json::to_vec(listing).unwrap_or_default();
        replace(&self.folder.listing(commit), &json)?;
        // Other tools take a repository without snapshots for a broken one.
        let snapshot = self.folder.snapshots().join(commit);
        fs::create_dir_all(&snapshot).map_err(HubError::io(snapshot))?;
        match is_commit(&self.revision) {
            true => Ok(()),
            false => replace(&self.folder.reference(&self.revision), commit.as_bytes()),
        }
    }

    fn use_cache(&mut self) -> Result<(), HubError> {
        let commit = match is_commit(&self.revision) {
            true => self.revision.clone(),
            false => {
                let path = self.folder.reference(&self.revision);
                let commit = fs::read_to_string(path).ok().map(|text| text.trim().to_string());
                commit.filter(|commit| is_commit(commit)).ok_or_else(|| self.not_cached(None))?
            }
        };
        self.listing = self.read_listing(&commit);
        self.commit = commit;
        let any = self.listing.is_some() || self.folder.snapshots().join(&self.commit).is_dir();
        if any { Ok(()) } else { Err(self.not_cached(None)) }
    }

    fn read_listing(&self, commit: &str) -> Option<Listing> {
        Self::listing_of(&self.folder, commit)
    }

    /// What is written down of a commit's files.
    pub(crate) fn listing_of(folder: &Folder, commit: &str) -> Option<Listing> {
        serde_json::from_slice(&fs::read(folder.listing(commit)).ok()?).ok()
    }

    /// That `file`, or all of it, is not cached.
    pub(crate) fn not_cached(&self, file: Option<&str>) -> HubError {
        let revision = if self.revision == MAIN { String::new() } else { format!("@{}", self.revision) };
        let repository = format!("{}{revision}", self.name);
        let what = file.map_or_else(|| repository.clone(), |file| format!("{}/{file}", self.name));
        HubError::NotCached { repository, what }
    }

    /// Whether it has the file `name`.
    pub(crate) fn find(&self, name: &str) -> Result<Found, HubError> {
        let Some(listing) = &self.listing else { return Ok(Found::Unknown) };
        if let Some(file) = listing.files.iter().find(|file| file.name == name) {
            return Ok(Found::Here(file.clone()));
        }
        if !listing.unknown.iter().any(|unknown| unknown == name) {
            return Ok(Found::Nowhere);
        }
        if self.config.offline {
            return Ok(Found::Unknown);
        }
        let asked = self.asked(Some(name));
        let url = self.http.file_url(&self.name, &self.commit, name);
        let (size, etag) = self.http.stat(&url).map_err(|failure| asked.explain(&self.http, failure))?;
        let bad = || HubError::BadAnswer { what: format!("{}/{name}", self.name), reason: format!("ETag {etag}") };
        let etag = Etag::new(&etag).ok_or_else(bad)?;
        Ok(Found::Here(RemoteFile { name: name.to_string(), size, etag }))
    }

    /// The names of all files, as far as they are known.
    pub(crate) fn names(&self) -> Vec<String> {
        match &self.listing {
            Some(listing) => {
                let known = listing.files.iter().map(|file| &file.name);
                known.chain(&listing.unknown).cloned().collect()
            }
            None => files_below(&self.folder.snapshots().join(&self.commit)),
        }
    }

    /// The path of `name` if all of it is cached, whoever put it there.
    pub(crate) fn whole(&self, name: &str) -> Option<PathBuf> {
        let path = self.folder.snapshot(&self.commit, name);
        let length = fs::metadata(&path).ok().filter(fs::Metadata::is_file)?.len();
        let listed = self.listing.iter().flat_map(|listing| &listing.files).find(|file| file.name == name);
        listed.is_none_or(|file| file.size == length).then_some(path)
    }

    /// Whether all of `file` is cached, under whatever name.
    pub(crate) fn has_blob(&self, file: &RemoteFile) -> bool {
        fs::metadata(self.folder.blob(&file.etag)).is_ok_and(|about| about.len() == file.size)
    }

    /// Makes the blob of `file` appear in the commit's snapshot.
    pub(crate) fn link(&self, file: &RemoteFile) -> Result<PathBuf, HubError> {
        let (blob, link) = (self.folder.blob(&file.etag), self.folder.snapshot(&self.commit, &file.name));
        let folder = link.parent().unwrap_or(&link).to_path_buf();
        fs::create_dir_all(&folder).map_err(HubError::io(&folder))?;
        let up = "../".repeat(2 + file.name.matches('/').count());
        let target = Path::new(&up).join("blobs").join(file.etag.as_str());
        // Others may do the same, and others again read it meanwhile: it is there at every moment.
        let ours = self.folder.ours();
        fs::create_dir_all(&ours).map_err(HubError::io(&ours))?;
        let new = temporary(&ours);
        let _ = fs::remove_file(&new);
        let linked = link_file(&target, &blob, &new).and_then(|()| fs::rename(&new, &link));
        linked.map_err(HubError::io(&link))?;
        // Two names of one file are not renamed into one.
        let _ = fs::remove_file(&new);
        Ok(link)
    }
}

#[cfg(unix)]
fn link_file(target: &Path, _blob: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn link_file(_target: &Path, blob: &Path, link: &Path) -> std::io::Result<()> {
    // Links need rights there that few have; this is what other tools do.
    fs::hard_link(blob, link).or_else(|_| fs::copy(blob, link).map(|_| ()))
}

fn listing(siblings: Vec<Sibling>) -> Listing {
    let mut listing = Listing::default();
    for Sibling { rfilename: name, size, blob_id, lfs } in siblings {
        if !is_inside(&name) {
            continue;
        }
        let (size, etag) = match lfs {
            Some(lfs) => (lfs.size.or(size), lfs.sha256),
            None => (size, blob_id),
        };
        match (size, etag.as_deref().and_then(Etag::new)) {
            (Some(size), Some(etag)) => listing.files.push(RemoteFile { name, size, etag }),
            _ => listing.unknown.push(name),
        }
    }
    listing
}

/// Files below `folder`, as paths with slashes from there.
pub(crate) fn files_below(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    let mut open = vec![(folder.to_path_buf(), String::new())];
    while let Some((folder, prefix)) = open.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            match entry.path() {
                path if path.is_dir() => open.push((path, format!("{name}/"))),
                path if path.is_file() => names.push(name),
                _ => {}
            }
        }
    }
    names.sort();
    names
}

/// A name in `folder` that nobody else uses.
fn temporary(folder: &Path) -> PathBuf {
    /// Tells the threads of a process apart.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    // Processes in containers may have one number.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    folder.join(format!(".{}-{now:x}-{number}.tmp", std::process::id()))
}

/// Writes a small file so that others see all of it or nothing.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), HubError> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(HubError::io(folder))?;
    let temporary = temporary(folder);
    let write = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(bytes)?;
        file.sync_data()?;
        fs::rename(&temporary, path)
    };
    write().map_err(HubError::io(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_says_is_checked() {
        let json = format!(
            r#"{{"sha": "x", "siblings": [
                {{"rfilename": "config.json", "size": 7, "blobId": "{small}"}},
                {{"rfilename": "w.safetensors", "size": 9, "blobId": "{small}", "lfs": {{"sha256": "{large}", "size": 9}}}},
                {{"rfilename": "mirror.json"}},
                {{"rfilename": "../../etc/passwd", "size": 1, "blobId": "{small}"}}]}}"#,
            small = "a".repeat(40),
            large = "b".repeat(64),
        );
        let answer: Answer = serde_json::from_str(&json).unwrap();
        let listing = listing(answer.siblings);
        let names: Vec<_> = listing.files.iter().map(|file| (file.name.as_str(), file.etag.is_sha256())).collect();
        assert_eq!(names, [("config.json", false), ("w.safetensors", true)]);
        assert_eq!(listing.unknown, ["mirror.json"]);
    }
}
