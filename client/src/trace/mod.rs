//! Where the time of a text went: what a session saw ([`TraceRecord`]), laid out in time ([`Timeline`]), kept in a file that
//! trace viewers open ([`ChromeWriter`], [`TraceLog::read`]), and added up ([`TraceSummary`]).

mod chrome;
mod log;
mod record;
mod summary;
#[cfg(test)]
mod testing;
mod timeline;

pub use chrome::{ChromeWriter, MAX_TRACE_BYTES, TraceError};
pub use log::{LoggedHop, LoggedReroute, LoggedToken, TraceLog};
pub use record::TraceRecord;
pub use summary::{HopTimes, Percentiles, Slowest, TokenTimes, TraceSummary};
pub use timeline::{LinkBytes, Place, Span, Stage, Timeline, TimelineEvent};
