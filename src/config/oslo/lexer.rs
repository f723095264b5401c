//! Splits one file into options by the rules of oslo.config's parser.
//!
//! Other INI readers get these rules wrong: a comment is a whole line with `#` or `;` in column one; an indented line always continues
//! the value before it; the first `=` or `:` is the separator; one pair of quotes is removed from the first line of a value; and a blank
//! line or comment ends a value.

use std::path::Path;

use super::super::ConfigError;

/// One option before substitution.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    /// The section as in the file.
    pub section: String,
    /// The name as in the file.
    pub key: String,
    /// The value; continuation lines are joined with a newline.
    pub value: String,
    /// The line of its name, from 1.
    pub line: usize,
}

/// Whether Python counts the character as whitespace: Unicode's whitespace and the four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Splits a line at the first `=` or `:`, and removes the quotes of the value.
fn split(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(['=', ':'])?;
    Some((strip(key), unquote(strip(value))))
}

/// Removes one pair of equal quotes. A value that is only one quote becomes empty, as in oslo.config.
fn unquote(value: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(rest) = value.strip_prefix(quote) {
            return match rest.strip_suffix(quote) {
                Some(inner) => inner,
                None if rest.is_empty() => "",
                None => value,
            };
        }
    }
    value
}

/// Splits the text of a file into its options, in order.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Assignment>, ConfigError> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut options = Vec::new();
    let mut section: Option<&str> = None;
    let mut open: Option<Assignment> = None;
    for (index, line) in text.split('\n').enumerate() {
        let number = index + 1;
        // The message does not repeat the line, which may contain a password.
        let wrong =
            |problem: &str| Err(ConfigError::Syntax { path: path.display().to_string(), line: number, problem: problem.to_owned() });
        let line = line.trim_end_matches(is_space);
        if line.is_empty() {
            options.extend(open.take());
            continue;
        }
        if line.starts_with([' ', '\t']) {
            match &mut open {
                Some(option) => {
                    option.value.push('\n');
                    option.value.push_str(line.trim_start_matches(is_space));
                    continue;
                }
                None if line.trim_start().starts_with(['#', ';']) => {
                    return wrong("an indented comment must follow a value, as for Cinder; move it to column one");
                }
                None => return wrong("an indented line must follow a value; remove the indentation"),
            }
        }
        options.extend(open.take());
        if let Some(rest) = line.strip_prefix('[') {
            section = match rest.strip_suffix(']') {
                None => return wrong("a section must end with ] and nothing after it"),
                Some("") => return wrong("a section needs a name"),
                Some(name) => Some(name),
            };
        } else if !line.starts_with(['#', ';']) {
            if line.starts_with('\u{feff}') {
                return wrong("the file begins with a byte order mark, which Cinder also refuses; save it without one");
            }
            let Some((key, value)) = split(line) else {
                return wrong("neither a section nor an option: the line has no = or :");
            };
            if key.is_empty() {
                return wrong("an option needs a name before the = or :");
            }
            let Some(section) = section else {
                return wrong("an option must follow a [section]");
            };
            open = Some(Assignment { section: section.to_owned(), key: key.to_owned(), value: value.to_owned(), line: number });
        }
    }
    options.extend(open);
    Ok(options)
}
