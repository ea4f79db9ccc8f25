//! Whether a step fits its session. Pure.

use swarm_protocol::session::TokenCount;
use swarm_protocol::wire::{ElementType, LinkFormat, RowsHeader, Step, StepError};

/// What a server takes in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StepShape {
    pub(super) hidden: u32,
    pub(super) element: ElementType,
    pub(super) max_rows: u32,
}

/// The most bytes of rows in one step: two steps of each of many sessions wait at once, and a chunk of a model with hidden
/// 8192 is still 256 rows, enough to keep every kernel at its full speed.
const MAX_STEP_BYTES: usize = 4 << 20;

impl StepShape {
    /// For activations of that width and type; never more than `protocol_limit` rows.
    pub(super) fn new(hidden: u32, element: ElementType, protocol_limit: u32) -> Self {
        let row = (hidden as usize * element.bytes()).max(1);
        let fitting = u32::try_from(MAX_STEP_BYTES / row).unwrap_or(u32::MAX);
        Self { hidden, element, max_rows: fitting.clamp(1, protocol_limit) }
    }

    /// Bytes of the largest step.
    pub(super) fn max_bytes(&self) -> usize {
        self.max_rows as usize * self.hidden as usize * self.element.bytes()
    }

    /// No rows, as the model has them.
    pub(super) fn none(&self) -> RowsHeader {
        RowsHeader { rows: 0, hidden: self.hidden, element: self.element.into() }
    }

    /// Whether the rows are the model's, come in the link's format, and end within what was reserved.
    ///
    /// # Errors
    /// [`StepError`] says what is wrong.
    pub(super) fn check(&self, step: &Step, format: LinkFormat, reserved: TokenCount) -> Result<(), StepError> {
        let found = step.rows;
        if found.hidden != self.hidden || !format.admits(self.element, found.element) {
            let element = format.encoding(self.element);
            let reason = format!(
                "rows of {} elements of {:?} came; the model's have {} of {:?} on a link that is {format}",
                found.hidden, found.element, self.hidden, element
            );
            return Err(StepError::BadRows(reason));
        }
        if found.rows == 0 || found.rows > self.max_rows {
            let reason = format!("{} rows came; a step has 1 to {}", found.rows, self.max_rows);
            return Err(StepError::BadRows(reason));
        }
        match step.position.checked_add(found.rows) {
            Some(end) if end <= reserved.0 => Ok(()),
            _ => Err(StepError::PastReservation { reserved }),
        }
    }
}

/// The length to which a KV cache of `have` positions is rewound before a step at `position`.
///
/// # Errors
/// [`StepError::Gap`] if positions before the step are missing: a server never computes on missing KV.
pub(super) fn rewind_to(position: u32, have: usize) -> Result<usize, StepError> {
    if position as usize > have {
        return Err(StepError::Gap { have: have as u32 });
    }
    Ok(position as usize)
}

#[cfg(test)]
mod tests {
    use swarm_protocol::wire::{MAX_STEP_ROWS, RowEncoding};

    use super::*;

    const SHAPE: StepShape = StepShape { hidden: 128, element: ElementType::Bf16, max_rows: 16 };

    fn step(position: u32, rows: u32, hidden: u32, element: RowEncoding) -> Step {
        Step { epoch: 0, position, rows: RowsHeader { rows, hidden, element }, wanted_from: 0 }
    }

    #[test]
    fn only_steps_of_the_models_shape_within_the_reservation_pass() {
        let check = |step: Step| SHAPE.check(&step, LinkFormat::Exact, TokenCount(100));
        let (bf16, int8) = (RowEncoding::Bf16, RowEncoding::Int8);
        assert_eq!(check(step(0, 16, 128, bf16)), Ok(()));
        assert_eq!(check(step(84, 16, 128, bf16)), Ok(()));
        for wrong in [
            step(0, 0, 128, bf16),
            step(0, 17, 128, bf16),
            step(0, 1, 64, bf16),
            step(0, 1, 128, RowEncoding::F32),
            step(0, 1, 128, int8),
        ] {
            assert!(matches!(check(wrong), Err(StepError::BadRows(_))), "{wrong:?}");
        }
        for far in [step(85, 16, 128, bf16), step(u32::MAX, 1, 128, bf16)] {
            assert_eq!(check(far), Err(StepError::PastReservation { reserved: TokenCount(100) }));
        }
        let rounded = |step: Step| SHAPE.check(&step, LinkFormat::Int8, TokenCount(100));
        assert_eq!(rounded(step(84, 16, 128, int8)), Ok(()));
        assert!(matches!(rounded(step(84, 16, 128, bf16)), Err(StepError::BadRows(_))), "its format was agreed upon");
    }

    #[test]
    fn a_cache_is_rewound_but_never_skipped_over() {
        assert_eq!(rewind_to(5, 5), Ok(5));
        assert_eq!(rewind_to(2, 5), Ok(2));
        assert_eq!(rewind_to(6, 5), Err(StepError::Gap { have: 5 }));
    }

    #[test]
    fn wide_models_take_shorter_steps() {
        assert_eq!(StepShape::new(128, ElementType::Bf16, MAX_STEP_ROWS).max_rows, MAX_STEP_ROWS);
        let wide = StepShape::new(8192, ElementType::Bf16, MAX_STEP_ROWS);
        assert_eq!((wide.max_rows, wide.max_bytes()), (256, MAX_STEP_BYTES));
        assert_eq!(StepShape::new(u32::MAX, ElementType::F32, MAX_STEP_ROWS).max_rows, 1);
    }
}
