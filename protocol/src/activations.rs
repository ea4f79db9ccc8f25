//! Rows of activations: what crosses from hop to hop, and what is kept of it so that it can be sent again. Pure.

mod int8;
mod packed;

use crate::model_id::WeightFormat;
use crate::wire::{ElementType, LinkFormat, RowEncoding, RowsHeader};
pub use packed::packing_pays;

/// Rows of activations: one per position. Bytes, or in a simulator their hashes.
pub trait Rows: Clone {
    /// How many rows.
    fn rows(&self) -> usize;
    /// A copy of the `count` rows from row `from` on; both lie within the rows.
    fn slice(&self, from: usize, count: usize) -> Self;
    /// Puts `more` after the rows.
    fn append(&mut self, more: Self);
    /// Forgets all but the first `rows` rows.
    fn truncate(&mut self, rows: usize);
}

/// A word, or whatever stands for a row: what simulations and tests compute with.
impl<T: Clone> Rows for Vec<T> {
    fn rows(&self) -> usize {
        self.len()
    }

    fn slice(&self, from: usize, count: usize) -> Self {
        self[from..from + count].to_vec()
    }

    fn append(&mut self, more: Self) {
        self.extend(more);
    }

    fn truncate(&mut self, rows: usize) {
        Vec::truncate(self, rows);
    }
}

/// The rows of consecutive positions; no rows are no value, since only rows know their width.
#[derive(Debug, Clone)]
pub struct History<R> {
    /// The position of the first row that is kept.
    start: usize,
    rows: Option<R>,
}

impl<R> Default for History<R> {
    fn default() -> Self {
        Self { start: 0, rows: None }
    }
}

impl<R: Rows> History<R> {
    /// The first position that is kept; what lies before was let go of.
    pub fn start(&self) -> usize {
        self.start
    }

    /// The position behind the last row.
    pub fn end(&self) -> usize {
        self.start + self.kept()
    }

    /// How many rows are kept.
    pub fn kept(&self) -> usize {
        self.rows.as_ref().map_or(0, Rows::rows)
    }

    /// Adds the rows that follow.
    pub fn append(&mut self, more: R) {
        match &mut self.rows {
            Some(rows) => rows.append(more),
            None => self.rows = Some(more),
        }
    }

    /// A copy of the rows at the positions `[from, from + count)`; `None` if not all of them are kept.
    pub fn slice(&self, from: usize, count: usize) -> Option<R> {
        let first = from.checked_sub(self.start)?;
        let rows = self.rows.as_ref()?;
        (first + count <= rows.rows()).then(|| rows.slice(first, count))
    }

    /// Forgets every position from `end` on. If that is before the first one kept, the history is empty and goes on there.
    pub fn truncate(&mut self, end: usize) {
        if end <= self.start {
            self.skip_to(end);
        } else if let Some(rows) = &mut self.rows {
            rows.truncate((end - self.start).min(rows.rows()));
        }
    }

    /// Lets go of everything; the next row that is added is that of position `end`.
    pub fn skip_to(&mut self, end: usize) {
        *self = Self { start: end, rows: None };
    }

    /// Lets go of every row before position `start`.
    pub fn forget_before(&mut self, start: usize) {
        let start = start.min(self.end());
        let Some(gone) = start.checked_sub(self.start).filter(|gone| *gone > 0) else {
            return;
        };
        let left = self.kept() - gone;
        self.rows = self.rows.as_ref().filter(|_| left > 0).map(|rows| rows.slice(gone, left));
        self.start = start;
    }
}

/// Some rows of a hidden state, row after row: raw little-endian elements, or rounded as a link asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivationRows {
    hidden: u32,
    element: RowEncoding,
    bytes: Vec<u8>,
}

impl ActivationRows {
    /// The rows in `bytes`, of `hidden` elements each; `None` if the bytes are not whole rows.
    pub fn new(format: WeightFormat, hidden: u32, bytes: Vec<u8>) -> Option<Self> {
        let rows = Self { hidden, element: format.into(), bytes };
        (rows.row_bytes() > 0 && rows.bytes.len().is_multiple_of(rows.row_bytes())).then_some(rows)
    }

    /// The rows that `header` announces as they are; `None` if the bytes are not those.
    pub fn of_wire(header: RowsHeader, bytes: Vec<u8>) -> Option<Self> {
        let rows = Self { hidden: header.hidden, element: header.element, bytes };
        let as_they_are = !matches!(header.element, RowEncoding::Packed { .. });
        (as_they_are && rows.row_bytes() > 0 && header.payload_bytes().ok()? == rows.bytes.len()).then_some(rows)
    }

