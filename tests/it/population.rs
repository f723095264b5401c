//! Random populations of backups and related rows, generated from a seed: states that a crash can leave, and others.
//!
//! The choices are independent of each other, so unexpected states are combined. The same seed gives the same rows on every engine; a
//! failing test names its seed.

use uuid::Uuid;

use crate::rows::{self, Cell, Row, ago};

/// The host whose cinder-backup is up.
pub const UP: &str = "ctl-up";
/// The host whose cinder-backup sent its last heartbeat two hours ago.
pub const DOWN: &str = "ctl-down";
/// A host without a row in `services`.
pub const GONE: &str = "ctl-gone";

/// The rows, in any order.
#[derive(Debug, Clone)]
pub struct Population {
    /// The seed.
    pub seed: u64,
    /// The rows of all tables.
    pub rows: Vec<Row>,
}

impl Population {
    /// The rows of one table.
    pub fn of<'a>(&'a self, table: &'a str) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |row| row.table == table)
    }
}

/// A small generator of random numbers (SplitMix64), with the same results on every machine.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator for a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }

    /// True with this probability.
    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// One of the values.
    pub fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// An id.
    pub fn id(&mut self) -> String {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next().to_le_bytes());
        bytes[8..].copy_from_slice(&self.next().to_le_bytes());
        uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
    }
}

/// Generates backups and their related rows.
pub fn generate(seed: u64, backups: usize) -> Population {
    let mut random = Random::new(seed);
    let mut rows = vec![
        rows::service(UP).set("uuid", random.id()),
        rows::service(DOWN).set("uuid", random.id()).updated_at(ago(7200)),
        rows::service(GONE).set("uuid", random.id()).updated_at(ago(7_200)).set("deleted", true),
        rows::service("ctl-down@lvm").set("uuid", random.id()).binary("cinder-volume"),
        rows::quota_usage("backups", 7),
        rows::quota_usage("backup_gigabytes", 70),
    ];
    let mut volumes: Vec<String> = Vec::new();
    let mut earlier: Vec<(String, String)> = Vec::new();
    for _ in 0..backups {
        let volume = a_volume(&mut random, &mut volumes, &mut rows);
        let row = a_backup(&mut random, &volume, &volumes, &earlier, &mut rows);
        earlier.push((row.get_id(), volume));
        rows.push(row);
    }
    Population { seed, rows }
}

/// The volume id of an unfinished import.
const NO_VOLUME: &str = "00000000-0000-0000-0000-000000000000";

/// A volume for a backup: a new one, that of another backup, one without a row, or none yet.
fn a_volume(random: &mut Random, volumes: &mut Vec<String>, rows: &mut Vec<Row>) -> String {
    let dice = random.below(100);
    if dice < 3 {
        return NO_VOLUME.to_owned();
    }
    if dice < 12 {
        return random.id();
    }
    if dice < 40 && !volumes.is_empty() {
        return random.pick(volumes);
    }
    // A backup of another backup's temporary volume makes no sense, but is possible.
    let temporary: Vec<String> = rows.iter().filter(|row| is_temporary_volume(row)).map(Row::get_id).collect();
    if dice < 46 && !temporary.is_empty() {
        return random.pick(&temporary);
    }
    let id = random.id();
    let status = random.pick(&[
        Some("available"),
        Some("in-use"),
        Some("backing-up"),
        Some("backing-up"),
        Some("backing-up"),
        Some("backing-up"),
        Some("restoring-backup"),
        Some("restoring-backup"),
        Some("creating"),
        Some("error"),
        Some("error_restoring"),
        Some("error_backing-up"),
        Some("deleting"),
        Some("maintenance"),
        None,
    ]);
    let previous = random.pick(&[
        None,
        Some("available"),
        Some("available"),
        Some("in-use"),
        Some("in-use"),
        Some("backing-up"),
        Some("error_backing-up"),
    ]);
    // Independent choices alone would rarely make a volume as the API leaves it when it begins a backup.
    let attached = random.percent(20).then(|| random.percent(50));
    let (status, previous) = match attached {
        Some(true) => (Some("backing-up"), Some("in-use")),
        Some(false) => (Some("backing-up"), Some("available")),
        None => (status, previous),
    };
    let mut row = rows::volume()
        .id(&id)
        .display_name(a_name(random))
        .status(status)
        .previous_status(previous)
        .size(1 + i64::try_from(random.below(20)).expect("small"))
        .age(random.pick(&[300, 5000, 90_000]));
    if random.percent(6) {
        row = row.gone();
    }
    if random.percent(5) {
        row = row.migration_status("migrating");
    }
    rows.push(row);
    // It may have been attached since.
    if attached == Some(true) || (attached == Some(false) && random.percent(20)) {
        rows.push(rows::attachment(&id).id(random.id()).instance_uuid(random.id()));
    }
    let others = if attached.is_some() { 0 } else { random.pick(&[0, 0, 1, 1, 2]) };
    for _ in 0..others {
        let mut row = rows::attachment(&id).id(random.id()).instance_uuid(random.id()).attach_status(random.pick(&[
            "attached",
            "attached",
            "attached",
            "detached",
            "attaching",
            "reserved",
        ]));
        if random.percent(20) {
            row = row.deleted(true).deleted_at(ago(600));
        }
        if random.percent(20) {
            row = row.instance_uuid(Cell::Null).attached_host(random.pick(&[UP, DOWN, GONE]));
        }
        rows.push(row);
    }
    volumes.push(id.clone());
    id
}

