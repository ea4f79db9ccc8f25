//! What is cached.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;

use swarm_model::{Checkpoint, ModelPart, gguf_parts};
use swarm_protocol::block::BlockRange;

use crate::checkpoint;
use crate::config::HubConfig;
use crate::files::HubFiles;
use crate::journal::{Journal, held};
use crate::layout::{Folder, is_commit};
use crate::repository::{Repository, files_below};

/// Endings of weights.
const GGUF: &str = ".gguf";
const SAFETENSORS: &str = ".safetensors";

/// A revision of a model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedModel {
    /// `org/name`.
    pub repository: String,
    /// The GGUF file, the first one of several parts; `None` if the model is in safetensors files.
    pub file: Option<String>,
    /// Branches and tags that were this commit when they were last asked for.
    pub revisions: Vec<String>,
    /// The commit.
    pub commit: String,
    /// How its weights are stored, such as `bf16`; `None` if its headers are not cached.
    pub format: Option<String>,
    /// Bytes of it that are cached; revisions share files.
    pub bytes: u64,
    /// Bytes of all its files on the hub, if they are known. Of a GGUF file nothing else is counted.
    pub all_bytes: Option<u64>,
    /// What of the model itself is complete; `None` if its headers are not cached.
    pub parts: Option<CachedParts>,
}

/// Which parts of a model are cached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedParts {
    /// How many blocks the model has.
    pub blocks: u32,
    /// Those of which every byte is here.
    pub complete: Vec<BlockRange>,
    /// Whether embedding, final norm and head are here.
    pub edges: bool,
}

/// All models in the cache, whoever put them there. The hub is not asked.
pub fn list(config: &HubConfig) -> Vec<CachedModel> {
    let entries = fs::read_dir(&config.cache).into_iter().flatten().flatten();
    let mut repositories: Vec<String> =
        entries.filter_map(|entry| Folder::repository(&entry.file_name().to_string_lossy())).collect();
    repositories.sort();
    let offline = HubConfig { offline: true, ..config.clone() };
    repositories.iter().flat_map(|repository| revisions(&offline, repository)).collect()
}

fn revisions(config: &HubConfig, repository: &str) -> Vec<CachedModel> {
    let folder = Folder::new(&config.cache, repository);
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for revision in files_below(&folder.references()) {
        let commit = fs::read_to_string(folder.reference(&revision)).unwrap_or_default();
        names.entry(commit.trim().to_string()).or_default().push(revision);
    }
    let of = |commit: String| {
        let repository = Repository::open(config, repository, Some(&commit)).ok()?;
        Some(models(repository, &names.remove(&commit).unwrap_or_default()))
    };
    commits(&folder).into_iter().filter_map(of).flatten().collect()
}

/// What is cached of a commit: each model in GGUF files, and what is in other files, unless they only stand beside those.
fn models(repository: Repository, revisions: &[String]) -> Vec<CachedModel> {
    let names = repository.names();
    let (gguf, others): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| name.ends_with(GGUF));
    let weights = gguf.is_empty() || others.iter().any(|name| name.ends_with(SAFETENSORS));
    let models: BTreeSet<Vec<String>> = gguf.iter().map(|name| gguf_parts(name)).collect();
    let files = Arc::new(HubFiles::new(repository));
    let of = |names: &[String], file| about(&files, names, file, revisions);
    let in_gguf = models.iter().map(|names| of(names, names.first().cloned()));
    let mut cached: Vec<_> = in_gguf.filter(|model| model.bytes > 0).collect();
    let rest = of(&others, None);
    if weights && rest.bytes > 0 {
        cached.insert(0, rest);
    }
    cached
}

/// The commits of which something is cached.
pub(crate) fn commits(folder: &Folder) -> BTreeSet<String> {
    let below = |path| fs::read_dir(path).into_iter().flatten().flatten();
    let snapshots = below(folder.snapshots()).map(|entry| entry.file_name().to_string_lossy().into_owned());
    let listings = below(folder.ours()).filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.strip_suffix(".json").map(str::to_string)
    });
    snapshots.chain(listings).filter(|name| is_commit(name)).collect()
}

/// What is cached of the model in the files `names`, `file` the first one if it is a GGUF file.
fn about(files: &Arc<HubFiles>, names: &[String], file: Option<String>, revisions: &[String]) -> CachedModel {
    let repository = files.repository();
    let (bytes, all_bytes) = sizes(repository, names);
    let checkpoint = (bytes > 0).then(|| checkpoint(repository.name.clone(), files, file.as_deref()).ok()).flatten();
    let has = |checkpoint: &Checkpoint, part| files.missing(&checkpoint.byte_ranges(part)) == 0;
    let parts = checkpoint.as_ref().map(|checkpoint| {
        let blocks = checkpoint.config().blocks;
        let one = |block| BlockRange::new(block, block + 1).ok();
        let complete = (0..blocks).filter_map(one).filter(|block| has(checkpoint, ModelPart::Blocks(*block)));
        CachedParts { blocks, complete: joined(complete), edges: has(checkpoint, ModelPart::Edges) }
    });
    let format = checkpoint.map(|checkpoint| checkpoint.native_format().to_string());
    let (repository, commit) = (repository.name.clone(), repository.commit.clone());
    CachedModel { repository, file, revisions: revisions.to_vec(), commit, format, bytes, all_bytes, parts }
}

/// Consecutive blocks as ranges.
fn joined(blocks: impl Iterator<Item = BlockRange>) -> Vec<BlockRange> {
    let mut ranges: Vec<BlockRange> = Vec::new();
    for block in blocks {
        let longer = ranges.last().filter(|last| last.end() == block.start());
        match longer.and_then(|last| BlockRange::new(last.start(), block.end()).ok()) {
            Some(longer) => {
                ranges.pop();
                ranges.push(longer);
            }
            None => ranges.push(block),
        }
    }
    ranges
}

/// Bytes of the files `names` that are cached, and all of them if the hub has said.
fn sizes(repository: &Repository, names: &[String]) -> (u64, Option<u64>) {
    let folder = &repository.folder;
    let Some(listing) = &repository.listing else {
        let here = names.iter().filter_map(|name| Some(fs::metadata(repository.whole(name)?).ok()?.len()));
        return (here.sum(), None);
    };
    let files = || listing.files.iter().filter(|file| names.contains(&file.name));
    let here = files().map(|file| match repository.whole(&file.name) {
        Some(_) => file.size,
        None => held(&Journal::read(&folder.journal(&file.etag), file.size).unwrap_or_default()).bytes(),
    });
    (here.sum(), Some(files().map(|file| file.size).sum()))
}
