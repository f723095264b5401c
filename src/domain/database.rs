//! Which database a document is about.

use serde::{Deserialize, Serialize};

/// The database, as every document names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseInfo {
    /// `sqlite`, `mysql`, `mariadb` or `postgresql`.
    pub engine: String,
    /// The server's version.
    pub version: String,
    /// The range of Cinder releases that its columns fit.
    pub release: String,
    /// Which database it is.
    pub identity: String,
}
