//! The pre-shared key of a private swarm, in the file format that every libp2p implementation reads.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use libp2p::pnet::PreSharedKey;
use rand::Rng;

/// The largest file that is read as a key; a real one has 95 bytes.
const MAX_FILE_BYTES: u64 = 4096;

/// Who holds this 32-byte key may join; everybody else cannot even tell what protocol is spoken.
#[derive(Clone, Copy)]
pub struct SwarmKey(PreSharedKey);

/// A swarm key that cannot be read or written.
#[derive(Debug)]
pub enum SwarmKeyError {
    /// The file cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file holds something else.
    Malformed(PathBuf),
    /// There is such a file.
    Exists(PathBuf),
    /// The file cannot be written.
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl SwarmKeyError {
    /// What is wrong.
    pub fn cause(&self) -> String {
        match self {
            Self::Read { path, source } => format!("the swarm key {} cannot be read: {source}", path.display()),
            Self::Malformed(path) => format!("{} is no swarm key", path.display()),
            Self::Exists(path) => format!("{} exists, and a key is never overwritten", path.display()),
            Self::Write { path, source } => format!("the swarm key cannot be written to {}: {source}", path.display()),
        }
    }

    /// What to do about it.
    pub fn advice(&self) -> String {
        match self {
            Self::Read { path, source } => match source.kind() {
                io::ErrorKind::NotFound => format!(
                    "check its path; take a copy from another member, or make a new key for all with `swarm-node keygen {}`",
                    path.display()
                ),
                io::ErrorKind::PermissionDenied => {
                    "only its owner may read it: run this as that user, or make the file yours (chown)".to_string()
                }
                _ => "check its path".to_string(),
            },
            Self::Malformed(_) => {
                "take a copy from another member, byte for byte; `swarm-node keygen FILE` makes a new key \
                                   for all"
                    .to_string()
            }
            Self::Exists(_) => "choose another name".to_string(),
            Self::Write { path, source } => match (source.kind(), path.parent()) {
                (io::ErrorKind::NotFound, Some(folder)) => {
                    format!("make the folder first (mkdir -p {}), or choose another", folder.display())
                }
                _ => "choose a folder that you may write to".to_string(),
            },
        }
    }
}

impl fmt::Display for SwarmKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause(), self.advice())
    }
}

impl std::error::Error for SwarmKeyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => Some(source),
            Self::Malformed(_) | Self::Exists(_) => None,
        }
    }
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
    /// [`SwarmKeyError::Write`], also if there is no such folder: a typing error should not become one. [`SwarmKeyError::Exists`]
    /// if the file exists, since overwriting a key locks members out.
    pub fn write_new(&self, path: &Path) -> Result<(), SwarmKeyError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let is_there = folder.map_or(Ok(()), |folder| std::fs::metadata(folder).map(|_| ()));
        let written = is_there.and_then(|()| super::identity::write_private(path, self.0.to_key_file().as_bytes()));
        written.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => SwarmKeyError::Exists(path.to_path_buf()),
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
        let missing = SwarmKey::read(&dir.join("none")).unwrap_err();
        assert!(matches!(missing, SwarmKeyError::Read { .. }) && missing.to_string().contains("keygen"), "{missing}");
        let nowhere = key.write_new(&dir.join("nowhere").join("swarm.key")).unwrap_err();
        assert!(nowhere.to_string().contains("mkdir -p") && !dir.join("nowhere").exists(), "{nowhere}");
        assert!(nowhere.to_string().contains(&nowhere.cause()), "{nowhere}");
        let (path, source) = (path.clone(), io::ErrorKind::PermissionDenied.into());
        let closed = SwarmKeyError::Read { path, source }.to_string();
        assert!(closed.contains("owner") && !closed.contains("keygen"), "{closed}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
