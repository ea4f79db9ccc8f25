//! One session on one server, apart from the computing: which steps are taken in, what is kept of their outputs, and
//! what goes out over which link.
//!
//! A hop keeps its outputs as long as the session lives. So there is one mechanism for a decode step, a chunk of prefill
//! and a replay: *a link has been sent fewer rows than there are; send it the difference*. Pure state: no clock, no IO.

#[cfg(test)]
mod tests;
mod way;

use swarm_protocol::PeerId;
use swarm_protocol::activations::{History, Rows};
use swarm_protocol::wire::{Connect, Input, Lane, Output};
use thiserror::Error;

use way::Way;

/// Who hands a step to the hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The session's owner.
    Owner,
    /// The server at the other end of that link.
    Link(u32),
}

/// What becomes of a step that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is computed.
    Compute,
    /// It comes over a link that is no longer the hop's input: it is dropped.
    Stale,
    /// Positions before it are missing.
    Gap {
        /// How many positions there are, those under way included.
        have: usize,
    },
}

/// What becomes of a server that comes to feed the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Welcome {
    /// It is the one.
    Now,
    /// The owner has not named it; its word may still be on the way.
    Later,
    /// The owner has named a later link.
    Never,
}

/// Rows for one link, or for the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<R> {
    /// The number of the link.
    pub link: u32,
    /// The epoch of the newest step that went into the hop's outputs.
    pub epoch: u32,
    /// Absolute position of the first row.
    pub position: usize,
    /// From which position on the owner wants the last hop's output.
    pub wanted_from: usize,
    /// The rows.
    pub rows: R,
}

/// A link cannot be fed from where it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("outputs before position {start} are not kept any more; the hop has to compute them anew")]
pub struct NotKept {
    /// The first position that is.
    pub start: usize,
}

/// The pure state of one session on one server. `R` is what a row of activations is.
#[derive(Debug, Clone)]
pub struct HopState<R> {
    input: Input,
    /// The highest number of a link that the owner has named as the input.
    newest_input: u32,
    /// Positions the KV cache holds once everything that was taken in is computed.
    queued: usize,
    /// The epoch of the newest step that was taken in.
    queued_epoch: u32,
    /// The outputs of what is computed.
    kept: History<R>,
    main: Way,
    mirror: Way,
    epoch: u32,
    wanted_from: usize,
    /// Rows of one frame to the owner.
    max_rows: usize,
}

impl<R: Rows> HopState<R> {
    /// A session that was just opened: fed by its owner, its output kept. `max_rows` is the most that goes to the owner
    /// in one frame.
    pub fn new(max_rows: usize) -> Self {
        Self {
            input: Input::Owner,
            newest_input: 0,
            queued: 0,
            queued_epoch: 0,
            kept: History::default(),
            main: Way::nowhere(),
            mirror: Way::nowhere(),
            epoch: 0,
            wanted_from: 0,
            max_rows: max_rows.max(1),
        }
    }

    /// Positions that are computed.
    pub fn len(&self) -> usize {
        self.kept.end()
    }

    /// Whether nothing is computed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The positions whose outputs are kept: what they take is rows × bytes of a row.
    pub fn kept_rows(&self) -> usize {
        self.kept.kept()
    }

    /// The epoch of the newest step computed.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Where the hop's rows come from.
    pub fn input(&self) -> &Input {
        &self.input
    }

    /// The owner names the hop's input.
    pub fn accept(&mut self, input: Input) {
        if let Input::Upstream { link, .. } | Input::Import { link, .. } = &input {
            self.newest_input = self.newest_input.max(*link);
        }
        self.input = input;
    }

    /// Whether `peer` may feed the session over `link`.
    pub fn feeder(&self, peer: PeerId, link: u32) -> Welcome {
        self.welcome(link, self.input == Input::Upstream { peer, link })
    }

    /// Whether `peer` may hand its KV cache over under the number `link`.
    pub fn importer(&self, peer: PeerId, link: u32) -> Welcome {
        self.welcome(link, self.input == Input::Import { peer, link })
    }

    fn welcome(&self, link: u32, named: bool) -> Welcome {
        match named {
            true => Welcome::Now,
            false if link > self.newest_input => Welcome::Later,
            false => Welcome::Never,
        }
    }

    /// A step of `rows` rows at `position` came. One of an earlier epoch than one before may hold positions that are no
    /// more: whoever sends it has not heard yet, and will send what holds.
    pub fn take(&mut self, source: Source, epoch: u32, position: usize, rows: usize) -> Taken {
        let expected = match (&self.input, source) {
            (Input::Owner, Source::Owner) => true,
            (Input::Upstream { link, .. }, Source::Link(of)) => *link == of,
            _ => false,
        };
        if !expected || epoch < self.queued_epoch {
            return Taken::Stale;
        }
        if position > self.queued {
            return Taken::Gap { have: self.queued };
        }
        self.queued = position + rows;
        self.queued_epoch = epoch;
        Taken::Compute
    }

    /// A step was computed: `rows` is its whole output.
    pub fn computed(&mut self, epoch: u32, position: usize, wanted_from: usize, rows: R) {
        // What follows the outputs so far takes nothing back that was sent, nor that is never to be: a replay begins at
        // position 0, and the next hop lacks the newest positions only. After a truncation that is another matter: a link may
        // have been made for positions that are no more.
        if position < self.kept.end() || (epoch > self.epoch && !self.is_empty()) {
            self.main.rewind(position);
            self.mirror.rewind(position);
        }
        self.kept.truncate(position);
        self.kept.append(rows);
        self.epoch = self.epoch.max(epoch);
        self.wanted_from = wanted_from;
        self.let_go();
    }

