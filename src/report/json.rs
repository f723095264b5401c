//! JSON as it goes to a person or a program: indented or on one line, written as it is made, with what is invisible escaped.
//!
//! No copy of the document is made, neither as a tree nor as text: a scan of thousands of findings is many MiB of JSON. May use
//! `report::safe` only.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use super::safe;

/// How much is gathered before it goes out, in bytes: standard output would otherwise be written line by line.
const BUFFER: usize = 64 * 1024;

/// Writes a document with a line feed at its end: indented by two spaces, or on one line.
///
/// What is invisible in its text is escaped, which changes nothing for a reader of JSON.
///
/// # Errors
/// What the writer says, and a document that JSON has no form for (a map with keys that are no text).
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

/// Another formatter, with what is invisible in text escaped.
struct Visible<F>(F);

impl<F: Formatter> Formatter for Visible<F> {
    fn write_string_fragment<W: ?Sized + io::Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        // What JSON itself must escape, C0 characters among it, is never part of a fragment.
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
    fn what_is_invisible_is_escaped_in_keys_too() {
        let document = json!({"a\u{202e}b": "x\u{1b}\u{7f}\u{e0041}ü\"\\"});
        assert_eq!(text(&document, true), "{\"a\\u202eb\":\"x\\u001b\\u007f\\udb40\\udc41ü\\\"\\\\\"}\n");
    }

    proptest! {
        #[test]
        fn reads_back_as_what_it_was(key in "\\PC*|.*", value in ".*", noindent: bool) {
            let document = json!({ key: [value] });
            let text = text(&document, noindent);
            prop_assert!(!text.trim_end_matches('\n').chars().any(|c| c != '\n' && safe::is_hostile(c)));
            prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), document);
        }
    }
}
