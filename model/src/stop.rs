//! Stop strings: a text ends before the first of them, and nothing of it is ever shown. Pure.

use crate::error::ModelError;

/// The most stop strings: OpenAI's API has 4, and nobody is known to need more than a handful.
pub const MAX_STOPS: usize = 16;

/// The longest stop string, in bytes: so much text, and no more, is held back at a time.
pub const MAX_STOP_BYTES: usize = 256;

/// Lets a text through as long as it holds no stop string; what may be the beginning of one waits until it is known.
///
/// The stop string that counts is the one that is complete first; of several that are complete at once, the one that began
/// first. So where a text ends does not depend on the pieces it comes in.
#[derive(Debug, Clone, Default)]
pub struct StopFilter {
    stops: Vec<String>,
    /// The end of the text so far: the longest that a stop string begins with.
    held: String,
}

/// What a filter says to a piece of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passed {
    /// What is shown now.
    pub text: String,
    /// The stop string that has ended the text, if one has.
    pub stop: Option<String>,
}

impl StopFilter {
    /// A filter at the start of a text.
    ///
    /// # Errors
    /// [`ModelError::BadSampling`] if there are more than [`MAX_STOPS`], or one is empty or longer than [`MAX_STOP_BYTES`].
    pub fn new(stops: &[String]) -> Result<Self, ModelError> {
        let bad = |found: String, expected| Err(ModelError::BadSampling { option: "stop", found, expected });
        if stops.len() > MAX_STOPS {
            return bad(format!("{} strings", stops.len()), "at most 16");
        }
        if let Some(stop) = stops.iter().find(|stop| stop.is_empty() || stop.len() > MAX_STOP_BYTES) {
            return bad(format!("a string of {} bytes", stop.len()), "of 1 to 256 bytes");
        }
        Ok(Self { stops: stops.to_vec(), held: String::new() })
    }

    /// The next piece of the text. After a stop string there is no next piece.
    pub fn push(&mut self, piece: &str) -> Passed {
        self.held.push_str(piece);
        if let Some((start, stop)) = self.first() {
            let stop = stop.to_string();
            let mut text = std::mem::take(&mut self.held);
            text.truncate(start);
            return Passed { text, stop: Some(stop) };
        }
        let rest = self.held.split_off(self.held.len() - self.begun());
        Passed { text: std::mem::replace(&mut self.held, rest), stop: None }
    }

    /// What was held back, at the end of the text.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Where the first stop string begins, and which it is.
    fn first(&self) -> Option<(usize, &str)> {
        let found = self.stops.iter().filter_map(|stop| Some((self.held.find(stop.as_str())?, stop.as_str())));
        found.min_by_key(|(start, stop)| (start + stop.len(), *start))
    }

    /// How many bytes at the end may be the beginning of a stop string.
    fn begun(&self) -> usize {
        self.stops.iter().map(|stop| begun(&self.held, stop)).max().unwrap_or(0)
    }
}

/// How many bytes at the end of `text` may be the beginning of `word`: a part of it, as long as possible.
pub(crate) fn begun(text: &str, word: &str) -> usize {
    let (text, word) = (text.as_bytes(), word.as_bytes());
    (1..word.len().min(text.len() + 1)).rev().find(|bytes| text.ends_with(&word[..*bytes])).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The text up to the stop string that ends first, by looking at the whole of it.
    fn plain(text: &str, stops: &[String]) -> (String, Option<String>) {
        for end in text.char_indices().map(|(at, c)| at + c.len_utf8()) {
            // Of those that end here the longest begins first.
            let here = stops.iter().filter(|stop| text[..end].ends_with(stop.as_str()));
            if let Some(stop) = here.max_by_key(|stop| stop.len()) {
                return (text[..end - stop.len()].to_string(), Some(stop.clone()));
            }
        }
        (text.to_string(), None)
    }

    /// What comes out piece by piece, until the end.
    fn filtered(pieces: &[String], stops: &[String]) -> (Vec<String>, Option<String>) {
        let mut filter = StopFilter::new(stops).unwrap();
        let mut shown = Vec::new();
        for piece in pieces {
            let Passed { text, stop } = filter.push(piece);
            shown.push(text);
            if stop.is_some() {
                return (shown, stop);
            }
        }
        shown.push(filter.flush());
        (shown, None)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        // Few letters, one of them of two bytes and one of three, so that stop strings are found and half found often.
        #[test]
        fn pieces_show_what_a_search_over_the_whole_text_shows(
            pieces in prop::collection::vec("[abé→]{0,4}", 0..12),
            stops in prop::collection::vec("[abé→]{1,4}", 0..4),
        ) {
            let (shown, stop) = filtered(&pieces, &stops);
            let (text, expected) = plain(&pieces.concat(), &stops);
            prop_assert_eq!(shown.concat(), text.clone());
            prop_assert_eq!(stop, expected);
            // Nothing is ever taken back.
            let mut so_far = String::new();
            for piece in shown {
                so_far.push_str(&piece);
                prop_assert!(text.starts_with(&so_far));
            }
        }

        #[test]
        fn nothing_waits_that_no_stop_string_begins_with(text in "[ab]{0,20}", stops in prop::collection::vec("[ab]{1,4}", 0..3)) {
            let mut filter = StopFilter::new(&stops).unwrap();
            let Passed { text: shown, stop } = filter.push(&text);
            if stop.is_none() {
                let held = &text[shown.len()..];
                prop_assert!(held.is_empty() || stops.iter().any(|stop| stop.starts_with(held) && stop != held));
            }
        }
    }

    #[test]
    fn a_beginning_that_is_none_is_shown_as_soon_as_that_is_known() {
        let mut filter = StopFilter::new(&["END".to_string()]).unwrap();
        let text = |text: &str| Passed { text: text.to_string(), stop: None };
        assert_eq!(filter.push("on E"), text("on "));
        assert_eq!(filter.push("N"), text(""));
        assert_eq!(filter.push("T E"), text("ENT "));
        assert_eq!(filter.push("ND, and more"), Passed { text: String::new(), stop: Some("END".to_string()) });
    }

    #[test]
    fn bounds_are_named() {
        assert!(StopFilter::new(&[String::new()]).unwrap_err().to_string().starts_with("stop"));
        assert!(StopFilter::new(&vec!["a".to_string(); MAX_STOPS + 1]).is_err());
        assert!(StopFilter::new(&["a".repeat(MAX_STOP_BYTES + 1)]).is_err());
    }
}
