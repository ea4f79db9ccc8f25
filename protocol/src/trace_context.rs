//! Whose work something is: the trace and the span that it is a part of, as the W3C's recommendation "Trace Context" has it
//! (<https://www.w3.org/TR/trace-context/>).
//!
//! Nothing here knows who collects spans. A program that does brings a `SpanContexts`; one that does not neither says nor hears
//! anything of traces.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Bytes of a trace's id.
const TRACE_BYTES: usize = 16;

/// Bytes of a span's id.
const SPAN_BYTES: usize = 8;

/// The bit of the flags that says that the trace is recorded.
const SAMPLED: u8 = 1;

/// The version that no `traceparent` may have.
const NO_VERSION: u8 = 0xff;

/// The longest `traceparent` that is looked at, in characters: that of version 0 has 55, and later versions may append.
const MOST_CHARACTERS: usize = 512;

/// A span of some program, named for another program that does a part of its work. Neither id is all zeros.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Bytes", into = "Bytes")]
pub struct TraceContext {
    trace: [u8; TRACE_BYTES],
    span: [u8; SPAN_BYTES],
    flags: u8,
}

/// The same before it was checked.
#[derive(Serialize, Deserialize)]
struct Bytes {
    trace: [u8; TRACE_BYTES],
    span: [u8; SPAN_BYTES],
    flags: u8,
}

/// What is no context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the ids of a trace and of a span are hexadecimal numbers, and not zero")]
pub struct NoTraceContext;

impl TraceContext {
    /// The span `span` of the trace `trace`; `None` if an id is all zeros.
    pub fn new(trace: [u8; TRACE_BYTES], span: [u8; SPAN_BYTES], flags: u8) -> Option<Self> {
        let named = trace != [0; TRACE_BYTES] && span != [0; SPAN_BYTES];
        named.then_some(Self { trace, span, flags })
    }

    /// The trace's id.
    pub fn trace(&self) -> [u8; TRACE_BYTES] {
        self.trace
    }

    /// The span's id.
    pub fn span(&self) -> [u8; SPAN_BYTES] {
        self.span
    }

    /// The flags as they came.
    pub fn flags(&self) -> u8 {
        self.flags
    }

    /// Whether whoever began the trace records it.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }
}

impl From<TraceContext> for Bytes {
    fn from(TraceContext { trace, span, flags }: TraceContext) -> Self {
        Self { trace, span, flags }
    }
}

impl TryFrom<Bytes> for TraceContext {
    type Error = NoTraceContext;

    fn try_from(Bytes { trace, span, flags }: Bytes) -> Result<Self, NoTraceContext> {
        Self::new(trace, span, flags).ok_or(NoTraceContext)
    }
}

impl FromStr for TraceContext {
    type Err = NoTraceContext;

    /// Reads a `traceparent`: `00-TRACE-SPAN-FLAGS` in lower-case hexadecimal. Of a later version the beginning is read, as the
    /// recommendation asks.
    fn from_str(text: &str) -> Result<Self, NoTraceContext> {
        if text.len() > MOST_CHARACTERS {
            return Err(NoTraceContext);
        }
        let mut parts = text.split('-');
        let mut next = || parts.next().ok_or(NoTraceContext);
        let [version]: [u8; 1] = bytes(next()?)?;
        let (trace, span, [flags]) = (bytes(next()?)?, bytes(next()?)?, bytes::<1>(next()?)?);
        let more = parts.next().is_some();
        if version == NO_VERSION || (version == 0 && more) {
            return Err(NoTraceContext);
        }
        Self::new(trace, span, flags).ok_or(NoTraceContext)
    }
}

/// Exactly `N` bytes in lower-case hexadecimal.
fn bytes<const N: usize>(text: &str) -> Result<[u8; N], NoTraceContext> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(NoTraceContext),
    };
    if text.len() != 2 * N {
        return Err(NoTraceContext);
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Ok(bytes)
}

impl fmt::Display for TraceContext {
    /// Writes a `traceparent`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", self.flags)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TraceContext({self})")
    }
}

/// The target of all spans that are parts of traces: what filters know them by.
pub const SPANS: &str = "swarm_trace";

/// How spans of this process and contexts of other processes become one another: a program that collects spans knows.
#[cfg(feature = "p2p")]
#[derive(Debug, Clone, Copy)]
pub struct SpanContexts {
    /// A span of this process for others; `None` if it is not recorded.
    pub name: fn(&tracing::Span) -> Option<TraceContext>,
    /// Makes a span of this process, which has not been entered, a part of another one's.
    pub adopt: fn(&tracing::Span, TraceContext),
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn context(text: &str) -> Option<TraceContext> {
        text.parse().ok()
    }

    #[test]
    fn what_is_written_is_read() {
        let read = context(TEXT).unwrap();
        assert_eq!((read.trace()[0], read.span()[7], read.flags()), (0x0a, 0x31, 1));
        assert!(read.is_sampled());
        assert_eq!(read.to_string(), TEXT);
        assert!(!context(&TEXT.replace("-01", "-00")).unwrap().is_sampled());
        // Flags that nobody knows yet are passed on.
        assert_eq!(context(&TEXT.replace("-01", "-ff")).unwrap().flags(), 0xff);
        // Later versions may say more, behind what is known.
        let later = format!("{}-what-nobody-knows", TEXT.replacen("00-", "01-", 1));
        assert_eq!(context(&later), Some(read));
    }

    #[test]
    fn what_is_no_context_is_none() {
        let zeros = |count: usize| "0".repeat(count);
        for bad in [
            String::new(),
            "-".repeat(3),
            "ä".repeat(55),
            TEXT.to_uppercase(),
            TEXT.replacen("00-", "ff-", 1),
            TEXT.replacen("00-", "0-", 1),
            TEXT[..TEXT.len() - 1].to_string(),
            format!("{TEXT}0"),
            format!("{TEXT}-"),
            format!("{TEXT}-00"),
            format!(" {TEXT}"),
            TEXT.replace('-', "_"),
            TEXT.replace("0af7651916cd43dd8448eb211c80319c", &zeros(32)),
            TEXT.replace("b7ad6b7169203331", &zeros(16)),
            TEXT.replace("b7ad6b7169203331", "b7ad6b716920333g"),
            format!("01{}", TEXT[2..].to_string() + &"-0".repeat(MOST_CHARACTERS)),
        ] {
            assert_eq!(context(&bad), None, "{bad:?}");
        }
    }

    #[test]
    fn ids_of_zeros_do_not_come_off_the_wire() {
        let good = context(TEXT).unwrap();
        let mut bytes = postcard::to_allocvec(&good).unwrap();
        assert_eq!(bytes.len(), TRACE_BYTES + SPAN_BYTES + 1);
        assert_eq!(postcard::from_bytes(&bytes), Ok(good));
        bytes[TRACE_BYTES..TRACE_BYTES + SPAN_BYTES].fill(0);
        assert!(postcard::from_bytes::<TraceContext>(&bytes).is_err());
        assert!(postcard::from_bytes::<TraceContext>(&bytes[..10]).is_err());
    }
}
