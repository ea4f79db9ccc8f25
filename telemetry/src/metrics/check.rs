//! Whether a text is what a Prometheus server takes, and keeps to its conventions: what `promtool check metrics` looks at, and
//! OpenMetrics' rules. Pure; for tests.

use std::collections::{BTreeMap, BTreeSet};

/// Endings that say in which unit a value is, and are base units.
const BASE_UNITS: [&str; 8] = ["seconds", "bytes", "tokens", "ratio", "info", "total", "blocks", "rows"];

/// Parts of names that say in which unit a value is, but of one that is no base unit.
const OTHER_UNITS: [&str; 10] =
    ["ms", "milliseconds", "microseconds", "us", "kb", "mb", "gb", "mib", "kilobytes", "percent"];

/// What a family of metrics is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Family {
    /// The words of `# HELP`.
    pub help: String,
    /// `counter`, `gauge`, `histogram` and so on.
    pub kind: String,
    /// The unit, if one is named.
    pub unit: Option<String>,
    /// Labels that its samples have, but for the `le` of histograms.
    pub labels: BTreeSet<String>,
    /// How many samples it has.
    pub samples: usize,
}

/// The families in a text, by the names that queries use: a counter's ends in `_total`.
pub fn families(text: &str) -> BTreeMap<String, Family> {
    read(text).0
}

/// What is wrong with a text; nothing if all is well.
pub fn problems(text: &str) -> Vec<String> {
    let (families, mut problems) = read(text);
    for (name, family) in &families {
        let mut wrong = |what: &str| problems.push(format!("{name}: {what}"));
        if family.help.is_empty() {
            wrong("has no # HELP");
        }
        if family.help.ends_with('.') && family.help.len() < 3 {
            wrong("has a # HELP that says nothing");
        }
        if family.kind.is_empty() {
            wrong("has no # TYPE");
        }
        if !name.starts_with("swarm_") {
            wrong("does not begin with swarm_");
        }
        if !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_') {
            wrong("has a name of other than lower-case letters, digits and underscores");
        }
        let total = name.ends_with("_total");
        if (family.kind == "counter") != total {
            wrong("is a counter if and only if it ends in _total");
        }
        if name.split('_').any(|part| OTHER_UNITS.contains(&part)) {
            wrong("is in no base unit");
        }
        let base = name.trim_end_matches("_total");
        if let Some(unit) = &family.unit
            && (!base.ends_with(&format!("_{unit}")) || !BASE_UNITS.contains(&unit.as_str()))
        {
            wrong("does not end in its unit");
        }
        for unit in ["seconds", "bytes"] {
            if base.ends_with(&format!("_{unit}")) && family.unit.as_deref() != Some(unit) {
                wrong("names no # UNIT");
            }
        }
        if ["count", "sum", "bucket"].iter().any(|ending| base.ends_with(&format!("_{ending}"))) {
            wrong("ends like a part of a histogram");
        }
    }
    problems
}

/// Families, and what is wrong with the text as such.
fn read(text: &str) -> (BTreeMap<String, Family>, Vec<String>) {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    let mut current: Option<String> = None;
    let mut buckets: BTreeMap<String, f64> = BTreeMap::new();
    if !text.ends_with("# EOF\n") {
        problems.push("the text does not end with # EOF".to_string());
    }
    // Counters are described under their name without the ending.
    let queried = |name: &str, families: &BTreeMap<String, Family>| {
        let total = format!("{name}_total");
        if families.contains_key(&total) { total } else { name.to_string() }
    };
    for line in text.lines().filter(|line| *line != "# EOF") {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some("HELP"), Some(name), help) => {
                if families
                    .insert(
                        name.to_string(),
                        Family { help: help.unwrap_or_default().to_string(), ..Family::default() },
                    )
                    .is_some()
                {
                    problems.push(format!("{name} is described twice"));
                }
                current = Some(name.to_string());
            }
            (Some("#"), Some("TYPE"), Some(name), Some(kind)) => {
                let Some(mut family) = families.remove(name) else {
                    problems.push(format!("{name} has a # TYPE before its # HELP"));
                    continue;
                };
                family.kind = kind.to_string();
                let name = if kind == "counter" { format!("{name}_total") } else { name.to_string() };
                if families.insert(name.clone(), family).is_some() {
                    problems.push(format!("{name} is described twice"));
                }
                current = Some(name);
            }
            (Some("#"), Some("UNIT"), Some(name), Some(unit)) => {
                let name = queried(name, &families);
                match families.get_mut(&name) {
                    Some(family) => family.unit = Some(unit.to_string()),
                    None => problems.push(format!("{name} has a # UNIT before its # HELP")),
                }
            }
            _ => {
                let Some((name, labels, value)) = sample(line) else {
                    problems.push(format!("no sample: {line:?}"));
                    continue;
                };
                let Some(family) = current.as_ref().and_then(|name| families.get_mut(name)) else {
                    problems.push(format!("{name} is not described"));
                    continue;
                };
                let family_name = current.clone().unwrap_or_default();
                let part = name.strip_prefix(family_name.as_str());
                let fits = match family.kind.as_str() {
                    "histogram" => matches!(part, Some("_bucket" | "_sum" | "_count")),
                    _ => part == Some(""),
                };
                if !fits {
                    problems.push(format!("{name} stands under {family_name}"));
                }
                if !seen.insert((name.to_string(), labels.clone())) {
                    problems.push(format!("{name}{labels:?} is there twice"));
                }
                if !value.is_finite() || (family.kind != "gauge" && value < 0.0) {
                    problems.push(format!("{name} is {value}"));
                }
                if part == Some("_bucket") {
                    let others: Vec<_> = labels.iter().filter(|(label, _)| label != "le").collect();
                    let least = buckets.entry(format!("{name}{others:?}")).or_insert(0.0);
                    if value < *least {
                        problems.push(format!("{name}: the buckets fall"));
                    }
                    *least = value;
                }
                family.samples += 1;
                family.labels.extend(labels.into_iter().map(|(label, _)| label).filter(|label| label != "le"));
            }
        }
    }
    (families, problems)
}

