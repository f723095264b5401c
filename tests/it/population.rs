//! Populations of backups with everything around them, generated from a seed: what a crash leaves, and what it cannot.
//!
//! The choices are made independently of each other, so that states meet that no one thought of. The same seed gives the
//! same rows on every engine; a failing test names its seed.

use uuid::Uuid;

use crate::rows::{self, Cell, Row, ago};

/// The host whose cinder-backup beats.
pub const UP: &str = "ctl-up";
/// The host whose cinder-backup last beat two hours ago.
pub const DOWN: &str = "ctl-down";
/// The host that no service row tells of.
pub const GONE: &str = "ctl-gone";

/// The rows, in no order that matters.
#[derive(Debug, Clone)]
pub struct Population {
    /// What it was generated from.
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

/// A small generator of random numbers (SplitMix64), the same on every machine and for ever.
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

    /// True so many times in a hundred.
    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    /// One of them.
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

/// Generates so many backups and what belongs to them.
pub fn generate(seed: u64, backups: usize) -> Population {
    let mut random = Random::new(seed);
    let mut rows = vec![
        rows::service(UP).set("uuid", random.id()),
        rows::service(DOWN).set("uuid", random.id()).updated_at(ago(7200)),
        rows::service(GONE).set("uuid", random.id()).updated_at(ago(5)).set("deleted", true),
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

/// A volume for a backup: a new one, one that another backup has too, or one that is gone without a trace.
fn a_volume(random: &mut Random, volumes: &mut Vec<String>, rows: &mut Vec<Row>) -> String {
    let dice = random.below(100);
    if dice < 12 {
        return random.id();
    }
    if dice < 30 && !volumes.is_empty() {
        return random.pick(volumes);
    }
    let id = random.id();
    let status = random.pick(&[
        "available",
        "in-use",
        "backing-up",
        "backing-up",
        "backing-up",
        "backing-up",
        "restoring-backup",
        "restoring-backup",
        "creating",
        "error",
        "error_restoring",
        "error_backing-up",
        "deleting",
        "maintenance",
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
    for _ in 0..random.pick(&[0, 0, 1, 1, 2]) {
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
        Some("error"),
        Some("error"),
        Some("error_deleting"),
        Some("available"),
        Some("available"),
        Some("available"),
        None,
        Some("deleted"),
    ]);
    let mut row = rows::backup()
        .id(random.id())
        .volume_id(volume)
        .display_name(a_name(random))
        .status(status)
        .host(random.pick(&[None, Some(UP), Some(DOWN), Some(DOWN), Some(DOWN), Some(GONE)]))
        .size(random.pick(&[Some(1), Some(1), Some(5), Some(20), None]))
        .age(random.pick(&[300, 3000, 4000, 90_000]));
    if random.percent(10) {
        row = row.updated_at(Cell::Null);
    }
    if random.percent(15) {
        row = row.service(Cell::Null).object_count(Cell::Null);
    }
    if random.percent(15) {
        row = row.encryption_key_id(random.id());
    }
    if exists && random.percent(25) {
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
    if random.percent(30) {
        let same: Vec<&(String, String)> = earlier.iter().filter(|(_, of)| of == volume).collect();
        let parent = if same.is_empty() { random.id() } else { random.pick(&same).0.clone() };
        row = row.parent_id(parent);
    }
    row = row.num_dependent_backups(random.pick(&[Some(0), Some(0), Some(0), Some(1), Some(2), None]));
    if random.percent(12) { row.gone() } else { row }
}

/// The copy that Cinder makes of a volume in use, and what may have become of it.
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

/// A name as users give them: some plain, some that a terminal, a spreadsheet or a page would take for orders.
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

/// An id that is not in any population.
pub fn unused_id() -> String {
    Uuid::new_v4().to_string()
}
