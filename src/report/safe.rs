//! Escapes text from a database for the place where it is shown.
//!
//! A cloud user chooses the name of a backup, and an administrator reads it. An escape sequence can clear the terminal, a
//! bidirectional override can show another id than is there, a formula runs in a spreadsheet, and markup in a ticket. Pure; may use
//! `domain`.

pub use crate::domain::text::{is_hostile, is_plain};

/// The text with every hostile character as a visible escape: `\n`, `\t`, `\r`, `\x1b`, `\u{202e}`.
///
/// Everything else is unchanged. The result is one line, and its width on the terminal is the width of its characters.
pub fn terminal(text: &str) -> String {
    if is_plain(text) && !text.contains('\n') {
        return text.to_owned();
    }
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => safe.push_str("\\n"),
            '\t' => safe.push_str("\\t"),
            '\r' => safe.push_str("\\r"),
            _ if !is_hostile(c) => safe.push(c),
            _ if c <= '\u{ff}' => safe.push_str(&format!("\\x{:02x}", u32::from(c))),
            _ => safe.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
        }
    }
    safe
}

/// The text for a cell of a CSV file, before quoting: as [`terminal`], with an apostrophe before anything that a spreadsheet would run
/// as a formula. A plain number such as `-5` or `+1.5e3` is unchanged.
pub fn csv_cell(text: &str) -> String {
    let safe = terminal(text);
    let formula = matches!(text.chars().next(), Some('=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠'));
    if formula && !is_number(text) { format!("'{safe}") } else { safe }
}

/// Whether the text is digits with at most a sign, a point and an exponent. `inf` and `nan`, which `f64` accepts, are not numbers here.
fn is_number(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') && text.parse::<f64>().is_ok()
}

/// The text for a paragraph or a table cell of a Markdown document, but not for the start of a line.
///
/// The pipe, the backslash and the brackets of HTML become entities, which no dialect reads as structure. A backslash before a pipe
/// has different meanings in different parsers.
pub fn markdown(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in terminal(text).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '|' => safe.push_str("&#124;"),
            '\\' => safe.push_str("&#92;"),
            '`' | '*' | '_' | '[' | ']' | '~' | '#' | '!' | '$' => safe.extend(['\\', c]),
            _ => safe.push(c),
        }
    }
    // Many dialects make a link of a bare address.
    safe.replace("://", ":&#47;/").replace("www.", "www&#46;")
}

/// The text in backticks if that is safe in every dialect and in tables, otherwise as [`markdown`].
pub fn markdown_code(text: &str) -> String {
    let safe = terminal(text);
    let plain = !safe.is_empty() && safe.trim() == safe && !safe.contains(['`', '|', '\\']);
    if plain { format!("`{safe}`") } else { markdown(text) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_characters_are_escaped() {
        for (raw, safe) in [
            ("\u{1b}[2J\u{1b}]0;root\u{7}", r"\x1b[2J\x1b]0;root\x07"),
            ("a\nb\tc\r\0", r"a\nb\tc\r\x00"),
            ("\u{7f}\u{9b}31m\u{85}", r"\x7f\x9b31m\x85"),
            ("\u{202e}gpj.exe\u{2066}\u{200b}\u{feff}", r"\u{202e}gpj.exe\u{2066}\u{200b}\u{feff}"),
            ("\u{2028}\u{2029}\u{e0041}\u{ad}", r"\u{2028}\u{2029}\u{e0041}\xad"),
        ] {
            assert_eq!(terminal(raw), safe);
        }
    }

    #[test]
    fn readable_text_is_unchanged() {
        for text in ["", "nightly 2026-11-22", "é漢字🙂", "שלום", "❤\u{fe0f}", r"C:\temp", "e\u{301}"] {
            assert_eq!(terminal(text), text);
        }
    }

    #[test]
    fn a_formula_is_disarmed_but_a_number_is_not() {
        for (raw, safe) in [
            ("=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"),
            ("+1+1", "'+1+1"),
            ("-1-1", "'-1-1"),
            ("-inf", "'-inf"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", r"'\t=1"),
            ("\r=1", r"'\r=1"),
            ("＝1+1", "'＝1+1"),
            ("-", "'-"),
            ("-5", "-5"),
            ("+1.5e3", "+1.5e3"),
            ("a=1", "a=1"),
            ("", ""),
        ] {
            assert_eq!(csv_cell(raw), safe);
        }
    }

    #[test]
    fn markdown_structure_is_escaped() {
        assert_eq!(markdown("a|b\\|c"), "a&#124;b&#92;&#124;c");
        assert_eq!(markdown("<img src=x onerror=y>&#x202e;"), r"&lt;img src=x onerror=y&gt;&amp;\#x202e;");
        assert_eq!(markdown("`*_[x](y)~"), r"\`\*\_\[x\](y)\~");
        assert_eq!(markdown("two\nlines"), "two&#92;nlines");
        assert_eq!(markdown("https://evil www.evil.org"), "https:&#47;/evil www&#46;evil.org");
    }

    #[test]
    fn text_is_in_backticks_only_where_it_cannot_end_them() {
        assert_eq!(markdown_code("7b1e_22*"), "`7b1e_22*`");
        assert_eq!(markdown_code("a`b"), r"a\`b");
        assert_eq!(markdown_code("a|b"), "a&#124;b");
        assert_eq!(markdown_code("a\nb"), "a&#92;nb");
        assert_eq!(markdown_code(" a"), " a");
        assert_eq!(markdown_code(""), "");
    }

    proptest! {
        #[test]
        fn no_hostile_character_is_left(text in "\\PC*|(?s).*") {
            for safe in [terminal(&text), csv_cell(&text), markdown(&text), markdown_code(&text)] {
                prop_assert!(!safe.chars().any(is_hostile), "{safe:?}");
            }
            prop_assert!(!markdown(&text).contains(['|', '<', '>']));
            prop_assert!(!markdown_code(&text).contains('|'));
        }
    }
}
