//! The database that a document is about.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The database, as documents name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatabaseInfo {
    /// `sqlite`, `mysql`, `mariadb` or `postgresql`.
    pub engine: String,
    /// The server's version.
    pub version: String,
    /// The range of Cinder releases that its columns fit.
    pub release: String,
    /// The identity of the database, which a document is compared by.
    pub identity: String,
    /// Its address as a URL without a password; `None` in documents of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
}

/// For people: an identity alone means nothing to them.
impl fmt::Display for DatabaseInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.location {
            Some(location) => write!(f, "{location} ({})", self.identity),
            None => f.write_str(&self.identity),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_an_earlier_version_is_read_and_sealed_as_it_was() {
        let old = r#"{"engine":"sqlite","version":"3","release":"r","identity":"sqlite:/srv/cinder.db"}"#;
        let database: DatabaseInfo = serde_json::from_str(old).unwrap();
        assert_eq!(serde_json::to_string(&database).unwrap(), old);
        assert_eq!(database.to_string(), "sqlite:/srv/cinder.db");
        let location = Some("mysql://cinder@db1:3306/cinder".to_owned());
        assert_eq!(DatabaseInfo { location, ..database }.to_string(), "mysql://cinder@db1:3306/cinder (sqlite:/srv/cinder.db)");
    }
}
