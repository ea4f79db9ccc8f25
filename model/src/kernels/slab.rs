//! Memory in pieces of one size, out of large pages (see [`crate::large_pages`]), at multiples of which slabs begin.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use memmap2::{MmapMut, MmapRaw};

use crate::error::ModelError;
use crate::large_pages::LARGE_PAGE;

/// The most large pages of a slab: it is given back only when the last of its pieces is free.
const MOST_LARGE_PAGES: usize = 4;
/// The most pieces of a slab: one bit for each tells whether it is taken.
const MOST_PIECES: usize = u64::BITS as usize;
/// Pieces begin at multiples of a cache line.
const LINE: usize = 64;

/// Where pieces come from. It owns no slab: each lives as long as one of its pieces.
#[derive(Default)]
pub(crate) struct Slabs(Mutex<Vec<Weak<Slab>>>);

/// One mapping of the system, in pieces.
struct Slab {
    map: MmapRaw,
    /// Where in the mapping the first piece begins.
    start: usize,
    piece_bytes: usize,
    pieces: usize,
    /// A bit for each piece that has an owner.
    taken: AtomicU64,
}

/// Some memory with one owner. Once freed it may come again with what was written into it.
pub(crate) struct Piece {
    slab: Arc<Slab>,
    index: usize,
    bytes: usize,
}

impl Slabs {
    /// Memory of `bytes` bytes, which may hold what another piece left behind.
    ///
    /// # Errors
    /// [`ModelError::Io`] if the system gives none.
    pub(crate) fn take(&self, bytes: usize) -> Result<Piece, ModelError> {
        let piece_bytes = bytes.max(1).next_multiple_of(LINE);
        let mut slabs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slabs.retain(|slab| slab.strong_count() > 0);
        let mut fitting: Vec<Arc<Slab>> = slabs.iter().filter_map(Weak::upgrade).collect();
        fitting.retain(|slab| slab.piece_bytes == piece_bytes);
        // The fullest first, so that the emptiest may become empty.
        fitting.sort_by_key(|slab| slab.taken.load(Ordering::Relaxed).count_zeros());
        let taken = fitting.into_iter().find_map(|slab| slab.take().map(|index| (slab, index)));
        if let Some((slab, index)) = taken {
            return Ok(Piece { slab, index, bytes });
        }
        let slab = Arc::new(Slab::new(piece_bytes)?);
        slabs.push(Arc::downgrade(&slab));
        // A new slab has a piece.
        slab.taken.store(1, Ordering::Release);
        Ok(Piece { slab, index: 0, bytes })
    }
}

impl Slab {
    fn new(piece_bytes: usize) -> Result<Self, ModelError> {
        let pages = large_pages(piece_bytes);
        let pieces = (pages * LARGE_PAGE / piece_bytes).min(MOST_PIECES);
        let map = MmapMut::map_anon((pages + 1) * LARGE_PAGE)
            .map_err(|error| ModelError::io("memory for keys and values", error))?;
        let map = MmapRaw::from(map);
        let address = map.as_ptr() as usize;
        let start = address.next_multiple_of(LARGE_PAGE) - address;
        #[cfg(target_os = "linux")]
        // A system without large pages refuses; then small ones it is.
        let _ = map.advise_range(memmap2::Advice::HugePage, start, pages * LARGE_PAGE);
        Ok(Self { map, start, piece_bytes, pieces, taken: AtomicU64::new(0) })
    }

    /// A piece that was free and is the caller's now.
    fn take(&self) -> Option<usize> {
        let free = |taken: u64| Some((!taken).trailing_zeros() as usize).filter(|index| *index < self.pieces);
        let take = |taken: u64| free(taken).map(|index| taken | 1 << index);
        // Whoever gave it back did so before it is written again.
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).ok().and_then(free)
    }
}

/// How many large pages a slab of such pieces has: as few as leave least at its end.
fn large_pages(piece_bytes: usize) -> usize {
    let least = piece_bytes.div_ceil(LARGE_PAGE);
    let left = |pages: &usize| {
        let bytes = pages * LARGE_PAGE;
        let used = (bytes / piece_bytes).min(MOST_PIECES) * piece_bytes;
        (bytes - used) * 1000 / bytes
    };
    (least..=least.max(MOST_LARGE_PAGES)).min_by_key(left).unwrap_or(least)
}

impl Piece {
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the piece lies within the mapping, which lives as long as `slab`. Its bit in `taken` is set from
        // before this value is made until it is dropped, so no other value gives out these bytes, and this one is borrowed.
        unsafe { std::slice::from_raw_parts(self.start(), self.bytes) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and this one is borrowed alone. The mapping is private, writable and zeroed at first.
        unsafe { std::slice::from_raw_parts_mut(self.start(), self.bytes) }
    }

    fn start(&self) -> *mut u8 {
        self.slab.map.as_mut_ptr().wrapping_add(self.slab.start + self.index * self.slab.piece_bytes)
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.slab.taken.fetch_and(!(1 << self.index), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slabs_alive(slabs: &Slabs) -> usize {
        slabs.0.lock().unwrap().iter().filter(|slab| slab.strong_count() > 0).count()
    }

    #[test]
    fn little_is_left_at_the_end_of_a_slab() {
        for bytes in [64, 4096, 557_056, 700_000, LARGE_PAGE, LARGE_PAGE + 64, 5 * LARGE_PAGE - 64] {
            let slab = Slab::new(bytes).unwrap();
            assert!(slab.pieces >= 1 && (slab.map.as_ptr() as usize + slab.start).is_multiple_of(LARGE_PAGE));
            assert!(slab.start + slab.pieces * bytes <= slab.map.len(), "{bytes}");
        }
        assert_eq!(large_pages(557_056), 4);
        assert_eq!(large_pages(1 << 20), 1);
    }

    #[test]
    fn a_slab_goes_when_its_last_piece_does() {
        let slabs = Slabs::default();
        let mut pieces: Vec<Piece> = (0..9).map(|_| slabs.take(LARGE_PAGE / 2).unwrap()).collect();
        assert_eq!(slabs_alive(&slabs), 5);
        pieces.truncate(3);
        assert_eq!(slabs_alive(&slabs), 2);
        pieces.push(slabs.take(LARGE_PAGE / 2).unwrap());
        assert_eq!(slabs_alive(&slabs), 2, "what is free is used first");
        pieces.push(slabs.take(LARGE_PAGE / 4).unwrap());
        assert_eq!(slabs_alive(&slabs), 3, "pieces of other sizes have their own");
        pieces.clear();
        assert_eq!(slabs_alive(&slabs), 0);
    }

    proptest! {
        // Every step looks at every byte.
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn no_piece_touches_another(
            sizes in prop::sample::select(vec![[1000, 1000], [64, 100_000], [700_000, 2_200_000]]),
            steps in prop::collection::vec((0usize..2, 0usize..8, any::<bool>()), 1..24),
        ) {
            let slabs = Slabs::default();
            let mut held: Vec<(Piece, u8)> = Vec::new();
            for (mark, (size, at, free)) in steps.into_iter().enumerate() {
                if free && at < held.len() {
                    held.swap_remove(at);
                    continue;
                }
                let mut piece = slabs.take(sizes[size]).unwrap();
                piece.bytes_mut().fill(mark as u8);
                held.push((piece, mark as u8));
                for (piece, mark) in &held {
                    prop_assert!(piece.bytes().iter().all(|byte| byte == mark));
                }
            }
        }
    }
}
