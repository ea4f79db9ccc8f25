//! The key pair that a peer id is made of, kept in a file so that the id lasts, and guarded so that two processes on
//! one machine never share it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use libp2p_identity::{Keypair, PeerId};
use thiserror::Error;

/// The largest file that is read as an identity; a real one has 68 bytes.
const MAX_FILE_BYTES: u64 = 4096;

/// A key pair, and the lock that goes with it while the process lives.
#[derive(Debug)]
pub struct Identity {
    keypair: Keypair,
    _lock: Option<File>,
}

/// An identity that cannot be used.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The file cannot be read or made.
    #[error("the identity {path} cannot be used: {source}; {advice}", path = .path.display(), advice = advice(source))]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{path} is no identity; remove it and a new one will be made there", path = .0.display())]
    Malformed(PathBuf),
    /// Another process runs with it.
    #[error(
        "another process on this machine runs with the identity {0}; give each its own --identity FILE (or unset SWARM_IDENTITY, if this came from there)"
    )]
    InUse(PeerId),
}

/// What to do about a file that cannot be read or made.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "run this as the user whose it is, or name a file in a folder that you may write to with --identity"
        }
        _ => "name another file with --identity, or leave it out: the id is then new at each start",
    }
}

impl Identity {
    /// A new identity that nobody will know again.
    pub fn ephemeral() -> Self {
        Self { keypair: Keypair::generate_ed25519(), _lock: None }
    }

    /// The identity in the file at `path`, made if there is none.
    ///
    /// # Errors
    /// [`IdentityError`] if the file cannot be read or made, or another process runs with the same identity.
    pub fn load_or_create(path: &Path) -> Result<Self, IdentityError> {
        let failed = |source| IdentityError::File { path: path.to_path_buf(), source };
        let keypair = match std::fs::metadata(path) {
            Ok(metadata) if metadata.len() > MAX_FILE_BYTES => {
                return Err(IdentityError::Malformed(path.to_path_buf()));
            }
            Ok(_) => {
                let bytes = std::fs::read(path).map_err(failed)?;
                Keypair::from_protobuf_encoding(&bytes).map_err(|_| IdentityError::Malformed(path.to_path_buf()))?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(path).map_err(failed)?,
            Err(error) => return Err(failed(error)),
        };
        let lock = lock(keypair.public().to_peer_id())?;
        Ok(Self { keypair, _lock: lock })
    }

    /// The key pair.
    pub fn keypair(&self) -> &Keypair {
        &self.keypair
    }

    /// The peer id.
    pub fn peer_id(&self) -> PeerId {
        self.keypair.public().to_peer_id()
    }
}

fn create(path: &Path) -> io::Result<Keypair> {
    let keypair = Keypair::generate_ed25519();
    let bytes = keypair.to_protobuf_encoding().map_err(io::Error::other)?;
    write_private(path, &bytes)?;
    Ok(keypair)
}

/// Writes a new file that only its owner can read; leaves none behind if it cannot be written.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create_private(path)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    if written.is_err() {
        // The cause is the write's; a file that cannot be removed either changes nothing.
        let _ = std::fs::remove_file(path);
    }
    written
}

/// A new file that only its owner can read, with the folders above it.
fn create_private(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Takes the machine-wide lock of `peer`: by id, not by file, since files get copied. The system frees it when the
/// process ends, however it ends. Where no lock file can be made, the swarm itself will notice twins.
fn lock(peer: PeerId) -> Result<Option<File>, IdentityError> {
    let folder = std::env::temp_dir().join("swarm-node-locks");
    let open = || {
        std::fs::create_dir_all(&folder)?;
        OpenOptions::new().write(true).create(true).truncate(false).open(folder.join(format!("{peer}.lock")))
    };
    let Ok(file) = open() else {
        return Ok(None);
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Err(IdentityError::InUse(peer)),
        Err(std::fs::TryLockError::Error(_)) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_lasts_and_serves_one_process_at_a_time() {
        let dir = std::env::temp_dir().join(format!("identity-test-{}", std::process::id()));
        let path = dir.join("deep").join("id.key");
        let first = Identity::load_or_create(&path).unwrap();
        let copy = dir.join("copy.key");
        std::fs::copy(&path, &copy).unwrap();
        assert!(matches!(Identity::load_or_create(&copy), Err(IdentityError::InUse(_))));
        let peer = first.peer_id();
        drop(first);
        assert_eq!(Identity::load_or_create(&copy).unwrap().peer_id(), peer);
        std::fs::write(&path, "garbage").unwrap();
        assert!(matches!(Identity::load_or_create(&path), Err(IdentityError::Malformed(_))));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