fn a_backup(random: &mut Random, volume: &str, volumes: &[String], earlier: &[(String, String)], rows: &mut Vec<Row>) -> Row {
    let exists = volumes.iter().any(|known| known == volume);
    let status = random.pick(&[
        Some("creating"),
        Some("creating"),
        Some("creating"),
        Some("creating"),
        Some("restoring"),
        Some("restoring"),
        Some("restoring"),
        Some("deleting"),
        Some("deleting"),
        Some("deleting"),
        Some("error"),
        Some("error"),
        Some("error_deleting"),
        Some("available"),
        Some("available"),
        Some("available"),
        None,
        Some("deleted"),
    ]);
    // Independent choices alone would rarely make an active backup of a volume with the matching status.
    let shown = rows.iter().find(|row| row.table == "volumes" && row.get_id() == volume).and_then(|row| row.cells.get("status"));
    let suited = random.percent(60).then(|| shown.and_then(operation)).flatten();
    let status = suited.map_or(status, Some);
    let mut row = rows::backup()
        .id(random.id())
        .volume_id(volume)
        .display_name(a_name(random))
        .status(status)
        .host(random.pick(&[
            None,
            None,
            Some(""),
            Some(UP),
            Some(UP),
            Some(DOWN),
            Some(DOWN),
            Some(DOWN),
            Some(DOWN),
            Some(GONE),
            Some(GONE),
        ]))
        .size(random.pick(&[Some(1), Some(1), Some(5), Some(20), None]))
        .age(random.pick(&[300, 3000, 4000, 90_000]));
    if random.percent(10) {
        row = row.updated_at(Cell::Null);
    }
    if random.percent(15) {
        row = row.service(Cell::Null).object_count(Cell::Null);
    } else if random.percent(15) {
        row = row.service("cinder.backup.drivers.ceph.CephBackupDriver");
    }
    if random.percent(15) {
        row = row.encryption_key_id(random.id());
    }
    let taken: Vec<String> =
        rows.iter().filter(|row| row.table == "snapshots" && row.cells.get("volume_id") == Some(&volume.into())).map(Row::get_id).collect();
    if suited.is_some() && random.percent(70) {
        // From the volume itself.
    } else if !taken.is_empty() && random.percent(25) {
        row = row.snapshot_id(random.pick(&taken));
    } else if exists && random.percent(25) {
        let snapshot =
            rows::snapshot(volume).id(random.id()).status(random.pick(&["backing-up", "backing-up", "available", "error", "deleting"]));
        row = row.snapshot_id(snapshot.get_id());
        rows.push(snapshot);
    } else if random.percent(3) {
        row = row.snapshot_id(random.id());
    }
    if status == Some("restoring") || random.percent(15) {
        let destination = match random.below(10) {
            0 => None,
            1 => Some(random.id()),
            2..=4 if !volumes.is_empty() => Some(random.pick(volumes)),
            _ => Some(volume.to_owned()),
        };
        row = row.restore_volume_id(destination);
    }
    if exists && random.percent(12) {
        row = row.temp_volume_id(a_temporary_volume(random, volume, rows));
    }
    if exists && random.percent(10) {
        let snapshot = rows::snapshot(volume)
            .id(random.id())
            .display_name(format!("backup-snap-{volume}"))
            .status(random.pick(&["available", "creating", "deleting"]))
            .set("use_quota", false);
        row = row.temp_snapshot_id(snapshot.get_id());
        rows.push(snapshot);
    }
    let same: Vec<&(String, String)> = earlier.iter().filter(|(_, of)| of == volume).collect();
    if !same.is_empty() && random.percent(70) {
        row = row.parent_id(&random.pick(&same).0);
    } else if random.percent(20) {
        row = row.parent_id(random.id());
    }
    row = row.num_dependent_backups(random.pick(&[Some(0), Some(0), Some(1), Some(2), Some(3), None]));
    if random.percent(12) { row.gone() } else { row }
}

/// The status of a backup that explains this status of its volume.
fn operation(of_volume: &Cell) -> Option<&'static str> {
    match of_volume {
        Cell::Text(status) if status == "backing-up" => Some("creating"),
        Cell::Text(status) if status == "restoring-backup" || status == "creating" => Some("restoring"),
        _ => None,
    }
}

/// The temporary volume that Cinder makes of a volume in use, in one of its possible states.
fn a_temporary_volume(random: &mut Random, volume: &str, rows: &mut Vec<Row>) -> String {
    let id = random.id();
    let row = rows::volume()
        .id(&id)
        .display_name(format!("backup-vol-{volume}"))
        .status(random.pick(&["backing-up", "backing-up", "available", "creating", "deleting"]))
        .set("use_quota", false);
    rows.push(if random.percent(15) { row.gone() } else { row });
    id
}

fn is_temporary_volume(row: &Row) -> bool {
    let named = |name: &Cell| matches!(name, Cell::Text(name) if name.starts_with("backup-vol-"));
    row.table == "volumes" && row.cells.get("display_name").is_some_and(named)
}

/// A name from a user: some are plain, others are commands to a terminal, a spreadsheet or a browser.
fn a_name(random: &mut Random) -> Cell {
    random
        .pick(&[
            Some("nightly"),
            Some("web01-root"),
            Some("Sicherung für Zoë"),
            Some("=HYPERLINK(\"http://example.org\")"),
            Some("<b>bold</b>"),
            Some("\u{1b}[31mred"),
            Some("two\nlines"),
            Some("it's; DROP TABLE backups; --"),
            Some(""),
            None,
        ])
        .into()
}

/// An id that no population contains.
pub fn unused_id() -> String {
    Uuid::new_v4().to_string()
}
