//! The program compared with Cinder itself: `repair` and a start of cinder-backup on the same population.
//!
//! Both work on copies of one database. Cinder cleans up for every host, including the retired one, and `repair` has
//! `--assume-dead all`. Every difference, in any column except `updated_at`, must be deliberate: each differing cell matches exactly one
//! of [`RULES`], and each rule has a case.

use std::collections::{BTreeMap, BTreeSet};

use cinder_backup_repair::db::Engine;
use serde_json::Value;

use crate::cinder;
use crate::database::{Cells, Change, Database, RowKey, changes};
use crate::population::{self, DOWN, GONE, UP};
use crate::program::Program;
use crate::schemas::{Columns, fresh};

/// The seeds of the populations; more of them find nothing new.
const SEEDS: [u64; 3] = [1, 2, 3];
/// The number of backups of each.
const BACKUPS: usize = 200;
/// Cinder considers neither age nor heartbeat, so the program must not either.
const LIKE_CINDER: [&str; 6] = ["--service-down-time", "2s", "--older-than", "0s", "--assume-dead", "all"];

type Rows = BTreeMap<RowKey, Cells>;

/// One population before, after Cinder's clean-up, and after our repair.
struct World {
    seed: u64,
    before: Rows,
    cinder: Rows,
    ours: Rows,
}

impl World {
    /// The live rows of a table, as they were before.
    fn live<'w>(&'w self, table: &'w str) -> impl Iterator<Item = (&'w str, &'w Cells)> {
        self.before
            .iter()
            .filter(move |((of, _), cells)| of == table && get(cells, "deleted") == Some("0"))
            .map(|((_, id), cells)| (id.as_str(), cells))
    }

    fn backups(&self) -> impl Iterator<Item = &Cells> {
        self.live("backups").map(|(_, cells)| cells)
    }

    /// A backup's status after Cinder's clean-up.
    fn by_cinder(&self, backup: &Cells) -> Option<&str> {
        let key = ("backups".to_owned(), get(backup, "id").unwrap().to_owned());
        get(&self.cinder[&key], "status")
    }
}

fn get<'c>(cells: &'c Cells, column: &str) -> Option<&'c str> {
    cells.get(column)?.as_deref()
}

/// Whether the backup has a host, so that a start of cinder-backup reads it.
fn scheduled(backup: &Cells) -> bool {
    get(backup, "host").is_some_and(|host| !host.is_empty())
}

/// Whether a backup is being made from a volume or restored to it.
fn works_on(backup: &Cells, volume: &str) -> bool {
    match get(backup, "status") {
        Some("creating") => get(backup, "volume_id") == Some(volume),
        Some("restoring") => get(backup, "restore_volume_id") == Some(volume),
        _ => false,
    }
}

/// Whether Cinder deletes the backup: it continues every delete, except those that need a user's key or another driver.
fn is_deleted_by_cinder(backup: &Cells) -> bool {
    scheduled(backup)
        && get(backup, "status") == Some("deleting")
        && get(backup, "encryption_key_id").is_none()
        && get(backup, "service").is_none_or(|service| service.ends_with("SwiftBackupDriver"))
}

/// One cell that differs between the two results.
struct Cell<'w> {
    world: &'w World,
    table: &'w str,
    id: &'w str,
    column: &'w str,
    row: &'w Cells,
    before: Option<&'w str>,
    cinder: Option<&'w str>,
    ours: Option<&'w str>,
}

