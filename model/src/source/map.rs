//! Files mapped into memory: their bytes are read where they lie in the page cache.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use memmap2::Mmap;

/// Maps a whole file for reading.
pub(super) fn map(file: &File) -> io::Result<Arc<Mmap>> {
    // SAFETY: the map is only read, and only as plain numbers, of which every bit pattern is one. What Rust cannot rule out
    // is that somebody else writes to the file meanwhile: numbers then change under the reader, as with any checkpoint
    // that is overwritten while it is served, and a file cut short ends the process (SIGBUS). Checkpoints are
    // replaced by new files (as the Hugging Face cache does), not rewritten in place.
    unsafe { Mmap::map(file) }.map(Arc::new)
}

/// Some bytes of a file that stay where they are.
#[derive(Debug, Clone)]
pub enum FileBytes {
    /// In the binary.
    Static(&'static [u8]),
    /// In a mapped file; the range lies within it.
    Mapped(Arc<Mmap>, Range<usize>),
}

impl FileBytes {
    /// Some bytes of a mapped file that lie within it, and that are going to be read from end to end: once to be converted, or again
    /// and again.
    pub(super) fn mapped(map: Arc<Mmap>, range: Range<usize>) -> Self {
        // In large pages if the file system can (Linux 6.16 and ext4, for one): they are also brought from the disk that
        // large, and the processor need not look up where each small one lies. A system that cannot refuses, or does nothing.
        #[cfg(all(target_os = "linux", not(miri)))]
        let _ = map.advise_range(memmap2::Advice::HugePage, range.start, range.len());
        Self::Mapped(map, range)
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Static(bytes) => bytes,
            Self::Mapped(map, range) => &map[range.clone()],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_mapped_file_is_read_to_its_last_byte_also_when_it_is_closed() {
        // Longer than a page, and no whole number of them.
        let bytes: Vec<u8> = (0..5000u32).map(|place| (place % 251) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let map = map(&file).unwrap();
        drop(file);
        for range in [0..5000, 4096..5000, 4999..5000, 5000..5000] {
            assert_eq!(FileBytes::Mapped(map.clone(), range.clone()).as_slice(), &bytes[range]);
        }
    }
}
