//! The program against Cinder itself: what a start of cinder-backup makes of a population, and what `repair` makes of it.
//!
//! Both work on copies of one database. Cinder cleans up for every host, the retired one too, and `repair` is told that all
//! are dead. Whatever then differs, in any column of any row but `updated_at`, is on purpose, and is one rule of
//! [`RULES`]: no cell may differ without a rule, none may have two, and no rule may be without a case.

use std::collections::{BTreeMap, BTreeSet};

use cinder_backup_repair::db::Engine;
use serde_json::Value;

use crate::cinder;
use crate::database::{Cells, Change, Database, RowKey, changes};
use crate::population::{self, DOWN, GONE, UP};
use crate::program::Program;
use crate::schemas::{Columns, fresh};

/// Which populations; more of them find nothing that these do not.
const SEEDS: [u64; 3] = [1, 2, 3];
/// How many backups each has.
const BACKUPS: usize = 200;
/// Cinder takes no age and no heartbeat into account, so neither may the program.
const LIKE_CINDER: [&str; 6] = ["--service-down-time", "2s", "--older-than", "0s", "--assume-dead", "all"];

type Rows = BTreeMap<RowKey, Cells>;

/// One population before, and after each of the two.
struct World {
    seed: u64,
    before: Rows,
    cinder: Rows,
    ours: Rows,
}

impl World {
    /// The rows of a table that are not deleted, as they were before.
    fn live<'w>(&'w self, table: &'w str) -> impl Iterator<Item = (&'w str, &'w Cells)> {
        self.before
            .iter()
            .filter(move |((of, _), cells)| of == table && get(cells, "deleted") == Some("0"))
            .map(|((_, id), cells)| (id.as_str(), cells))
    }

    fn backups(&self) -> impl Iterator<Item = &Cells> {
        self.live("backups").map(|(_, cells)| cells)
    }

    /// What became of a backup's status under Cinder.
    fn by_cinder(&self, backup: &Cells) -> Option<&str> {
        let key = ("backups".to_owned(), get(backup, "id").unwrap().to_owned());
        get(&self.cinder[&key], "status")
    }
}

fn get<'c>(cells: &'c Cells, column: &str) -> Option<&'c str> {
    cells.get(column)?.as_deref()
}

/// Whether the backup has a host, so that a cinder-backup that starts there looks at it.
fn scheduled(backup: &Cells) -> bool {
    get(backup, "host").is_some_and(|host| !host.is_empty())
}

/// Whether a backup's operation is the kind of reason that a volume has for its status: it is made of the volume, or
/// restored to it.
fn works_on(backup: &Cells, volume: &str) -> bool {
    match get(backup, "status") {
        Some("creating") => get(backup, "volume_id") == Some(volume),
        Some("restoring") => get(backup, "restore_volume_id") == Some(volume),
        _ => false,
    }
}

/// Whether Cinder deletes the backup: it goes on with every delete that was begun, unless it needs a user's key for it or
/// another driver.
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

    /// Cinder left it as it was.
    fn missed_by_cinder(&self) -> bool {
        self.cinder == self.before
    }

    /// A cinder-backup that starts looks at this volume, because of a backup of its host.
    fn volume_seen_by_cinder(&self) -> bool {
        self.world.backups().any(|backup| scheduled(backup) && works_on(backup, self.id))
    }

    /// A backup that has no host works on this volume.
    fn volume_of_unscheduled(&self) -> bool {
        self.world.backups().any(|backup| !scheduled(backup) && works_on(backup, self.id))
    }

    fn is_temporary_volume(&self) -> bool {
        self.world.backups().any(|backup| get(backup, "temp_volume_id") == Some(self.id))
    }

    /// The other backups that are made of this snapshot, and whether they have a host.
    fn snapshot_of_unscheduled(&self) -> bool {
        let names = |backup: &&Cells| get(backup, "snapshot_id") == Some(self.id) && get(backup, "status") == Some("creating");
        self.world.backups().filter(names).any(|backup| !scheduled(backup))
    }

    /// Attachments of the volume that are not `detached`.
    fn live_attachments(&self) -> impl Iterator<Item = &Cells> {
        let of_volume = |cells: &&Cells| get(cells, "volume_id") == Some(self.id) && get(cells, "attach_status") != Some("detached");
        self.world.live("volume_attachment").map(|(_, cells)| cells).filter(of_volume)
    }

    /// What may become of a volume that a backup held: `previous_status` where that is of use, and `in-use` in any case
    /// where a server has it. An attachment that a host of cinder-backup holds for itself may be the backup's own.
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

    /// What becomes of a volume that was in the middle of something.
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
        reason: "Cinder starts on a host and looks at that host's rows; one that was never scheduled stays pending for ever",
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
        reason: "Cinder reads such rows and does nothing with them; they can be neither used nor deleted",
        covers: |cell| cell.is("backups", "status") && cell.before.is_none() && cell.cinder.is_none() && cell.ours == Some("error"),
    },
    Rule {
        name: "a delete that was begun",
        reason: "Cinder deletes the data and the row; nothing is ever deleted here, `error` lets the user delete again",
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
        reason: "Cinder sets error_deleting, from where its API refuses another delete; it takes one from `error`",
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
        reason: "it says who set the status, what it was, and that nobody looked at the data",
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
        reason: "Cinder has temporary volumes and snapshots deleted and forgets them; here they are reported with the command",
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
        reason: "nothing is deleted here, so no increment is counted out",
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
        reason: "nothing is deleted here, so nothing is given back",
        covers: |cell| cell.is("quota_usages", "in_use") && cell.ours == cell.before && cell.cinder != cell.before,
    },
    Rule {
        name: "a previous_status that is no state to go back to",
        reason: "Cinder copies it blindly: such volumes end in NULL, backing-up or error_backing-up, and nothing gets them out",
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
        name: "a volume that a server has",
        reason: "it was available before the backup and is attached now: freed as available, it could be attached or deleted under a server",
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
        name: "a new volume that was being made from a backup",
        reason: "Cinder never touches a volume in `creating`, so it stays there for ever",
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
        reason: "no cinder-backup looks at that backup, and so none at its volume",
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
        reason: "no backup explains its status, and Cinder finds volumes by their backups only",
        covers: |cell| {
            cell.is("volumes", "status")
                && !cell.volume_seen_by_cinder()
                && !cell.volume_of_unscheduled()
                && cell.missed_by_cinder()
                && cell.released()
        },
    },
    Rule {
        name: "a volume made only for a backup",
        reason: "Cinder frees whatever a backup names; one that a temp_volume_id names is to be deleted, and is never set free here",
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
        reason: "no cinder-backup looks at that backup, and so none at its snapshot",
        covers: |cell| {
            cell.is("snapshots", "status")
                && cell.snapshot_of_unscheduled()
                && cell.missed_by_cinder()
                && (cell.before, cell.ours) == (Some("backing-up"), Some("available"))
        },
    },
    Rule {
        name: "a snapshot left behind",
        reason: "no backup is being made of it, and Cinder finds snapshots by their backups only",
        covers: |cell| {
            cell.is("snapshots", "status")
                && !cell.snapshot_of_unscheduled()
                && cell.missed_by_cinder()
                && (cell.before, cell.ours) == (Some("backing-up"), Some("available"))
        },
    },
];