impl Cell<'_> {
    fn is(&self, table: &str, column: &str) -> bool {
        self.table == table && self.column == column
    }

    /// Whether Cinder left the cell unchanged.
    fn missed_by_cinder(&self) -> bool {
        self.cinder == self.before
    }

    /// Whether a start of cinder-backup reads this volume because of a backup of its host.
    fn volume_seen_by_cinder(&self) -> bool {
        self.world.backups().any(|backup| scheduled(backup) && works_on(backup, self.id))
    }

    /// Whether a backup without a host works on this volume.
    fn volume_of_unscheduled(&self) -> bool {
        self.world.backups().any(|backup| !scheduled(backup) && works_on(backup, self.id))
    }

    fn is_temporary_volume(&self) -> bool {
        self.world.backups().any(|backup| get(backup, "temp_volume_id") == Some(self.id))
    }

    /// Whether a backup without a host is being made from this snapshot.
    fn snapshot_of_unscheduled(&self) -> bool {
        let names = |backup: &&Cells| get(backup, "snapshot_id") == Some(self.id) && get(backup, "status") == Some("creating");
        self.world.backups().filter(names).any(|backup| !scheduled(backup))
    }

    /// Attachments of the volume that are not `detached`.
    fn live_attachments(&self) -> impl Iterator<Item = &Cells> {
        let of_volume = |cells: &&Cells| get(cells, "volume_id") == Some(self.id) && get(cells, "attach_status") != Some("detached");
        self.world.live("volume_attachment").map(|(_, cells)| cells).filter(of_volume)
    }

    /// Whether our repair freed a volume correctly: to `previous_status` if that is valid, and to `in-use` if it is attached to a
    /// server. An attachment to a host of cinder-backup may belong to the backup itself.
    fn set_free(&self) -> bool {
        let previous = get(self.row, "previous_status");
        let by_server = self.live_attachments().any(|attachment| get(attachment, "instance_uuid").is_some());
        let by_any = self.live_attachments().next().is_some();
        match self.ours {
            Some("in-use") => previous == Some("in-use") || by_any,
            Some("available") => previous != Some("in-use") && !by_server,
            _ => false,
        }
    }

    /// Whether our repair ended a volume's operation correctly.
    fn released(&self) -> bool {
        match self.before {
            Some("backing-up") => self.set_free(),
            Some("restoring-backup") => self.ours == Some("error_restoring"),
            _ => false,
        }
    }
}

