//! Locks that processes take on files of the cache. Lock files are never deleted, so there is no moment at which two hold
//! locks on what they both think is the same file.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use crate::error::HubError;

/// A lock, given back when the value goes away, or its process.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// A lock that many may hold; waits while somebody holds it alone.
    pub(crate) fn shared(path: &Path) -> Result<Self, HubError> {
        let file = open(path)?;
        file.lock_shared().map_err(HubError::io(path))?;
        Ok(Self { _file: file })
    }

    /// A lock that one holds alone; waits while others hold it.
    pub(crate) fn alone(path: &Path) -> Result<Self, HubError> {
        let file = open(path)?;
        file.lock().map_err(HubError::io(path))?;
        Ok(Self { _file: file })
    }

    /// The same without waiting; `None` if others hold it.
    pub(crate) fn try_alone(path: &Path) -> Result<Option<Self>, HubError> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(HubError::io(path)(error)),
        }
    }
}

fn open(path: &Path) -> Result<File, HubError> {
    let folder = path.parent().unwrap_or(path);
    std::fs::create_dir_all(folder).map_err(HubError::io(folder))?;
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    file.map_err(HubError::io(path))
}
