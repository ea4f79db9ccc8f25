//! What goes wrong on the way, for whoever sits at the terminal: a word and a sentence, as other remarks are.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Whether the cursor stands behind a text that goes on.
static BEHIND_TEXT: AtomicBool = AtomicBool::new(false);

/// Notes whether the cursor stands behind a text that goes on, so that what is said next begins on a line of its own.
pub fn behind_text(behind: bool) {
    BEHIND_TEXT.store(behind, Ordering::Relaxed);
}

/// Whether it does; whoever asks begins a new line.
pub fn leave_text() -> bool {
    BEHIND_TEXT.swap(false, Ordering::Relaxed)
}

/// Lines without time and place: `warning: no server of blocks 6..12 can be used now`.
pub(super) struct ForPeople;

impl<S, F> FormatEvent<S, F> for ForPeople
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    F: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, F>, mut to: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if leave_text() {
            writeln!(to)?;
        }
        let word = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            _ => "note",
        };
        write!(to, "{word}: ")?;
        context.field_format().format_fields(to.by_ref(), event)?;
        writeln!(to)
    }
}
