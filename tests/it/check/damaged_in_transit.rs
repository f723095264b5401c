//! Bytes that are damaged on the network and objects that are written during a check are not reported as damage.

use serde_json::Value;

use super::round_trips::{Harm, Speaks, site};
use super::{problems, result};

const SWIFT: &str = "cinder.backup.drivers.swift.SwiftBackupDriver";
const S3: &str = "cinder.backup.drivers.s3.S3BackupDriver";

#[test]
fn bytes_damaged_on_the_network_are_not_reported_as_damage() {
    for (speaks, service) in [(Speaks::S3, S3), (Speaks::Swift, SWIFT)] {
        let (site, server) = site(speaks, service, 1);
        let id = site.database.value("SELECT id FROM backups").unwrap();
        let check = |code: i32, level: &str| {
            let document = site.program.json(code, &["check", "--all", "--level", level]);
            result(&document, &id).clone()
        };
        assert_eq!(check(0, "deep")["verdict"], "intact");
        for (name, level) in [("-00003", "deep"), ("-00003", "restore"), ("_metadata", "quick"), ("_sha256file", "restore")] {
            *server.harm.lock().unwrap() = Some(Harm::Damaged(name));
            let found = check(4, level);
            assert_eq!(found["verdict"], "unverifiable", "{name} {level} {found:#}");
            let named = |problem: &Value| problem["code"] == "transfer-differs" && problem["object"].as_str().unwrap().ends_with(name);
            assert!(found["problems"].as_array().unwrap().iter().any(named), "{name} {level} {found:#}");
        }
        // The object is written again after the listing.
        *server.harm.lock().unwrap() = Some(Harm::Rewritten("-00003"));
        let found = check(4, "deep");
        assert_eq!((&found["verdict"], &found["busy"]), (&"unverifiable".into(), &true.into()), "{found:#}");
        assert_eq!(problems(&found), ["object-rewritten"], "{found:#}");
        *server.harm.lock().unwrap() = None;
        // Data that is damaged on the storage itself is damage.
        for (name, bytes) in server.objects.lock().unwrap().iter_mut().filter(|(name, _)| name.ends_with("-00003")) {
            println!("{name}");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
        }
        let found = check(9, "deep");
        assert_eq!(found["verdict"], "corrupt", "{found:#}");
    }
}
