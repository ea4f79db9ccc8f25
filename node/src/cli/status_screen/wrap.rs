//! Text in lines that fit. Pure.

use ratatui::text::{Line, Span};

/// Columns that text beside a lead has at least; with fewer it stands below its lead.
const BESIDE: usize = 16;

/// The columns that a terminal needs for `text`.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// `text` in at most `most` columns, and a sign if that is not all of it.
pub(super) fn cut(text: &str, most: usize) -> String {
    if width(text) <= most {
        return text.to_string();
    }
    match pieces(text, most.saturating_sub(1)).first() {
        Some(begins) if most > 1 => format!("{begins}…"),
        _ => "…".repeat(most),
    }
}

/// `text` in lines of at most `most` columns, broken between words, and within one only if it alone is too long.
pub(super) fn wrap(text: &str, most: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for piece in text.split(' ').flat_map(|word| pieces(word, most)) {
        if !line.is_empty() && width(&line) + 1 + width(piece) > most {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(piece);
    }
    lines.push(line);
    lines
}

/// `text` in lines of at most `most` columns, the first behind `lead` and the others below it.
pub(super) fn beside(mut lead: Vec<Span<'static>>, text: &str, most: usize) -> Vec<Line<'static>> {
    let taken: usize = lead.iter().map(Span::width).sum();
    if most < taken + BESIDE {
        let below = wrap(text, most).into_iter().map(Line::from);
        return std::iter::once(Line::from(lead)).chain(below).collect();
    }
    let mut lines = wrap(text, most - taken).into_iter();
    lead.extend(lines.next().map(Span::raw));
    let indent = " ".repeat(taken);
    let others = lines.map(|line| Line::from(format!("{indent}{line}")));
    std::iter::once(Line::from(lead)).chain(others).collect()
}

/// `word` in pieces of at most `most` columns; a character that is wider stands alone.
fn pieces(word: &str, most: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let (mut start, mut used) = (0, 0);
    for (at, character) in word.char_indices() {
        let wide = width(character.encode_utf8(&mut [0; 4]));
        if used + wide > most && at > start {
            pieces.push(&word[start..at]);
            (start, used) = (at, 0);
        }
        used += wide;
    }
    pieces.push(&word[start..]);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_words_only_if_they_must() {
        assert_eq!(wrap("if it is lost", 5), ["if it", "is", "lost"]);
        assert_eq!(wrap("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("漢字漢字", 5), ["漢字", "漢字"]);
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(wrap("ab", 0), ["a", "b"]);
    }

    #[test]
    fn further_lines_stand_below_the_first() {
        let shown = |most| beside(vec![Span::raw("note  ")], "one two three four", most);
        let text = |most| shown(most).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(40), ["note  one two three four"]);
        assert_eq!(text(22), ["note  one two three", "      four"]);
        assert_eq!(text(13), ["note  ", "one two three", "four"]);
    }

    #[test]
    fn what_is_cut_says_so() {
        let cuts = [6, 5, 4, 1, 0].map(|most| cut("attic", most));
        assert_eq!(cuts, ["attic", "attic", "att…", "…", ""]);
    }
}
