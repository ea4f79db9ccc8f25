//! Who may ask: API keys.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

/// The keys that open `/v1`. Only their hashes are kept.
#[derive(Debug, Clone, Default)]
pub struct ApiKeys {
    hashes: Vec<blake3::Hash>,
}

impl ApiKeys {
    /// These keys; none: everybody may ask.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self { hashes: keys.into_iter().map(|key| blake3::hash(key.as_bytes())).collect() }
    }

    /// Whether everybody may ask.
    pub fn is_open(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Which of the keys this is. Takes the same time whichever it is, and if it is none.
    pub fn find(&self, presented: &str) -> Option<usize> {
        let presented = blake3::hash(presented.as_bytes());
        // Hashes are compared in constant time, and all of them are.
        let matches = self.hashes.iter().enumerate().map(|(place, hash)| (place, *hash == presented));
        matches.fold(None, |found, (place, matches)| if matches { Some(place) } else { found })
    }

    /// The hash of a key: what is derived from keys is derived from that.
    pub(crate) fn hash(&self, place: usize) -> Option<&blake3::Hash> {
        self.hashes.get(place)
    }
}

/// The key in `Authorization: Bearer KEY`.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_key_is_found_and_nothing_like_it() {
        let keys = ApiKeys::new(["one", "two"]);
        assert_eq!([keys.find("one"), keys.find("two")], [Some(0), Some(1)]);
        assert!(["", "on", "one ", "ONE", "three"].iter().all(|key| keys.find(key).is_none()));
        assert!(ApiKeys::default().is_open() && !keys.is_open());
    }

    #[test]
    fn a_bearer_token_is_read_whatever_the_case_of_its_scheme() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
            bearer(&headers).map(str::to_string)
        };
        assert_eq!(read("Bearer abc").as_deref(), Some("abc"));
        assert_eq!(read("bearer  abc ").as_deref(), Some("abc"));
        assert_eq!([read("Basic abc"), read("abc")], [None, None]);
        assert_eq!(bearer(&HeaderMap::new()), None);
    }
}
