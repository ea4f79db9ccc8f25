//! Where in a JSON schema something is wrong: llguidance says what, but not where. Pure.

use serde_json::{Map, Value};

/// Parts that are tried on the way to the place: each is a small schema to compile.
const TRIES: usize = 24;

/// Keys whose values are objects of schemas.
const OBJECTS: [&str; 5] = ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];
/// Keys whose values are lists of schemas.
const LISTS: [&str; 4] = ["anyOf", "allOf", "oneOf", "prefixItems"];
/// Keys whose values are schemas, or lists of them.
const PARTS: [&str; 7] = ["items", "additionalProperties", "additionalItems", "not", "if", "then", "else"];
/// What references in a part lead to.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];

/// The JSON pointer of the innermost part of `schema` that `fails` for the same `reason`, as `the root` or `/properties/age`.
pub(super) fn place_of(schema: &Value, reason: &str, fails: impl Fn(&Value) -> Option<String>) -> String {
    let (mut place, mut part, mut tries) = (String::new(), schema, TRIES);
    'inwards: loop {
        for (key, child) in parts(part) {
            if tries == 0 {
                break 'inwards;
            }
            tries -= 1;
            if fails(&with_definitions(child, schema)).as_deref() == Some(reason) {
                (place, part) = (place + "/" + &key, child);
                continue 'inwards;
            }
        }
        break;
    }
    if place.is_empty() { "the root".to_string() } else { place }
}

/// The schemas that a schema is made of, and where they stand in it.
fn parts(schema: &Value) -> Vec<(String, &Value)> {
    let Value::Object(schema) = schema else { return Vec::new() };
    let within = |key: &str| schema.get(key).into_iter();
    let name = |key: &str, inner: &str| format!("{key}/{}", inner.replace('~', "~0").replace('/', "~1"));
    let objects = OBJECTS.iter().flat_map(|key| {
        let objects = within(key).filter_map(Value::as_object).flatten();
        objects.map(move |(inner, part)| (name(key, inner), part))
    });
    let lists = LISTS.iter().chain(&PARTS).flat_map(|key| {
        let lists = within(key).filter_map(Value::as_array).flatten().enumerate();
        lists.map(move |(index, part)| (format!("{key}/{index}"), part))
    });
    let single =
        PARTS.iter().flat_map(|key| within(key).filter(|part| part.is_object()).map(|part| ((*key).to_string(), part)));
    objects.chain(lists).chain(single).collect()
}

/// A part that stands alone.
fn with_definitions(part: &Value, root: &Value) -> Value {
    let (Value::Object(part), Value::Object(root)) = (part, root) else { return part.clone() };
    let mut alone: Map<String, Value> = part.clone();
    for key in DEFINITIONS {
        if let Some(definitions) = root.get(key) {
            alone.entry(key).or_insert_with(|| definitions.clone());
        }
    }
    Value::Object(alone)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Whatever holds the key `bad`, however deep, fails.
    fn fails(part: &Value) -> Option<String> {
        part.to_string().contains("\"bad\"").then(|| "bad".to_string())
    }

    #[test]
    fn the_innermost_part_is_named() {
        let bad = json!({"bad": true});
        for (schema, place) in [
            (json!({"properties": {"a": {}, "b": {"items": bad}}}), "/properties/b/items"),
            (json!({"anyOf": [{}, {"properties": {"a/b": bad}}]}), "/anyOf/1/properties/a~1b"),
            (json!({"items": [{}, bad]}), "/items/1"),
            (bad.clone(), "the root"),
        ] {
            assert_eq!(place_of(&schema, "bad", fails), place, "{schema}");
        }
    }
}
