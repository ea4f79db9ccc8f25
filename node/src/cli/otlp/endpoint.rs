//! Where spans go, from a flag or from the standard's variables. Pure: the environment is an argument.
//!
//! The standard: <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>.

use ureq::http::Uri;

/// What follows the address of a collector that takes all kinds of telemetry.
const TRACES_PATH: &str = "/v1/traces";

/// For traces only: taken as it is.
const TRACES_VARIABLE: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";

/// For all kinds of telemetry.
const GENERAL_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Turns everything off.
const DISABLED_VARIABLE: &str = "OTEL_SDK_DISABLED";

/// What the flag says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// Nothing is sent, whatever the standard's variables say.
    Nowhere,
    /// To this address, path included.
    At(String),
}

impl Endpoint {
    /// Reads the address of a collector, with the path of traces or without; an empty text is nowhere.
    ///
    /// # Errors
    /// What is wrong, for the person who wrote it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::Nowhere);
        }
        let url = checked(text)?;
        Ok(Self::At(if url.trim_end_matches('/').ends_with(TRACES_PATH) { url } else { with_path(&url) }))
    }
}

/// The part of the traces that is recorded.
///
/// # Errors
/// What is wrong, for the person who wrote it.
pub(crate) fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.trim().parse().ok().filter(|ratio: &f64| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| format!("\"{text}\" is no part of the traces; write a number from 0 to 1, for example 0.1"))
}

/// Where spans go: as the flag says, else as the standard's variables do.
///
/// # Errors
/// Which variable holds no address.
pub(super) fn chosen(
    flag: Option<Endpoint>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Option<String>, String> {
    let set = |name: &str| variable(name).map(|value| value.trim().to_string()).filter(|value| !value.is_empty());
    let of = |name: &str, url: &str| checked(url).map_err(|error| format!("{name}: {error}"));
    match flag {
        Some(Endpoint::Nowhere) => return Ok(None),
        Some(Endpoint::At(url)) => return Ok(Some(url)),
        None if set(DISABLED_VARIABLE).is_some_and(|value| value.eq_ignore_ascii_case("true")) => return Ok(None),
        None => {}
    }
    if let Some(url) = set(TRACES_VARIABLE) {
        return of(TRACES_VARIABLE, &url).map(Some);
    }
    let general = set(GENERAL_VARIABLE);
    general.map(|url| of(GENERAL_VARIABLE, &url).map(|url| with_path(&url))).transpose()
}

fn with_path(url: &str) -> String {
    format!("{}{TRACES_PATH}", url.trim_end_matches('/'))
}

fn checked(text: &str) -> Result<String, String> {
    let uri: Option<Uri> = text.parse().ok();
    let known = uri.filter(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.query().is_none()
    });
    match known {
        Some(_) => Ok(text.to_string()),
        None => Err(format!(
            "\"{text}\" is no address of a collector; write one for OTLP over HTTP, for example http://127.0.0.1:4318"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> Option<Endpoint> {
        Some(Endpoint::At(url.to_string()))
    }

    #[test]
    fn a_flag_names_a_collector_with_its_path_or_without() {
        for (text, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
            ("http://127.0.0.1:4318/v1/traces", "http://127.0.0.1:4318/v1/traces"),
            (" https://otel.example.org/behind ", "https://otel.example.org/behind/v1/traces"),
            ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
        ] {
            assert_eq!(Endpoint::parse(text).ok(), at(url), "{text}");
        }
        assert_eq!(Endpoint::parse(""), Ok(Endpoint::Nowhere));
        for bad in ["127.0.0.1:4318", "grpc://127.0.0.1:4317", "http://", "/v1/traces", "http://a b", "http://a/?b=c"] {
            let error = Endpoint::parse(bad).unwrap_err();
            assert!(error.contains("for example http://127.0.0.1:4318"), "{bad}: {error}");
        }
    }

    #[test]
    fn the_variables_of_the_standard_hold_where_the_flag_is_silent() {
        let general = |name: &str| (name == GENERAL_VARIABLE).then(|| "http://general:4318/".to_string());
        let both = |name: &str| match name {
            TRACES_VARIABLE => Some("http://traces:4318/here".to_string()),
            other => general(other),
        };
        let off = |name: &str| if name == DISABLED_VARIABLE { Some("true".to_string()) } else { both(name) };
        let url = |url: &str| Ok(Some(url.to_string()));
        assert_eq!(chosen(None, |_| None), Ok(None));
        assert_eq!(chosen(None, |_| Some(String::new())), Ok(None));
        assert_eq!(chosen(None, general), url("http://general:4318/v1/traces"));
        assert_eq!(chosen(None, both), url("http://traces:4318/here"));
        assert_eq!(chosen(None, off), Ok(None));
        assert_eq!(chosen(at("http://flag/v1/traces"), both), url("http://flag/v1/traces"));
        assert_eq!(chosen(Some(Endpoint::Nowhere), both), Ok(None));
        let wrong = chosen(None, |name| (name == GENERAL_VARIABLE).then(|| "collector".to_string()));
        assert!(wrong.is_err_and(|error| error.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT: ")));
    }

    #[test]
    fn a_part_is_from_none_to_all() {
        assert_eq!((ratio("0"), ratio("0.25"), ratio("1")), (Ok(0.0), Ok(0.25), Ok(1.0)));
        for bad in ["", "-0.1", "1.1", "10%", "NaN", "inf"] {
            assert!(ratio(bad).is_err_and(|error| error.contains("from 0 to 1")), "{bad}");
        }
    }
}
