//! What one of many connections does: takes a request from the queue, and tries until all its bytes are written.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::answer::{Carries, carries, strong};
use crate::error::HubError;
use crate::http::{Answer, broken};
use crate::journal::{Piece, digest};
use crate::layout::Etag;
use crate::ranges::total;
use crate::repository::{RemoteFile, Repository};
use crate::retry::{Failure, Refusal};
use crate::transfer::{PIECE, Word};

/// Bytes read at a time.
const BUFFER: usize = 256 << 10;

/// What the connections know of one file.
pub(crate) struct FileState {
    remote: RemoteFile,
    /// Its address at the hub.
    url: String,
    place: Mutex<Place>,
    file: File,
    /// Whether the server sends all or nothing, and one connection takes all.
    whole: AtomicBool,
}

/// Where the hub pointed to, and what the server there names the contents by.
#[derive(Debug, Clone, Default)]
struct Place {
    url: Option<String>,
    etag: Option<String>,
}

impl FileState {
    pub(crate) fn new(repository: &Repository, remote: RemoteFile, file: File) -> Self {
        let url = repository.http.file_url(&repository.name, &repository.commit, &remote.name);
        Self { remote, url, place: Mutex::default(), file, whole: AtomicBool::new(false) }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all connections share.
pub(crate) struct Work<'a> {
    repository: &'a Repository,
    files: &'a [FileState],
    queue: Mutex<VecDeque<(usize, Range<u64>)>>,
    stopped: AtomicBool,
}

/// Why a request did not bring all its bytes.
enum Trouble {
    /// Another try may help.
    Failure(Failure),
    /// The bytes cannot be written.
    Disk(io::Error),
    /// No other try helps.
    Final(HubError),
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

/// One file and who is told of its bytes.
struct Target<'a> {
    number: usize,
    state: &'a FileState,
    words: &'a SyncSender<Word>,
}

impl<'a> Work<'a> {
    /// Requests for bytes of `files`, by their numbers.
    pub(crate) fn new(repository: &'a Repository, files: &'a [FileState], queue: Vec<(usize, Range<u64>)>) -> Self {
        Self { repository, files, queue: Mutex::new(queue.into()), stopped: AtomicBool::new(false) }
    }

    /// Ends all connections soon.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// One connection, until nothing is left to ask for, or something failed.
    pub(crate) fn run(&self, words: &SyncSender<Word>) {
        while let Some((number, range)) = self.next() {
            let Some(state) = self.files.get(number) else { return };
            if let Err(error) = self.piece(&Target { number, state, words }, range) {
                self.stop();
                let _ = words.send(Word::Failed(error));
                return;
            }
        }
    }

    fn next(&self) -> Option<(usize, Range<u64>)> {
        if self.is_stopped() { None } else { self.queue().pop_front() }
    }

    fn queue(&self) -> MutexGuard<'_, VecDeque<(usize, Range<u64>)>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings `range` of a file here, however often the connection breaks.
    fn piece(&self, target: &Target<'_>, range: Range<u64>) -> Result<(), HubError> {
        let mut pauses = self.repository.http.pauses();
        let mut at = range.start;
        while at < range.end && !self.is_stopped() && !target.state.whole.load(Ordering::Relaxed) {
            let (came, ended) = self.attempt(target, at..range.end);
            at += came;
            if came > 0 {
                pauses.progressed();
            }
            let failure = match ended {
                Ok(()) => continue,
                Err(Trouble::Failure(failure)) => failure,
                Err(Trouble::Disk(error)) => {
                    return Err(HubError::io(self.repository.folder.part(&target.state.remote.etag))(error));
                }
                Err(Trouble::Final(error)) => return Err(error),
            };
            let pause = pauses.after(&failure).ok_or_else(|| self.explain(target.state, failure.clone()))?;
            tracing::debug!(file = target.state.remote.name, reason = failure.reason(), ?pause, "asking again");
            std::thread::sleep(pause);
        }
        Ok(())
    }

    fn explain(&self, state: &FileState, failure: Failure) -> HubError {
        self.repository.asked(Some(&state.remote.name)).explain(&self.repository.http, failure)
    }

    /// One request for `range`: how many of its bytes came, and what came between.
    fn attempt(&self, target: &Target<'_>, range: Range<u64>) -> (u64, Result<(), Trouble>) {
        let state = target.state;
        let place = state.place().clone();
        let mut answer = match self.ask(state, &place, &range) {
            Ok(answer) => answer,
            Err(failure) => {
                // The address it pointed to may have expired.
                if let Failure::Status(Refusal { of_hub: false, .. }) = failure {
                    state.place().url = None;
                }
                return (0, Err(failure.into()));
            }
        };
        let size = state.remote.size;
        match carries(&answer, &range, size, place.etag.as_deref()) {
            Ok(Carries::Range(bytes)) => self.write(target, &mut answer.response.body_mut().as_reader(), bytes),
            Ok(Carries::Whole) if range == (0..size) => {
                self.write(target, &mut answer.response.body_mut().as_reader(), range)
            }
            Ok(Carries::Whole) => (0, self.write_whole(target, answer)),
            Err(failure) => (0, Err(failure.into())),
        }
    }

