//! Classifies the error messages of Ceph's commands.
//!
//! The exit status is not enough: `rbd` exits with 2 for a missing image, a missing pool and a missing keyring, and `rados`
//! with 1 for everything. Observed with Ceph 16.2; the texts are in its sources since version 10.

use crate::storage::{StorageError, StorageErrorKind};

/// How much of a message is shown, in characters.
const SHOWN: usize = 300;

/// Texts, their kind and a hint. The first match decides. The keyring is first, because its message contains the `(2)` of the
/// missing keyring file.
const MEANINGS: &[(&[&str], StorageErrorKind, &str)] = &[
    (
        &["unable to find a keyring", "no keyring found", "handle_auth_bad_method", "error reading keyring", "failed to load any keyring"],
        StorageErrorKind::Authentication,
        "check backup_ceph_user, its keyring and its key",
    ),
    (
        &[
            "unable to open config file",
            "error parsing config file",
            "problem parsing config file",
            "parse error in config file",
            "no monitors specified",
            "unable to get monitor info",
            "can't open ceph.conf",
        ],
        StorageErrorKind::Configuration,
        "check backup_ceph_conf",
    ),
    (
        &["unrecognised option", "unrecognized option", "unrecognized command"],
        StorageErrorKind::Configuration,
        "this release of Ceph is too old",
    ),
    (
        &["(1) operation not permitted", "(13) permission denied"],
        StorageErrorKind::Permission,
        "the capabilities mon 'profile rbd-read-only' and osd 'profile rbd-read-only pool=POOL' suffice",
    ),
    (
        &["authenticate timed out", "couldn't connect to the cluster", "failed to fetch mon config"],
        StorageErrorKind::Transient,
        "the monitors do not respond",
    ),
    (
        &[
            "timed out",
            "(110)",
            "(108)",
            "(107)",
            "(111)",
            "(113)",
            "(104)",
            "(11) resource temporarily",
            "(4) interrupted",
            "(28) no space",
        ],
        StorageErrorKind::Transient,
        "",
    ),
    (&["(5) input/output error"], StorageErrorKind::Media, ""),
];

/// The message about a missing pool.
const NO_POOL: &str = "error opening pool";
/// Messages about a missing image, snapshot or object.
const NO_OBJECT: &[&str] = &[
    "error opening image",
    "error setting snapshot context",
    "error stat-ing",
    "error getting",
    "error listing snap shots",
    "failed to open image",
    "snap_set",
];

/// Returns the error of a failed command, from its messages.
pub(super) fn explain(program: &str, about: &str, how: &str, by_signal: bool, messages: &str) -> StorageError {
    let (kind, hint) = kind(messages, by_signal);
    let line = last_line(messages);
    let mut text = format!("{program} failed on {about} with {how}");
    for more in [line.as_str(), hint] {
        if !more.is_empty() {
            text.push_str(": ");
            text.push_str(more);
        }
    }
    StorageError::new(kind, text)
}

fn kind(messages: &str, by_signal: bool) -> (StorageErrorKind, &'static str) {
    let lower = messages.to_lowercase();
    if let Some((_, kind, hint)) = MEANINGS.iter().find(|(texts, ..)| texts.iter().any(|text| lower.contains(text))) {
        return (*kind, hint);
    }
    // The last line decides, because monitors and keyrings are accessed before any image.
    let kind = match lower.lines().rev().find(|line| line.contains("(2) no such file")) {
        Some(line) if line.contains(NO_POOL) => StorageErrorKind::NoContainer,
        Some(line) if NO_OBJECT.iter().any(|text| line.contains(text)) => StorageErrorKind::NoObject,
        // Killed by something else, for example because the machine ran out of memory.
        _ if by_signal => StorageErrorKind::Transient,
        _ => StorageErrorKind::Protocol,
    };
    (kind, "")
}

/// Returns the last line that is not a log entry, made safe and short.
fn last_line(messages: &str) -> String {
    let lines = || messages.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty());
    let line = lines().rfind(|line| !is_log(line)).or_else(|| lines().next_back()).unwrap_or_default();
    let clean: String = line.chars().map(|char| if char.is_control() { ' ' } else { char }).take(SHOWN).collect();
    clean.trim_start_matches("rbd: ").to_owned()
}

