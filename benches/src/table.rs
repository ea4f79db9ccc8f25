//! Aligned text.

use std::fmt;

/// A title, a header and rows of as many cells.
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) header: Vec<&'static str>,
    pub(crate) rows: Vec<Vec<String>>,
}

impl Table {
    fn widths(&self) -> Vec<usize> {
        let column = |index: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.chars().count());
            cells.chain([self.header[index].chars().count()]).max().unwrap_or(0)
        };
        (0..self.header.len()).map(column).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        writeln!(f, "{}", self.title)?;
        let header = self.header.iter().map(|cell| cell.to_string()).collect();
        for row in std::iter::once(&header).chain(&self.rows) {
            let cells = row.iter().zip(&widths).enumerate();
            // Names to the left, numbers to the right.
            let aligned = cells.map(|(index, (cell, width))| match index {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
            writeln!(f, "  {}", aligned.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}
