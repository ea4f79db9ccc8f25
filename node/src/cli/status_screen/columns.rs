//! Which columns of a table fit, and how wide they are. Pure.

/// Columns of the terminal between two columns of the table.
pub(super) const GAP: usize = 1;

/// Names as long as this are shown whole before other columns are shown at all: a short name and the end of an id.
const NAMES: usize = 24;

/// The widths of columns that would like to be as wide as `wanted`, the first of which are names. Where `room` is narrow
/// others are left out (0), in the order of `leave`.
pub(super) fn fit(wanted: &[usize], leave: &[usize], room: usize) -> Vec<usize> {
    let mut widths = wanted.to_vec();
    let others =
        |widths: &[usize]| widths[1..].iter().filter(|width| **width > 0).map(|width| GAP + width).sum::<usize>();
    for column in leave {
        if wanted[0].min(NAMES) + others(&widths) <= room {
            break;
        }
        widths[*column] = 0;
    }
    widths[0] = wanted[0].min(room.saturating_sub(others(&widths)));
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_what_is_left_and_the_least_important_columns_go_first() {
        let fitted = |room| fit(&[30, 9, 6, 8], &[3, 2, 1], room);
        assert_eq!(fitted(100), [30, 9, 6, 8]);
        assert_eq!(fitted(56), [30, 9, 6, 8]);
        assert_eq!(fitted(50), [24, 9, 6, 8]);
        assert_eq!(fitted(49), [30, 9, 6, 0]);
        assert_eq!(fitted(40), [30, 9, 0, 0]);
        assert_eq!(fitted(20), [20, 0, 0, 0]);
        assert_eq!(fitted(0), [0, 0, 0, 0]);
    }
}
