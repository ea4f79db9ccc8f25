//! A file of which only some bytes are here, each at its place in a sparse file.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use swarm_model::{ByteSource, FileBytes, open_file};

use crate::disk::{identity, touch};
use crate::error::HubError;
use crate::fetch::fetch;
use crate::journal::{Journal, Piece, held};
use crate::lock::Lock;
use crate::ranges::RangeSet;
use crate::repository::{RemoteFile, Repository, replace};
use crate::verify::{is_intact, is_sound};

/// Bytes fetched at least when some are asked for one by one: the header of most safetensors files, little beside a block.
const READ_AHEAD: u64 = 32 << 10;

/// A file of which only some bytes are here. While it lives, nobody deletes it.
pub(crate) struct Partial {
    pub(crate) remote: RemoteFile,
    repository: Arc<Repository>,
    state: Mutex<State>,
    _in_use: Lock,
}

struct State {
    /// The bytes: those of the part, or of the blob that it became.
    data: Arc<dyn ByteSource>,
    /// What the journal says is there.
    held: RangeSet,
    /// What of that was found intact, or fetched, by this process.
    checked: RangeSet,
}

impl State {
    /// All of the file is there.
    fn whole(blob: &Path, remote: &RemoteFile) -> Result<Self, HubError> {
        Ok(Self { data: mapped(blob)?, held: all_of(remote), checked: all_of(remote) })
    }
}

/// A [`Partial`] that this process alone may write to, until this value goes away.
pub(crate) struct Writing {
    pub(crate) partial: Arc<Partial>,
    journal: Journal,
    pieces: Vec<Piece>,
    file: File,
    _lock: Lock,
}

