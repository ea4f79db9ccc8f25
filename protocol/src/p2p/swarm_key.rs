//! The pre-shared key of a private swarm, in the file format that every libp2p implementation reads.

use std::fmt;
use std::path::{Path, PathBuf};

use libp2p::pnet::PreSharedKey;
use rand::Rng;
use thiserror::Error;

/// The largest file that is read as a key; a real one has 95 bytes.
const MAX_FILE_BYTES: u64 = 4096;

/// Who holds this 32-byte key may join; everybody else cannot even tell what protocol is spoken.
#[derive(Clone, Copy)]
pub struct SwarmKey(PreSharedKey);

/// A swarm key that cannot be read or written.
#[derive(Debug, Error)]
pub enum SwarmKeyError {
    /// The file cannot be read.
    #[error("the swarm key {path} cannot be read: {source}; make one with `swarm-node keygen {path}`", path = .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("{path} is no swarm key; make one with `swarm-node keygen FILE` and give every member a copy", path = .0.display())]
    Malformed(PathBuf),
    /// There is such a file.
    #[error("{path} exists, and a key is never overwritten; choose another name", path = .0.display())]
    Exists(PathBuf),
    /// The file cannot be written.
    #[error("the swarm key cannot be written to {path}: {source}", path = .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
}

impl SwarmKey {
    /// A fresh key.
    pub fn generate() -> Self {
        Self(PreSharedKey::new(rand::rng().random()))
    }

    /// The key in the file at `path`.
    ///
    /// # Errors
    /// [`SwarmKeyError`] if there is none.
    pub fn read(path: &Path) -> Result<Self, SwarmKeyError> {
        let read = || {
            if std::fs::metadata(path)?.len() > MAX_FILE_BYTES {
                return Ok(None);
            }
            let bytes = std::fs::read(path)?;
            Ok(String::from_utf8(bytes).ok())
        };
        let text = read().map_err(|source| SwarmKeyError::Read { path: path.to_path_buf(), source })?;
        text.and_then(|text| text.parse().ok()).map(Self).ok_or_else(|| SwarmKeyError::Malformed(path.to_path_buf()))
    }

    /// Writes the key to a new file that only its owner can read.
    ///
    /// # Errors
    /// [`SwarmKeyError::Write`]; also if the file exists, since overwriting a key locks members out.
    pub fn write_new(&self, path: &Path) -> Result<(), SwarmKeyError> {
        let written = super::identity::write_private(path, self.0.to_key_file().as_bytes());
        written.map_err(|source| match source.kind() {
            std::io::ErrorKind::AlreadyExists => SwarmKeyError::Exists(path.to_path_buf()),
            _ => SwarmKeyError::Write { path: path.to_path_buf(), source },
        })
    }

    /// A few digits that are the same for all holders of the key, safe to show.
    pub fn fingerprint(&self) -> String {
        self.0.fingerprint().to_string()
    }

    pub(super) fn pre_shared(&self) -> PreSharedKey {
        self.0
    }
}

impl fmt::Debug for SwarmKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SwarmKey({})", self.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file_and_is_never_overwritten() {
        let dir = std::env::temp_dir().join(format!("swarm-key-test-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("swarm.key");
        let key = SwarmKey::generate();
        key.write_new(&path).unwrap();
        assert_eq!(SwarmKey::read(&path).unwrap().fingerprint(), key.fingerprint());
        assert!(SwarmKey::generate().write_new(&path).is_err());
        std::fs::write(&path, "not a key").unwrap();
        assert!(matches!(SwarmKey::read(&path), Err(SwarmKeyError::Malformed(_))));
        assert!(matches!(SwarmKey::read(&dir.join("none")), Err(SwarmKeyError::Read { .. })));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
