//! Who runs the program, for the audit log.

use std::fs;

use crate::audit::record::Who;

/// Everything that the system says about the user of this process.
pub fn current(database_user: Option<String>) -> Who {
    let uid = rustix::process::geteuid().as_raw();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let login_uid = fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse::<u32>().ok());
    Who {
        uid,
        user: user_name(&passwd, uid).or_else(|| std::env::var("USER").ok()),
        // 4294967295 means that nobody logged in: a service, cron.
        login_user: login_uid.filter(|uid| *uid != u32::MAX).map(|uid| user_name(&passwd, uid).unwrap_or_else(|| uid.to_string())),
        sudo_user: std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty()),
        database_user,
        host: host(),
        pid: std::process::id(),
    }
}

/// This host's name.
pub fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// This host's clock.
pub fn now() -> String {
    crate::domain::time::stamp(jiff::Timestamp::now())
}

fn user_name(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let found: u32 = fields.nth(1)?.parse().ok()?;
        (found == uid).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_from_the_third_field() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nbroken\ndba:x:1000:0::/home/dba:/bin/sh\n";
        assert_eq!(user_name(passwd, 1000).as_deref(), Some("dba"));
        assert_eq!(user_name(passwd, 1), None);
    }
}
