//! Reading a trace back. A file may be anything: nothing in it is trusted, and what cannot be is said with its place.

use std::collections::HashMap;
use std::fmt;
use std::io::{BufReader, Read};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use thiserror::Error;

use super::{CATEGORY, CLIENT, REROUTE, TOKEN};
use crate::trace::log::{LoggedHop, LoggedReroute, LoggedToken, TraceLog};
use crate::trace::timeline::{LinkBytes, Place, Span, Stage};

/// The largest trace that is read: some hundred thousand tokens over ten hops.
pub const MAX_TRACE_BYTES: u64 = 1 << 30;

/// Why a file is no trace of ours.
#[derive(Debug, Error)]
pub enum TraceError {
    /// It cannot be read.
    #[error("cannot read the trace: {0}")]
    Io(std::io::Error),
    /// It is not made of events.
    #[error("this is no trace in Chrome's array format: {0}")]
    Format(String),
    /// It has events, none of them ours.
    #[error("the trace holds no tokens; `swarm-node generate --trace FILE` writes one that does")]
    Empty,
}

impl TraceLog {
    /// Reads what a [`ChromeWriter`](super::ChromeWriter) has written, also if its end is missing. Events of others are
    /// passed over.
    ///
    /// # Errors
    /// [`TraceError`] if it cannot be read, is no trace, or has no token.
    pub fn read(file: impl Read) -> Result<Self, TraceError> {
        let mut collected = Collected::default();
        let mut json = serde_json::Deserializer::from_reader(BufReader::new(file.take(MAX_TRACE_BYTES)));
        let read = json.deserialize_seq(&mut collected).and_then(|()| json.end());
        match read {
            Ok(()) => collected.log.complete = true,
            Err(error) if error.is_io() => return Err(TraceError::Io(error.into())),
            // Its writer was interrupted: what is there is whole.
            Err(error) if error.is_eof() && collected.any => {}
            Err(error) => return Err(TraceError::Format(error.to_string())),
        }
        if collected.log.tokens.is_empty() { Err(TraceError::Empty) } else { Ok(collected.log) }
    }
}

/// An event as it stands in the file; what we do not use is skipped.
#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    name: String,
    #[serde(default)]
    cat: String,
    #[serde(default)]
    ph: String,
    #[serde(default)]
    ts: f64,
    #[serde(default)]
    dur: f64,
    #[serde(default)]
    pid: u64,
    #[serde(default)]
    args: Args,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Args {
    peer: Option<String>,
    blocks: Option<String>,
    bytes_in: u32,
    bytes_out: u32,
    token: u32,
    id: u32,
    position: u32,
    rows: u32,
    lost: String,
    reason: String,
    took_us: f64,
}

#[derive(Default)]
struct Collected {
    log: TraceLog,
    hops: HashMap<u64, usize>,
    /// An event of ours was there.
    any: bool,
}

impl<'de> Visitor<'de> for &mut Collected {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of trace events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut events: A) -> Result<(), A::Error> {
        while let Some(event) = events.next_element::<Event>()? {
            if event.cat == CATEGORY {
                self.take(event).map_err(serde::de::Error::custom)?;
                self.any = true;
            }
        }
        Ok(())
    }
}

impl Collected {
    fn take(&mut self, event: Event) -> Result<(), String> {
        match (event.ph.as_str(), event.name.as_str()) {
            ("M", "process_name") if event.pid != CLIENT as u64 => self.take_hop(event),
            ("X", name) if name.starts_with(TOKEN) => {
                let (start, end) = times(&event)?;
                let Args { token, id, .. } = event.args;
                self.log.tokens.push(LoggedToken { number: token, id, start, end });
                Ok(())
            }
            ("X", _) => self.take_span(&event),
            ("i", REROUTE) => {
                let (at, took) = (time(event.ts)?, time(event.args.took_us)?);
                let Args { lost, reason, .. } = event.args;
                self.log.reroutes.push(LoggedReroute { lost, reason, at, took });
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn take_hop(&mut self, event: Event) -> Result<(), String> {
        let bytes = LinkBytes { incoming: event.args.bytes_in, outgoing: event.args.bytes_out };
        let blocks = event.args.blocks.ok_or("a hop without blocks")?.parse().map_err(|error| format!("{error}"))?;
        let peer = event.args.peer.ok_or("a hop without a peer")?;
        self.hops.insert(event.pid, self.log.hops.len());
        self.log.hops.push(LoggedHop { peer, blocks, bytes });
        Ok(())
    }

    fn take_span(&mut self, event: &Event) -> Result<(), String> {
        let named = |stage: &Stage| stage.name() == event.name;
        let stage = Stage::ALL.into_iter().find(named).ok_or_else(|| format!("unknown stage \"{}\"", event.name))?;
        let place = match self.hops.get(&event.pid) {
            Some(hop) if !stage.is_clients() => Place::Hop(*hop),
            None if stage.is_clients() && event.pid == CLIENT as u64 => Place::Client,
            _ => return Err(format!("a span of \"{}\" in process {}, which has no such stage", event.name, event.pid)),
        };
        let (start, end) = times(event)?;
        let Args { token, position, rows, .. } = event.args;
        self.log.spans.push(Span { place, stage, start, end, token, position, rows });
        Ok(())
    }
}

fn times(event: &Event) -> Result<(Duration, Duration), String> {
    let start = time(event.ts)?;
    let end = start.checked_add(time(event.dur)?).ok_or("a span without end")?;
    Ok((start, end))
}

/// A moment of the file; ours are whole nanoseconds.
fn time(micros: f64) -> Result<Duration, String> {
    /// A hundred years: far beyond any trace, small enough to add up.
    const LONGEST: f64 = 100.0 * 365.0 * 86_400.0 * 1e6;
    if !(0.0..=LONGEST).contains(&micros) {
        return Err(format!("{micros} is no time in microseconds"));
    }
    Ok(Duration::from_nanos((micros * 1000.0).round() as u64))
}
