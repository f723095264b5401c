//! One file by the rules of oslo.config's parser: lines to options.
//!
//! The rules that other INI readers get wrong: a comment begins a line (`#` or `;` in column one) and never ends one,
//! an indented line continues the value before it whatever it looks like, `=` or `:` separates, whichever comes first,
//! one pair of quotes is taken off the value's first line, and a blank line or comment ends a value.

use std::path::Path;

use super::super::ConfigError;

/// One option as it is written, before substitution.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Assignment {
    /// The section, as it is written.
    pub section: String,
    /// The name, as it is written.
    pub key: String,
    /// The value; continuation lines are joined with a newline.
    pub value: String,
    /// The line of its name, from 1.
    pub line: usize,
}

/// What Python calls whitespace: Unicode's, and the four separators of ASCII.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// Splits a line at the first `=` or `:`, and takes the quotes off the value.
fn split(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(['=', ':'])?;
    Some((strip(key), unquote(strip(value))))
}

/// Takes off one pair of equal quotes. A value that is a single quote becomes empty, as in oslo.config.
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

/// Reads a whole file's text into its options, in the order of the file.
pub(super) fn parse(path: &Path, text: &str) -> Result<Vec<Assignment>, ConfigError> {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut options = Vec::new();
    let mut section: Option<&str> = None;
    let mut open: Option<Assignment> = None;
    for (index, line) in text.split('\n').enumerate() {
        let number = index + 1;
        // The line itself stays out of the message: it may hold a password.
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
                    return wrong("an indented comment where no value can continue, which Cinder refuses too; move it to column one");
                }
                None => return wrong("an indented line with no value before it to continue; remove the indentation"),
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
                return wrong("begins with a byte order mark, which Cinder refuses too; save the file without it");
            }
            let Some((key, value)) = split(line) else {
                return wrong("neither a section nor an option: there is no = or : in it");
            };
            if key.is_empty() {
                return wrong("an option needs a name before the = or :");
            }
            let Some(section) = section else {
                return wrong("an option before the first [section]");
            };
            open = Some(Assignment { section: section.to_owned(), key: key.to_owned(), value: value.to_owned(), line: number });
        }
    }
    options.extend(open);
    Ok(options)
}