/// A deliberate difference.
struct Rule {
    name: &'static str,
    reason: &'static str,
    covers: fn(&Cell<'_>) -> bool,
}

const RULES: &[Rule] = &[
    Rule {
        name: "a backup without a host",
        reason: "a start of cinder-backup reads only its own host's rows; one that was never scheduled stays pending for ever",
        covers: |cell| {
            let to = match cell.before {
                Some("creating" | "deleting") => "error",
                Some("restoring") => "available",
                _ => return false,
            };
            cell.is("backups", "status") && !scheduled(cell.row) && cell.missed_by_cinder() && cell.ours == Some(to)
        },
    },
    Rule {
        name: "a backup whose status is NULL",
        reason: "Cinder ignores such rows; they can be neither used nor deleted",
        covers: |cell| cell.is("backups", "status") && cell.before.is_none() && cell.cinder.is_none() && cell.ours == Some("error"),
    },
    Rule {
        name: "a delete that was begun",
        reason: "Cinder deletes the data and the row; this program never deletes, and `error` lets the user delete again",
        covers: |cell| {
            is_deleted_by_cinder(cell.row)
                && match (cell.table, cell.column) {
                    ("backups", "status") => (cell.cinder, cell.ours) == (Some("deleted"), Some("error")),
                    ("backups", "deleted") => (cell.cinder, cell.ours) == (Some("1"), Some("0")),
                    ("backups", "deleted_at") => cell.cinder.is_some() && cell.ours.is_none(),
                    _ => false,
                }
        },
    },
    Rule {
        name: "a delete of an encrypted volume's backup",
        reason: "Cinder sets error_deleting, in which its API refuses another delete; it accepts one in `error`",
        covers: |cell| {
            cell.is("backups", "status")
                && scheduled(cell.row)
                && cell.before == Some("deleting")
                && get(cell.row, "encryption_key_id").is_some()
                && (cell.cinder, cell.ours) == (Some("error_deleting"), Some("error"))
        },
    },
    Rule {
        name: "the reason of a failure",
        reason: "it names this program, the status before, and that the data was not checked",
        covers: |cell| {
            let was = get(cell.row, "status").unwrap_or("NULL");
            let after = &cell.world.ours[&(cell.table.to_owned(), cell.id.to_owned())];
            cell.is("backups", "fail_reason")
                && get(after, "status") == Some("error")
                && cell.ours.is_some_and(|text| text.starts_with(&format!("cinder-backup-repair: left in {was}: ")))
        },
    },
    Rule {
        name: "what a failed backup leaves behind",
        reason: "Cinder has temporary volumes and snapshots deleted and removes their ids; this program prints the commands",
        covers: |cell| {
            let failed = |backup: &Cells| scheduled(backup) && cell.world.by_cinder(backup) == Some("error");
            match (cell.table, cell.column) {
                ("backups", "temp_volume_id" | "temp_snapshot_id") => failed(cell.row) && cell.cinder.is_none() && cell.ours == cell.before,
                ("snapshots", "status") => {
                    let names = |backup: &&Cells| get(backup, "temp_snapshot_id") == Some(cell.id);
                    cell.cinder == Some("deleting") && cell.ours == cell.before && cell.world.backups().filter(names).any(failed)
                }
                _ => false,
            }
        },
    },
    Rule {
        name: "the counter of a deleted backup's parent",
        reason: "this program deletes no increment, so the counter stays",
        covers: |cell| {
            let gone = cell.world.backups().filter(|backup| get(backup, "parent_id") == Some(cell.id) && is_deleted_by_cinder(backup));
            let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
            let left = number(cell.before) - i64::try_from(gone.count()).unwrap();
            cell.is("backups", "num_dependent_backups")
                && cell.ours == cell.before
                && left < number(cell.before)
                && number(cell.cinder) == left.max(0)
        },
    },
    Rule {
        name: "the quota of what was deleted",
        reason: "this program deletes nothing, so the quota stays",
        covers: |cell| cell.is("quota_usages", "in_use") && cell.ours == cell.before && cell.cinder != cell.before,
    },
    Rule {
        name: "a previous_status that is not valid for a free volume",
        reason: "Cinder copies it unchecked: such volumes end in NULL, backing-up or error_backing-up and stay there",
        covers: |cell| {
            let previous = get(cell.row, "previous_status");
            cell.is("volumes", "status")
                && cell.before == Some("backing-up")
                && !cell.is_temporary_volume()
                && cell.volume_seen_by_cinder()
                && !matches!(previous, Some("available" | "in-use"))
                && cell.cinder == previous
                && cell.set_free()
        },
    },
    Rule {
        name: "a volume that is attached to a server",
        reason: "it was available before the backup; as available it could be deleted or attached again while the server uses it",
        covers: |cell| {
            cell.is("volumes", "status")
                && cell.before == Some("backing-up")
                && !cell.is_temporary_volume()
                && cell.volume_seen_by_cinder()
                && (cell.cinder, cell.ours) == (Some("available"), Some("in-use"))
                && cell.live_attachments().next().is_some()
        },
    },
    Rule {
        name: "a new volume that was being created from a backup",
        reason: "Cinder never changes a volume in `creating`, so it stays there for ever",
        covers: |cell| {
            cell.is("volumes", "status")
                && cell.before == Some("creating")
                && cell.missed_by_cinder()
                && cell.ours == Some("error")
                && cell
                    .world
                    .backups()
                    .any(|backup| get(backup, "status") == Some("restoring") && get(backup, "restore_volume_id") == Some(cell.id))
        },
    },
    Rule {
        name: "a volume of a backup without a host",
        reason: "no cinder-backup reads that backup or its volume",
        covers: |cell| {
            cell.is("volumes", "status")
                && !cell.volume_seen_by_cinder()
                && cell.volume_of_unscheduled()
                && cell.missed_by_cinder()
                && cell.released()
        },
    },
    Rule {
        name: "a volume left behind",
        reason: "no backup explains its status, and Cinder finds volumes only through their backups",
        covers: |cell| {
            cell.is("volumes", "status")
                && !cell.volume_seen_by_cinder()
                && !cell.volume_of_unscheduled()
                && cell.missed_by_cinder()
                && cell.released()
        },
    },
    Rule {
        name: "a temporary volume",
        reason: "Cinder frees any volume that a backup names; one in temp_volume_id is to be deleted, and this program never frees it",
        covers: |cell| {
            cell.is("volumes", "status")
                && cell.is_temporary_volume()
                && cell.volume_seen_by_cinder()
                && cell.before == Some("backing-up")
                && cell.cinder == get(cell.row, "previous_status")
                && cell.ours == cell.before
        },
    },
    Rule {
        name: "a snapshot of a backup without a host",
        reason: "no cinder-backup reads that backup or its snapshot",
        covers: |cell| {
            cell.is("snapshots", "status")
                && cell.snapshot_of_unscheduled()
                && cell.missed_by_cinder()
                && (cell.before, cell.ours) == (Some("backing-up"), Some("available"))
        },
    },
    Rule {
        name: "a snapshot left behind",
        reason: "no backup is being made from it, and Cinder finds snapshots only through their backups",
        covers: |cell| {
            cell.is("snapshots", "status")
                && !cell.snapshot_of_unscheduled()
                && cell.missed_by_cinder()
                && (cell.before, cell.ours) == (Some("backing-up"), Some("available"))
        },
    },
];

/// The result of the comparison over all seeds of an engine.
#[derive(Default)]
struct Tally {
    /// The number of cases of each rule.
    rules: BTreeMap<&'static str, usize>,
    /// The number of changes that both made, by table and change of status.
    agreed: BTreeMap<String, usize>,
    /// Differences that match no rule or several.
    faults: Vec<String>,
}

impl Tally {
    fn compare(&mut self, world: &World) {
        let nothing = Cells::new();
        for Change { table, id, column, from: cinder, to: ours } in changes(&world.cinder, &world.ours) {
            if column == "updated_at" {
                continue;
            }
            let row = world.before.get(&(table.clone(), id.clone())).unwrap_or(&nothing);
            let cell = Cell {
                world,
                table: &table,
                id: &id,
                column: &column,
                row,
                before: row.get(&column).and_then(|cell| cell.as_deref()),
                cinder: cinder.as_deref(),
                ours: ours.as_deref(),
            };
            let rules: Vec<&str> = RULES.iter().filter(|rule| !row.is_empty() && (rule.covers)(&cell)).map(|rule| rule.name).collect();
            match rules.as_slice() {
                [] => self.faults.push(format!("no rule: {}", told(&cell))),
                [one] => *self.rules.entry(one).or_default() += 1,
                several => self.faults.push(format!("several rules, {several:?}: {}", told(&cell))),
            }
        }
        let theirs: BTreeSet<Change> = changes(&world.before, &world.cinder).into_iter().collect();
        for change in changes(&world.before, &world.ours).iter().filter(|change| change.column == "status" && theirs.contains(*change)) {
            let word = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "NULL".to_owned());
            *self.agreed.entry(format!("{}: {} -> {}", change.table, word(&change.from), word(&change.to))).or_default() += 1;
        }
    }

