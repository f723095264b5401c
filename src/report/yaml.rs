//! A JSON document as YAML that readers of YAML 1.1 and 1.2 read as the same document.
//!
//! General emitters write a time, `on` or `0x10` without quotes, and Ansible's reader makes a date, a boolean or a number of it. They
//! also keep invisible characters. Here a string is written without quotes only if every reader takes it for a string; otherwise
//! it is in double quotes with escapes. May use `report::safe` only.

use serde_json::Value;

use super::safe::is_hostile;

/// The document as block-style YAML that ends with a line feed.
pub fn to_string(document: &Value) -> String {
    let mut text = String::new();
    node(&mut text, document, 0, false);
    text
}

/// Writes a value and a line feed. `begun` means that the line already has a key, or the dash of a sequence.
fn node(text: &mut String, value: &Value, depth: usize, mut begun: bool) {
    let mut indent = |text: &mut String| {
        if !std::mem::take(&mut begun) {
            text.extend(std::iter::repeat_n("  ", depth));
        }
    };
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (key, member) in members {
                indent(text);
                string(text, key);
                text.push(':');
                let is_block = is_block(member);
                text.push(if is_block { '\n' } else { ' ' });
                // A sequence below a key is not indented, as in the OpenStack clients.
                node(text, member, depth + usize::from(member.is_object()), !is_block);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                indent(text);
                text.push_str("- ");
                node(text, item, depth + 1, true);
            }
        }
        Value::String(content) => {
            string(text, content);
            text.push('\n');
        }
        // `null`, `true`, numbers, `[]` and `{}` are written as in JSON.
        other => text.push_str(&format!("{other}\n")),
    }
}

/// Whether a value is written on lines of its own.
fn is_block(value: &Value) -> bool {
    match value {
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        _ => false,
    }
}

fn string(text: &mut String, content: &str) {
    if is_plain(content) {
        text.push_str(content);
        return;
    }
    text.push('"');
    for c in content.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            // YAML streams must not contain noncharacters.
            _ if !is_hostile(c) && u32::from(c) & 0xfffe != 0xfffe => text.push(c),
            _ if c <= '\u{ff}' => text.push_str(&format!("\\x{:02x}", u32::from(c))),
            _ if c <= '\u{ffff}' => text.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => text.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    text.push('"');
}

/// Whether the text is letters, digits and a few signs, begins with a letter, and is not a boolean or null to any reader.
fn is_plain(content: &str) -> bool {
    const RESERVED: &[&str] = &["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, ' ' | '_' | '-' | '.' | '/' | '@' | '+');
    content.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && !content.ends_with(' ')
        && content.chars().all(inner)
        && !RESERVED.contains(&content.to_ascii_lowercase().as_str())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn blocks_are_laid_out_like_the_openstack_clients() {
        let document = json!({
            "schema": "cinder-backup-repair/scan",
            "findings": [{"id": "0f", "host": null, "evidence": [{"code": "service-down"}, {}], "list": [[1, -2], []]}],
            "empty": {}, "none": [], "summary": {"stuck": 3}
        });
        insta::assert_snapshot!(to_string(&document), @r#"
        schema: cinder-backup-repair/scan
        findings:
        - id: "0f"
          host: null
          evidence:
          - code: service-down
          - {}
          list:
          - - 1
            - -2
          - []
        empty: {}
        none: []
        summary:
          stuck: 3
        "#);
        assert_eq!(to_string(&json!("x")), "x\n");
        assert_eq!(to_string(&json!([])), "[]\n");
    }

    #[test]
    fn text_that_a_reader_may_take_for_another_type_is_quoted() {
        for text in
            ["", "no", "On", "NULL", "~", "1e5", "0x10", "12:30:45", "2026-11-22T18:46:33Z", "- a", "a: b", "a #b", "a ", "é", "=", "*a"]
        {
            assert!(to_string(&json!(text)).starts_with('"'), "{text}");
        }
        assert_eq!(to_string(&json!("\u{1b}\u{202e}\u{e0041}\n\"\\")), "\"\\x1b\\u202e\\U000e0041\\n\\\"\\\\\"\n");
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "(?s).{0,12}|[a-z0-9:. -]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("(?s).{0,6}", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_reader_gets_the_same_document(document in any_value()) {
            let text = to_string(&document);
            let read: Value = serde_norway::from_str(&text).unwrap();
            prop_assert_eq!(read, document, "{}", text);
        }
    }
}
