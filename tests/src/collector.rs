//! A collector of spans on this machine: it takes OTLP over HTTP as any collector does, and keeps what came.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue as Any, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{Span as RawSpan, span, status};
use prost::Message;

/// The path of traces.
const PATH: &str = "/v1/traces";

/// The type of what is sent.
const PROTOBUF: &str = "application/x-protobuf";

/// The longest body that is read: far beyond a batch of the largest spans here.
const MOST_BYTES: usize = 64 << 20;

/// A collector, gone with its value.
pub struct Collector {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    spans: Mutex<Vec<Span>>,
    /// What broke the protocol.
    faults: Mutex<Vec<String>>,
    closed: AtomicBool,
}

/// Names with values as texts.
pub type Attributes = BTreeMap<String, String>;

/// A span as it came.
#[derive(Debug, Clone)]
pub struct Span {
    /// What its process says of itself.
    pub resource: Attributes,
    /// The name.
    pub name: String,
    /// The trace, in hexadecimal.
    pub trace: String,
    /// Its id, in hexadecimal.
    pub id: String,
    /// The id of the span that it is a part of; empty for none.
    pub parent: String,
    /// Its kind's name.
    pub kind: &'static str,
    /// Whether it failed.
    pub failed: bool,
    /// What is known of it.
    pub attributes: Attributes,
    /// What of that is a number.
    pub numbers: BTreeMap<String, f64>,
    /// What happened in it.
    pub events: Vec<(String, Attributes)>,
    /// Nanoseconds between its beginning and its end.
    pub nanos: u64,
}

impl Span {
    /// The sub-command of its process.
    pub fn command(&self) -> &str {
        self.resource.get("swarm.command").map_or("", String::as_str)
    }

    /// An attribute; empty if there is none.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// An attribute that is a number; 0 if there is none.
    pub fn number(&self, name: &str) -> f64 {
        self.numbers.get(name).copied().unwrap_or(0.0)
    }

    /// The first event of that name.
    pub fn event(&self, name: &str) -> Option<&Attributes> {
        self.events.iter().find(|(known, _)| known == name).map(|(_, attributes)| attributes)
    }

    /// Everything that it says in words.
    pub fn words(&self) -> Vec<&str> {
        let events = self.events.iter().flat_map(|(name, attributes)| {
            std::iter::once(name.as_str()).chain(attributes.iter().flat_map(|(name, value)| [name.as_str(), value]))
        });
        let own = self.attributes.iter().chain(&self.resource).flat_map(|(name, value)| [name.as_str(), value]);
        own.chain([self.name.as_str()]).chain(events).collect()
    }
}

impl Collector {
    /// Starts one.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State::default());
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.closed.load(Ordering::SeqCst) {
                    return;
                }
                let state = shared.clone();
                std::thread::spawn(move || {
                    // Whoever hangs up has sent what it wanted to.
                    let _ = converse(&stream, &state);
                });
            }
        });
        Self { address, state }
    }

    /// For `--otlp-endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The spans that have come.
    ///
    /// # Panics
    /// If somebody has sent something that is no batch of spans.
    pub fn spans(&self) -> Vec<Span> {
        let faults = self.state.faults.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(faults.is_empty(), "{faults:?}");
        self.state.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::SeqCst);
        // Whoever waits for a connection gets one, and sees.
        let _ = TcpStream::connect(self.address);
    }
}

/// Answers one request after the other, until the other side hangs up.
fn converse(stream: &TcpStream, state: &State) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut first = String::new();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        let (mut length, mut kind) = (0, String::new());
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.trim().parse().unwrap_or(usize::MAX),
                "content-type" => kind = value.trim().to_string(),
                _ => {}
            }
        }
        let mut body = vec![0; length.min(MOST_BYTES)];
        reader.read_exact(&mut body)?;
        let asked = format!("POST {PATH} HTTP/1.1");
        let taken = match ExportTraceServiceRequest::decode(body.as_slice()) {
            Ok(batch) if first.trim_end() == asked && kind == PROTOBUF => {
                state.spans.lock().unwrap_or_else(PoisonError::into_inner).extend(spans(batch));
                true
            }
            _ => {
                let fault = format!("{:?} of type {kind:?} with {length} bytes", first.trim_end());
                state.faults.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
                false
            }
        };
        // An answer without anything in it is one without complaints.
        let status = if taken { "200 OK" } else { "400 Bad Request" };
        let answer = format!("HTTP/1.1 {status}\r\ncontent-type: {PROTOBUF}\r\ncontent-length: 0\r\n\r\n");
        (&mut &*stream).write_all(answer.as_bytes())?;
    }
}

fn spans(batch: ExportTraceServiceRequest) -> Vec<Span> {
    let of_process = |process: opentelemetry_proto::tonic::trace::v1::ResourceSpans| {
        let resource = attributes(process.resource.map(|resource| resource.attributes).unwrap_or_default());
        let raw = process.scope_spans.into_iter().flat_map(|scope| scope.spans);
        raw.map(move |raw| read(raw, resource.clone())).collect::<Vec<Span>>()
    };
    batch.resource_spans.into_iter().flat_map(of_process).collect()
}

fn read(raw: RawSpan, resource: Attributes) -> Span {
    let kind = span::SpanKind::try_from(raw.kind).map_or("unknown", |kind| kind.as_str_name());
    let failed = raw.status.is_some_and(|status| status.code == status::StatusCode::Error as i32);
    Span {
        resource,
        name: raw.name,
        trace: hex(&raw.trace_id),
        id: hex(&raw.span_id),
        parent: hex(&raw.parent_span_id),
        kind,
        failed,
        numbers: raw.attributes.iter().filter_map(number).collect(),
        attributes: attributes(raw.attributes),
        events: raw.events.into_iter().map(|event| (event.name, attributes(event.attributes))).collect(),
        nanos: raw.end_time_unix_nano.saturating_sub(raw.start_time_unix_nano),
    }
}

fn attributes(raw: Vec<KeyValue>) -> Attributes {
    raw.into_iter().map(|KeyValue { key, value, .. }| (key, text(value))).collect()
}

fn number(raw: &KeyValue) -> Option<(String, f64)> {
    let number = match raw.value.as_ref()?.value.as_ref()? {
        AnyValue::IntValue(number) => *number as f64,
        AnyValue::DoubleValue(number) => *number,
        _ => return None,
    };
    Some((raw.key.clone(), number))
}

fn text(value: Option<Any>) -> String {
    match value.and_then(|value| value.value) {
        Some(AnyValue::StringValue(text)) => text,
        Some(AnyValue::IntValue(number)) => number.to_string(),
        Some(AnyValue::DoubleValue(number)) => number.to_string(),
        Some(AnyValue::BoolValue(is)) => is.to_string(),
        other => format!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