    fn check(self, engine: Engine) {
        println!("{}: agreed {:#?}, differed {:#?}", engine.name(), self.agreed, self.rules);
        assert!(self.faults.is_empty(), "{}: {} faults\n{}", engine.name(), self.faults.len(), self.faults.join("\n"));
        for rule in RULES {
            assert!(self.rules.contains_key(rule.name), "{}: no case for {:?} ({})", engine.name(), rule.name, rule.reason);
        }
        for change in [
            "backups: creating -> error",
            "backups: deleting -> error",
            "backups: restoring -> available",
            "snapshots: backing-up -> available",
            "volumes: backing-up -> available",
            "volumes: backing-up -> in-use",
            "volumes: restoring-backup -> error_restoring",
        ] {
            assert!(self.agreed.contains_key(change), "{}: the two never agreed on {change}", engine.name());
        }
    }
}

/// A cell in words, with the columns of all related rows that a rule may use.
fn told(cell: &Cell<'_>) -> String {
    let word = |value: Option<&str>| value.map_or_else(|| "NULL".to_owned(), str::to_owned);
    let mut text = format!(
        "seed {}, {}.{} of {}: {}, Cinder {}, ours {}",
        cell.world.seed,
        cell.table,
        cell.column,
        cell.id,
        word(cell.before),
        word(cell.cinder),
        word(cell.ours)
    );
    let told_of = ["status", "previous_status", "host", "volume_id", "restore_volume_id", "snapshot_id", "temp_volume_id"];
    let told_of = told_of.iter().chain(&["temp_snapshot_id", "parent_id", "service", "encryption_key_id", "attach_status", "deleted"]);
    for ((table, id), cells) in &cell.world.before {
        if id == cell.id || cells.values().flatten().any(|value| value == cell.id) {
            let shown = told_of.clone().filter_map(|column| Some(format!("{column}={}", cells.get(*column)?.as_deref()?)));
            text.push_str(&format!("\n    {table} {id}: {}", shown.collect::<Vec<_>>().join(" ")));
        }
    }
    text
}

