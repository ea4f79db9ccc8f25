//! The filter `tojson` of chat templates, as Hugging Face has it: Python's `json.dumps` without escapes for HTML or for letters
//! beyond ASCII.

use std::io;

use minijinja::value::{Kwargs, Value};
use minijinja::{Error, ErrorKind};
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

/// The widest indent: templates use 2 or 4.
const MAX_INDENT: usize = 16;

/// Python's separators where nothing is indented: `", "` and `": "`.
struct Spaced;

impl Spaced {
    fn separate(writer: &mut (impl io::Write + ?Sized), first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }
}

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        Self::separate(writer, first)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        Self::separate(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// `value|tojson`, with `indent` and `separators`; of the latter only Python's usual ones and `(",", ":")`.
pub(crate) fn tojson(value: &Value, indent: Option<usize>, options: Kwargs) -> Result<String, Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<usize>>("indent")?,
    };
    let separators: Option<Vec<String>> = options.get("separators")?;
    // Keys stay in their order, letters as they are.
    let (ascii, sorted): (Option<bool>, Option<bool>) = (options.get("ensure_ascii")?, options.get("sort_keys")?);
    options.assert_all_used()?;
    if ascii == Some(true) || sorted == Some(true) {
        return Err(Error::new(ErrorKind::InvalidOperation, "tojson knows no ensure_ascii and no sort_keys"));
    }
    let compact = separators.is_some_and(|separators| separators == [",", ":"]);
    match indent.map(|indent| " ".repeat(indent.min(MAX_INDENT))) {
        Some(indent) => written(value, PrettyFormatter::with_indent(indent.as_bytes())),
        None if compact => written(value, CompactFormatter),
        None => written(value, Spaced),
    }
}

fn written(value: &Value, formatter: impl Formatter) -> Result<String, Error> {
    let mut bytes = Vec::new();
    let failed = |error: String| Error::new(ErrorKind::InvalidOperation, format!("no JSON: {error}"));
    let mut serializer = Serializer::with_formatter(&mut bytes, formatter);
    value.serialize(&mut serializer).map_err(|error| failed(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| failed(error.to_string()))
}