    fn ask(&self, state: &FileState, place: &Place, range: &Range<u64>) -> Result<Answer, Failure> {
        let all = *range == (0..state.remote.size);
        let wanted = (!all).then_some((range, place.etag.as_deref()));
        let answer = self.repository.http.get(place.url.as_deref().unwrap_or(&state.url), wanted)?;
        // The hub names what it points to.
        let named = answer.etag.as_deref().and_then(Etag::new);
        if named.is_some_and(|etag| etag != state.remote.etag) {
            return Err(Failure::Changed);
        }
        let etag = answer.header("etag").and_then(strong).map(str::to_string);
        let mut known = state.place();
        known.url = Some(answer.url.clone());
        known.etag = known.etag.take().or(etag);
        Ok(answer)
    }

    /// Writes the bytes `range` of the file from `body`, which begins with them.
    fn write(&self, target: &Target<'_>, body: &mut dyn Read, range: Range<u64>) -> (u64, Result<(), Trouble>) {
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; BUFFER];
        let mut at = range.start;
        let ended = loop {
            if at == range.end || self.is_stopped() {
                break Ok(());
            }
            let most = usize::try_from(range.end - at).unwrap_or(BUFFER).min(BUFFER);
            let read = match body.read(buffer.get_mut(..most).unwrap_or_default()) {
                Ok(0) => break Err(Failure::Broken("the connection was cut".to_string()).into()),
                Ok(read) => read,
                Err(error) => break Err(broken(&error).into()),
            };
            let part = buffer.get(..read).unwrap_or_default();
            if let Err(error) = write_at(&target.state.file, part, at) {
                break Err(Trouble::Disk(error));
            }
            hasher.update(part);
            at += read as u64;
            // Who listens goes away only after this thread.
            let _ = target.words.send(Word::Bytes(read as u64));
        };
        let came = at - range.start;
        if came > 0 {
            let piece = Piece { bytes: range.start..at, digest: digest(&hasher) };
            let _ = target.words.send(Word::Piece(target.number, piece));
        }
        (came, ended)
    }

    /// The server sends the whole file, whatever was asked for: one connection takes it, the others leave it alone.
    fn write_whole(&self, target: &Target<'_>, answer: Answer) -> Result<(), Trouble> {
        let state = target.state;
        if state.whole.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        tracing::info!(file = state.remote.name, "the server sends no ranges: the whole file is fetched");
        let _ = target.words.send(Word::More(state.remote.size.saturating_sub(self.withdraw(target.number))));
        let (mut pauses, mut answer, mut reached) = (self.repository.http.pauses(), Some(answer), 0);
        loop {
            let before = reached;
            let failure = match self.whole_body(target, answer.take(), &mut reached) {
                Err(Trouble::Failure(failure)) => failure,
                done => return done,
            };
            if reached > before {
                pauses.progressed();
            }
            let Some(pause) = pauses.after(&failure) else {
                return Err(Trouble::Final(self.explain(state, failure)));
            };
            std::thread::sleep(pause);
        }
    }

    /// Takes the requests for a file out of the queue; gives their bytes.
    fn withdraw(&self, number: usize) -> u64 {
        let mut queue = self.queue();
        let (gone, rest): (Vec<_>, Vec<_>) = queue.drain(..).partition(|(of, _)| *of == number);
        queue.extend(rest);
        total(&gone.into_iter().map(|(_, range)| range).collect::<Vec<_>>())
    }

    /// Reads a body that is the whole file; what came before the last break is passed over.
    fn whole_body(&self, target: &Target<'_>, answer: Option<Answer>, reached: &mut u64) -> Result<(), Trouble> {
        let size = target.state.remote.size;
        let mut answer = match answer {
            Some(answer) => answer,
            None => self.repository.http.get(&target.state.url, None)?,
        };
        if carries(&answer, &(0..size), size, None)? != Carries::Whole {
            return Err(Failure::Odd("it sends a part although all was asked for".to_string()).into());
        }
        let mut body = answer.response.body_mut().as_reader();
        let skipped = io::copy(&mut Read::by_ref(&mut body).take(*reached), &mut io::sink());
        if skipped.map_err(|error| broken(&error))? < *reached {
            return Err(Failure::Broken("the connection was cut".to_string()).into());
        }
        while *reached < size && !self.is_stopped() {
            let (came, ended) = self.write(target, &mut body, *reached..size.min(*reached + PIECE));
            *reached += came;
            ended?;
        }
        Ok(())
    }
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !bytes.is_empty() {
        let written = file.seek_write(bytes, offset)?;
        bytes = bytes.get(written..).unwrap_or_default();
        offset += written as u64;
    }
    Ok(())
}
