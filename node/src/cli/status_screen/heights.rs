//! How the height of the screen is divided among its panels. Pure.

/// The rows of a panel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows {
    /// With fewer it is left out.
    pub(super) least: u16,
    /// More would be empty.
    pub(super) full: u16,
}

/// Divides `height` among `panels`. In this `order` each gets its least, as long as there is room; what is left goes
/// round, a row each, the first of the order last, until all are full.
pub(super) fn divide<const PANELS: usize>(
    height: u16,
    panels: [Rows; PANELS],
    order: [usize; PANELS],
) -> [u16; PANELS] {
    let mut rows = [0; PANELS];
    let mut left = height;
    for panel in order {
        let least = panels[panel].least.min(panels[panel].full);
        if least <= left {
            rows[panel] = least;
            left -= least;
        }
    }
    let mut round = order;
    round.rotate_left(1);
    while left > 0 {
        let wants = |panel: &usize| rows[*panel] > 0 && rows[*panel] < panels[*panel].full;
        let more: Vec<usize> = round.into_iter().filter(wants).take(left.into()).collect();
        if more.is_empty() {
            break;
        }
        left -= more.len() as u16;
        more.into_iter().for_each(|panel| rows[panel] += 1);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn divided(height: u16, full: [u16; 3]) -> [u16; 3] {
        divide(height, full.map(|full| Rows { least: 3, full }), [1, 0, 2])
    }

    #[test]
    fn room_that_one_panel_has_no_use_for_goes_to_the_others() {
        assert_eq!(divided(30, [4, 20, 3]), [4, 20, 3]);
        assert_eq!(divided(20, [4, 20, 3]), [4, 13, 3]);
        assert_eq!(divided(20, [20, 20, 20]), [7, 6, 7]);
    }

    #[test]
    fn without_room_the_last_of_the_order_are_left_out() {
        assert_eq!(divided(8, [9, 9, 9]), [4, 4, 0]);
        assert_eq!(divided(5, [9, 2, 9]), [3, 2, 0]);
        assert_eq!(divided(2, [9, 9, 9]), [0, 0, 0]);
        assert_eq!(divided(0, [9, 9, 9]), [0, 0, 0]);
    }
}