impl Partial {
    /// Opens what is here of `remote`, if only an empty file.
    pub(crate) fn open(repository: Arc<Repository>, remote: RemoteFile) -> Result<Self, HubError> {
        let folder = &repository.folder;
        let in_use = Lock::shared(&folder.use_lock(&remote.etag))?;
        fs::create_dir_all(folder.ours()).map_err(HubError::io(folder.ours()))?;
        let blob = folder.blob(&remote.etag);
        if repository.has_blob(&remote) {
            let state = Mutex::new(State::whole(&blob, &remote)?);
            return Ok(Self { remote, repository, state, _in_use: in_use });
        }
        let path = folder.part(&remote.etag);
        open_part(&repository, &remote)?;
        touch(&path);
        let pieces = Journal::read(&folder.journal(&remote.etag), remote.size);
        let pieces = pieces.map_err(HubError::io(folder.journal(&remote.etag)))?;
        // Whoever made it whole in between has given it its other name.
        let data = mapped(&path).or_else(|_| mapped(&blob))?;
        let state = Mutex::new(State { data, held: held(&pieces), checked: RangeSet::default() });
        Ok(Self { remote, repository, state, _in_use: in_use })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all bytes of `range` are here, as far as is known without reading them.
    pub(crate) fn holds(&self, range: &Range<u64>) -> bool {
        self.state().held.covers(range)
    }

    /// Whether all bytes of `ranges` are here and sound.
    pub(crate) fn has(&self, ranges: &RangeSet) -> bool {
        let state = self.state();
        ranges.ranges().iter().all(|range| state.checked.covers(range))
    }

    /// Whether all of it is here and sound, and nobody has handed it over yet: whoever fetched the last of it is about to, or
    /// was killed before.
    pub(crate) fn is_to_hand_over(&self) -> bool {
        self.has(&all_of(&self.remote)) && !self.repository.has_blob(&self.remote)
    }

    /// Finds out what of `wanted` is here by now and sound, without waiting for whoever writes.
    pub(crate) fn check(&self, wanted: &RangeSet) -> Result<(), HubError> {
        if self.has(wanted) {
            return Ok(());
        }
        let path = self.repository.folder.journal(&self.remote.etag);
        let pieces = Journal::read(&path, self.remote.size).map_err(HubError::io(path))?;
        let (pieces, _) = self.sound(pieces, wanted);
        let mut state = self.state();
        pieces.into_iter().for_each(|piece| state.held.insert(piece.bytes));
        Ok(())
    }

    /// Takes out of `pieces` those that `wanted` needs and that are damaged, and says how many they were. Each piece is read
    /// and compared with its digest once in each process.
    fn sound(&self, pieces: Vec<Piece>, wanted: &RangeSet) -> (Vec<Piece>, usize) {
        let (checked, data) = {
            let state = self.state();
            (state.checked.clone(), state.data.clone())
        };
        let needed = |piece: &Piece| {
            let touches = |range: &Range<u64>| range.start < piece.bytes.end && piece.bytes.start < range.end;
            !checked.covers(&piece.bytes) && wanted.ranges().iter().any(touches)
        };
        let (suspects, mut kept): (Vec<_>, Vec<_>) = pieces.into_iter().partition(needed);
        let count = suspects.len();
        let sound: Vec<_> = suspects.into_iter().filter(|piece| is_intact(&*data, piece)).collect();
        let damaged = count - sound.len();
        let mut state = self.state();
        sound.iter().for_each(|piece| state.checked.insert(piece.bytes.clone()));
        drop(state);
        kept.extend(sound);
        (kept, damaged)
    }

    /// Fetches what is missing of `range`, which was asked for by the way.
    fn fetch_on_demand(self: &Arc<Self>, range: Range<u64>) -> Result<(), HubError> {
        let end = range.end.max(range.start.saturating_add(READ_AHEAD)).min(self.remote.size);
        let wanted = std::iter::once(range.start..end).collect();
        fetch(&self.repository, vec![(self.clone(), wanted)], &mut |_, _| ())
    }
}

impl Writing {
    /// Waits until no other process writes to it, and finds out what is there by then. Pieces that `wanted` needs and
    /// that are damaged are no longer there.
    pub(crate) fn begin(partial: Arc<Partial>, wanted: &RangeSet) -> Result<Self, HubError> {
        let (folder, remote) = (&partial.repository.folder, &partial.remote);
        let lock = Lock::alone(&folder.write_lock(&remote.etag))?;
        let (blob, path) = (folder.blob(&remote.etag), folder.part(&remote.etag));
        let at_journal = HubError::io(folder.journal(&remote.etag));
        let (mut journal, pieces) = Journal::append(&folder.journal(&remote.etag), remote.size).map_err(at_journal)?;
        // Another process may have made it whole meanwhile.
        if partial.repository.has_blob(remote) {
            *partial.state() = State::whole(&blob, remote)?;
            // What was begun before it was known is of no use.
            let _ = fs::remove_file(&path);
            let file = File::open(&blob).map_err(HubError::io(&blob))?;
            return Ok(Self { partial, journal, pieces, file, _lock: lock });
        }
        // Nor need it be the file that was opened: others may have found that one wrong and begun anew.
        let file = open_part(&partial.repository, remote)?;
        {
            let mut state = partial.state();
            state.data = mapped(&path)?;
            let listed = held(&pieces);
            if !state.checked.ranges().iter().all(|range| listed.covers(range)) {
                state.checked = RangeSet::default();
            }
        }
        let (pieces, damaged) = partial.sound(pieces, wanted);
        if damaged > 0 {
            tracing::warn!(file = remote.name, damaged, "pieces of the cache are damaged and will be fetched again");
            journal.rewrite(&pieces).map_err(HubError::io(folder.journal(&remote.etag)))?;
        }
        partial.state().held = held(&pieces);
        Ok(Self { partial, journal, pieces, file, _lock: lock })
    }

    /// What of `wanted` is not here.
    pub(crate) fn missing(&self, wanted: &RangeSet) -> RangeSet {
        let state = self.partial.state();
        wanted.ranges().iter().flat_map(|range| state.held.missing(range)).collect()
    }

