//! SQLite URLs.

use std::path::PathBuf;

use super::url::Url;
use super::{ConfigError, Origin};

/// The file that a URL of the dialect `sqlite` names.
pub(super) fn path(url: Url, origin: &Origin, warnings: &mut Vec<String>) -> Result<PathBuf, ConfigError> {
    let wrong = |problem: &str| Err(ConfigError::invalid(origin, problem));
    if url.driver.as_deref().is_some_and(|driver| driver.contains("cipher")) {
        return wrong("encrypted SQLite files are not supported");
    }
    if url.host.is_some() || url.user.is_some() || url.port.is_some() {
        return wrong("a SQLite URL names no host; write sqlite:///relative/path or sqlite:////absolute/path");
    }
    let path = url.database.unwrap_or_default();
    if path.is_empty() || path == ":memory:" {
        return wrong("the URL names a SQLite database in memory; write sqlite:////absolute/path");
    }
    if path.starts_with("file:") {
        return wrong("SQLite's own file: URIs are not supported; write sqlite:////absolute/path");
    }
    warnings.extend(url.warnings);
    for (name, _) in url.query {
        // What would hold the file read-only, were it understood, must not be passed over.
        if matches!(name.as_str(), "mode" | "immutable" | "nolock" | "vfs" | "uri" | "psow" | "cache") {
            return wrong(&format!("the option {name} of SQLite's file: URIs is not supported; scan and dry runs only read in any case"));
        }
        if !matches!(name.as_str(), "timeout" | "check_same_thread" | "isolation_level") {
            warnings.push(format!("{origin}: the option {} has no meaning here and is passed over", name.escape_default()));
        }
    }
    Ok(PathBuf::from(path))
}