/// Whether a line begins with a time, as in `2026-11-22T22:22:47.012+0000 7f93 -1 …`.
fn is_log(line: &str) -> bool {
    let mut chars = line.chars();
    chars.by_ref().take(4).filter(char::is_ascii_digit).count() == 4 && chars.next() == Some('-')
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
mod tests {
    use super::*;
    use StorageErrorKind as Kind;

    #[test]
    fn messages_of_a_real_cluster_are_classified() {
        let keyring = "2026-11-22T22:22:16.928+0000 7f0022c8d380 -1 auth: unable to find a keyring on /c/client.nobody.keyring: (2) No such file or directory\n\
                       \n2026-11-22T22:22:16.932+0000 7f0022c8d380 -1 AuthRegistry(0x7ffe) no keyring found at /c/client.nobody.keyring, disabling cephx\n\
                       \nrbd: couldn't connect to the cluster!\n";
        let bad_key = "2026-11-22T22:22:47.264+0000 7f3d -1 monclient(hunting): handle_auth_bad_method server allowed_methods [2] but i only support [2]\n\
                       \nrbd: couldn't connect to the cluster!\n";
        let denied = "2026-11-22T22:22:47.012+0000 7f93 -1 librbd::image::OpenRequest: failed to stat v2 image header: (1) Operation not permitted\n\
                      \nrbd: error opening image img: (1) Operation not permitted\n";
        for (messages, kind, shown) in [
            ("rbd: error opening image nope: (2) No such file or directory\n", Kind::NoObject, "error opening image nope"),
            ("rbd: error opening pool 'nope': (2) No such file or directory\n", Kind::NoContainer, "error opening pool 'nope'"),
            ("error opening pool nope: (2) No such file or directory\n", Kind::NoContainer, "error opening pool nope"),
            ("error setting snapshot context: (2) No such file or directory\n", Kind::NoObject, "snapshot context"),
            (" error stat-ing backups/backup.y.meta: (2) No such file or directory\n", Kind::NoObject, "stat-ing"),
            ("error getting backups/backup.y.meta: (2) No such file or directory\n", Kind::NoObject, "getting"),
            ("error listing snap shots backups/o.1: (2) No such file or directory\n", Kind::NoObject, "snap shots"),
            (keyring, Kind::Authentication, "couldn't connect"),
            (bad_key, Kind::Authentication, "backup_ceph_user"),
            (
                "2026-11-22T22:22:47.440+0000 7ff7 -1 monclient(hunting): handle_auth_bad_method server\n\nfailed to fetch mon config (--no-mon-config to skip)\n",
                Kind::Authentication,
                "its key",
            ),
            (denied, Kind::Permission, "profile rbd-read-only"),
            ("rbd: error opening image img: (13) Permission denied\n", Kind::Permission, "(13)"),
            ("global_init: unable to open config file from search list /nope/ceph.conf\n", Kind::Configuration, "backup_ceph_conf"),
            (
                "2026-11-22T22:22:58.580+0000 7ffa  0 monclient(hunting): authenticate timed out after 3\n\nrbd: couldn't connect to the cluster!\n",
                Kind::Transient,
                "monitors",
            ),
            ("failed to fetch mon config (--no-mon-config to skip)\n", Kind::Transient, "monitors"),
            ("rbd: error opening image x: (110) Connection timed out\n", Kind::Transient, "(110)"),
            ("Exporting image: 10% complete...\rrbd: export-diff error: (5) Input/output error\n", Kind::Media, "export-diff error"),
            ("rbd: unrecognised option '--whole-object'\n", Kind::Configuration, "too old"),
            ("something else\n", Kind::Protocol, "something else"),
            ("", Kind::Protocol, "status 1"),
        ] {
            let error = explain("rbd", "image x in pool p", "status 1", false, messages);
            assert_eq!(error.kind, kind, "{messages}");
            assert!(error.text.contains(shown), "{} should hold {shown}", error.text);
            assert!(error.text.starts_with("rbd failed on image x in pool p with status 1"), "{error}");
        }
    }

    #[test]
    fn a_command_killed_by_a_signal_is_transient() {
        assert_eq!(explain("rbd", "x", "signal 9", true, "").kind, Kind::Transient);
    }

    #[test]
    fn messages_are_made_safe_and_short() {
        let error = explain("rbd", "x", "status 1", false, &format!("\u{1b}[31m{}", "a".repeat(5000)));
        assert!(!error.text.contains('\u{1b}') && error.text.len() < 500, "{error}");
    }
}
