//! SQLite URLs.

use std::path::PathBuf;

use super::url::Url;
use super::{ConfigError, Origin};

/// The file in a URL of the dialect `sqlite`.
pub(super) fn path(url: Url, origin: &Origin, warnings: &mut Vec<String>) -> Result<PathBuf, ConfigError> {
    let wrong = |problem: &str| Err(ConfigError::invalid(origin, problem));
    if url.driver.as_deref().is_some_and(|driver| driver.contains("cipher")) {
        return wrong("encrypted SQLite files are not supported");
    }
    if url.host.is_some() || url.user.is_some() || url.port.is_some() {
        return wrong("a SQLite URL must not name a host; use sqlite:///relative/path or sqlite:////absolute/path");
    }
    let path = url.database.unwrap_or_default();
    if path.is_empty() || path == ":memory:" {
        return wrong("the URL names a SQLite database in memory; use sqlite:////absolute/path");
    }
    if path.starts_with("file:") {
        return wrong("SQLite's own file: URIs are not supported; use sqlite:////absolute/path");
    }
    warnings.extend(url.warnings);
    for (name, _) in url.query {
        // Ignoring an option that makes SQLite read-only would be unsafe.
        if matches!(name.as_str(), "mode" | "immutable" | "nolock" | "vfs" | "uri" | "psow" | "cache") {
            return wrong(&format!("the option {name} of SQLite's file: URIs is not supported; scan and dry runs never write"));
        }
        if !matches!(name.as_str(), "timeout" | "check_same_thread" | "isolation_level") {
            warnings.push(format!("{origin}: the option {} has no meaning here and is ignored", name.escape_default()));
        }
    }
    Ok(PathBuf::from(path))
}
