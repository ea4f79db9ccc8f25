//! A repository's files as those of a checkpoint.

use std::collections::HashMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use swarm_model::{ByteSource, CheckpointFiles, FileBytes, FileRange, ModelError, open_file};

use crate::disk::touch;
use crate::error::HubError;
use crate::fetch::fetch;
use crate::layout::{Etag, is_inside};
use crate::lock::Lock;
use crate::partial::{Open, Partial};
use crate::ranges::RangeSet;
use crate::repository::{Found, RemoteFile, Repository};

/// The largest file besides weights: what the model reads of any is bounded so.
const MOST_SMALL: u64 = 256 << 20;

/// Endings of files of which only some bytes may be wanted.
const WEIGHTS: [&str; 2] = [".safetensors", ".gguf"];
/// Endings of weights that are not read.
const OTHER_WEIGHTS: [&str; 5] = [".bin", ".pt", ".pth", ".msgpack", ".h5"];

/// A repository's files as those of a checkpoint: weights are fetched by range, other files whole when they are opened.
#[derive(Debug)]
pub(crate) struct HubFiles {
    repository: Arc<Repository>,
    partials: Mutex<HashMap<String, Arc<Partial>>>,
}

impl std::fmt::Debug for Partial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partial").field("remote", &self.remote).finish_non_exhaustive()
    }
}

/// A whole file of the cache, which nobody deletes while it lives.
struct Whole {
    source: Box<dyn ByteSource>,
    _in_use: Option<Lock>,
}

impl ByteSource for Whole {
    fn len(&self) -> u64 {
        self.source.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.source.read_at(offset, buffer)
    }

    fn in_place(&self, range: Range<u64>) -> Option<FileBytes> {
        self.source.in_place(range)
    }
}

impl HubFiles {
    pub(crate) fn new(repository: Repository) -> Self {
        Self { repository: Arc::new(repository), partials: Mutex::default() }
    }

    pub(crate) fn repository(&self) -> &Repository {
        &self.repository
    }

    /// How many bytes of `ranges` are not here.
    pub(crate) fn missing(&self, ranges: &[FileRange]) -> u64 {
        let missing = |range: &FileRange| {
            let all = range.bytes.end - range.bytes.start;
            match self.partials().get(&range.file) {
                Some(partial) if partial.holds(&range.bytes) => 0,
                Some(_) => all,
                None if self.repository.whole(&range.file).is_some() => 0,
                None => all,
            }
        };
        ranges.iter().map(missing).sum()
    }

