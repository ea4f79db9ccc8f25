//! Memory in large pages: what is read from end to end again and again should not make the processor look up where each small
//! page of it lies.

use memmap2::MmapMut;

use crate::error::ModelError;

/// A large page of x86-64 and of aarch64 with small pages of 4 KiB, in bytes.
pub(crate) const LARGE_PAGE: usize = 2 << 20;

/// Zeros for weights, in large pages where the system has them.
///
/// # Errors
/// [`ModelError::Io`] if the system gives none.
pub(crate) fn zeroed(bytes: usize) -> Result<MmapMut, ModelError> {
    let memory = MmapMut::map_anon(bytes.max(1)).map_err(|error| ModelError::io("memory for weights", error))?;
    // An interpreter of the tests has no pages.
    #[cfg(all(target_os = "linux", not(miri)))]
    // A system without large pages refuses; then small ones it is.
    let _ = memory.advise(memmap2::Advice::HugePage);
    Ok(memory)
}
