//! Whether a session can be opened here. Pure.

use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::{ModelId, NumericClass};
use swarm_protocol::session::TokenCount;
use swarm_protocol::wire::{Open, Refusal};

use crate::admission;

/// What this server offers.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub(super) model: ModelId,
    pub(super) class: NumericClass,
    pub(super) blocks: BlockRange,
    /// The longest session that is ever taken.
    pub(super) longest: TokenCount,
}

impl Offer {
    /// Whether what `open` asks for is here at all; whether there is room now is admission's question.
    ///
    /// # Errors
    /// [`Refusal`] says what is not.
    pub(super) fn check(&self, open: &Open) -> Result<(), Refusal> {
        if open.model != self.model {
            return Err(Refusal::WrongModel { serves: self.model });
        }
        if open.class != self.class {
            return Err(Refusal::WrongClass { serves: self.class.clone() });
        }
        if !self.blocks.covers(open.blocks) {
            return Err(Refusal::NotHosted { hosted: self.blocks });
        }
        if open.tokens.0 == 0 {
            return Err(Refusal::BadRequest("a session has room for at least one token".to_string()));
        }
        if open.tokens > self.longest {
            return Err(Refusal::TooLong { most: self.longest });
        }
        Ok(())
    }
}

/// Admission's word as it travels.
pub(super) fn on_the_wire(refusal: &admission::Refusal) -> Refusal {
    let retry_after_ms = refusal.retry_after.map_or(0, |wait| wait.as_millis() as u64);
    match refusal.reason {
        admission::Reason::Leaving => Refusal::Leaving,
        admission::Reason::TooLong { budget } => Refusal::TooLong { most: budget },
        admission::Reason::AlreadyOpen => Refusal::BadRequest(refusal.reason.to_string()),
        admission::Reason::TooManySessions => Refusal::TooManySessions { retry_after_ms },
        admission::Reason::Full | admission::Reason::KeptForOthers => {
            Refusal::NoRoom { free: refusal.free, retry_after_ms }
        }
    }
}

#[cfg(test)]
mod tests {
    use swarm_protocol::session::SessionId;

    use super::*;

    #[test]
    fn what_is_not_here_is_refused_by_name() {
        let range = |a, b| BlockRange::new(a, b).unwrap();
        let class = |name: &str| NumericClass::new(name).unwrap();
        let offer = Offer { model: ModelId([1; 32]), class: class("a"), blocks: range(2, 6), longest: TokenCount(100) };
        let good = Open {
            session: SessionId([0; 16]),
            model: offer.model,
            class: offer.class.clone(),
            blocks: range(3, 5),
            tokens: TokenCount(100),
        };
        assert_eq!(offer.check(&good), Ok(()));
        let refused = |change: &dyn Fn(&mut Open)| {
            let mut open = good.clone();
            change(&mut open);
            offer.check(&open).unwrap_err()
        };
        assert_eq!(refused(&|open| open.model = ModelId([2; 32])), Refusal::WrongModel { serves: offer.model });
        assert_eq!(refused(&|open| open.class = class("b")), Refusal::WrongClass { serves: offer.class.clone() });
        assert_eq!(refused(&|open| open.blocks = range(1, 5)), Refusal::NotHosted { hosted: offer.blocks });
        assert_eq!(refused(&|open| open.tokens = TokenCount(101)), Refusal::TooLong { most: TokenCount(100) });
        assert!(matches!(refused(&|open| open.tokens = TokenCount(0)), Refusal::BadRequest(_)));
    }
}
