//! Which bytes of a file that is not whole are there. A record is written only after its bytes have reached the disk, so
//! whoever is killed, or loses power, loses the pieces on their way and nothing else.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use crate::ranges::RangeSet;

/// Start and end (u64, little-endian), the digest of the bytes, and one of all this.
const RECORD: usize = 8 + 8 + DIGEST + CHECK;
/// Bytes of BLAKE3 that tell a damaged piece from a sound one: this guards against accidents, not against attacks.
const DIGEST: usize = 16;
/// Bytes of BLAKE3 that tell a torn record from a whole one.
const CHECK: usize = 8;
/// The longest journal read, in bytes: two million pieces.
const MOST_BYTES: u64 = 2_000_000 * RECORD as u64;

/// The digest of a piece.
pub(crate) type PieceDigest = [u8; DIGEST];

/// A piece that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// Its place in the file.
    pub(crate) bytes: Range<u64>,
    /// The digest of its bytes.
    pub(crate) digest: PieceDigest,
}

/// The digest of `bytes`.
pub(crate) fn digest(hasher: &blake3::Hasher) -> PieceDigest {
    let mut digest = PieceDigest::default();
    hasher.finalize_xof().fill(&mut digest);
    digest
}

impl Piece {
    fn encode(&self) -> [u8; RECORD] {
        let mut record = [0; RECORD];
        record[..8].copy_from_slice(&self.bytes.start.to_le_bytes());
        record[8..16].copy_from_slice(&self.bytes.end.to_le_bytes());
        record[16..16 + DIGEST].copy_from_slice(&self.digest);
        let check = check(&record[..16 + DIGEST]);
        record[16 + DIGEST..].copy_from_slice(&check);
        record
    }

    fn decode(record: &[u8], file_bytes: u64) -> Option<Self> {
        let (body, sum) = record.split_at_checked(16 + DIGEST)?;
        let start = u64::from_le_bytes(body.get(..8)?.try_into().ok()?);
        let end = u64::from_le_bytes(body.get(8..16)?.try_into().ok()?);
        let digest = body.get(16..)?.try_into().ok()?;
        (sum == check(body) && start < end && end <= file_bytes).then_some(Self { bytes: start..end, digest })
    }
}

fn check(bytes: &[u8]) -> [u8; CHECK] {
    let mut sum = [0; CHECK];
    blake3::Hasher::new().update(bytes).finalize_xof().fill(&mut sum);
    sum
}

/// The pieces in a journal's bytes, up to the first record that is torn or says what cannot be.
fn decode(journal: &[u8], file_bytes: u64) -> Vec<Piece> {
    journal.chunks_exact(RECORD).map_while(|record| Piece::decode(record, file_bytes)).collect()
}

/// The journal of a file of `file_bytes` bytes, open for appending.
#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
}

impl Journal {
    /// What the journal at `path` says; nothing if there is none.
    pub(crate) fn read(path: &Path, file_bytes: u64) -> io::Result<Vec<Piece>> {
        match File::open(path) {
            Ok(file) => {
                let mut bytes = Vec::new();
                file.take(MOST_BYTES).read_to_end(&mut bytes)?;
                Ok(decode(&bytes, file_bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Opens it to go on after its sound records; only with the file's write lock.
    pub(crate) fn append(path: &Path, file_bytes: u64) -> io::Result<(Self, Vec<Piece>)> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = Vec::new();
        (&mut file).take(MOST_BYTES).read_to_end(&mut bytes)?;
        let pieces = decode(&bytes, file_bytes);
        let sound = (pieces.len() * RECORD) as u64;
        file.set_len(sound)?;
        file.seek(SeekFrom::Start(sound))?;
        Ok((Self { file }, pieces))
    }

    /// Adds `pieces`, whose bytes are on the disk.
    pub(crate) fn add(&mut self, pieces: &[Piece]) -> io::Result<()> {
        let records: Vec<u8> = pieces.iter().flat_map(Piece::encode).collect();
        self.file.write_all(&records)?;
        self.file.sync_data()
    }

    /// Says that nothing but `pieces` is there.
    pub(crate) fn rewrite(&mut self, pieces: &[Piece]) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.add(pieces)
    }
}

/// The bytes that `pieces` have together.
pub(crate) fn held(pieces: &[Piece]) -> RangeSet {
    pieces.iter().map(|piece| piece.bytes.clone()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(bytes: Range<u64>) -> Piece {
        Piece { bytes, digest: [7; DIGEST] }
    }

    #[test]
    fn a_torn_record_is_as_if_it_had_not_been_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        assert!(Journal::read(&path, 100).unwrap().is_empty());
        let (mut journal, _) = Journal::append(&path, 100).unwrap();
        journal.add(&[piece(0..10), piece(20..30)]).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(Journal::read(&path, 100).unwrap().len(), cut / RECORD);
        }
        std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
        let (mut journal, before) = Journal::append(&path, 100).unwrap();
        assert_eq!(before, [piece(0..10)]);
        journal.add(&[piece(40..50)]).unwrap();
        assert_eq!(Journal::read(&path, 100).unwrap(), [piece(0..10), piece(40..50)]);
        // Of a file that is shorter it says nothing.
        assert_eq!(Journal::read(&path, 45).unwrap(), [piece(0..10)]);
    }

    proptest! {
        #[test]
        fn a_mutated_journal_never_claims_what_was_not_written(at in 0usize..RECORD * 2, byte in any::<u8>()) {
            let pieces = [piece(0..10), piece(20..30)];
            let mut bytes: Vec<u8> = pieces.iter().flat_map(Piece::encode).collect();
            bytes[at] = byte;
            prop_assert!(pieces.starts_with(&decode(&bytes, 100)));
        }
    }
}
