//! The web page: one document, its style and its scripts, all of them part of this program. Nothing is fetched from elsewhere,
//! and nothing but these files may run (`POLICY`).

mod assets;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use self::assets::{ASSETS, Asset, DOCUMENT};

/// What the page may load and run: this server's own files, and nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Files change with the program, which they are asked about each time.
const CACHING: &str = "no-cache";

/// What the page shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Views {
    /// The chat, and the map of the swarm.
    ChatAndMap,
    /// The map alone: there is nobody to chat with.
    Map,
}

/// The routes.
pub fn routes<S: Clone + Send + Sync + 'static>(views: Views) -> Router<S> {
    Router::new().route("/", get(document)).route("/assets/{name}", get(asset)).with_state(views)
}

async fn document(State(views): State<Views>) -> Response {
    let text = match views {
        Views::ChatAndMap => DOCUMENT.to_string(),
        Views::Map => DOCUMENT.replacen("data-views=\"chat map\"", "data-views=\"map\"", 1),
    };
    with_headers("text/html; charset=utf-8", text)
}

async fn asset(Path(name): Path<String>) -> Response {
    match ASSETS.iter().find(|asset| asset.name == name) {
        Some(Asset { kind, text, .. }) => with_headers(kind, *text),
        None => (StatusCode::NOT_FOUND, "no such file; the page is at /\n").into_response(),
    }
}

fn with_headers(kind: &'static str, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, CACHING),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_the_document_names_is_there_and_nothing_comes_from_elsewhere() {
        assert!(DOCUMENT.contains("data-views=\"chat map\""));
        let named = |marker: &str| {
            let mut rest = DOCUMENT;
            let mut names = Vec::new();
            while let Some((_, after)) = rest.split_once(marker) {
                names.push(after.split('"').next().unwrap().to_string());
                rest = after;
            }
            names
        };
        let assets = named("\"/assets/");
        assert!(assets.len() >= 2, "{assets:?}");
        for name in assets {
            assert!(ASSETS.iter().any(|asset| asset.name == name), "{name}");
        }
        for Asset { name, text, .. } in ASSETS {
            let imports = text.split("from \"./").skip(1).map(|rest| rest.split('"').next().unwrap());
            for import in imports {
                assert!(ASSETS.iter().any(|asset| asset.name == import), "{name} imports {import}");
            }
        }
        for text in ASSETS.iter().map(|asset| asset.text).chain([DOCUMENT]) {
            let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"));
            assert!(!text.contains("innerHTML") && !text.contains("eval(") && !text.contains("style=\""));
        }
    }
}
