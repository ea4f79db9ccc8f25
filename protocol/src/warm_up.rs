//! Bringing a connection up to speed before it is needed: rows that mean nothing, piece by piece, each when the one before
//! has arrived, as TCP's slow start lets through. So rows that come meanwhile wait for no more than what is on its way, and
//! those that come later find a connection that takes a chunk of a prompt at once. Pure: no clock, no IO.

use std::time::Duration;

use crate::session::TokenCount;
use crate::wire::RowsHeader;

/// Bytes of the pieces: the first is what TCP sends at once on a connection that has carried nothing, each further one
/// no more than what it sends when it has seen the one before arrive, and what a stream's window of 256 KiB has room for.
/// Together they open TCP's window for 100 Mbit/s over 50 ms, and make the stream's, which grows when half of it comes
/// within two round trips, larger than that.
const PIECES: [usize; 6] = [14 << 10, 28 << 10, 56 << 10, 112 << 10, 168 << 10, 384 << 10];

/// A connection that answers sooner needs no warming: slow start is over within a few such round trips.
const NEAR: Duration = Duration::from_millis(4);

/// A piece that takes so many times as long as the first is held up by the link, no longer by TCP: more would only fill
/// its queue.
const HELD_UP: u32 = 2;

/// What is sent over one connection.
#[derive(Debug, Clone)]
pub struct WarmUp {
    /// What its rows look like, and the most of them at once.
    shape: RowsHeader,
    /// How many bytes the session may ever send.
    left: usize,
    sent: usize,
    first: Option<Duration>,
}

impl WarmUp {
    /// Of rows like those of `shape`, which has the most that the other end takes at once, for a session of `tokens`: no
    /// more than those will be.
    pub fn new(shape: RowsHeader, tokens: TokenCount) -> Self {
        Self { shape, left: tokens.as_usize().saturating_mul(row_bytes(shape)), sent: 0, first: None }
    }

    /// The next piece, when the one before has `taken` as long to be answered; `None` if the connection is warm.
    pub fn next(&mut self, taken: Option<Duration>) -> Option<RowsHeader> {
        if let Some(taken) = taken {
            let first = *self.first.get_or_insert(taken);
            if first < NEAR || taken > first * HELD_UP {
                return None;
            }
        }
        let row = row_bytes(self.shape);
        let rows = (PIECES.get(self.sent)? / row).max(1).min(self.shape.rows as usize).min(self.left / row);
        if rows == 0 {
            return None;
        }
        self.sent += 1;
        self.left -= rows * row;
        Some(RowsHeader { rows: rows as u32, ..self.shape })
    }
}

/// Bytes of one row, at least 1.
fn row_bytes(shape: RowsHeader) -> usize {
    shape.element.row_bytes(shape.hidden as usize).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::RowEncoding;

    const FAR: Duration = Duration::from_millis(50);

    fn rows_of(shape: RowsHeader, tokens: u32, taken: &[Duration]) -> Vec<u32> {
        let mut warm_up = WarmUp::new(shape, TokenCount(tokens));
        let taken = std::iter::once(None).chain(taken.iter().copied().map(Some));
        taken.map_while(|taken| warm_up.next(taken)).map(|piece| piece.rows).collect()
    }

    const SHAPE: RowsHeader = RowsHeader { rows: 1024, hidden: 1024, element: RowEncoding::Bf16 };

    #[test]
    fn pieces_grow_and_end() {
        assert_eq!(rows_of(SHAPE, 4096, &[FAR; 9]), [7, 14, 28, 56, 84, 192]);
    }

    #[test]
    fn a_piece_is_no_more_than_the_other_end_takes_or_the_session_may_send() {
        let few = RowsHeader { rows: 20, ..SHAPE };
        assert_eq!(rows_of(few, 4096, &[FAR; 9]), [7, 14, 20, 20, 20, 20]);
        assert_eq!(rows_of(SHAPE, 25, &[FAR; 9]), [7, 14, 4]);
        let wide = RowsHeader { hidden: 16 << 10, ..SHAPE };
        assert_eq!(rows_of(wide, 4096, &[FAR; 9]), [1, 1, 1, 3, 5, 12], "there is no less than a row");
    }

    #[test]
    fn a_near_connection_needs_one_and_a_slow_link_gets_no_more_than_it_carries() {
        assert_eq!(rows_of(SHAPE, 4096, &[Duration::from_millis(1); 9]), [7]);
        assert_eq!(rows_of(SHAPE, 4096, &[FAR, FAR, FAR * 3, FAR]), [7, 14, 28]);
    }
}