    fn partials(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Partial>>> {
        self.partials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file `name` if all of it is cached, whoever put it there.
    fn open_whole(&self, name: &str, path: &Path) -> Result<Box<dyn ByteSource>, ModelError> {
        let blob = path.canonicalize().ok();
        let etag = blob.as_deref().and_then(Path::file_name).and_then(|name| Etag::new(&name.to_string_lossy()));
        let in_use = match &etag {
            Some(etag) => {
                touch(&self.repository.folder.brought(etag));
                // A cache that may not be written to is used without a lock: nobody deletes from it either.
                Lock::shared(&self.repository.folder.use_lock(etag)).ok()
            }
            None => None,
        };
        let source = open_file(path).map_err(|error| match error {
            // Deleted since we looked.
            ModelError::MissingFile { .. } => ModelError::MissingFile { file: self.label(name) },
            error => error,
        })?;
        Ok(Box::new(Whole { source, _in_use: in_use }))
    }

    /// What is here of the file `remote`.
    fn partial(&self, remote: RemoteFile) -> Result<Arc<Partial>, HubError> {
        if let Some(partial) = self.partials().get(&remote.name) {
            return Ok(partial.clone());
        }
        let name = remote.name.clone();
        let partial = Arc::new(Partial::open(self.repository.clone(), remote)?);
        self.partials().insert(name, partial.clone());
        Ok(partial)
    }

    fn absent(&self, name: &str) -> ModelError {
        let repository = self.repository.name.clone();
        let with_ending = |endings: &[&str]| {
            let names = self.repository.names().into_iter();
            names.filter(|name| endings.iter().any(|ending| name.ends_with(ending))).collect::<Vec<_>>()
        };
        match name {
            "model.safetensors" => HubError::NoSafetensors { repository, found: with_ending(&OTHER_WEIGHTS) }.into(),
            "config.json" => {
                let gguf = with_ending(&[".gguf"]);
                let others = gguf.iter().map(|file| format!("{repository}:{file}")).collect();
                HubError::NoFile { repository, file: name.to_string(), others }.into()
            }
            _ if name.ends_with(".gguf") => {
                HubError::NoFile { repository, file: name.to_string(), others: with_ending(&[".gguf"]) }.into()
            }
            _ => ModelError::MissingFile { file: self.label(name) },
        }
    }

    /// That nobody can be asked for `name`. What a model can do without is as if there were none.
    fn unknown(&self, name: &str) -> ModelError {
        let needed = name == "config.json" || name == "tokenizer.json" || WEIGHTS.iter().any(|end| name.ends_with(end));
        match needed {
            true => self.repository.not_cached(Some(name)).into(),
            false => ModelError::MissingFile { file: self.label(name) },
        }
    }

    /// Fetches all of a small file.
    fn fetch_whole(&self, remote: RemoteFile) -> Result<Box<dyn ByteSource>, ModelError> {
        let name = remote.name.clone();
        if remote.size > MOST_SMALL && !WEIGHTS.iter().any(|end| name.ends_with(end)) {
            let reason = format!("it has {} bytes, more than {MOST_SMALL}", remote.size);
            return Err(ModelError::BadFile { file: self.label(&name), reason });
        }
        let all: RangeSet = std::iter::once(0..remote.size).collect();
        if !self.repository.has_blob(&remote) {
            if self.repository.config.offline {
                return Err(self.repository.not_cached(Some(&name)).into());
            }
            let partial = Arc::new(Partial::open(self.repository.clone(), remote.clone())?);
            fetch(&self.repository, vec![(partial, all)], &mut |_, _| ())?;
        }
        // Another revision may have had the same contents.
        let path = self.repository.link(&remote)?;
        self.open_whole(&name, &path)
    }
}

impl CheckpointFiles for HubFiles {
    fn label(&self, name: &str) -> String {
        format!("{}/{name}", self.repository.name)
    }

    fn open(&self, name: &str) -> Result<Box<dyn ByteSource>, ModelError> {
        if !is_inside(name) {
            return Err(ModelError::MissingFile { file: self.label(name) });
        }
        if let Some(path) = self.repository.whole(name) {
            return self.open_whole(name, &path);
        }
        let remote = match self.repository.find(name)? {
            Found::Here(remote) => remote,
            Found::Nowhere => return Err(self.absent(name)),
            Found::Unknown => return Err(self.unknown(name)),
        };
        let by_range = WEIGHTS.iter().any(|end| name.ends_with(end));
        if !by_range || self.repository.has_blob(&remote) {
            return self.fetch_whole(remote);
        }
        if self.repository.config.offline && !self.repository.folder.part(&remote.etag).exists() {
            return Err(self.repository.not_cached(Some(name)).into());
        }
        Ok(Box::new(Open(self.partial(remote)?)))
    }

    fn fetch(&self, ranges: &[FileRange], progress: &mut dyn FnMut(u64, u64)) -> Result<(), ModelError> {
        let mut wanted: HashMap<&str, RangeSet> = HashMap::new();
        for range in ranges {
            wanted.entry(&range.file).or_default().insert(range.bytes.clone());
        }
        let partials = self.partials();
        // Files that are whole are in no need of it.
        let wanted: Vec<_> =
            wanted.into_iter().filter_map(|(file, ranges)| Some((partials.get(file)?.clone(), ranges))).collect();
        drop(partials);
        Ok(fetch(&self.repository, wanted, progress)?)
    }
}
