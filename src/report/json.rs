//! Writes JSON, indented or on one line, and escapes invisible characters.
//!
//! The document is written as it is serialized, without a copy as a tree or text: a scan with thousands of findings is many MiB of
//! JSON. May use `report::safe` only.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use super::safe;

/// The size of the write buffer in bytes. Standard output would otherwise be written line by line.
const BUFFER: usize = 64 * 1024;

/// Writes a document with a line feed at its end: indented by two spaces, or on one line.
///
/// Invisible characters are escaped, which changes nothing for a JSON reader.
///
/// # Errors
/// The writer's errors, and a document that JSON cannot represent (a map with keys that are not strings).
pub fn write(out: &mut dyn io::Write, document: &impl Serialize, noindent: bool) -> io::Result<()> {
    let mut out = io::BufWriter::with_capacity(BUFFER, out);
    let written = if noindent {
        document.serialize(&mut Serializer::with_formatter(&mut out, Visible(CompactFormatter)))
    } else {
        document.serialize(&mut Serializer::with_formatter(&mut out, Visible(PrettyFormatter::new())))
    };
    written.map_err(io::Error::from)?;
    io::Write::write_all(&mut out, b"\n")?;
    io::Write::flush(&mut out)
}

/// Escapes invisible characters in strings, and leaves the rest to another formatter.
struct Visible<F>(F);

impl<F: Formatter> Formatter for Visible<F> {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        // Characters that JSON itself must escape, such as C0 controls, are never part of a fragment.
        let mut written = 0;
        for (place, c) in fragment.char_indices().filter(|(_, c)| *c >= '\u{7f}' && safe::is_hostile(*c)) {
            writer.write_all(fragment.get(written..place).unwrap_or_default().as_bytes())?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
            written = place + c.len_utf8();
        }
        writer.write_all(fragment.get(written..).unwrap_or_default().as_bytes())
    }

    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

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
            prop_assert!(!text.trim_end_matches('\n').chars().any(|c| c != '\n' && safe::is_hostile(c)));
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), document);
        }
    }
}