/// Labels with their values.
type Labels = Vec<(String, String)>;

/// Name, labels and value of a line.
fn sample(line: &str) -> Option<(&str, Labels, f64)> {
    let (head, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, rest)) = head.split_once('{') else {
        return Some((head, Vec::new(), value));
    };
    let mut labels = Vec::new();
    let mut rest = rest.strip_suffix('}')?;
    while !rest.is_empty() {
        let (label, behind) = rest.split_once("=\"")?;
        let end = behind.find('"')?;
        labels.push((label.to_string(), behind[..end].to_string()));
        rest = behind[end + 1..].trim_start_matches(',');
    }
    Some((name, labels, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_text_has_no_problems() {
        let text = "# HELP swarm_a_bytes Bytes of a\n# TYPE swarm_a_bytes counter\n# UNIT swarm_a_bytes bytes\n\
                    swarm_a_bytes_total{kind=\"x\"} 3\nswarm_a_bytes_total{kind=\"y\"} 4\n\
                    # HELP swarm_t_seconds T\n# TYPE swarm_t_seconds histogram\n# UNIT swarm_t_seconds seconds\n\
                    swarm_t_seconds_sum 1.5\nswarm_t_seconds_count 2\nswarm_t_seconds_bucket{le=\"1.0\"} 1\n\
                    swarm_t_seconds_bucket{le=\"+Inf\"} 2\n# EOF\n";
        assert_eq!(problems(text), Vec::<String>::new());
        let families = families(text);
        assert_eq!(families.keys().collect::<Vec<_>>(), ["swarm_a_bytes_total", "swarm_t_seconds"]);
        let bytes = &families["swarm_a_bytes_total"];
        assert_eq!((bytes.samples, bytes.labels.len(), bytes.unit.as_deref()), (2, 1, Some("bytes")));
    }

    #[test]
    fn what_prometheus_would_not_take_is_found() {
        let family =
            |name: &str, kind: &str, rest: &str| format!("# HELP {name} Words\n# TYPE {name} {kind}\n{rest}# EOF\n");
        for (text, says) in [
            (family("swarm_a", "gauge", "swarm_a 1\nswarm_a 1\n"), "there twice"),
            (family("swarm_a", "gauge", "swarm_b 1\n"), "stands under"),
            (family("swarm_a_total", "gauge", "swarm_a_total 1\n"), "if and only if"),
            (family("swarm_a_ms", "gauge", "swarm_a_ms 1\n"), "base unit"),
            (family("swarm_a_seconds", "gauge", "swarm_a_seconds 1\n"), "no # UNIT"),
            (family("other", "gauge", "other 1\n"), "begin with swarm_"),
            (family("swarm_a", "counter", "swarm_a_total NaN\n"), "is NaN"),
            (
                family("swarm_h", "histogram", "swarm_h_bucket{le=\"1\"} 2\nswarm_h_bucket{le=\"2\"} 1\n"),
                "buckets fall",
            ),
            ("swarm_a 1\n# EOF\n".to_string(), "not described"),
            (family("swarm_a", "gauge", "swarm_a one\n"), "no sample"),
            ("# HELP swarm_a A\n# TYPE swarm_a gauge\nswarm_a 1\n".to_string(), "# EOF"),
        ] {
            let found = problems(&text);
            assert!(found.iter().any(|problem| problem.contains(says)), "{says}: {found:?} in\n{text}");
        }
    }
}