    /// A step was not computed: the KV cache holds `have` positions. Gives the lane's upstream what to send again.
    pub fn failed(&mut self, have: usize) {
        self.queued = self.queued.min(have);
    }

    /// A piece of a KV cache was stored, with the outputs of its positions if they were kept where it comes from.
    pub fn imported(&mut self, epoch: u32, position: usize, positions: usize, rows: Option<R>) {
        self.kept.truncate(position);
        match rows {
            Some(rows) => self.kept.append(rows),
            None => self.kept.skip_to(position + positions),
        }
        self.epoch = self.epoch.max(epoch);
        self.queued_epoch = self.queued_epoch.max(epoch);
        // If the owner has named another input meanwhile, steps that came from there may be queued behind the piece.
        if matches!(self.input, Input::Import { .. }) {
            self.queued = position + positions;
        }
    }

    /// Whether no step was ever taken in, nor a KV cache.
    pub fn is_untouched(&self) -> bool {
        self.queued == 0 && self.queued_epoch == 0 && self.is_empty() && self.input == Input::Owner
    }

    /// The epoch of the newest step that was taken in, computed or not.
    pub fn queued_epoch(&self) -> u32 {
        self.queued_epoch
    }

    /// A session that is [untouched](Self::is_untouched) begins with `positions` positions that were computed in others;
    /// `rows` are their outputs, of all hops but the last.
    pub fn recalled(&mut self, epoch: u32, positions: usize, rows: Option<R>) {
        match rows {
            Some(rows) => self.kept.append(rows),
            None => self.kept.skip_to(positions),
        }
        self.queued = positions;
        self.epoch = epoch;
        self.queued_epoch = epoch;
    }

    /// The owner says where the output goes.
    ///
    /// # Errors
    /// [`NotKept`] if outputs are asked for that were let go of.
    pub fn connect(&mut self, connect: &Connect) -> Result<(), NotKept> {
        let position = connect.position as usize;
        if connect.lane == Lane::Main && self.mirror.link() == Some(connect.link) {
            self.main = std::mem::replace(&mut self.mirror, Way::nowhere());
            return Ok(());
        }
        if position < self.kept.start() && connect.output != Output::Nobody {
            return Err(NotKept { start: self.kept.start() });
        }
        *self.way_mut(connect.lane) = Way::new(connect.link, connect.output.clone(), position);
        Ok(())
    }

    /// A lane leads nowhere any more.
    pub fn disconnect(&mut self, lane: Lane) {
        *self.way_mut(lane) = Way::nowhere();
    }

    /// Where a lane goes, and under which number.
    pub fn output(&self, lane: Lane) -> (Option<u32>, &Output) {
        let way = self.way(lane);
        (way.link(), way.output())
    }

    /// The lane of a link.
    pub fn lane_of(&self, link: u32) -> Option<Lane> {
        [Lane::Main, Lane::Mirror].into_iter().find(|lane| self.way(*lane).link() == Some(link))
    }

    /// Whoever is at the other end of the link has only `have` positions.
    ///
    /// # Errors
    /// [`NotKept`] if the outputs that it lacks were let go of.
    pub fn fell_back(&mut self, link: u32, have: usize) -> Result<(), NotKept> {
        if have < self.kept.start() {
            return Err(NotKept { start: self.kept.start() });
        }
        if let Some(lane) = self.lane_of(link) {
            self.way_mut(lane).rewind(have);
        }
        Ok(())
    }

    /// Whether [`HopState::next_frame`] has one.
    pub fn has_frame(&self, lane: Lane) -> bool {
        self.way(lane).due(self.kept.end(), self.wanted_from).is_some()
    }

    /// The next rows for a lane; `None` while everything was sent.
    pub fn next_frame(&mut self, lane: Lane) -> Option<Frame<R>> {
        let way = self.way(lane);
        let due = way.due(self.kept.end(), self.wanted_from)?;
        let count = due.len().min(way.most_rows(self.max_rows));
        let rows = self.kept.slice(due.start, count)?;
        let frame =
            Frame { link: way.link()?, epoch: self.epoch, position: due.start, wanted_from: self.wanted_from, rows };
        self.way_mut(lane).sent(due.start + count);
        self.let_go();
        Some(frame)
    }

    /// A copy of the outputs of `[from, from + count)`, if they are all kept.
    pub fn outputs(&self, from: usize, count: usize) -> Option<R> {
        self.kept.slice(from, count)
    }

    /// The last hop needs no outputs once the owner has them: nobody is ever fed from it.
    fn let_go(&mut self) {
        if *self.main.output() == Output::Owner && *self.mirror.output() == Output::Nobody {
            let sent = self.main.due(self.kept.end(), self.wanted_from).map_or(self.kept.end(), |due| due.start);
            self.kept.forget_before(sent);
            // Nor is what was let go of ever due, though a later step wants more than the ones before: so it is with one of
            // a KV cache that was handed over.
            self.main.skip_to(sent);
        }
    }

    fn way(&self, lane: Lane) -> &Way {
        match lane {
            Lane::Main => &self.main,
            Lane::Mirror => &self.mirror,
        }
    }

    fn way_mut(&mut self, lane: Lane) -> &mut Way {
        match lane {
            Lane::Main => &mut self.main,
            Lane::Mirror => &mut self.mirror,
        }
    }
}
