//! The default path of the audit log. Pure: user and environment are parameters.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::AuditError;

/// The path of the log below a state directory.
const UNDER_STATE: &str = "cinder-backup-repair/audit.jsonl";

/// The default path: for root `/var/log/cinder-backup-repair/audit.jsonl`, for anyone else below `$XDG_STATE_HOME`, which is
/// `$HOME/.local/state` when it is not set or not absolute (XDG Base Directory Specification 0.8).
pub fn default_path(uid: u32, env: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, AuditError> {
    if uid == 0 {
        return Ok(Path::new("/var/log").join(UNDER_STATE));
    }
    let absolute = |name: &str| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join(UNDER_STATE))
        .ok_or(AuditError::NoDefaultPath)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn path(uid: u32, set: &[(&str, &str)]) -> Result<String, String> {
        default_path(uid, |name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into()))
            .map(|path| path.to_str().unwrap().to_owned())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn root_logs_to_var_log_whatever_the_environment_says() {
        let set = [("XDG_STATE_HOME", "/state"), ("HOME", "/root")];
        assert_eq!(path(0, &set).unwrap(), "/var/log/cinder-backup-repair/audit.jsonl");
    }

    #[test]
    fn others_log_into_their_state_directory() {
        assert_eq!(path(7, &[("XDG_STATE_HOME", "/s"), ("HOME", "/h")]).unwrap(), "/s/cinder-backup-repair/audit.jsonl");
        let below_home = "/h/.local/state/cinder-backup-repair/audit.jsonl";
        for state in ["", "relative/state"] {
            assert_eq!(path(7, &[("XDG_STATE_HOME", state), ("HOME", "/h")]).unwrap(), below_home);
        }
        assert_eq!(path(7, &[("HOME", "/h")]).unwrap(), below_home);
    }

    #[test]
    fn no_home_is_an_error_that_names_the_option() {
        for set in [&[][..], &[("HOME", "")], &[("HOME", "here")]] {
            assert!(path(7, set).unwrap_err().contains("--audit-log"));
        }
    }
}
