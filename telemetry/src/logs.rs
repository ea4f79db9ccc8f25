//! Logs on stderr: lines for people, or one JSON object a line for machines.

mod json;
mod people;

use std::fmt;
use std::io::{IsTerminal, Write};
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::Level;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

pub use json::JsonLines;
pub use people::{behind_text, leave_text};

/// What is logged when nothing is said.
pub const DEFAULT_LOG: &str = "warn,libp2p_kad=error";

/// How logs are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line: `time`, `level`, `target`, `message`, and the fields of the event and of the spans around it.
    Json,
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("\"{name}\" is no format of logs; use text or json")),
        }
    }
}

/// Set once, when logs begin.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// A filter that was checked: `level` or `target=level`, joined by commas, as in `RUST_LOG`.
///
/// # Errors
/// What is wrong with it, for the person who wrote it.
pub fn check_filter(filter: &str) -> Result<String, String> {
    let examples = "write for example info, or warn,swarm_node=debug";
    // A word alone could be a target too, of which everything is then logged; it is mostly a level with a typing error.
    let is_level = |part: &str| part.contains(['=', '[']) || part.parse::<LevelFilter>().is_ok();
    let mut parts = filter.split(',').map(str::trim).filter(|part| !part.is_empty());
    if let Some(part) = parts.find(|part| !is_level(part)) {
        return Err(format!("\"{part}\" is no level (error, warn, info, debug, trace or off); {examples}"));
    }
    EnvFilter::try_new(filter).map(|_| filter.to_string()).map_err(|error| format!("{error}; {examples}"))
}

/// The target of spans and events that are for a [`Collector`], and that no line of the log is about.
const SPANS_ONLY: &str = "swarm_trace=off";

/// The filter that holds: the one given, else that of `RUST_LOG`, else [`DEFAULT_LOG`].
pub fn filter(given: Option<&str>) -> EnvFilter {
    let given = given.and_then(|filter| EnvFilter::try_new(filter).ok());
    let filter =
        given.or_else(|| EnvFilter::try_from_default_env().ok()).unwrap_or_else(|| EnvFilter::new(DEFAULT_LOG));
    match SPANS_ONLY.parse() {
        Ok(silent) => filter.add_directive(silent),
        Err(_) => filter,
    }
}

/// Notes in which form logs and [`say`] go to stderr, and returns whether this was said for the first time.
pub fn set_format(format: LogFormat) -> bool {
    FORMAT.set(format).is_ok()
}

/// In which form logs are written.
pub fn format() -> LogFormat {
    FORMAT.get().copied().unwrap_or_default()
}

/// Who collects spans, beside the logs.
pub struct Collector {
    /// What is told of spans and events; it chooses for itself which ones.
    pub layer: Box<dyn Layer<Registry> + Send + Sync>,
    /// The id of the trace that is worked for now, for logs in JSON.
    pub trace_id: fn() -> Option<String>,
}

/// Sends logs to stderr from now on, and spans to `collector`.
pub fn init(given: Option<&str>, format: LogFormat, collector: Option<Collector>) {
    set_format(format);
    let (filter, ansi) = (filter(given), std::io::stderr().is_terminal());
    let trace_id = collector.as_ref().map(|collector| collector.trace_id);
    let subscriber = Registry::default().with(collector.map(|collector| collector.layer));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    // Who asks for a log wants to know when and where.
    let asked_for = given.is_some() || std::env::var_os(EnvFilter::DEFAULT_ENV).is_some();
    match format {
        LogFormat::Text if ansi && !asked_for => {
            subscriber.with(lines.with_ansi(false).event_format(people::ForPeople).with_filter(filter)).init();
        }
        LogFormat::Text => subscriber.with(lines.with_ansi(ansi).with_filter(filter)).init(),
        LogFormat::Json => {
            let lines = lines.with_ansi(false).fmt_fields(JsonFields::new()).event_format(JsonLines { trace_id });
            subscriber.with(lines.with_filter(filter)).init();
        }
    }
}

/// Whether a screen is being drawn, on which logs would leave their marks.
static ON_SCREEN: AtomicBool = AtomicBool::new(false);

/// Where a line of the log goes.
fn writer() -> Box<dyn Write> {
    let on_screen = ON_SCREEN.load(Ordering::Relaxed) && std::io::stderr().is_terminal();
    if on_screen { Box::new(std::io::sink()) } else { Box::new(std::io::stderr()) }
}

/// Keeps logs off the terminal until the value goes away.
pub fn quiet() -> impl Drop {
    struct Quiet;
    impl Drop for Quiet {
        fn drop(&mut self) {
            ON_SCREEN.store(false, Ordering::Relaxed);
        }
    }
    ON_SCREEN.store(true, Ordering::Relaxed);
    Quiet
}

/// The target of what is said to people, where it is an object.
const NOTES: &str = "notes";

/// Says something to whoever runs this program, whatever the log's filter: a line on stderr, in the log's format.
pub fn say(level: Level, words: impl fmt::Display) {
    let line = match FORMAT.get() {
        Some(LogFormat::Json) => json::line(level, NOTES, &words.to_string()).to_string(),
        _ => words.to_string(),
    };
    let mut to = std::io::stderr();
    // Whoever reads may have gone; that ends nothing here.
    let _ = writeln!(to, "{line}");
    let _ = to.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_filter_is_told() {
        assert_eq!(check_filter("warn,swarm_node=debug").as_deref(), Ok("warn,swarm_node=debug"));
        for right in ["info", "WARN", "off", "swarm_node[hop]=trace", ""] {
            assert_eq!(check_filter(right).as_deref(), Ok(right));
        }
        for wrong in ["blah", "warn,swarm_node"] {
            assert!(check_filter(wrong).is_err_and(|error| error.contains("is no level")), "{wrong}");
        }
        assert!(check_filter("a=b=c").is_err_and(|error| error.contains("write for example")));
        assert_eq!("json".parse(), Ok(LogFormat::Json));
        assert!("xml".parse::<LogFormat>().is_err());
    }
}
