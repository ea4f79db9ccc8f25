//! Bringing bytes of files here: whoever needs them waits for others who write to the same files, then fetches what is
//! still missing, all files at once.

use std::sync::Arc;

use crate::disk::make_room;
use crate::error::{HubError, is_full};
use crate::partial::{Partial, Writing};
use crate::ranges::RangeSet;
use crate::repository::Repository;
use crate::transfer::{Job, transfer};

/// Sees to it that the bytes `wanted` of each file are here. `progress` is told how many of the missing bytes have come, and
/// how many were missing.
pub(crate) fn fetch(
    repository: &Repository,
    mut wanted: Vec<(Arc<Partial>, RangeSet)>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), HubError> {
    // Nobody waits for what is here already.
    wanted.iter().try_for_each(|(partial, ranges)| partial.check(ranges))?;
    if repository.config.offline {
        let missing = wanted.iter().find(|(partial, ranges)| !partial.has(ranges));
        return missing.map_or(Ok(()), |(partial, _)| Err(repository.not_cached(Some(&partial.remote.name))));
    }
    wanted.retain(|(partial, ranges)| !partial.has(ranges) || partial.is_to_hand_over());
    // Whoever takes several locks takes them in this order.
    wanted.sort_by(|(one, _), (other, _)| one.remote.etag.cmp(&other.remote.etag));
    let mut jobs = Vec::new();
    for (partial, ranges) in wanted {
        let writing = Writing::begin(partial, &ranges)?;
        let missing = writing.missing(&ranges);
        jobs.push(Job::new(writing, missing));
    }
    let missing: u64 = jobs.iter().map(Job::missing_bytes).sum();
    if missing > 0 {
        make_room(&repository.config, repository.folder.root(), missing)?;
        transfer(repository, &mut jobs, progress).map_err(|error| full(repository, &jobs, error))?;
        if let Some(job) = jobs.iter().find(|job| !job.is_done()) {
            let what = format!("{}/{}", repository.name, job.file());
            return Err(HubError::Interrupted { what, reason: "some bytes did not come".to_string() });
        }
    }
    jobs.into_iter().try_for_each(|job| job.finish())
}

/// What a full disk means for `jobs`, if that is what `error` says.
fn full(repository: &Repository, jobs: &[Job], error: HubError) -> HubError {
    match error {
        HubError::Io { error, .. } if is_full(&error) => {
            let needed = jobs.iter().map(Job::still_missing).sum();
            HubError::DiskFull { folder: repository.config.cache.clone(), needed, free: 0 }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::config::HubConfig;
    use crate::journal::{Piece, digest};
    use crate::layout::{Etag, Folder};
    use crate::repository::{Listing, RemoteFile};

    const HELLO: &[u8] = b"hello\n";

    /// A repository with one file of which all bytes are here and written down, as whoever was killed then leaves it.
    fn killed_before_the_end(cache: &std::path::Path) -> (Repository, RemoteFile) {
        let etag = Etag::new("ce013625030ba8dba906f756967f9e9ca394464a").unwrap();
        let remote = RemoteFile { name: "config.json".to_string(), size: HELLO.len() as u64, etag };
        let listing = Listing { files: vec![remote.clone()], unknown: Vec::new() };
        let commit = "a".repeat(40);
        let config = HubConfig::new(cache, &|_| None);
        let path = Folder::new(&config.cache, "org/model").listing(&commit);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, serde_json::to_vec(&listing).unwrap()).unwrap();
        let repository = Repository::open(&config, "org/model", Some(&commit)).unwrap();
        let all = std::iter::once(0..remote.size).collect();
        let partial = Arc::new(Partial::open(Arc::new(reopened(&repository)), remote.clone()).unwrap());
        let mut writing = Writing::begin(partial, &all).unwrap();
        writing.file().write_all_at(HELLO, 0).unwrap();
        let sum = digest(blake3::Hasher::new().update(HELLO));
        writing.add(&[Piece { bytes: 0..remote.size, digest: sum }]).unwrap();
        (repository, remote)
    }

    fn reopened(repository: &Repository) -> Repository {
        Repository::open(&repository.config, &repository.name, Some(&repository.commit)).unwrap()
    }

    #[test]
    fn what_is_here_but_not_handed_over_is_handed_over() {
        let cache = tempfile::tempdir().unwrap();
        let (repository, remote) = killed_before_the_end(cache.path());
        let blob = repository.folder.blob(&remote.etag);
        assert!(!blob.exists());
        let partial = Arc::new(Partial::open(Arc::new(reopened(&repository)), remote.clone()).unwrap());
        let all: RangeSet = std::iter::once(0..remote.size).collect();
        // There is nobody who could be asked for anything.
        fetch(&repository, vec![(partial, all)], &mut |_, _| ()).unwrap();
        assert_eq!(fs::read(&blob).unwrap(), HELLO);
        assert!(repository.whole("config.json").is_some() && !repository.folder.part(&remote.etag).exists());
    }

    #[test]
    fn what_another_made_whole_meanwhile_is_used() {
        let cache = tempfile::tempdir().unwrap();
        let (repository, remote) = killed_before_the_end(cache.path());
        let all: RangeSet = std::iter::once(0..remote.size).collect();
        let begun = Arc::new(Partial::open(Arc::new(reopened(&repository)), remote.clone()).unwrap());
        let other = Arc::new(Partial::open(Arc::new(reopened(&repository)), remote.clone()).unwrap());
        fetch(&repository, vec![(other, all.clone())], &mut |_, _| ()).unwrap();
        // As if it had been begun a moment later, before the blob was seen: an empty file lies there again.
        fs::write(repository.folder.part(&remote.etag), [0; HELLO.len()]).unwrap();
        fetch(&repository, vec![(begun.clone(), all)], &mut |_, _| ()).unwrap();
        let mut bytes = [0; HELLO.len()];
        swarm_model::ByteSource::read_at(&crate::partial::Open(begun), 0, &mut bytes).unwrap();
        assert_eq!(bytes, HELLO);
    }
}
