//! Results that several threads write side by side.
#![allow(unsafe_code)]

use std::marker::PhantomData;

/// Some columns of a matrix, and the right to write them: nobody else holds one of these columns.
pub(crate) struct Columns<'a> {
    /// The first row's first column.
    first: *mut f32,
    rows: usize,
    columns: usize,
    /// From a row to the next.
    stride: usize,
    matrix: PhantomData<&'a mut [f32]>,
}

// SAFETY: it is the only way to its elements, as a mutable slice would be, and floats may be written on any thread.
unsafe impl Send for Columns<'_> {}

impl<'a> Columns<'a> {
    /// All columns of a matrix of so many rows; elements that make up no whole row are left out.
    pub(crate) fn new(matrix: &'a mut [f32], rows: usize) -> Self {
        let columns = matrix.len().checked_div(rows).unwrap_or(0);
        Self { first: matrix.as_mut_ptr(), rows, columns, stride: columns, matrix: PhantomData }
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// The first columns, as many as `at` or all, and the others.
    pub(crate) fn split_at(self, at: usize) -> (Self, Self) {
        let at = at.min(self.columns);
        // SAFETY: `at` is at most the number of columns, so that this is a place in the first row, or just behind it; without
        // rows there are no columns, and the place stays the same.
        let behind = unsafe { self.first.add(at) };
        (Self { columns: at, ..self }, Self { first: behind, columns: self.columns - at, ..self })
    }

    /// These columns of a row.
    ///
    /// # Panics
    /// If there is no such row.
    pub(crate) fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "there is no row {row} of {}", self.rows);
        // SAFETY: `new` was given `rows * stride` elements, and `first` and `columns` stay within the first `stride` of them;
        // so row number `row` has these columns within them too. No other value has them (`split_at` divides them), and this
        // one is borrowed for as long as the slice.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(row * self.stride), self.columns) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_written_side_by_side_on_several_threads() {
        let mut matrix = vec![0.0; 3 * 5 + 1];
        let (mut left, right) = Columns::new(&mut matrix, 3).split_at(2);
        let (mut middle, mut none) = right.split_at(7);
        assert_eq!((left.columns(), middle.columns(), none.columns()), (2, 3, 0));
        std::thread::scope(|scope| {
            scope.spawn(|| (0..3).for_each(|row| left.row(row).fill(row as f32)));
            scope.spawn(|| (0..3).for_each(|row| middle.row(row).fill(10.0 + row as f32)));
        });
        assert!(none.row(2).is_empty());
        let row = |row: f32| [row, row, 10.0 + row, 10.0 + row, 10.0 + row];
        assert_eq!(matrix, [&row(0.0)[..], &row(1.0), &row(2.0), &[0.0]].concat());
    }

    #[test]
    #[should_panic(expected = "there is no row 2 of 2")]
    fn a_row_that_is_not_there_is_not_written() {
        Columns::new(&mut [0.0; 4], 2).row(2);
    }

    #[test]
    fn no_rows_have_no_columns() {
        assert_eq!(Columns::new(&mut [], 0).split_at(1).1.columns(), 0);
    }
}