    /// The file to write to, at any place.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Puts bytes that were written on the disk, and writes down that they are there.
    pub(crate) fn add(&mut self, pieces: &[Piece]) -> Result<(), HubError> {
        if pieces.is_empty() {
            return Ok(());
        }
        let folder = &self.partial.repository.folder;
        let etag = &self.partial.remote.etag;
        self.file.sync_data().map_err(HubError::io(folder.part(etag)))?;
        self.journal.add(pieces).map_err(HubError::io(folder.journal(etag)))?;
        self.pieces.extend_from_slice(pieces);
        let mut state = self.partial.state();
        for piece in pieces {
            state.held.insert(piece.bytes.clone());
            state.checked.insert(piece.bytes.clone());
        }
        Ok(())
    }

    /// If nothing is missing any more: compares all bytes with what the hub names them by, and hands them over to the part of
    /// the cache that all tools share.
    pub(crate) fn finish(self) -> Result<(), HubError> {
        let (folder, remote) = (&self.partial.repository.folder, &self.partial.remote);
        let part = folder.part(&remote.etag);
        if !self.partial.holds(&(0..remote.size)) || !part.exists() {
            return Ok(());
        }
        if !is_sound(&part, &remote.etag).map_err(HubError::io(&part))? {
            self.forget()?;
            let kind = if remote.etag.is_sha256() { "sha256" } else { "git sha1" };
            return Err(HubError::Damaged { file: format!("{}/{}", self.partial.repository.name, remote.name), kind });
        }
        fs::create_dir_all(folder.blobs()).map_err(HubError::io(folder.blobs()))?;
        let about = fs::metadata(&part).map_err(HubError::io(&part))?;
        replace(&folder.brought(&remote.etag), identity(&about).as_bytes())?;
        let blob = folder.blob(&remote.etag);
        fs::rename(&part, &blob).map_err(HubError::io(&blob))?;
        self.partial.repository.link(remote)?;
        // If it stays, it is of no use, and does no harm.
        let _ = fs::remove_file(folder.journal(&remote.etag));
        Ok(())
    }

    /// Deletes the file, so that the next fetch begins anew.
    fn forget(&self) -> Result<(), HubError> {
        let (folder, etag) = (&self.partial.repository.folder, &self.partial.remote.etag);
        let mut state = self.partial.state();
        (state.held, state.checked) = (RangeSet::default(), RangeSet::default());
        drop(state);
        for path in [folder.journal(etag), folder.part(etag)] {
            fs::remove_file(&path).map_err(HubError::io(&path))?;
        }
        Ok(())
    }
}

/// Opens the part of `remote`, made if there is none, to write to it.
fn open_part(repository: &Repository, remote: &RemoteFile) -> Result<File, HubError> {
    let path = repository.folder.part(&remote.etag);
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(HubError::io(&path))?;
    let length = file.metadata().map_err(HubError::io(&path))?.len();
    if length != 0 && length != remote.size {
        // Somebody may have it mapped: it is never made shorter.
        let what = format!("{}/{}", repository.name, remote.name);
        let reason = format!("it is {} bytes long now, and {length} before, under one name", remote.size);
        return Err(HubError::BadAnswer { what, reason });
    }
    if length == 0 {
        file.set_len(remote.size).map_err(HubError::io(&path))?;
    }
    Ok(file)
}

fn mapped(path: &Path) -> Result<Arc<dyn ByteSource>, HubError> {
    let data = open_file(path).map_err(|error| HubError::io(path)(io::Error::other(error)))?;
    Ok(Arc::from(data))
}

fn all_of(remote: &RemoteFile) -> RangeSet {
    std::iter::once(0..remote.size).collect()
}

/// A [`Partial`] as a file of a checkpoint: bytes that are not here are fetched when they are read.
pub(crate) struct Open(pub(crate) Arc<Partial>);

impl ByteSource for Open {
    fn len(&self) -> u64 {
        self.0.remote.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        if end > self.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !self.0.has(&std::iter::once(offset..end).collect()) {
            self.0.fetch_on_demand(offset..end).map_err(io::Error::other)?;
        }
        let data = self.0.state().data.clone();
        data.read_at(offset, buffer)
    }

    fn in_place(&self, range: Range<u64>) -> Option<FileBytes> {
        // Nothing that was not checked, whatever the journal says.
        let state = self.0.state();
        if state.checked.covers(&range) { state.data.in_place(range) } else { None }
    }
}