fn clean_up(database: &Database) -> cinder::Cleanup {
    database.disconnect();
    cinder::clean_up(&database.url(), &[UP, DOWN, GONE])
}

fn repair(program: &Program) -> Value {
    let mut args = vec!["repair", "--yes", "--max-changes", "100000"];
    args.extend(LIKE_CINDER);
    program.json(0, &args)
}

/// Checks that a scan finds nothing pending.
fn nothing_is_stuck(program: &Program, whose: &str, seed: u64) -> Value {
    let mut args = vec!["scan"];
    args.extend(LIKE_CINDER);
    let document = program.json(0, &args);
    for verdict in ["stuck", "uncertain", "busy", "recent"] {
        assert_eq!(document["summary"][verdict], 0, "seed {seed}, after {whose}: {document:#}");
    }
    document
}

fn commands(document: &Value) -> String {
    let findings = document["findings"].as_array().into_iter().flatten().map(|finding| &finding["follow_up"]);
    findings.chain([&document["follow_up"]]).map(ToString::to_string).collect()
}

fn differ(engine: Engine) {
    let mut tally = Tally::default();
    for seed in SEEDS {
        let origin = fresh(engine, Columns::Full);
        origin.insert(&population::generate(seed, BACKUPS).rows);
        let (theirs, ours) = (origin.copy(), origin.copy());
        let cleanup = clean_up(&theirs);
        let program = Program::on(ours.url());
        let run = repair(&program);
        let before = origin.rows_by_id();
        tally.compare(&World { seed, before: before.clone(), cinder: theirs.rows_by_id(), ours: ours.rows_by_id() });
        let scan = nothing_is_stuck(&program, "our repair", seed);

        // Each call that Cinder makes to cinder-volume is a command for the operator here.
        let told = commands(&run) + &commands(&scan);
        for call in &cleanup.rpc {
            let id = ["attachment_id", "snapshot_id", "volume_id"].iter().find_map(|key| call[key].as_str()).unwrap();
            // Cinder also detaches what is already detached; that needs no command.
            let attachment = before.get(&("volume_attachment".to_owned(), id.to_owned()));
            let is_detached = attachment.is_some_and(|cells| get(cells, "attach_status") == Some("detached"));
            if !is_detached && !told.contains(id) {
                tally.faults.push(format!("seed {seed}: Cinder requests {call}, and no command does"));
            }
        }

        // Cinder leaves rows that the program can repair.
        let program = Program::on(theirs.url());
        let run = repair(&program);
        assert_ne!(run["summary"]["applied"], 0, "seed {seed}: {run:#}");
        nothing_is_stuck(&program, "Cinder's clean-up and our repair", seed);

        // After a repair, a start of cinder-backup only removes temporary volumes and snapshots.
        if seed == SEEDS[0] {
            let before = ours.rows_by_id();
            let cleanup = clean_up(&ours);
            assert_eq!(cleanup.deleted_data, [] as [String; 0], "seed {seed}");
            for change in changes(&before, &ours.rows_by_id()) {
                let is_temporary = matches!(change.column.as_str(), "temp_volume_id" | "temp_snapshot_id" | "updated_at")
                    || (change.table == "snapshots" && change.column == "status" && change.to.as_deref() == Some("deleting"));
                assert!(is_temporary, "seed {seed}: {change:?}");
            }
        }
    }
    tally.check(engine);
}

