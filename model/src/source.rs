//! Bytes at offsets: files on disk, or files inside the binary.

mod map;

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use crate::error::ModelError;

pub(crate) use map::FileBytes;

/// A file of known length that is read piece by piece.
pub(crate) trait ByteSource: Send + Sync {
    fn len(&self) -> u64;

    /// Fills `buffer` with the bytes from `offset` on; an error if the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// The bytes of `range` where they lie, if they lie in memory.
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
        Some(FileBytes::Mapped(map.clone(), range))
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

/// Where a checkpoint's files lie.
#[derive(Debug, Clone)]
pub(crate) enum Files {
    /// Inside the binary.
    Demo,
    /// In a directory.
    Directory(PathBuf),
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

impl Files {
    /// The file's name for error messages.
    pub(crate) fn label(&self, name: &str) -> String {
        match self {
            Self::Demo => format!("demo/{name}"),
            Self::Directory(path) => path.join(name).display().to_string(),
        }
    }

    pub(crate) fn open(&self, name: &str) -> Result<Box<dyn ByteSource>, ModelError> {
        match self {
            Self::Demo => match DEMO.iter().find(|(file, _)| *file == name) {
                Some((_, bytes)) => Ok(Box::new(*bytes)),
                None => Err(self.missing(name)),
            },
            Self::Directory(path) => {
                let file = open_disk(&path.join(name));
                Ok(Box::new(file.map_err(|error| ModelError::io(self.label(name), error))?))
            }
        }
    }

    /// The whole of a small file, at most `most` bytes.
    pub(crate) fn read(&self, name: &str, most: u64) -> Result<Vec<u8>, ModelError> {
        let source = self.open(name)?;
        if source.len() > most {
            let reason = format!("it has {} bytes, more than {most}", source.len());
            return Err(ModelError::file(self.label(name), reason));
        }
        let mut bytes = vec![0; source.len() as usize];
        let read = source.read_at(0, &mut bytes);
        read.map_err(|error| ModelError::io(self.label(name), error))?;
        Ok(bytes)
    }

    /// Like [`Files::read`], but `None` if there is no such file.
    pub(crate) fn read_if_there(&self, name: &str, most: u64) -> Result<Option<Vec<u8>>, ModelError> {
        match self.read(name, most) {
            Err(ModelError::MissingFile { .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    fn missing(&self, name: &str) -> ModelError {
        ModelError::MissingFile { file: self.label(name) }
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
