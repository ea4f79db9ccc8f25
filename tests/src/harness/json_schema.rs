//! Whether JSON is as its schema says: the few words that ours use (`type`, `enum`, `anyOf`, `$ref`, `properties`, `required`,
//! `items`, `minItems`, `maxItems`, `minimum`, `maximum`). Stricter than JSON schema in one thing: a field that is not described
//! is a violation.

use serde_json::Value;

/// What is wrong with `value`, which should be as `schema`, a part of `document`, says.
pub fn violations(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(document, schema, value, "$", &mut found);
    found
}

fn check(document: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let path = reference.strip_prefix('#').expect("a reference into the document");
        let target = document.pointer(path).unwrap_or_else(|| panic!("{reference} leads nowhere"));
        return check(document, target, value, at, found);
    }
    if let Some(choices) = schema["anyOf"].as_array() {
        if !choices.iter().any(|choice| violations(document, choice, value).is_empty()) {
            found.push(format!("{at}: {value} is none of {} choices", choices.len()));
        }
        return;
    }
    if !types(schema).iter().any(|kind| is(kind, value)) {
        found.push(format!("{at}: {value} is no {:?}", types(schema)));
        return;
    }
    if let Some(choices) = schema["enum"].as_array().filter(|choices| !choices.contains(value)) {
        found.push(format!("{at}: {value} is none of {choices:?}"));
    }
    bounds(schema, value, at, found);
    for (number, item) in value.as_array().into_iter().flatten().enumerate() {
        check(document, &schema["items"], item, &format!("{at}[{number}]"), found);
    }
    let Some(object) = value.as_object() else {
        return;
    };
    let known = schema["properties"].as_object().expect("an object's properties");
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !object.contains_key(name) {
            found.push(format!("{at}.{name} is missing"));
        }
    }
    for (name, part) in object {
        match known.get(name) {
            Some(schema) => check(document, schema, part, &format!("{at}.{name}"), found),
            None => found.push(format!("{at}.{name} is not described")),
        }
    }
}

fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => panic!("a schema without a type: {schema}"),
    }
}

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other} is no type"),
    }
}

fn bounds(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let limit = |word: &str| schema[word].as_f64();
    let size = value.as_f64();
    let length = value.as_array().map(|items| items.len() as f64);
    let below = |size: Option<f64>, word| size.zip(limit(word)).is_some_and(|(size, least)| size < least);
    let above = |size: Option<f64>, word| size.zip(limit(word)).is_some_and(|(size, most)| size > most);
    if below(size, "minimum") || above(size, "maximum") || below(length, "minItems") || above(length, "maxItems") {
        found.push(format!("{at}: {value} is out of bounds"));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_as_described_is_found() {
        let schema = json!({
            "type": "object",
            "required": ["name", "blocks"],
            "properties": {
                "name": {"type": ["string", "null"]},
                "blocks": {"type": "array", "items": {"$ref": "#/$defs/block"}, "maxItems": 2},
                "state": {"enum": ["up"], "type": "string"},
            },
            "$defs": {"block": {"type": "integer", "minimum": 0, "maximum": 9}},
        });
        let wrong = |value: Value| violations(&schema, &schema, &value).len();
        assert_eq!(wrong(json!({"name": null, "blocks": [0, 9]})), 0);
        assert_eq!(wrong(json!({"name": 1, "blocks": [0, 10]})), 2);
        assert_eq!(wrong(json!({"blocks": [1, 2, 3], "state": "down", "more": 1})), 4);
    }
}
