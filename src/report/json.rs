//! Writes JSON, indented or on one line, and escapes invisible characters.
//!
//! The document is written as it is serialized, without a copy as a tree or text: a scan with thousands of findings is many MiB of
//! JSON. May use `domain` only.

use std::io::{self, Write};

use serde::Serialize;

use crate::domain::text::json_escaped;

/// The size of the write buffer in bytes. Standard output would otherwise be written line by line.
const BUFFER: usize = 64 * 1024;

/// Writes a document with a line feed at its end: indented by two spaces, or on one line.
///
/// Invisible characters are escaped, which changes nothing for a JSON reader.
///
/// # Errors
/// The writer's errors, and a document that JSON cannot represent (a map with keys that are not strings).
pub fn write(out: &mut dyn io::Write, document: &impl Serialize, noindent: bool) -> io::Result<()> {
    let mut out = Visible(io::BufWriter::with_capacity(BUFFER, out));
    if noindent {
        serde_json::to_writer(&mut out, document)?;
    } else {
        serde_json::to_writer_pretty(&mut out, document)?;
    }
    out.write_all(b"\n")?;
    out.flush()
}

/// Escapes invisible characters. JSON has them only in strings, and the serializer writes each fragment of a string at once.
struct Visible<W>(W);

impl<W: io::Write> io::Write for Visible<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = std::str::from_utf8(bytes).map_err(io::Error::other)?;
        self.0.write_all(json_escaped(text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::text::is_hostile;

    fn text(document: &impl Serialize, noindent: bool) -> String {
        let mut out = Vec::new();
        write(&mut out, document, noindent).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn indented_or_on_one_line() {
        let document = json!({"a": [1, null, []], "b": {"c": {}, "d": "x"}});
        assert_eq!(text(&document, true), "{\"a\":[1,null,[]],\"b\":{\"c\":{},\"d\":\"x\"}}\n");
        assert_eq!(text(&document, false), format!("{document:#}\n"));
    }

    #[test]
    fn invisible_characters_are_escaped_in_keys_too() {
        let document = json!({"a\u{202e}b": "x\u{1b}\u{7f}\u{e0041}ü\"\\"});
        assert_eq!(text(&document, true), "{\"a\\u202eb\":\"x\\u001b\\u007f\\udb40\\udc41ü\\\"\\\\\"}\n");
    }

    proptest! {
        #[test]
        fn a_document_reads_back_unchanged(key in "\\PC*|.*", value in ".*", noindent: bool) {
            let document = json!({ key: [value] });
            let text = text(&document, noindent);
            prop_assert!(!text.trim_end_matches('\n').chars().any(|c| c != '\n' && is_hostile(c)));
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), document);
        }
    }
}
