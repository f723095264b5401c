//! Text from a database or a storage, which is hostile.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Display;

/// Whether a character is invisible, looks like another one, or changes the text around it.
///
/// These are the control characters (C0, DEL, C1) and what Unicode calls default-ignorable: joiners and other
/// characters of no width, marks, overrides and isolates of the writing direction, line and paragraph separators, fillers, the
/// byte order mark, variation selectors (but the two that pick text or emoji style, U+FE0E and U+FE0F) and tags.
pub fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}'
            | '\u{34f}'
            | '\u{61c}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0d}'
            | '\u{feff}'
            | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}'
            | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// How many names a sentence lists.
const LISTED: usize = 6;

/// The first of some names, and how many more there are.
pub fn list(names: &BTreeSet<&str>) -> String {
    let shown: Vec<&str> = names.iter().copied().take(LISTED).collect();
    let more = names.len() - shown.len();
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

/// A numeral and its noun: `1 unit`, `12 units`.
pub fn count(number: impl Display, noun: &str) -> String {
    let number = number.to_string();
    let plural = if number == "1" { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Quotes a word for a POSIX shell, so that a hostile id in a suggested command stays one word. Control characters are removed:
/// no quoting makes them safe at an interactive shell.
pub fn shell_word(word: impl Display) -> String {
    let printable: String = word.to_string().chars().filter(|c| !c.is_control()).collect();
    // Only a NUL cannot be quoted, and none is left.
    shlex::try_quote(&printable).unwrap_or_default().into_owned()
}

/// Whether a text is printable ASCII and line feeds, as nearly all are. Without a branch for each byte, this is many times faster than a test
/// of each character.
pub fn is_plain(text: &str) -> bool {
    text.bytes().fold(true, |plain, byte| plain & (matches!(byte, b' '..=b'~') | (byte == b'\n')))
}

/// JSON with every hostile character as an escape (`\\u202e`): the same document, but harmless on a terminal. JSON has such characters
/// only in strings.
pub fn json_escaped(json: &str) -> Cow<'_, str> {
    // A line feed is layout: in a string it is escaped already.
    let hostile = |c: char| c != '\n' && is_hostile(c);
    if is_plain(json) || !json.contains(hostile) {
        return Cow::Borrowed(json);
    }
    let mut safe = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if hostile(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// `; did you mean X?` if exactly one of the words that exist is the most like a word that does not. Costs a comparison with each.
pub fn meant<'w>(word: &str, existing: impl IntoIterator<Item = &'w str>) -> String {
    let most = (word.chars().count() / 4).clamp(1, 2);
    let distance = |known: &str| strsim::damerau_levenshtein(&word.to_lowercase(), &known.to_lowercase());
    let mut alike: Vec<(usize, &str)> =
        existing.into_iter().map(|known| (distance(known), known)).filter(|(far, _)| *far <= most).collect();
    alike.sort_unstable();
    match alike.as_slice() {
        [(_, known)] => format!("; did you mean {known}?"),
        [(near, known), (far, _), ..] if near < far => format!("; did you mean {known}?"),
        _ => String::new(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_has_at_most_one_suggestion() {
        let known = ["creating", "deleting", "error", "ctl1", "ctl2"];
        for (word, expected) in [
            ("craeting", "; did you mean creating?"),
            ("ERORR", "; did you mean error?"),
            ("clt1", "; did you mean ctl1?"),
            ("ctl9", ""),
            ("available", ""),
            ("", ""),
        ] {
            assert_eq!(meant(word, known), expected, "{word}");
        }
    }

    #[test]
    fn a_hostile_id_stays_one_word() {
        for (word, quoted) in [
            ("7b1e-22_a", "7b1e-22_a"),
            ("--host", "--host"),
            ("sqlite:////tmp/a_b/cinder.sqlite", "sqlite:////tmp/a_b/cinder.sqlite"),
            ("x; rm -rf /", "'x; rm -rf /'"),
            ("a$b", "'a$b'"),
            ("a'b\x1b[2J\0", r#""a'b[2J""#),
            ("", "''"),
        ] {
            assert_eq!(shell_word(word), quoted);
        }
    }

    #[test]
    fn what_is_plain_holds_nothing_hostile() {
        for c in '\0'..='\u{2100}' {
            assert!(!is_plain(&format!("a{c}b")) || c == '\n' || !is_hostile(c), "{c:?}");
        }
        assert!(is_plain("from ' ' to '~'\n") && !is_plain("\t") && !is_plain("ä"));
    }

    #[test]
    fn escaped_json_is_the_same_document() {
        let value = serde_json::json!({ "a\u{202e}": ["\u{9b}2J", "\u{e0041}", "\u{7f}", "plain ä", "\n"], "b": 1 });
        for text in [serde_json::to_string(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap()] {
            let safe = json_escaped(&text);
            assert!(!safe.chars().any(|c| c != '\n' && is_hostile(c)), "{safe}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&safe).unwrap(), value);
            assert_ne!(safe, text);
        }
    }
}
