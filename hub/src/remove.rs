//! Deleting what is cached of a model.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use swarm_model::{ModelSpec, gguf_parts};

use crate::cached::commits;
use crate::config::HubConfig;
use crate::disk::{links_to, part_bytes};
use crate::error::HubError;
use crate::layout::{Etag, Folder};
use crate::lock::Lock;
use crate::repository::{Repository, files_below};

/// Deletes what is cached of a model, whoever put it there: all revisions, unless `spec` names one, and all files, unless it
/// names one. Gives the bytes freed.
///
/// # Errors
/// [`HubError::InUse`] if a live process uses some of it; then nothing is deleted. [`HubError::NothingCached`].
pub fn remove(config: &HubConfig, spec: &ModelSpec) -> Result<u64, HubError> {
    let ModelSpec::Hub { repository, revision, file } = spec else {
        return Err(HubError::NotOfHub { what: spec.to_string() });
    };
    let folder = Folder::new(&config.cache, repository);
    if !folder.root().is_dir() {
        return Err(HubError::NothingCached { repository: repository.clone() });
    }
    if let Some(file) = file {
        return remove_file(config, &folder, spec, file);
    }
    let all = contents_of_all(&folder);
    match revision {
        None => {
            let _locks = locks(&folder, repository, &all)?;
            let freed = all.iter().map(|etag| bytes(&folder, etag)).sum();
            fs::remove_dir_all(folder.root()).map_err(HubError::io(folder.root()))?;
            Ok(freed)
        }
        Some(revision) => {
            let offline = HubConfig { offline: true, ..config.clone() };
            remove_revision(&Repository::open(&offline, repository, Some(revision))?)
        }
    }
}

/// Deletes a GGUF file and all its other parts.
fn remove_file(config: &HubConfig, folder: &Folder, spec: &ModelSpec, file: &str) -> Result<u64, HubError> {
    let ModelSpec::Hub { repository, revision, .. } = spec else { return Ok(0) };
    let offline = HubConfig { offline: true, ..config.clone() };
    let of = match revision {
        Some(revision) => BTreeSet::from([Repository::open(&offline, repository, Some(revision))?.commit]),
        None => commits(folder),
    };
    let parts = gguf_parts(file);
    let named = commits(folder).into_iter().flat_map(|commit| {
        let wanted = of.contains(&commit);
        contents(folder, &commit).into_iter().map(move |(name, etag)| (wanted, name, etag))
    });
    // A file of the same contents may stay, under another name or in another commit.
    let (go, stay): (Vec<_>, Vec<_>) = named.partition(|(wanted, name, _)| *wanted && parts.contains(name));
    let etags = |files: Vec<(bool, String, Etag)>| files.into_iter().map(|(_, _, etag)| etag).collect::<BTreeSet<_>>();
    let only = etags(go).difference(&etags(stay)).cloned().collect();
    match remove_contents(folder, repository, &only)? {
        0 => Err(HubError::NothingCached { repository: spec.to_string() }),
        freed => Ok(freed),
    }
}

fn remove_revision(repository: &Repository) -> Result<u64, HubError> {
    let folder = &repository.folder;
    let own = (repository.revision != repository.commit).then_some(&repository.revision);
    let names = names_of(folder, &repository.commit);
    if let Some(own) = own.filter(|own| names.iter().any(|name| name != *own)) {
        // Its other names still need it.
        delete_all(vec![folder.reference(own)])?;
        return Ok(0);
    }
    let etags = |commit: &str| contents(folder, commit).into_values().collect::<BTreeSet<Etag>>();
    let others = commits(folder).into_iter().filter(|commit| *commit != repository.commit);
    let shared: BTreeSet<Etag> = others.flat_map(|commit| etags(&commit)).collect();
    let only = etags(&repository.commit).difference(&shared).cloned().collect();
    let freed = remove_contents(folder, &repository.name, &only)?;
    let mut paths = vec![folder.listing(&repository.commit)];
    paths.extend(names.iter().map(|name| folder.reference(name)));
    delete_all(paths)?;
    let snapshot = folder.snapshots().join(&repository.commit);
    // Only links to what others still need are left.
    if snapshot.is_dir() {
        fs::remove_dir_all(&snapshot).map_err(HubError::io(&snapshot))?;
    }
    Ok(freed)
}

/// The branches and tags that are `commit`.
fn names_of(folder: &Folder, commit: &str) -> Vec<String> {
    let is_it = |name: &String| fs::read_to_string(folder.reference(name)).is_ok_and(|found| found.trim() == commit);
    files_below(&folder.references()).into_iter().filter(is_it).collect()
}

/// Deletes `only` with the links to it, if no live process uses any; gives the bytes freed.
fn remove_contents(folder: &Folder, repository: &str, only: &BTreeSet<Etag>) -> Result<u64, HubError> {
    let _locks = locks(folder, repository, only)?;
    let freed = only.iter().map(|etag| bytes(folder, etag)).sum();
    let paths = only.iter().flat_map(|etag| {
        let ours = [folder.part(etag), folder.journal(etag), folder.brought(etag), folder.blob(etag)];
        links_to(folder, etag).into_iter().chain(ours)
    });
    delete_all(paths.collect())?;
    Ok(freed)
}

/// Deletes those of `paths` that are there.
fn delete_all(paths: Vec<PathBuf>) -> Result<(), HubError> {
    for path in paths {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(HubError::io(path)(error)),
            _ => {}
        }
    }
    Ok(())
}

/// Locks on all of `contents`, so that nobody begins to use them.
fn locks(folder: &Folder, repository: &str, contents: &BTreeSet<Etag>) -> Result<Vec<Lock>, HubError> {
    let mut locks = Vec::new();
    for etag in contents {
        for path in [folder.use_lock(etag), folder.write_lock(etag)] {
            let lock = Lock::try_alone(&path)?;
            locks.push(lock.ok_or_else(|| HubError::InUse { repository: repository.to_string() })?);
        }
    }
    Ok(locks)
}

fn bytes(folder: &Folder, etag: &Etag) -> u64 {
    match fs::metadata(folder.blob(etag)) {
        Ok(about) => about.len(),
        Err(_) => part_bytes(folder, etag),
    }
}

/// What a commit's files are named by, as far as something of them is here.
fn contents(folder: &Folder, commit: &str) -> BTreeMap<String, Etag> {
    let snapshot = folder.snapshots().join(commit);
    let linked = files_below(&snapshot).into_iter().filter_map(|name| {
        let blob = snapshot.join(&name).canonicalize().ok()?;
        Some((name, Etag::new(&blob.file_name()?.to_string_lossy())?))
    });
    let listed = Repository::listing_of(folder, commit).into_iter().flat_map(|listing| listing.files);
    linked.chain(listed.map(|file| (file.name, file.etag))).collect()
}

/// What is here of any commit, or of none.
fn contents_of_all(folder: &Folder) -> BTreeSet<Etag> {
    let named = |path| fs::read_dir(path).into_iter().flatten().flatten();
    let files = named(folder.blobs()).chain(named(folder.ours()));
    files.filter_map(|entry| Etag::new(&entry.path().file_stem()?.to_string_lossy())).collect()
}
