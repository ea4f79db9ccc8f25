//! Sets of bytes of one file, and how what is missing is cut into requests.

use std::ops::Range;

/// Disjoint ranges in ascending order, none empty, none adjacent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RangeSet(Vec<Range<u64>>);

impl RangeSet {
    /// Adds the bytes of `range`.
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        // All that touch it become one with it.
        let first = self.0.partition_point(|have| have.end < range.start);
        let last = self.0.partition_point(|have| have.start <= range.end);
        let touched = self.0.get(first..last).unwrap_or_default();
        let start = touched.first().map_or(range.start, |have| have.start.min(range.start));
        let end = touched.last().map_or(range.end, |have| have.end.max(range.end));
        self.0.splice(first..last, std::iter::once(start..end));
    }

    /// The bytes of `range` that are not in the set.
    pub(crate) fn missing(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let mut missing = Vec::new();
        let mut at = range.start;
        let first = self.0.partition_point(|have| have.end <= range.start);
        for have in self.0.iter().skip(first).take_while(|have| have.start < range.end) {
            if at < have.start {
                missing.push(at..have.start);
            }
            at = at.max(have.end);
        }
        if at < range.end {
            missing.push(at..range.end);
        }
        missing
    }

    /// Whether all bytes of `range` are in the set.
    pub(crate) fn covers(&self, range: &Range<u64>) -> bool {
        self.missing(range).is_empty()
    }

    /// How many bytes are in the set.
    pub(crate) fn bytes(&self) -> u64 {
        total(&self.0)
    }

    /// The ranges, ascending.
    pub(crate) fn ranges(&self) -> &[Range<u64>] {
        &self.0
    }
}

impl FromIterator<Range<u64>> for RangeSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> Self {
        let mut set = Self::default();
        ranges.into_iter().for_each(|range| set.insert(range));
        set
    }
}

/// How many bytes `ranges` have together.
pub(crate) fn total(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// `ranges` as requests: those less than `near` bytes apart are one, and none is longer than `piece` bytes.
pub(crate) fn requests(ranges: &RangeSet, near: u64, piece: u64) -> Vec<Range<u64>> {
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges.ranges() {
        match merged.last_mut() {
            Some(last) if range.start - last.end < near => last.end = range.end,
            _ => merged.push(range.clone()),
        }
    }
    let cut = |range: Range<u64>| {
        let starts = (range.start..range.end).step_by(piece.max(1) as usize);
        starts.map(move |start| start..range.end.min(start.saturating_add(piece.max(1))))
    };
    merged.into_iter().flat_map(cut).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[allow(clippy::single_range_in_vec_init)]
    fn set(ranges: &[Range<u64>]) -> RangeSet {
        ranges.iter().cloned().collect()
    }

    #[test]
    #[allow(clippy::single_range_in_vec_init)]
    fn what_touches_becomes_one() {
        assert_eq!(set(&[0..4, 8..10, 4..6]).ranges(), [0..6, 8..10]);
        assert_eq!(set(&[0..4, 8..10, 3..9]).ranges(), [0..10]);
        assert_eq!(set(&[5..5]).ranges(), []);
        assert_eq!(set(&[2..4, 6..8]).missing(&(0..9)), [0..2, 4..6, 8..9]);
        assert!(set(&[2..4]).covers(&(3..3)));
    }

    #[test]
    fn near_ranges_are_one_request_and_long_ones_several() {
        assert_eq!(requests(&set(&[0..10, 12..20, 90..100]), 3, 16), [0..16, 16..20, 90..100]);
        assert_eq!(requests(&set(&[0..10, 12..20]), 2, 16), [0..10, 12..20]);
    }

    proptest! {
        #[test]
        fn a_set_is_what_a_list_of_bytes_says(ranges in prop::collection::vec((0u64..60, 0u64..12), 0..12),
                                              asked in (0u64..60, 0u64..30), near in 1u64..8, piece in 1u64..20) {
            let ranges: Vec<_> = ranges.into_iter().map(|(start, length)| start..start + length).collect();
            let set = set(&ranges);
            let has = |byte: u64| ranges.iter().any(|range| range.contains(&byte));
            let asked = asked.0..asked.0 + asked.1;
            let missing: Vec<u64> = set.missing(&asked).into_iter().flatten().collect();
            let expected: Vec<u64> = asked.filter(|byte| !has(*byte)).collect();
            prop_assert_eq!(missing, expected);
            prop_assert_eq!(set.bytes(), (0..100).filter(|byte| has(*byte)).count() as u64);
            prop_assert!(set.ranges().windows(2).all(|pair| pair[0].end < pair[1].start));
            let requests = requests(&set, near, piece);
            prop_assert!(requests.iter().all(|request| !request.is_empty() && request.end - request.start <= piece));
            prop_assert!(requests.windows(2).all(|pair| pair[0].end <= pair[1].start));
            let requested: RangeSet = requests.into_iter().collect();
            prop_assert!(set.ranges().iter().all(|range| requested.covers(range)));
        }
    }
}
