//! One JSON object for each event.

use std::fmt;

use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes `{"time": ..., "level": ..., "target": ..., "message": ..., ...}`: then the fields of the spans around the event,
/// from the outermost on, and its own, which go before those of spans.
#[derive(Debug, Clone, Copy, Default)]
pub struct JsonLines {
    /// Says which trace is worked for now: that is the field `trace_id`.
    pub trace_id: Option<fn() -> Option<String>>,
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> FormatEvent<S, JsonFields> for JsonLines {
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut own = Fields(Map::new());
        event.record(&mut own);
        let message = own.0.remove("message");
        let about = event.metadata();
        let mut object =
            line(*about.level(), about.target(), message.as_ref().and_then(Value::as_str).unwrap_or_default());
        let Some(fields) = object.as_object_mut() else { return Err(fmt::Error) };
        let known = fields.len();
        if let Some(trace_id) = self.trace_id.and_then(|trace_id| trace_id()) {
            fields.insert("trace_id".to_string(), trace_id.into());
        }
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let Some(formatted) = extensions.get::<FormattedFields<JsonFields>>() else { continue };
            if let Ok(Value::Object(of_span)) = serde_json::from_str(&formatted.fields) {
                add(fields, known, of_span);
            }
        }
        add(fields, known, own.0);
        writeln!(writer, "{object}")
    }
}

/// Adds fields over those of the same name, but never over the first `known` ones.
fn add(to: &mut Map<String, Value>, known: usize, fields: Map<String, Value>) {
    for (name, value) in fields {
        let reserved = to.keys().take(known).any(|known| *known == name);
        to.insert(if reserved { format!("field_{name}") } else { name }, value);
    }
}

/// What every line has.
pub(super) fn line(level: Level, target: &str, message: &str) -> Value {
    let mut time = String::new();
    // Without a clock the line is still worth having.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    json!({ "time": time, "level": level.as_str(), "target": target, "message": message })
}

/// Collects an event's fields.
struct Fields(Map<String, Value>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().to_string(), format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_string(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_string(), value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_string(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_string(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_string(), value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.insert(field.name().to_string(), value.to_string().into());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing::{error_span, info, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_line_is_an_object_with_the_fields_of_the_spans_around() {
        let kept = Kept::default();
        let writer = kept.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .fmt_fields(JsonFields::new())
            .event_format(JsonLines { trace_id: None })
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let request = error_span!("request", request = "r1", session = "outer");
            let _request = request.enter();
            let session = error_span!("session", session = %"s1");
            let _session = session.enter();
            info!(tokens = 3, ok = true, rate = 1.5, level = "mine", reason = ?"x", "a \"quoted\" word\nand more");
            drop((_session, _request));
            warn!("alone");
        });
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [inside, alone] = &lines[..] else { panic!("{text}") };
        assert_eq!((&inside["level"], &inside["message"]), (&json!("INFO"), &json!("a \"quoted\" word\nand more")));
        assert_eq!((&inside["request"], &inside["session"]), (&json!("r1"), &json!("s1")));
        assert_eq!((&inside["tokens"], &inside["ok"], &inside["rate"]), (&json!(3), &json!(true), &json!(1.5)));
        assert_eq!(inside["field_level"], "mine");
        assert!(inside["target"].as_str().unwrap().starts_with("swarm_telemetry"));
        assert!(inside["time"].as_str().unwrap().ends_with('Z'), "{inside}");
        let keys: Vec<&String> = alone.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["time", "level", "target", "message"]);
    }
}
