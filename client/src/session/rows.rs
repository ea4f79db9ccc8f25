//! Rows of activations as a session keeps and sends them.

use swarm_protocol::model_id::WeightFormat;
use swarm_protocol::wire::{ElementType, RowsHeader};

use crate::chain::Rows;

/// Some rows of a hidden state: raw little-endian elements, row after row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActivationRows {
    hidden: u32,
    element: ElementType,
    bytes: Vec<u8>,
}

impl ActivationRows {
    /// The rows in `bytes`, of `hidden` elements each; `None` if the bytes are not whole rows.
    pub fn new(format: WeightFormat, hidden: u32, bytes: Vec<u8>) -> Option<Self> {
        let rows = Self { hidden, element: format.into(), bytes };
        (rows.row_bytes() > 0 && rows.bytes.len().is_multiple_of(rows.row_bytes())).then_some(rows)
    }

    /// The rows of an answer; `None` if they are not of the shape and type that was fed.
    pub(super) fn of_answer(header: RowsHeader, hidden: u32, element: ElementType, bytes: Vec<u8>) -> Option<Self> {
        let fits = header.hidden == hidden && header.element == element;
        (fits && header.payload_bytes().ok()? == bytes.len()).then_some(Self { hidden, element, bytes })
    }

    /// How the rows are announced on the wire.
    pub(super) fn header(&self) -> RowsHeader {
        RowsHeader { rows: self.rows() as u32, hidden: self.hidden, element: self.element }
    }

    /// The raw elements.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The raw elements.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Elements of one row.
    pub fn hidden(&self) -> usize {
        self.hidden as usize
    }

    fn row_bytes(&self) -> usize {
        self.hidden as usize * self.element.bytes()
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