#[test]
fn repair_differs_from_cinder_only_by_the_rules_on_sqlite() {
    differ(Engine::Sqlite);
}

#[test]
fn repair_differs_from_cinder_only_by_the_rules_on_mariadb() {
    differ(Engine::Mariadb);
}

#[test]
fn repair_differs_from_cinder_only_by_the_rules_on_postgresql() {
    differ(Engine::Postgresql);
}

#[test]
fn attachments_that_cinder_would_detach_are_reported() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let volume = database.volume(|row| row.status("restoring-backup"));
    database.backup(|row| row.status("restoring").host(DOWN).restore_volume_id(&volume));
    let attached =
        |status: &str| database.attachment(&volume, |row| row.instance_uuid(None::<&str>).attached_host(DOWN).attach_status(status));
    let live = ["attached", "attaching", "reserved", "error_attaching", "error_detaching"].map(attached);
    let detached = attached("detached");
    let cinders = database.copy();
    let calls = clean_up(&cinders).rpc;
    let program = Program::on(database.url());
    let told = commands(&repair(&program)) + &commands(&nothing_is_stuck(&program, "our repair", 0));
    for id in &live {
        assert!(calls.iter().any(|call| call["attachment_id"] == id.as_str()), "{calls:#?}");
        assert!(told.contains(id), "{told}");
    }
    assert!(!told.contains(&detached), "{told}");
}

#[test]
fn a_backup_of_a_snapshot_holds_the_snapshot_or_the_volume() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let held = || database.volume(|row| row.status("backing-up").previous_status("available"));
    let id = |first: char| format!("{first}{}", &population::unused_id()[1..]);
    let backup = |first: char, volume: &str, snapshot: Option<&str>| {
        database.backup(|row| row.id(id(first)).status("creating").host(GONE).volume_id(volume).snapshot_id(snapshot))
    };
    let snapshot = |volume: &str, status: &str| database.snapshot(volume, |row| row.status(status));
    // Since Pike: the second backup holds and frees only its snapshot.
    let both = held();
    backup('1', &both, None);
    let since_pike = snapshot(&both, "backing-up");
    backup('2', &both, Some(&since_pike));
    // Until Ocata: the second backup holds the volume, not the snapshot. The last of the two frees it.
    let shared = held();
    backup('3', &shared, None);
    backup('4', &shared, Some(&snapshot(&shared, "available")));
    // No backup holds this volume.
    let left = held();
    backup('5', &left, Some(&snapshot(&left, "backing-up")));
    let program = Program::on(database.url());
    repair(&program);
    for volume in [&both, &shared, &left] {
        assert_eq!(database.cell("volumes", volume, "status").as_deref(), Some("available"));
    }
    assert_eq!(database.cell("snapshots", &since_pike, "status").as_deref(), Some("available"));
    nothing_is_stuck(&program, "our repair", 0);
}
