//! Rows that were embedded before they were needed: a chosen token's comes with it, and where a server embeds, asking it for
//! each chunk of a prompt would cost a round trip each.

use std::ops::Range;

use swarm_protocol::activations::{ActivationRows, Rows};

use super::SessionError;
use crate::edges::ClientEdges;

/// The rows of some consecutive positions.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    from: usize,
    ids: Vec<u32>,
    rows: Option<ActivationRows>,
}

impl Ahead {
    /// The rows of `ids`, which are at the positions from `from` on.
    pub(super) fn new(from: usize, ids: Vec<u32>, rows: ActivationRows) -> Self {
        Self { from, ids, rows: Some(rows) }
    }

    /// The embeddings at `positions` of `ids`, which lie within them; what is asked of a server goes further than that.
    pub(super) async fn embed(
        &mut self,
        edges: &ClientEdges,
        ids: &[u32],
        positions: Range<usize>,
    ) -> Result<ActivationRows, SessionError> {
        if let Some(rows) = self.known(ids, &positions) {
            return Ok(rows);
        }
        let end = (positions.start + edges.rows_at_once()).clamp(positions.end, ids.len());
        let wanted = &ids[positions.start..end];
        let rows = edges.embed(wanted.to_vec()).await?;
        if end == positions.end {
            return Ok(rows);
        }
        *self = Self::new(positions.start, wanted.to_vec(), rows.clone());
        Ok(rows.slice(0, positions.len()))
    }

    /// The rows, if they are here, and of these ids: the session may have been rewound.
    fn known(&self, ids: &[u32], positions: &Range<usize>) -> Option<ActivationRows> {
        let first = positions.start.checked_sub(self.from)?;
        let same = self.ids.get(first..first + positions.len())? == &ids[positions.clone()];
        self.rows.as_ref().filter(|_| same).map(|rows| rows.slice(first, positions.len()))
    }
}

#[cfg(test)]
mod tests {
    use swarm_protocol::model_id::WeightFormat;

    use super::*;

    #[test]
    fn a_row_is_known_at_its_place_and_for_its_token_only() {
        let row = ActivationRows::new(WeightFormat::Bf16, 2, vec![1, 2, 3, 4]).unwrap();
        let ahead = Ahead::new(2, vec![7], row.clone());
        assert_eq!(ahead.known(&[5, 6, 7], &(2..3)).map(ActivationRows::into_bytes), Some(row.into_bytes()));
        assert!(ahead.known(&[5, 6, 8], &(2..3)).is_none(), "another token was taken");
        assert!(ahead.known(&[5, 7], &(1..2)).is_none(), "the session was rewound");
        assert!(ahead.known(&[5, 6, 7, 7], &(2..4)).is_none());
    }
}
