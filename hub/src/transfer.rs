//! Many connections at once; one thread writes down what they bring.

use std::sync::mpsc::{Receiver, sync_channel};

use crate::connection::{FileState, Work};
use crate::error::HubError;
use crate::journal::Piece;
use crate::layout::Etag;
use crate::partial::Writing;
use crate::ranges::{RangeSet, requests};
use crate::repository::Repository;

/// Connections at once: enough to fill a line of 1 Gbit/s over 50 ms with what one connection usually gets.
const CONNECTIONS: usize = 8;
/// Bytes asked for at once: long beside the round trip of a request, short enough that all connections end together.
pub(crate) const PIECE: u64 = 8 << 20;
/// Ranges less than this many bytes apart are one request: it costs less than another round trip.
const NEAR: u64 = 32 << 10;
/// Words of the connections that may wait for the thread that writes the journal.
const WORDS: usize = 256;

/// What is to be fetched of one file.
pub(crate) struct Job {
    writing: Writing,
    missing: RangeSet,
}

impl Job {
    pub(crate) fn new(writing: Writing, missing: RangeSet) -> Self {
        Self { writing, missing }
    }

    /// Bytes that are missing.
    pub(crate) fn missing_bytes(&self) -> u64 {
        self.missing.bytes()
    }

    /// The file's name.
    pub(crate) fn file(&self) -> &str {
        &self.writing.partial.remote.name
    }

    fn etag(&self) -> &Etag {
        &self.writing.partial.remote.etag
    }

    /// Bytes of those that have not come yet.
    pub(crate) fn still_missing(&self) -> u64 {
        self.writing.missing(&self.missing).bytes()
    }

    /// Whether nothing is missing any more.
    pub(crate) fn is_done(&self) -> bool {
        self.still_missing() == 0
    }

    /// See [`Writing::finish`].
    pub(crate) fn finish(self) -> Result<(), HubError> {
        self.writing.finish()
    }
}

/// What a connection has to say.
pub(crate) enum Word {
    /// So many bytes have come.
    Bytes(u64),
    /// A server sends all or nothing: so many bytes more than those that were missing will come.
    More(u64),
    /// A piece of file number `.0` is written.
    Piece(usize, Piece),
    /// It cannot go on, nor can the others.
    Failed(HubError),
}

/// Fetches what is missing of all jobs.
pub(crate) fn transfer(
    repository: &Repository,
    jobs: &mut [Job],
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), HubError> {
    let files = jobs.iter().map(|job| {
        let file = job.writing.file().try_clone().map_err(HubError::io(repository.folder.part(job.etag())))?;
        Ok(FileState::new(repository, job.writing.partial.remote.clone(), file))
    });
    let files = files.collect::<Result<Vec<_>, HubError>>()?;
    let pieces = jobs
        .iter()
        .enumerate()
        .flat_map(|(number, job)| requests(&job.missing, NEAR, PIECE).into_iter().map(move |range| (number, range)));
    let queue: Vec<_> = pieces.collect();
    let connections = queue.len().min(CONNECTIONS);
    let mut all = queue.iter().map(|(_, range)| range.end - range.start).sum();
    progress(0, all);
    let work = Work::new(repository, &files, queue);
    let (sender, words) = sync_channel(WORDS);
    std::thread::scope(|scope| {
        for _ in 0..connections {
            let sender = sender.clone();
            let work = &work;
            scope.spawn(move || work.run(&sender));
        }
        drop(sender);
        let done = listen(jobs, &words, &mut all, progress);
        work.stop();
        // Connections that wait for room to say something go on, and see that it is over.
        words.iter().for_each(drop);
        done
    })
}

/// Writes down what has come until the connections fall silent.
fn listen(
    jobs: &mut [Job],
    words: &Receiver<Word>,
    all: &mut u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<(), HubError> {
    let mut done = 0;
    let mut failed = Ok(());
    while let Ok(first) = words.recv() {
        let mut written: Vec<Vec<Piece>> = vec![Vec::new(); jobs.len()];
        // What has come meanwhile reaches the disk together.
        for word in std::iter::once(first).chain(words.try_iter().take(WORDS)) {
            match word {
                Word::Bytes(bytes) => done += bytes,
                Word::More(bytes) => *all += bytes,
                Word::Piece(number, piece) => written.get_mut(number).into_iter().for_each(|pieces| {
                    pieces.push(piece.clone());
                }),
                Word::Failed(error) => failed = failed.and(Err(error)),
            }
        }
        progress(done.min(*all), *all);
        for (job, pieces) in jobs.iter_mut().zip(&written) {
            job.writing.add(pieces)?;
        }
        if failed.is_err() {
            break;
        }
    }
    failed
}
