//! Where the rows of a session are rounded. Pure.
//!
//! If the user allows loss, rows are rounded where the session's first route has a link: those are its *cuts*, and they stay
//! what they are until it ends. A replacement is cut there as well, and rows that cross any other boundary, between the
//! servers that stand in for one hop, go exactly. So every hop always computes with the rows it was first given, and a text
//! is a function of its tokens and the cuts, whoever computes it.

use std::collections::BTreeSet;

use swarm_protocol::block::{BlockIndex, BlockRange};
use swarm_protocol::wire::{LinkFormat, LinkFormats, PageKey};

/// The boundaries between blocks at which rows are rounded; one is named by the block behind it.
#[derive(Debug, Clone)]
pub(super) struct Cuts {
    format: LinkFormat,
    /// None before there is a route.
    at: Option<BTreeSet<u32>>,
}

impl Cuts {
    /// Of a session without a route, whose links are to be of `format`.
    pub(super) fn new(format: LinkFormat) -> Self {
        Self { format, at: None }
    }

    /// Whether keys of pages can be named: those of rounded rows depend on the cuts.
    pub(super) fn are_known(&self) -> bool {
        self.format == LinkFormat::Exact || self.at.is_some()
    }

    /// The first route has these hops. Later ones change nothing.
    pub(super) fn follow(&mut self, hops: impl Iterator<Item = BlockRange>) {
        if self.at.is_none() {
            self.at = Some(hops.flat_map(|blocks| [blocks.start(), blocks.end()]).collect());
        }
    }

    /// No hop of that route was opened: the next one is the first.
    pub(super) fn forget(&mut self) {
        self.at = None;
    }

    /// `range` in the parts that must be hops of their own, or several.
    pub(super) fn parts(&self, range: BlockRange) -> Vec<BlockRange> {
        let mut parts = Vec::new();
        let mut start = range.start();
        let inner = self.rounded().filter(|at| (range.start() + 1..range.end()).contains(at));
        for end in inner.chain([range.end()]) {
            parts.extend(BlockRange::new(start, end));
            start = end;
        }
        parts
    }

    /// The formats of the links of a hop over `blocks`.
    pub(super) fn formats(&self, blocks: BlockRange) -> LinkFormats {
        let at = |boundary| if self.rounded().any(|cut| cut == boundary) { self.format } else { LinkFormat::Exact };
        LinkFormats { input: at(blocks.start()), output: at(blocks.end()) }
    }

    /// The name of a page in this session, by what its tokens alone would name it.
    pub(super) fn name(&self, key: PageKey) -> PageKey {
        match self.format {
            LinkFormat::Exact => key,
            format => key.rounded(format, self.rounded().map(BlockIndex)),
        }
    }

    /// The cuts in order; none if rows are exact everywhere.
    fn rounded(&self) -> impl Iterator<Item = u32> {
        self.at.iter().filter(|_| self.format != LinkFormat::Exact).flatten().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u32, end: u32) -> BlockRange {
        BlockRange::new(start, end).unwrap()
    }

    fn cuts(format: LinkFormat) -> Cuts {
        let mut cuts = Cuts::new(format);
        cuts.follow([range(0, 4), range(4, 8), range(8, 12)].into_iter());
        cuts
    }

    #[test]
    fn a_session_keeps_the_cuts_of_its_first_route() {
        let mut cuts = cuts(LinkFormat::Int8);
        cuts.follow([range(0, 6), range(6, 12)].into_iter());
        assert_eq!(cuts.parts(range(0, 12)), [range(0, 4), range(4, 8), range(8, 12)]);
        assert_eq!(cuts.parts(range(4, 12)), [range(4, 8), range(8, 12)]);
        assert_eq!(cuts.parts(range(4, 8)), [range(4, 8)]);
        cuts.forget();
        assert!(!cuts.are_known());
        assert_eq!(cuts.parts(range(0, 12)), [range(0, 12)], "without a route there are none");
        cuts.follow([range(0, 6), range(6, 12)].into_iter());
        assert_eq!(cuts.parts(range(0, 12)), [range(0, 6), range(6, 12)]);
    }

    #[test]
    fn rows_are_rounded_at_the_cuts_and_nowhere_else() {
        let cuts = cuts(LinkFormat::Int8);
        let (int8, exact) = (LinkFormat::Int8, LinkFormat::Exact);
        assert_eq!(cuts.formats(range(4, 8)), LinkFormats { input: int8, output: int8 });
        assert_eq!(cuts.formats(range(4, 6)), LinkFormats { input: int8, output: exact });
        assert_eq!(cuts.formats(range(6, 7)), LinkFormats { input: exact, output: exact });
        assert_eq!(cuts.formats(range(7, 8)), LinkFormats { input: exact, output: int8 });
        let exact = self::cuts(LinkFormat::Exact);
        assert_eq!(exact.formats(range(4, 8)), LinkFormats::default());
        assert_eq!(exact.parts(range(0, 12)), [range(0, 12)]);
    }

    #[test]
    fn pages_of_other_cuts_have_other_names() {
        let key = PageKey::root(b"").next(&[1, 2, 3]);
        let mut others = Cuts::new(LinkFormat::Int8);
        others.follow([range(0, 6), range(6, 12)].into_iter());
        let names = [cuts(LinkFormat::Exact), cuts(LinkFormat::Int8), others].map(|cuts| cuts.name(key));
        assert_eq!(names[0], key);
        assert!(names[0] != names[1] && names[0] != names[2] && names[1] != names[2]);
    }
}
