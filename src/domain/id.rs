//! How ids are compared.
//!
//! Cinder makes ids in lower case, but its API stores the id of a volume or snapshot in the backup's row as a client sent it. MySQL and
//! MariaDB ignore case and find the volume. Two spellings are one row: otherwise a volume would be set free while a backup is being made
//! of it.

use std::borrow::Cow;

use uuid::Uuid;

/// The key for a look-up by id.
pub fn key(id: &str) -> Cow<'_, str> {
    if id.bytes().any(|byte| byte.is_ascii_uppercase()) { Cow::Owned(id.to_ascii_lowercase()) } else { Cow::Borrowed(id) }
}

/// Whether two ids name the same row.
pub fn same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

/// Whether an id is a UUID as Cinder writes it: in lower case, with hyphens.
pub fn is_uuid(id: &str) -> bool {
    Uuid::try_parse(id).is_ok_and(|uuid| uuid.hyphenated().to_string() == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_in_capitals_is_the_same_id() {
        let typed = "6D1F0C92-84BE-4C35-9A77-2F50E8B1D643";
        assert_eq!(key(typed), "6d1f0c92-84be-4c35-9a77-2f50e8b1d643");
        assert!(same(typed, &key(typed)) && !same(typed, "6D1F0C92"));
        assert!(matches!(key("6d1f"), Cow::Borrowed("6d1f")));
    }
}
