//! Traces as files: the Chrome trace event format (<https://perfetto.dev/docs/getting-started/other-formats>) in its array
//! form, which viewers accept also without its end. The client and each hop are processes, their stages are threads.
//!
//! One event is one line and one write, so that a file ends between two events however its writer ends.

mod reader;

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::record::TraceRecord;
use super::timeline::{Place, Span, Stage, Timeline, TimelineEvent};

pub use reader::{MAX_TRACE_BYTES, TraceError};

/// Marks our events among those that others may have added.
const CATEGORY: &str = "swarm";

/// The client's process; hops follow.
const CLIENT: usize = 1;

/// The thread of tokens: above the stages.
const TOKENS_THREAD: usize = 1;

const REROUTE: &str = "re-route";
const TOKEN: &str = "token";

/// Characters of a peer id that are shown: the last ones tell peers apart.
const SHORT_PEER: usize = 8;

/// Writes a trace, event by event; holds nothing but the steps that are on their way.
#[derive(Debug)]
pub struct ChromeWriter<W> {
    out: W,
    timeline: Timeline,
}

impl<W: Write> ChromeWriter<W> {
    /// Begins a trace.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn new(out: W) -> io::Result<Self> {
        let mut writer = Self { out, timeline: Timeline::default() };
        writer
            .out
            .write_all(format!("[\n{}", named("process_name", CLIENT, 0, json!({ "name": "client" }))).as_bytes())?;
        writer.event(&named("process_sort_index", CLIENT, 0, json!({ "sort_index": 0 })))?;
        writer.name_thread(CLIENT, TOKENS_THREAD, "tokens")?;
        writer.name_stages(CLIENT, Stage::is_clients)?;
        Ok(writer)
    }

    /// Takes the next record; with a token, what is certain by then reaches the file.
    ///
    /// # Errors
    /// Those of the writer underneath.
    pub fn write(&mut self, record: TraceRecord) -> io::Result<()> {
        let flush = matches!(record, TraceRecord::Token { .. });
        for event in self.timeline.push(record) {
            self.timeline_event(event)?;
        }
        if flush { self.out.flush() } else { Ok(()) }
    }

    /// Ends the trace; gives back what it was written to.
    ///
    /// # Errors
    /// Those of the writer underneath.
    pub fn finish(mut self) -> io::Result<W> {
        for event in std::mem::take(&mut self.timeline).finish() {
            self.timeline_event(event)?;
        }
        self.out.write_all(b"\n]\n")?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn timeline_event(&mut self, event: TimelineEvent) -> io::Result<()> {
        match event {
            TimelineEvent::Hop { index, peer, blocks, bytes } => {
                let process = process(Place::Hop(index));
                let peer = peer.to_string();
                let name = format!("blocks {blocks} on {}", short(&peer));
                let about = json!({
                    "name": name, "peer": peer, "blocks": blocks.to_string(),
                    "bytes_in": bytes.incoming, "bytes_out": bytes.outgoing,
                });
                self.event(&named("process_name", process, 0, about))?;
                // Hops stand in the order of their blocks, replacements below what they replaced.
                self.event(&named("process_sort_index", process, 0, json!({ "sort_index": blocks.start() + 1 })))?;
                self.name_stages(process, |stage| !stage.is_clients())
            }
            TimelineEvent::Span(span) => self.event(&span_event(&span)),
            TimelineEvent::Token { number, id, start, end } => {
                let about = json!({ "token": number, "id": id });
                let place = (CLIENT, TOKENS_THREAD);
                self.event(&complete(&format!("{TOKEN} {number}"), place, start, end, about))
            }
            TimelineEvent::Reroute { lost, reason, at, took } => {
                let about = json!({ "lost": lost.to_string(), "reason": reason, "took_us": micros(took) });
                self.event(&json!({
                    "name": REROUTE, "cat": CATEGORY, "ph": "i", "s": "g",
                    "ts": micros(at), "pid": CLIENT, "tid": TOKENS_THREAD, "args": about,
                }))
            }
        }
    }

    fn name_stages(&mut self, process: usize, theirs: impl Fn(Stage) -> bool) -> io::Result<()> {
        for stage in Stage::ALL.into_iter().filter(|stage| theirs(*stage)) {
            self.name_thread(process, thread(stage), stage.name())?;
        }
        Ok(())
    }

    fn name_thread(&mut self, process: usize, thread: usize, name: &str) -> io::Result<()> {
        self.event(&named("thread_name", process, thread, json!({ "name": name })))?;
        self.event(&named("thread_sort_index", process, thread, json!({ "sort_index": thread })))
    }

    fn event(&mut self, event: &impl Display) -> io::Result<()> {
        self.out.write_all(format!(",\n{event}").as_bytes())
    }
}

fn process(place: Place) -> usize {
    match place {
        Place::Client => CLIENT,
        Place::Hop(index) => CLIENT + 1 + index,
    }
}

fn thread(stage: Stage) -> usize {
    TOKENS_THREAD + 1 + Stage::ALL.iter().position(|one| *one == stage).unwrap_or_default()
}

fn named(what: &str, process: usize, thread: usize, args: Value) -> Value {
    json!({ "name": what, "cat": CATEGORY, "ph": "M", "pid": process, "tid": thread, "args": args })
}

fn span_event(span: &Span) -> Value {
    let about = json!({ "token": span.token, "position": span.position, "rows": span.rows });
    complete(span.stage.name(), (process(span.place), thread(span.stage)), span.start, span.end, about)
}

fn complete(name: &str, (process, thread): (usize, usize), start: Duration, end: Duration, args: Value) -> Value {
    json!({
        "name": name, "cat": CATEGORY, "ph": "X", "ts": micros(start), "dur": micros(end.saturating_sub(start)),
        "pid": process, "tid": thread, "args": args,
    })
}

/// The format's unit, to the nanosecond.
fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}

fn short(peer: &str) -> &str {
    let at = peer.char_indices().rev().nth(SHORT_PEER - 1).map_or(0, |(at, _)| at);
    &peer[at..]
}

#[cfg(test)]
mod tests;
