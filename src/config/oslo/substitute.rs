//! Finds `$name`, `${name}` and `$group.name` in values, as oslo.config's template does.

/// A piece of a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ValuePiece {
    /// Literal text.
    Text(String),
    /// The name of an option, optionally with its group and a dot before it.
    Name(String),
}

fn begins_name(c: char) -> bool {
    c == '_' || c.is_ascii_alphabetic()
}

fn continues_name(c: char) -> bool {
    begins_name(c) || c == '.' || c.is_ascii_digit()
}

/// The name at the start of a text, and the rest.
fn take_name(text: &str) -> Option<(&str, &str)> {
    if !text.starts_with(begins_name) {
        return None;
    }
    let end = text.find(|c| !continues_name(c)).unwrap_or(text.len());
    text.split_at_checked(end)
}

/// Splits a value. `$$` and `\$` are a dollar sign; a `$` that does not begin a name stays.
pub(super) fn pieces(value: &str) -> Vec<ValuePiece> {
    let value = value.replace("\\$", "$$");
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut rest = value.as_str();
    while let Some((before, after)) = rest.split_once('$') {
        text.push_str(before);
        let braced = || {
            let (name, rest) = take_name(after.strip_prefix('{')?)?;
            Some((name, rest.strip_prefix('}')?))
        };
        if let Some(after) = after.strip_prefix('$') {
            text.push('$');
            rest = after;
        } else if let Some((name, after)) = take_name(after).or_else(braced) {
            if !text.is_empty() {
                pieces.push(ValuePiece::Text(std::mem::take(&mut text)));
            }
            pieces.push(ValuePiece::Name(name.to_owned()));
            rest = after;
        } else {
            text.push('$');
            rest = after;
        }
    }
    text.push_str(rest);
    if !text.is_empty() {
        pieces.push(ValuePiece::Text(text));
    }
    pieces
}