/// What the tests found, over all seeds of an engine.
#[derive(Default)]
struct Tally {
    /// How often each rule had a case.
    rules: BTreeMap<&'static str, usize>,
    /// How often both made the same change, by table and the change of status.
    agreed: BTreeMap<String, usize>,
    /// What is wrong.
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

/// A cell in words, with everything around it that a rule may ask for.
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

/// A scan finds nothing pending any more, by no measure.
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

        // What Cinder would have cinder-volume do, the user is told to have done.
        let told = commands(&run) + &commands(&scan);
        for call in &cleanup.rpc {
            let id = ["attachment_id", "snapshot_id", "volume_id"].iter().find_map(|key| call[key].as_str()).unwrap();
            // Cinder even detaches what is detached; there is nothing to be done about that.
            let attachment = before.get(&("volume_attachment".to_owned(), id.to_owned()));
            let is_detached = attachment.is_some_and(|cells| get(cells, "attach_status") == Some("detached"));
            if !is_detached && !told.contains(id) {
                tally.faults.push(format!("seed {seed}: Cinder asks for {call}, and nobody is told"));
            }
        }

        // After Cinder there is something left to repair, and it can be.
        let program = Program::on(theirs.url());
        let run = repair(&program);
        assert_ne!(run["summary"]["applied"], 0, "seed {seed}: {run:#}");
        nothing_is_stuck(&program, "Cinder's clean-up and our repair", seed);

        // After a repair, a start of cinder-backup finds nothing to do but to remove what is temporary.
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
fn as_cinder_but_for_the_rules_on_sqlite() {
    differ(Engine::Sqlite);
}

#[test]
fn as_cinder_but_for_the_rules_on_mariadb() {
    differ(Engine::Mariadb);
}

#[test]
fn as_cinder_but_for_the_rules_on_postgresql() {
    differ(Engine::Postgresql);
}

#[test]
fn whoever_cinder_would_detach_is_reported() {
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
fn the_backup_of_a_snapshot_holds_the_snapshot_or_the_volume() {
    let database = fresh(Engine::Sqlite, Columns::Full);
    let held = || database.volume(|row| row.status("backing-up").previous_status("available"));
    let id = |first: char| format!("{first}{}", &population::unused_id()[1..]);
    let backup = |first: char, volume: &str, snapshot: Option<&str>| {
        database.backup(|row| row.id(id(first)).status("creating").host(GONE).volume_id(volume).snapshot_id(snapshot))
    };
    let snapshot = |volume: &str, status: &str| database.snapshot(volume, |row| row.status(status));
    // Since Pike: the second one has nothing to do with the volume, and sets nothing but its snapshot free.
    let both = held();
    backup('1', &both, None);
    let since_pike = snapshot(&both, "backing-up");
    backup('2', &both, Some(&since_pike));
    // Until Ocata the volume, and not the snapshot; whichever comes last sets it free.
    let shared = held();
    backup('3', &shared, None);
    backup('4', &shared, Some(&snapshot(&shared, "available")));
    // Nobody holds this volume.
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
