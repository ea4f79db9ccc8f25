//! DHT queries under way. A look-up is finished early: the first answers come within milliseconds, the last ones wait
//! for dead peers' time-outs.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::kad::{GetRecordError, GetRecordOk, GetRecordResult, PutRecordError, PutRecordResult, QueryId};
use tokio::sync::oneshot;

use super::network::QueryError;

/// Answers of other nodes after which a look-up has seen enough: each is a sample of its own of a crowded record.
const ENOUGH_ANSWERS: usize = 4;

/// How long a look-up waits for further answers after the first: most arrive within one more round trip.
const GRACE: Duration = Duration::from_millis(150);

pub(super) type Records = Vec<(Option<PeerId>, Vec<u8>)>;
pub(super) type GetReply = oneshot::Sender<Result<Records, QueryError>>;
pub(super) type PutReply = oneshot::Sender<Result<(), QueryError>>;

struct LookUp {
    reply: GetReply,
    records: Records,
    /// When it is finished, once an answer of another node has come.
    deadline: Option<Instant>,
}

impl LookUp {
    fn answers(&self) -> usize {
        self.records.iter().filter(|(holder, _)| holder.is_some()).count()
    }
}

/// The queries whose askers wait.
#[derive(Default)]
pub(super) struct Queries {
    look_ups: HashMap<QueryId, LookUp>,
    puts: HashMap<QueryId, u64>,
    putters: HashMap<u64, Putter>,
    next_putter: u64,
}

/// Who waits for a record to be stored, in one way or another.
struct Putter {
    reply: PutReply,
    /// Queries that have not ended.
    open: usize,
    /// Whether all of them are waited for.
    every_way: bool,
    stored: bool,
}

impl Queries {
    pub(super) fn began_get(&mut self, id: QueryId, reply: GetReply) {
        self.look_ups.insert(id, LookUp { reply, records: Vec::new(), deadline: None });
    }

    /// Several ways to store one record: the first that succeeds answers, or where `every_way` is wanted the last.
    pub(super) fn began_put(&mut self, ids: &[QueryId], every_way: bool, reply: PutReply) {
        let putter = self.next_putter;
        self.next_putter += 1;
        self.putters.insert(putter, Putter { reply, open: ids.len(), every_way, stored: false });
        self.puts.extend(ids.iter().map(|id| (*id, putter)));
    }

    /// Takes in progress of a look-up; `true` if it has seen enough and its query can be finished.
    pub(super) fn got(&mut self, id: QueryId, result: GetRecordResult, last: bool, now: Instant) -> bool {
        let Some(look_up) = self.look_ups.get_mut(&id) else {
            return false;
        };
        let mut failed = None;
        match result {
            Ok(GetRecordOk::FoundRecord(found)) => {
                look_up.records.push((found.peer, found.record.value));
                if found.peer.is_some() {
                    look_up.deadline.get_or_insert(now + GRACE);
                }
            }
            Ok(GetRecordOk::FinishedWithNoAdditionalRecord { .. }) | Err(GetRecordError::NotFound { .. }) => {}
            Err(GetRecordError::Timeout { .. }) => failed = Some("the look-up timed out"),
        }
        let enough = look_up.answers() >= ENOUGH_ANSWERS;
        if last || enough {
            self.answer(id, failed);
        }
        enough && !last
    }

    /// The look-ups whose time for further answers is over; their askers are answered.
    pub(super) fn overdue(&mut self, now: Instant) -> Vec<QueryId> {
        let due = |look_up: &LookUp| look_up.deadline.is_some_and(|deadline| deadline <= now);
        let ids: Vec<QueryId> = self.look_ups.iter().filter(|(_, look_up)| due(look_up)).map(|(id, _)| *id).collect();
        ids.iter().for_each(|id| self.answer(*id, None));
        ids
    }

    /// When the next look-up becomes overdue.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.look_ups.values().filter_map(|look_up| look_up.deadline).min()
    }

    fn answer(&mut self, id: QueryId, failed: Option<&str>) {
        let Some(look_up) = self.look_ups.remove(&id) else {
            return;
        };
        let result = match failed {
            Some(reason) if look_up.records.is_empty() => Err(QueryError::NoPeers(reason.to_string())),
            _ => Ok(look_up.records),
        };
        // The asker may have given up.
        let _ = look_up.reply.send(result);
    }

    /// Takes in the end of a put.
    pub(super) fn put_done(&mut self, id: QueryId, result: PutRecordResult) {
        let Some(number) = self.puts.remove(&id) else {
            return;
        };
        // The other way may have answered.
        let Some(putter) = self.putters.get_mut(&number) else {
            return;
        };
        putter.open -= 1;
        putter.stored |= result.is_ok();
        if putter.open > 0 && (putter.every_way || !putter.stored) {
            return;
        }
        let Some(Putter { reply, stored, .. }) = self.putters.remove(&number) else {
            return;
        };
        let result = result.map(|_| ()).or_else(|error| if stored { Ok(()) } else { Err(error) });
        let result = result.map_err(|error| match error {
            PutRecordError::QuorumFailed { .. } => QueryError::NoPeers("none of them took the record".to_string()),
            PutRecordError::Timeout { .. } => QueryError::NoPeers("storing the record timed out".to_string()),
        });
        let _ = reply.send(result);
    }
}
