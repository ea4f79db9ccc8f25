//! Whether another live process runs with the same identity. Pure.

use swarm_protocol::announcement::Announcement;

/// How often another instance must have spoken after this one until it counts as alive: holders may still show several
/// older words of a process that is gone.
const STRIKES: u32 = 2;

/// What an own record found in the DHT means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is this process's word, or an older one.
    Fine,
    /// Another process's word is above this one's: go on above it.
    ContinueAbove(u64),
    /// Another process keeps speaking.
    Twin,
}

/// Watches for words of the own peer id that this process did not say.
#[derive(Debug, Default)]
pub(super) struct TwinWatch {
    /// The highest sequence of another instance so far.
    highest: u64,
    strikes: u32,
}

impl TwinWatch {
    /// Takes in a word under the own peer id; `last` is the last sequence this process used, 0 before its first.
    pub(super) fn saw(&mut self, found: &Announcement, instance: u64, last: u64) -> Verdict {
        if found.instance == instance || found.sequence <= last.max(self.highest) {
            return Verdict::Fine;
        }
        self.highest = found.sequence;
        // Before its own first word a process finds the last one of its former life.
        if last > 0 {
            self.strikes += 1;
        }
        if self.strikes >= STRIKES { Verdict::Twin } else { Verdict::ContinueAbove(found.sequence) }
    }
}

#[cfg(test)]
mod tests {
    use swarm_protocol::announcement::{Load, Rates, ServerState};
    use swarm_protocol::block::BlockRange;
    use swarm_protocol::model_id::{ModelId, NumericClass};
    use swarm_protocol::session::TokenCount;
    use swarm_protocol::{Keypair, PeerId};

    use super::*;

    fn word(instance: u64, sequence: u64) -> Announcement {
        Announcement {
            peer: PeerId::from(Keypair::generate_ed25519().public()),
            instance,
            sequence,
            state: ServerState::Serving,
            addresses: Vec::new(),
            model: ModelId([0; 32]),
            blocks: BlockRange::new(0, 1).unwrap(),
            class: NumericClass::new("x").unwrap(),
            rates: Rates { decode_us_per_block: 1, prefill_ns_per_token_block: 1 },
            load: Load { queue_us: 0, sessions: 0, free_tokens: TokenCount(0), total_tokens: TokenCount(0) },
            neighbours: Vec::new(),
            ttl_seconds: 1,
            name: None,
            version: String::new(),
            edges: false,
        }
    }

    #[test]
    fn a_former_life_is_no_twin_even_if_the_clock_went_back() {
        let mut watch = TwinWatch::default();
        assert_eq!(watch.saw(&word(1, 900), 2, 0), Verdict::ContinueAbove(900));
        assert_eq!(watch.saw(&word(2, 901), 2, 901), Verdict::Fine);
        assert_eq!(watch.saw(&word(1, 950), 2, 901), Verdict::ContinueAbove(950), "a holder with a later word");
        assert_eq!(watch.saw(&word(1, 950), 2, 951), Verdict::Fine);
        assert_eq!(watch.saw(&word(1, 900), 2, 960), Verdict::Fine);
    }

    #[test]
    fn who_keeps_speaking_is_alive() {
        let mut watch = TwinWatch::default();
        assert_eq!(watch.saw(&word(1, 100), 2, 90), Verdict::ContinueAbove(100));
        assert_eq!(watch.saw(&word(1, 120), 2, 110), Verdict::Twin);
    }
}
