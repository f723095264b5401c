//! The person who runs the program, for the audit log.

use std::fs;

use crate::audit::record::Who;

/// What the system knows about the user of this process.
pub fn current(database_user: Option<String>) -> Who {
    let uid = rustix::process::geteuid().as_raw();
    let login_uid = fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse::<u32>().ok());
    Who {
        uid,
        user: user_name(uid).or_else(|| std::env::var("USER").ok()),
        // 4294967295 means that nobody logged in: a service, cron.
        login_user: login_uid.filter(|uid| *uid != u32::MAX).map(|uid| user_name(uid).unwrap_or_else(|| uid.to_string())),
        sudo_user: std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty()),
        database_user,
        host: host(),
        pid: std::process::id(),
    }
}

pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

pub fn now() -> String {
    crate::domain::time::stamp(jiff::Timestamp::now())
}

/// Seconds since 1970.
pub fn seconds_now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// The user's name as the system's name service knows it, in LDAP or SSSD too.
fn user_name(uid: u32) -> Option<String> {
    uzers::get_user_by_uid(uid).map(|user| user.name().to_string_lossy().into_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_name_is_the_one_that_the_system_knows() {
        let id = Command::new("id").arg("-un").output().unwrap();
        assert_eq!(current(None).user.as_deref(), Some(String::from_utf8(id.stdout).unwrap().trim_end()));
        assert_eq!(user_name(u32::MAX - 7), None);
    }
}
