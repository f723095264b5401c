//! The memory of a check of many backups.

use std::fs;
use std::path::Path;
use std::process::Command;

use cinder_backup_repair::db::Engine;
use cinder_backup_repair::format::generate::{BackupSpec, write_from};
use cinder_backup_repair::format::metadata::Compression;

use super::{POSIX, prefix_of};
use crate::database::Database;
use crate::program::{Answer, Program, answer};
use crate::rows;
use crate::schemas::{Columns, fresh};

const BLOCK: usize = 32_768;
/// The bytes of each backup's only object.
const CHUNK: usize = 2 * BLOCK;

fn id(number: usize) -> String {
    format!("{number:08x}-0000-4000-8000-000000000000")
}

/// Makes backups with one object each, in chains of a full backup and an increment.
fn make(database: &Database, store: &Path, numbers: std::ops::Range<usize>) {
    let volume = id(0);
    let mut rows = Vec::new();
    for number in numbers {
        let (own, parent) = (id(number), (number % 2 == 1).then(|| id(number - 1)));
        let container = format!("{}/{}/{own}", &own[4..6], &own[6..8]);
        let dir = store.join(&container);
        fs::create_dir_all(&dir).unwrap();
        let spec = BackupSpec {
            prefix: &prefix_of(&own, &volume),
            backup_id: &id(number),
            volume_id: &volume,
            parent_id: parent.as_deref(),
            created_at: "2026-01-01 02:00:00+00:00",
            compression: Compression::None,
            chunk_size: CHUNK,
            block_size: BLOCK,
        };
        let digests = [[0; 32]; 2];
        let mut chunk = |_| Ok(Some(vec![u8::try_from(number % 251).unwrap(); CHUNK]));
        write_from(&spec, CHUNK as u64, &mut chunk, parent.is_some().then_some(&digests[..]), &mut |name, bytes| {
            fs::write(dir.join(name), bytes)
        })
        .unwrap();
        let row = rows::backup().set("id", own).status("available").service(POSIX).volume_id(&volume).container(container);
        let row = row.service_metadata(spec.prefix).set("size", 1).set("object_count", 1).age(7_200).set("parent_id", parent);
        rows.push(row);
    }
    database.insert(&rows);
}

/// With about 100 bytes for each backup, a million would fit into the aim of 256 MiB if the rest does not grow.
#[test]
fn memory_does_not_grow_with_the_number_of_backups() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let program = Program::on(database.url());
    let store = program.path("store");
    let within = |kib: usize, level: &str, format: &str| -> Answer {
        let direct = program.command(&[
            "check",
            "--all",
            "-f",
            format,
            "--storage-path",
            "store",
            "--level",
            level,
            "--memory",
            "32M",
            "--settle",
            "0s",
        ]);
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("ulimit -d {kib}; exec \"$0\" \"$@\"")]).arg(direct.get_program()).args(direct.get_args());
        shell.env_clear().envs(direct.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("PATH", "/usr/bin:/bin");
        answer(shell.current_dir(program.path(".")))
    };
    let mut made = 0;
    for number in [4_000, 12_000] {
        make(&database, &store, made..number);
        made = number;
        for (level, format, result) in [("quick", "jsonl", "{\"result\":"), ("deep", "jsonl", "{\"result\":"), ("quick", "table", "| 0000")]
        {
            let checked = within(112 * 1_024, level, format);
            // Such small backups do not have all bytes of a volume.
            assert_eq!(checked.code, Some(9), "{level} {number} {}", checked.stderr);
            let last = checked.stdout.lines().last().unwrap();
            assert!(format == "table" || (last.contains("\"unverifiable\":0,") && last.contains("\"left\":0")), "{last}");
            assert_eq!(checked.stdout.lines().filter(|line| line.starts_with(result)).count(), number);
        }
    }
    // The limit is a real one.
    assert_ne!(within(2 * 1_024, "quick", "jsonl").code, Some(0));
}
