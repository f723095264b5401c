//! A pull parser for JSON from a stream, in constant memory. Strings that are kept are bounded, others are skipped byte by byte,
//! nesting is bounded, and no value is built.
//!
//! serde_json's reader keeps a whole string, and the brackets of a skipped value, in memory. A hostile side file could use all of it.
//! It also cannot take the hashes of a sha256file from its buffer, which are 23 GB for a volume of 10 TiB.

use std::io::{BufRead, BufReader, ErrorKind, Read};

use super::FormatError;

/// The limit for names and most values that are kept, in bytes.
pub(super) const LONGEST: usize = 64 * 1024;
/// The deepest nesting. Cinder's files have four levels.
const DEEPEST: u32 = 128;
const BUFFER: usize = 256 * 1024;

/// A stream of JSON.
pub(super) struct Json<R> {
    source: BufReader<R>,
    at: u64,
}

/// Whether the next member of an object or an array is the first.
pub(super) struct Members(bool);

impl<R: Read> Json<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source: BufReader::with_capacity(BUFFER, source), at: 0 }
    }

    /// Returns the position of the next byte.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// Returns an error at this position.
    pub(super) fn malformed(&self, what: impl std::fmt::Display) -> FormatError {
        FormatError::Malformed(format!("{what} at byte {}", self.at()))
    }

    /// Returns the buffered bytes; empty only at the end of the stream.
    fn buffered(&mut self) -> Result<&[u8], FormatError> {
        while let Err(error) = self.source.fill_buf() {
            if error.kind() != ErrorKind::Interrupted {
                return Err(FormatError::Io(error));
            }
        }
        Ok(self.source.buffer())
    }

    fn peek(&mut self) -> Result<Option<u8>, FormatError> {
        Ok(self.buffered()?.first().copied())
    }

    fn take(&mut self, bytes: usize) {
        self.source.consume(bytes);
        self.at = self.at.saturating_add(bytes as u64);
    }

    /// Reads the next byte.
    fn next(&mut self) -> Result<u8, FormatError> {
        let byte = self.peek()?.ok_or_else(|| self.malformed("the file ends early"))?;
        self.take(1);
        Ok(byte)
    }

    /// Skips white space and returns the next byte without reading it.
    fn token(&mut self) -> Result<u8, FormatError> {
        self.past_space()?.ok_or_else(|| self.malformed("the file ends early"))
    }

    fn past_space(&mut self) -> Result<Option<u8>, FormatError> {
        loop {
            let buffered = self.buffered()?;
            let all = buffered.len();
            let space = buffered.iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).count();
            let byte = buffered.get(space).copied();
            self.take(space);
            if byte.is_some() || all == 0 {
                return Ok(byte);
            }
        }
    }

    fn unexpected(&self, wanted: &str, found: u8) -> FormatError {
        self.malformed(format_args!("expected {wanted}, found `{}`", found.escape_ascii()))
    }

    /// Reads this byte, after white space. `what` describes it in an error.
    fn require(&mut self, byte: u8, what: &str) -> Result<(), FormatError> {
        match self.token()? {
            found if found == byte => self.take(1),
            found => return Err(self.unexpected(what, found)),
        }
        Ok(())
    }

    /// Enters an object. `what` describes it in an error.
    pub(super) fn object(&mut self, what: &str) -> Result<Members, FormatError> {
        self.require(b'{', what).map(|()| Members(true))
    }

    /// Enters an array. `what` describes it in an error.
    pub(super) fn array(&mut self, what: &str) -> Result<Members, FormatError> {
        self.require(b'[', what).map(|()| Members(true))
    }

    /// Moves to the next element of an array; false after the last one.
    pub(super) fn element(&mut self, members: &mut Members) -> Result<bool, FormatError> {
        self.separate(members, b']')
    }

    fn separate(&mut self, members: &mut Members, close: u8) -> Result<bool, FormatError> {
        let found = self.token()?;
        if found == close {
            self.take(1);
            return Ok(false);
        }
        if !std::mem::replace(&mut members.0, false) {
            if found != b',' {
                return Err(self.unexpected(if close == b']' { "`,` or `]`" } else { "`,` or `}`" }, found));
            }
            self.take(1);
            // Neither Python nor the standard allows a comma after the last element.
            let found = self.token()?;
            if found == close {
                return Err(self.unexpected("a value", found));
            }
        }
        Ok(true)
    }

    /// Reads the next key of an object; `None` after the last one.
    pub(super) fn key(&mut self, members: &mut Members) -> Result<Option<String>, FormatError> {
        if !self.separate(members, b'}')? {
            return Ok(None);
        }
        let key = self.text("a name")?;
        self.require(b':', "`:`")?;
        Ok(Some(key))
    }

    /// Reads the value of `key`, which may occur once, into `value`.
    pub(super) fn once<T>(
        &mut self,
        key: &str,
        value: &mut Option<T>,
        read: impl FnOnce(&mut Self) -> Result<T, FormatError>,
    ) -> Result<(), FormatError> {
        if value.is_some() {
            return Err(self.malformed(format_args!("duplicate key {key:?}")));
        }
        *value = Some(read(self)?);
        Ok(())
    }

    /// Reads a string of at most [`LONGEST`] bytes. `what` describes it in an error.
    pub(super) fn text(&mut self, what: &str) -> Result<String, FormatError> {
        self.bounded_text(what, LONGEST)
    }

    /// Reads a string of at most `longest` bytes, or null.
    pub(super) fn text_or_null(&mut self, what: &str, longest: usize) -> Result<Option<String>, FormatError> {
        if self.token()? == b'n' {
            return self.word(b"null").map(|()| None);
        }
        self.bounded_text(what, longest).map(Some)
    }

    fn bounded_text(&mut self, what: &str, longest: usize) -> Result<String, FormatError> {
        String::from_utf8(self.string(what, longest)?).map_err(|_| self.malformed(format_args!("{what} that is not UTF-8")))
    }

    fn string(&mut self, what: &str, longest: usize) -> Result<Vec<u8>, FormatError> {
        self.require(b'"', what)?;
        let mut text = Vec::new();
        loop {
            let buffered = self.buffered()?;
            let plain = buffered.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(buffered.len());
            if text.len().saturating_add(plain) > longest {
                return Err(self.malformed(format_args!("{what} longer than {longest} bytes")));
            }
            text.extend_from_slice(buffered.get(..plain).unwrap_or_default());
            self.take(plain);
            if plain > 0 {
                continue;
            }
            match self.next()? {
                b'"' => return Ok(text),
                b'\\' => {
                    let meant = self.escaped()?;
                    text.extend_from_slice(meant.encode_utf8(&mut [0; 4]).as_bytes());
                }
                found => return Err(self.unexpected("a character", found)),
            }
        }
    }

    /// Reads the rest of an escape, after the backslash.
    fn escaped(&mut self) -> Result<char, FormatError> {
        Ok(match self.next()? {
            byte @ (b'"' | b'\\' | b'/') => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let mut code = self.four_digits()?;
                if (0xd800..0xdc00).contains(&code) && self.next()? == b'\\' && self.next()? == b'u' {
                    let second = self.four_digits()?;
                    if (0xdc00..0xe000).contains(&second) {
                        code = 0x1_0000 + ((code - 0xd800) << 10) + (second - 0xdc00);
                    }
                }
                // A half without the other is not a character.
                char::from_u32(code).ok_or_else(|| self.malformed("half a surrogate pair"))?
            }
            found => return Err(self.unexpected("an escape", found)),
        })
    }

    fn four_digits(&mut self) -> Result<u32, FormatError> {
        let mut code = 0;
        for _ in 0..4 {
            let found = self.next()?;
            let Some(digit) = char::from(found).to_digit(16) else {
                return Err(self.unexpected("a hexadecimal digit", found));
            };
            code = code << 4 | digit;
        }
        Ok(code)
    }

    fn word(&mut self, word: &[u8]) -> Result<(), FormatError> {
        for wanted in word {
            let found = self.next()?;
            if found != *wanted {
                return Err(self.unexpected("a value", found));
            }
        }
        Ok(())
    }

    /// Reads an integer that is not negative. `what` describes it in an error.
    pub(super) fn number(&mut self, what: &str) -> Result<u64, FormatError> {
        let first = self.token()?;
        if first == b'-' {
            return Err(self.malformed(format_args!("{what} is negative")));
        }
        if !first.is_ascii_digit() {
            return Err(self.unexpected(what, first));
        }
        let mut value = 0_u64;
        while let Some(digit @ b'0'..=b'9') = self.peek()? {
            self.take(1);
            let longer = value.checked_mul(10).and_then(|tens| tens.checked_add(u64::from(digit - b'0')));
            value = longer.ok_or_else(|| self.malformed(format_args!("{what} is too large")))?;
            if first == b'0' {
                break;
            }
        }
        match self.peek()? {
            Some(b'.' | b'e' | b'E') => Err(self.malformed(format_args!("{what} is not an integer"))),
            Some(b'0'..=b'9') => Err(self.malformed(format_args!("{what} begins with a zero"))),
            _ => Ok(value),
        }
    }

    /// Reads 32 bytes as hexadecimal digits. `what` describes them in an error.
    pub(super) fn hash(&mut self, what: &str) -> Result<[u8; 32], FormatError> {
        self.token()?;
        // Fast path: nearly all are completely in the buffer.
        if let Some([b'"', digits @ .., b'"']) = self.buffered()?.get(..66)
            && let Some(hash) = digits.try_into().ok().and_then(unhex)
        {
            self.take(66);
            return Ok(hash);
        }
        let text = self.string(what, LONGEST)?;
        match text.as_slice().try_into().ok().and_then(unhex) {
            Some(hash) => Ok(hash),
            None => Err(self.malformed(format_args!("expected {what} of 64 hexadecimal digits, found {} bytes", text.len()))),
        }
    }

    /// Skips one value of any kind.
    pub(super) fn skip(&mut self) -> Result<(), FormatError> {
        // One bit for each level: whether it is an object.
        let mut levels = 0_u128;
        let mut depth = 0;
        'value: loop {
            let found = self.token()?;
            match found {
                b'{' | b'[' => {
                    self.take(1);
                    if depth == DEEPEST {
                        return Err(self.malformed(format_args!("values nested deeper than {DEEPEST} levels")));
                    }
                    depth += 1;
                    levels = levels << 1 | u128::from(found == b'{');
                }
                b'"' => self.skip_string("a value")?,
                b'-' | b'0'..=b'9' => self.skip_number()?,
                b't' => self.word(b"true")?,
                b'f' => self.word(b"false")?,
                b'n' => self.word(b"null")?,
                found => return Err(self.unexpected("a value", found)),
            }
            let mut members = Members(matches!(found, b'{' | b'['));
            // Move to the next value, and leave all levels that end here.
            while depth > 0 {
                let is_object = levels & 1 == 1;
                if self.separate(&mut members, if is_object { b'}' } else { b']' })? {
                    if is_object {
                        self.skip_string("a name")?;
                        self.require(b':', "`:`")?;
                    }
                    continue 'value;
                }
                depth -= 1;
                levels >>= 1;
                members = Members(false);
            }
            return Ok(());
        }
    }

    fn skip_string(&mut self, what: &str) -> Result<(), FormatError> {
        self.require(b'"', what)?;
        loop {
            let buffered = self.buffered()?;
            let plain = buffered.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20 | 0x80..)).unwrap_or(buffered.len());
            self.take(plain);
            if plain > 0 {
                continue;
            }
            match self.next()? {
                b'"' => return Ok(()),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    // Half of a surrogate pair is accepted: Python writes it, and this string is skipped.
                    b'u' => {
                        self.four_digits()?;
                    }
                    found => return Err(self.unexpected("an escape", found)),
                },
                first @ 0x80.. => self.rest_of_character(first)?,
                found => return Err(self.unexpected("a character", found)),
            }
        }
    }

    fn rest_of_character(&mut self, first: u8) -> Result<(), FormatError> {
        let mut bytes = [first, 0, 0, 0];
        let length = match first {
            0xc2..0xe0 => 2,
            0xe0..0xf0 => 3,
            0xf0..0xf5 => 4,
            _ => 1,
        };
        for byte in bytes.iter_mut().take(length).skip(1) {
            *byte = self.next()?;
        }
        let is_character = bytes.get(..length).is_some_and(|bytes| std::str::from_utf8(bytes).is_ok());
        if is_character { Ok(()) } else { Err(self.malformed("text that is not UTF-8")) }
    }

    fn skip_number(&mut self) -> Result<(), FormatError> {
        if self.peek()? == Some(b'-') {
            self.take(1);
        }
        if self.peek()? == Some(b'0') {
            self.take(1);
        } else {
            self.skip_digits()?;
        }
        if self.peek()? == Some(b'.') {
            self.take(1);
            self.skip_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek()? {
            self.take(1);
            if let Some(b'+' | b'-') = self.peek()? {
                self.take(1);
            }
            self.skip_digits()?;
        }
        Ok(())
    }

    /// Skips one digit and all that follow.
    fn skip_digits(&mut self) -> Result<(), FormatError> {
        match self.next()? {
            b'0'..=b'9' => {}
            found => return Err(self.unexpected("a digit", found)),
        }
        while let Some(b'0'..=b'9') = self.peek()? {
            self.take(1);
        }
        Ok(())
    }

    /// Checks that only white space is left.
    pub(super) fn end(&mut self) -> Result<(), FormatError> {
        match self.past_space()? {
            None => Ok(()),
            Some(found) => Err(self.unexpected("the end of the file", found)),
        }
    }
}

/// Decodes 64 hexadecimal digits of either case. It has no branch and no table, so that the compiler can vectorise it.
fn unhex(digits: &[u8; 64]) -> Option<[u8; 32]> {
    let is_digit = |byte: u8| byte.wrapping_sub(b'0') < 10;
    let is_letter = |byte: u8| (byte | 0x20).wrapping_sub(b'a') < 6;
    if !digits.iter().fold(true, |good, byte| good & (is_digit(*byte) | is_letter(*byte))) {
        return None;
    }
    // '0' is 0x30, 'A' 0x41 and 'a' 0x61: the letters are those with the bit of 64.
    let values = digits.map(|byte| (byte & 15) + (byte >> 6) * 9);
    let mut bytes = [0; 32];
    for (byte, [high, low]) in bytes.iter_mut().zip(values.as_chunks().0) {
        *byte = high << 4 | low;
    }
    Some(bytes)
}
