//! Room on the disk: what is ours in the cache, and what of it goes first.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::config::HubConfig;
use crate::error::HubError;
use crate::journal::{Journal, held};
use crate::layout::{Etag, Folder};
use crate::lock::Lock;

/// Bytes of the disk that are left to others: a system with none left does worse things than to stop a download.
const LEFT_TO_OTHERS: u64 = 64 << 20;

/// A file in the cache that this program has brought there.
#[derive(Debug, Clone)]
pub(crate) struct Owned {
    pub(crate) folder: Folder,
    pub(crate) etag: Etag,
    /// Bytes that deleting it would free.
    pub(crate) bytes: u64,
    pub(crate) last_used: SystemTime,
}

/// Says that a file was used just now, if there is one.
pub(crate) fn touch(path: &Path) {
    if let Ok(file) = fs::OpenOptions::new().append(true).open(path) {
        let _ = file.set_modified(SystemTime::now());
    }
}

/// Sees to it that `bytes` more find room in the cache: deletes what of ours was used least recently and is in no live
/// process's use, if there is a limit.
pub(crate) fn make_room(config: &HubConfig, folder: &Path, bytes: u64) -> Result<(), HubError> {
    if let Some(limit) = config.max_disk {
        let mut owned = owned(&config.cache);
        owned.sort_by_key(|file| file.last_used);
        let mut kept: u64 = owned.iter().map(|file| file.bytes).sum();
        // Nothing is deleted for what would not fit all the same.
        if bytes > limit {
            return Err(HubError::OverLimit { needed: bytes, limit, kept });
        }
        for file in &owned {
            if kept.saturating_add(bytes) <= limit {
                break;
            }
            kept -= delete(file)?.unwrap_or(0);
        }
        if kept.saturating_add(bytes) > limit {
            return Err(HubError::OverLimit { needed: bytes, limit, kept });
        }
    }
    match free_bytes(folder) {
        Some(free) if free < bytes.saturating_add(LEFT_TO_OTHERS) => {
            Err(HubError::DiskFull { folder: config.cache.clone(), needed: bytes, free })
        }
        _ => Ok(()),
    }
}

/// Deletes a file of ours, with the links to it; `None` if a live process uses it.
pub(crate) fn delete(file: &Owned) -> Result<Option<u64>, HubError> {
    let (folder, etag) = (&file.folder, &file.etag);
    let (Some(_use), Some(_write)) =
        (Lock::try_alone(&folder.use_lock(etag))?, Lock::try_alone(&folder.write_lock(etag))?)
    else {
        return Ok(None);
    };
    tracing::info!(file = %etag, bytes = file.bytes, "deleting from the cache");
    let mut paths = vec![folder.journal(etag), folder.part(etag)];
    // Whole files that others put there are theirs.
    if is_ours(folder, etag) {
        paths.extend(links_to(folder, etag));
        paths.extend([folder.blob(etag), folder.brought(etag)]);
    }
    for path in paths {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(HubError::io(path)(error)),
            _ => {}
        }
    }
    Ok(Some(file.bytes))
}

/// What tells a blob that we brought from another of that name, which another tool has fetched since ours was deleted.
pub(crate) fn identity(about: &fs::Metadata) -> String {
    let changed = about.modified().ok().and_then(|then| then.duration_since(SystemTime::UNIX_EPOCH).ok());
    format!("{} {}", about.len(), changed.unwrap_or_default().as_nanos())
}

/// Whether the blob is the one that this program has brought.
fn is_ours(folder: &Folder, etag: &Etag) -> bool {
    let marked = fs::read_to_string(folder.brought(etag)).ok();
    let blob = fs::metadata(folder.blob(etag)).ok();
    marked.zip(blob).is_some_and(|(marked, blob)| marked == identity(&blob))
}

/// The links in snapshots that lead to a blob.
pub(crate) fn links_to(folder: &Folder, etag: &Etag) -> Vec<PathBuf> {
    let Ok(blob) = folder.blob(etag).canonicalize() else { return Vec::new() };
    let snapshots = folder.snapshots();
    let all = crate::repository::files_below(&snapshots).into_iter().map(|name| snapshots.join(name));
    all.filter(|path| path.canonicalize().is_ok_and(|to| to == blob)).collect()
}

/// All files that this program has brought into the cache.
pub(crate) fn owned(cache: &Path) -> Vec<Owned> {
    let repositories = fs::read_dir(cache).into_iter().flatten().flatten();
    let names = repositories.filter_map(|entry| Folder::repository(&entry.file_name().to_string_lossy()));
    names.flat_map(|repository| owned_in(&Folder::new(cache, &repository))).collect()
}

/// The same of one repository.
pub(crate) fn owned_in(folder: &Folder) -> Vec<Owned> {
    let entries = fs::read_dir(folder.ours()).into_iter().flatten().flatten();
    let of = |path: PathBuf| {
        let etag = Etag::new(&path.file_stem()?.to_string_lossy())?;
        let last_used = fs::metadata(&path).and_then(|about| about.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let bytes = match path.extension()?.to_str()? {
            "brought" if is_ours(folder, &etag) => fs::metadata(folder.blob(&etag)).ok()?.len(),
            "part" => part_bytes(folder, &etag),
            _ => return None,
        };
        Some(Owned { folder: folder.clone(), etag, bytes, last_used })
    };
    entries.filter_map(|entry| of(entry.path())).collect()
}

/// Bytes that are here of a file that is not whole.
pub(crate) fn part_bytes(folder: &Folder, etag: &Etag) -> u64 {
    let length = fs::metadata(folder.part(etag)).map_or(0, |about| about.len());
    held(&Journal::read(&folder.journal(etag), length).unwrap_or_default()).bytes()
}

/// Bytes free on the disk that holds `path`, or will when it is made; `None` if the system does not tell.
#[cfg(unix)]
pub fn free_bytes(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|path| path.exists())?;
    let about = rustix::fs::statvfs(existing).ok()?;
    Some(about.f_bavail.saturating_mul(about.f_frsize))
}

#[cfg(not(unix))]
/// The system does not tell.
pub fn free_bytes(_path: &Path) -> Option<u64> {
    None
}
