//! Whether a file's bytes are those that the hub names it by.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use sha1::Sha1;
use sha2::Sha256;
use sha2::digest::Digest;
use swarm_model::ByteSource;

use crate::journal::{Piece, digest};
use crate::layout::Etag;

/// Bytes read at a time.
const BUFFER: usize = 1 << 20;

/// Whether the file at `path` has the contents that `etag` names.
pub(crate) fn is_sound(path: &Path, etag: &Etag) -> io::Result<bool> {
    let file = File::open(path)?;
    let found = match etag.is_sha256() {
        true => hashed(file, Sha256::new())?,
        false => {
            let length = file.metadata()?.len();
            // Git names a file by its length and its bytes.
            hashed(file, Sha1::new_with_prefix(format!("blob {length}\0")))?
        }
    };
    Ok(found == etag.as_str())
}

fn hashed<D: Digest>(mut file: File, mut hasher: D) -> io::Result<String> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
            read => hasher.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

/// Whether the bytes of `piece` are those that were fetched.
pub(crate) fn is_intact(source: &dyn ByteSource, piece: &Piece) -> bool {
    let Range { start, end } = piece.bytes;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER];
    let mut at = start;
    while at < end {
        let part = usize::try_from(end - at).unwrap_or(BUFFER).min(BUFFER);
        let Some(part) = buffer.get_mut(..part) else { return false };
        if source.read_at(at, part).is_err() {
            return false;
        }
        hasher.update(part);
        at += part.len() as u64;
    }
    digest(&hasher) == piece.digest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_git_and_sha256sum() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hello");
        std::fs::write(&path, "hello\n").unwrap();
        for name in [
            "ce013625030ba8dba906f756967f9e9ca394464a",
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        ] {
            assert!(is_sound(&path, &Etag::new(name).unwrap()).unwrap(), "{name}");
        }
        assert!(!is_sound(&path, &Etag::new(&"0".repeat(40)).unwrap()).unwrap());
    }
}
