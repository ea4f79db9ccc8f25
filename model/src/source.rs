//! Where a checkpoint's files lie, and bytes at offsets in them: on disk, inside the binary, or wherever another
//! [`CheckpointFiles`] brings them from.

mod map;

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use crate::error::ModelError;

pub use map::FileBytes;

/// A checkpoint's files: a directory, the bundled model, or a cache that gets from elsewhere what it does not have.
pub trait CheckpointFiles: fmt::Debug + Send + Sync {
    /// The file's name for error messages.
    fn label(&self, name: &str) -> String;

    /// Opens a file. Its bytes need not be there yet, only its length: [`ByteSource::read_at`] gets those it is asked for,
    /// [`CheckpointFiles::fetch`] many at once.
    ///
    /// # Errors
    /// [`ModelError::MissingFile`] if there is none, another [`ModelError`] if it cannot be had.
    fn open(&self, name: &str) -> Result<Box<dyn ByteSource>, ModelError>;

    /// Sees to it that all bytes of `ranges` are there before they are used in place. `progress` is told how many of the
    /// bytes that were missing have come, and how many were missing in all.
    ///
    /// # Errors
    /// [`ModelError`] if some cannot be had.
    fn fetch(&self, ranges: &[FileRange], progress: &mut dyn FnMut(u64, u64)) -> Result<(), ModelError> {
        let _ = (ranges, progress);
        Ok(())
    }
}

/// Some bytes of one of a checkpoint's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRange {
    /// The file's name within the checkpoint.
    pub file: String,
    /// Offsets from its start.
    pub bytes: Range<u64>,
}

/// A file of known length that is read piece by piece.
#[allow(clippy::len_without_is_empty)]
pub trait ByteSource: Send + Sync {
    /// Its length in bytes.
    fn len(&self) -> u64;

    /// Fills `buffer` with the bytes from `offset` on.
    ///
    /// # Errors
    /// If the file ends before, or cannot be read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// The bytes of `range` where they lie, if they lie in memory (or in a mapped file) and are all there.
    fn in_place(&self, range: Range<u64>) -> Option<FileBytes> {
        let _ = range;
        None
    }
}

struct DiskFile {
    file: File,
    len: u64,
    /// `None` where the system does not map the file (too large for the address space, an odd file system): it is read.
    map: Option<Arc<Mmap>>,
}

impl ByteSource for DiskFile {
    fn len(&self) -> u64 {
        self.len
    }

    #[cfg(unix)]
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, buffer, offset)
    }

    #[cfg(not(unix))]
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        // A handle of its own, so that reads at the same time do not share a position.
        let mut file = self.file.try_clone()?;
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(buffer)
    }

    fn in_place(&self, range: Range<u64>) -> Option<FileBytes> {
        let map = self.map.as_ref()?;
        let range = within(range, map.len())?;
        Some(FileBytes::mapped(map.clone(), range))
    }
}

impl ByteSource for &'static [u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buffer.len());
        let part = self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(part);
        Ok(())
    }

    fn in_place(&self, range: Range<u64>) -> Option<FileBytes> {
        let range = within(range, <[u8]>::len(self))?;
        Some(FileBytes::Static(&self[range]))
    }
}

/// A range of offsets as one of indices into `len` bytes.
fn within(range: Range<u64>, len: usize) -> Option<Range<usize>> {
    let (start, end) = (usize::try_from(range.start).ok()?, usize::try_from(range.end).ok()?);
    (start <= end && end <= len).then_some(start..end)
}

/// The demo model's files.
const DEMO: [(&str, &[u8]); 6] = [
    ("config.json", include_bytes!("../demo/config.json")),
    ("generation_config.json", include_bytes!("../demo/generation_config.json")),
    ("model.safetensors", include_bytes!("../demo/model.safetensors")),
    ("special_tokens_map.json", include_bytes!("../demo/special_tokens_map.json")),
    ("tokenizer.json", include_bytes!("../demo/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../demo/tokenizer_config.json")),
];

/// The files of the demo model that make up its tokenizer.
pub(crate) fn demo_tokenizer_files() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    DEMO.into_iter().filter(|(name, _)| name.contains("token"))
}

/// The model inside the binary.
#[derive(Debug)]
pub(crate) struct DemoFiles;

impl CheckpointFiles for DemoFiles {
    fn label(&self, name: &str) -> String {
        format!("demo/{name}")
    }

    fn open(&self, name: &str) -> Result<Box<dyn ByteSource>, ModelError> {
        match DEMO.iter().find(|(file, _)| *file == name) {
            Some((_, bytes)) => Ok(Box::new(*bytes)),
            None => Err(ModelError::MissingFile { file: self.label(name) }),
        }
    }
}

/// Files in a directory.
#[derive(Debug)]
pub(crate) struct DirectoryFiles(pub(crate) PathBuf);

impl CheckpointFiles for DirectoryFiles {
    fn label(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn open(&self, name: &str) -> Result<Box<dyn ByteSource>, ModelError> {
        open_file(&self.0.join(name))
    }
}

/// A file on disk, mapped where the system can; for implementations of [`CheckpointFiles`].
///
/// # Errors
/// [`ModelError`] if there is none, or it is no regular file.
pub fn open_file(path: &Path) -> Result<Box<dyn ByteSource>, ModelError> {
    let file = open_disk(path).map_err(|error| ModelError::io(path.display().to_string(), error))?;
    Ok(Box::new(file))
}

/// The whole of a small file, at most `most` bytes.
pub(crate) fn read_file(files: &dyn CheckpointFiles, name: &str, most: u64) -> Result<Vec<u8>, ModelError> {
    let source = files.open(name)?;
    if source.len() > most {
        let reason = format!("it has {} bytes, more than {most}", source.len());
        return Err(ModelError::file(files.label(name), reason));
    }
    let mut bytes = vec![0; source.len() as usize];
    let read = source.read_at(0, &mut bytes);
    read.map_err(|error| ModelError::io(files.label(name), error))?;
    Ok(bytes)
}

/// Like [`read_file`], but `None` if there is no such file.
pub(crate) fn read_if_there(files: &dyn CheckpointFiles, name: &str, most: u64) -> Result<Option<Vec<u8>>, ModelError> {
    match read_file(files, name, most) {
        Err(ModelError::MissingFile { .. }) => Ok(None),
        other => other.map(Some),
    }
}

fn open_disk(path: &Path) -> io::Result<DiskFile> {
    let file = File::open(path)?;
    let about = file.metadata()?;
    if !about.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let len = about.len();
    let map = map::map(&file).ok();
    Ok(DiskFile { file, len, map })
}