    /// The rows that `header` announces, packed or not; `None` if the bytes are not those. They take as much memory as
    /// rows and width that were announced: both are to be checked before.
    pub fn unpacked(header: RowsHeader, bytes: Vec<u8>) -> Option<Self> {
        let RowEncoding::Packed { element, .. } = header.element else { return Self::of_wire(header, bytes) };
        if header.payload_bytes().ok()? != bytes.len() {
            return None;
        }
        let elements = header.rows as usize * header.hidden as usize;
        let bytes = packed::unpack(element, elements, &bytes)?;
        Self::of_wire(RowsHeader { element: element.into(), ..header }, bytes)
    }

    /// The same rows in fewer bytes, for [`unpacked`](Self::unpacked), and how they are announced; as they are, if packing makes
    /// them no smaller.
    pub fn into_packed(self) -> (RowsHeader, Vec<u8>) {
        let header = self.header();
        let packed = self.element.element().and_then(|element| Some((element, packed::pack(element, &self.bytes)?)));
        match packed {
            Some((element, packed)) => {
                let bytes = u32::try_from(packed.len()).unwrap_or(u32::MAX);
                (RowsHeader { element: RowEncoding::Packed { element, bytes }, ..header }, packed)
            }
            None => (header, self.bytes),
        }
    }

    /// How the rows are announced on the wire.
    pub fn header(&self) -> RowsHeader {
        RowsHeader { rows: self.rows() as u32, hidden: self.hidden, element: self.element }
    }

    /// The rows as they are, and how they are announced.
    pub fn into_wire(self) -> (RowsHeader, Vec<u8>) {
        (self.header(), self.bytes)
    }

    /// The rows as they go over a link of `format`. Rows that are rounded already stay what they are: who hands them on
    /// changes no bit.
    pub fn on_link(self, format: LinkFormat) -> Self {
        match (format, self.element.element()) {
            (LinkFormat::Int8, Some(element)) => {
                let bytes = int8::rounded(element, self.hidden(), &self.bytes);
                Self { element: RowEncoding::Int8, bytes, ..self }
            }
            _ => self,
        }
    }

    /// The rows in elements of `element`, with which a hop computes; exact ones of another type are left as they are.
    pub fn off_link(self, element: ElementType) -> Self {
        match self.element {
            RowEncoding::Int8 => {
                let bytes = int8::restored(element, self.hidden(), &self.bytes);
                Self { element: element.into(), bytes, ..self }
            }
            _ => self,
        }
    }

    /// The elements as they are written.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The elements as they are written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Elements of one row.
    pub fn hidden(&self) -> usize {
        self.hidden as usize
    }

    fn row_bytes(&self) -> usize {
        self.element.row_bytes(self.hidden as usize)
    }
}

impl Rows for ActivationRows {
    fn rows(&self) -> usize {
        self.bytes.len() / self.row_bytes()
    }

    fn slice(&self, from: usize, count: usize) -> Self {
        let width = self.row_bytes();
        Self { bytes: self.bytes[from * width..(from + count) * width].to_vec(), ..*self }
    }

    fn append(&mut self, more: Self) {
        self.bytes.extend_from_slice(&more.bytes);
    }

    fn truncate(&mut self, rows: usize) {
        self.bytes.truncate(rows * self.row_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: std::ops::Range<u8>) -> ActivationRows {
        let bytes = values.flat_map(|value| [value, 0, value, 0]).collect();
        ActivationRows::new(WeightFormat::Bf16, 2, bytes).unwrap()
    }

    #[test]
    fn positions_stay_what_they_are_when_old_rows_go() {
        let mut history = History::default();
        history.append(rows(0..6));
        history.append(rows(6..8));
        history.forget_before(5);
        assert_eq!((history.start(), history.end(), history.kept()), (5, 8, 3));
        assert_eq!(history.slice(6, 2), Some(rows(6..8)));
        assert_eq!(history.slice(4, 2), None, "4 is gone");
        assert_eq!(history.slice(7, 2), None, "8 has not come");
        history.truncate(6);
        history.append(rows(9..10));
        assert_eq!(history.slice(5, 2).unwrap().bytes(), [5, 0, 5, 0, 9, 0, 9, 0]);
        history.truncate(2);
        assert_eq!((history.start(), history.end()), (2, 2));
        history.forget_before(9);
        assert_eq!(history.start(), 2, "what has not come is not forgotten");
    }

    #[test]
    fn only_whole_rows_of_the_announced_shape_are_rows() {
        let header = rows(0..3).header();
        assert!(ActivationRows::of_wire(header, vec![0; 12]).is_some());
        assert!(ActivationRows::of_wire(header, vec![0; 8]).is_none());
        assert!(ActivationRows::of_wire(RowsHeader { hidden: 0, ..header }, vec![]).is_none());
        assert!(ActivationRows::new(WeightFormat::Bf16, 2, vec![0; 6]).is_none());
    }
}
