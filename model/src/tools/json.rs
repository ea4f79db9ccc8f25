//! JSON in the middle of a text. Pure.

use serde_json::Value;

/// Finds the end of an object or a list that comes in pieces.
#[derive(Debug, Clone, Default)]
pub(super) struct JsonEnd {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl JsonEnd {
    /// Takes in the next piece, which begins with `{` or `[` if it is the first; how many bytes of it belong to the value, if it
    /// ends there. What is no JSON may end anywhere.
    pub(super) fn push(&mut self, piece: &str) -> Option<usize> {
        for (at, byte) in piece.bytes().enumerate() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' if self.in_string => self.escaped = true,
                b'"' => self.in_string = !self.in_string,
                b'{' | b'[' if !self.in_string => self.depth += 1,
                b'}' | b']' if !self.in_string => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return Some(at + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

/// What a call says: the tool, and its arguments as text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) name: String,
    pub(super) arguments: String,
}

/// A call, however models write it: `name` with `arguments` or `parameters`, or both within `function`. A bare object is taken for
/// a call only if it has arguments.
pub(super) fn said(value: &Value) -> Option<Said> {
    let value = value.get("function").filter(|function| function.is_object()).unwrap_or(value);
    let name = value.get("name")?.as_str()?.to_string();
    let arguments = value.get("arguments").or_else(|| value.get("parameters"))?;
    match arguments {
        Value::Object(_) | Value::Null => {}
        // Some write the text of an object.
        Value::String(text) if serde_json::from_str::<Value>(text).is_ok_and(|inner| inner.is_object()) => {}
        _ => return None,
    }
    Some(Said { name, arguments: arguments_text(arguments) })
}

/// Arguments as JSON text, whichever way they are given.
pub(super) fn arguments_text(arguments: &Value) -> String {
    match arguments {
        Value::String(text) => text.clone(),
        Value::Null => "{}".to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[a\"\\\\{}\\[\\]é]{0,6}".prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a\"}]{0,3}", inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_value_ends_where_it_ends(value in value(), rest in "[}\\]a\" ]{0,5}", cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6)) {
            prop_assume!(value.is_object() || value.is_array());
            let json = value.to_string();
            let text = format!("{json}{rest}");
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).filter(|cut| text.is_char_boundary(*cut)).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let mut end = JsonEnd::default();
            let found = cuts.windows(2).find_map(|cut| end.push(&text[cut[0]..cut[1]]).map(|bytes| cut[0] + bytes));
            prop_assert_eq!(found, Some(json.len()));
        }
    }

    #[test]
    fn calls_are_read_however_they_are_written() {
        let expected = Some(Said { name: "f".to_string(), arguments: "{\"b\":1,\"a\":2}".to_string() });
        for written in [
            json!({"name": "f", "arguments": {"b": 1, "a": 2}}),
            json!({"name": "f", "parameters": {"b": 1, "a": 2}}),
            json!({"type": "function", "function": {"name": "f", "arguments": "{\"b\":1,\"a\":2}"}}),
        ] {
            assert_eq!(said(&written), expected, "{written}");
        }
        for no_call in [
            json!({"name": "f"}),
            json!({"name": 1, "arguments": {}}),
            json!({"name": "f", "arguments": "x"}),
            json!([]),
        ] {
            assert_eq!(said(&no_call), None, "{no_call}");
        }
    }
}
