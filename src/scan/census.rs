//! What one pass over `backups` keeps.
//!
//! It keeps no rows, but the ids of those that a finding can follow from: selected backups, and those with temporary volumes or snapshots.
//! Of an active backup it keeps which rows it uses, in some 100 bytes. Of every other backup with increments it keeps 32 bytes, in a map
//! that is between half full and full.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::active::{ActiveBackups, volumes_of};
use super::compact_ids::CompactIds;
use super::names;
use super::reader::{Reader, ReservationTotals};
use crate::db::DbError;
use crate::domain::decide::{Children, HostQueue, Peer};
use crate::domain::id::key;
use crate::domain::status::{BACKING_UP, CREATING, DELETING, ERROR, RESTORING, is_active, is_at_rest};
use crate::domain::{Backup, ColumnSet, Matched, QuotaUsage, Selection};

/// The number of rows that are in memory at the same time.
pub(super) const PORTION: usize = 2_000;

/// The id of a row as a number, in bytes, which need no alignment.
type IdBytes = [u8; 16];

/// The statuses of active backups.
const ACTIVE: [Option<&str>; 4] = [None, Some(CREATING), Some(RESTORING), Some(DELETING)];

/// An active backup.
#[derive(Debug)]
struct Active {
    id: IdBytes,
    volume: Option<IdBytes>,
    restore_volume: Option<IdBytes>,
    snapshot: Option<IdBytes>,
    /// The place of its status in [`ACTIVE`].
    status: u8,
}

const _: () = assert!(size_of::<Active>() == 68);

/// Active backups by a row that they use.
#[derive(Debug, Default)]
struct Uses(Vec<(IdBytes, u32)>);

impl Uses {
    /// Adds the backup at a place.
    fn add(&mut self, row: &str, place: usize) {
        // A table with more backups would need 400 GB of memory.
        self.0.push((row_number(row).to_be_bytes(), u32::try_from(place).unwrap_or(u32::MAX)));
    }

    /// The places of the backups that use a row.
    fn of(&self, row: &str) -> impl Iterator<Item = usize> {
        let row = row_number(row).to_be_bytes();
        let begin = self.0.partition_point(|(used, _)| *used < row);
        let uses = self.0.get(begin..).unwrap_or_default().iter();
        uses.take_while(move |(used, _)| *used == row).filter_map(|(_, place)| usize::try_from(*place).ok())
    }
}

/// The number of a row, however its id is spelt.
fn row_number(id: &str) -> u128 {
    CompactIds::number(&key(id))
}

/// A live backup that the selection names.
#[derive(Debug)]
pub struct NamedBackup {
    pub id: String,
    pub display_name: Option<String>,
    pub status: Option<String>,
    /// Whether other options select it, too.
    pub is_selected: bool,
}

/// What is known about a backup that is in a chain, in 16 bytes.
#[derive(Debug, Clone, Copy, Default)]
struct ChainMember {
    certain: i32,
    possible: i32,
    row: SeenRow,
}

const _: () = assert!(size_of::<(u128, ChainMember)>() == 32);

/// The counter in the row of a member.
#[derive(Debug, Clone, Copy, Default)]
enum SeenRow {
    /// The row was not seen, or not yet.
    #[default]
    None,
    /// Its `num_dependent_backups`.
    Recorded(i32),
    /// Its `num_dependent_backups`; the backup is in `error`.
    RecordedInError(i32),
}

impl ChainMember {
    fn children(&self) -> Children {
        Children { certain: self.certain.into(), possible: self.possible.into() }
    }

    fn recorded(&self) -> Option<i64> {
        match self.row {
            SeenRow::None => None,
            SeenRow::Recorded(number) | SeenRow::RecordedInError(number) => Some(number.into()),
        }
    }

    fn may_break_chain(&self) -> bool {
        match self.row {
            SeenRow::None => true,
            SeenRow::Recorded(_) => false,
            SeenRow::RecordedInError(_) => (self.certain, self.possible) != (0, 0),
        }
    }
}

/// What one pass over `backups` keeps.
#[derive(Debug, Default)]
pub struct Census {
    /// The numbers of the selected backups, in the order of their ids.
    selected: Vec<u128>,
    /// The active backups (`creating`, `restoring`, `deleting`, NULL).
    active: Vec<Active>,
    /// Active backups by the volumes that they are made of or restored to.
    of_volumes: Uses,
    /// Active backups by the snapshots that they are made of.
    of_snapshots: Uses,
    /// Those of these snapshots that are `backing-up`.
    held_snapshots: HashSet<u128>,
    /// The volumes that some `temp_volume_id` names.
    temporary_volumes: HashSet<u128>,
    /// Those of them that belong to a backup which is being created.
    temporaries_in_use: HashSet<u128>,
    /// The numbers of the backups that name temporary things and are not selected.
    with_temporaries: Vec<u128>,
    /// What each host creates and restores.
    pub queues: HashMap<String, HostQueue>,
    /// The live backups that are named.
    pub named: Vec<NamedBackup>,
    /// Live backups and their GiB, by project.
    pub projects: HashMap<String, (i64, i64)>,
    /// The reservations of the projects whose quotas a run corrects, read in the same transaction.
    pub reservations: HashMap<String, ReservationTotals>,
    /// What their quotas counted then, by project and in the order of the ids.
    pub quotas: HashMap<String, Vec<QuotaUsage>>,
    /// By the id of a backup that a run deletes: the quotas of its project, if the plan does not change all of them.
    pub unplanned_quotas: HashMap<String, Vec<QuotaUsage>>,
    /// Every host that a live backup names, and how many of its backups are at rest.
    pub hosts: HashMap<String, u64>,
    /// With a [`RehostQuery`]: the numbers of the backups whose hosts are to be replaced, in the order of their ids.
    retired: Vec<u128>,
    /// The least of the numbers of the backups on the new host. Ids are random, so it is a random sample.
    of_new_host: BTreeSet<u128>,
    /// Which parts of the selection a live backup matches, and which of its volumes exist.
    pub matched: Matched,
    /// How many live backups there are.
    pub live: u64,
    members: HashMap<u128, ChainMember>,
    /// During the pass: the backups that are not in `error`, have no children on record, and none so far.
    childless: Vec<u128>,
    ids: CompactIds,
}

/// What `--rehost` needs from the pass over `backups`.
pub struct RehostQuery<'a> {
    pub new_host: &'a str,
    /// Whether a host is to be replaced.
    pub is_retired: &'a dyn Fn(&str) -> bool,
}

/// Takes the rows of active backups, a portion at a time.
type PortionSink<'s> = &'s mut dyn FnMut(&mut Reader<'_>, &[Backup]) -> Result<(), DbError>;

impl Census {
    /// Takes the census. The rows of active backups are read once more, in portions, and passed on.
    pub fn take(reader: &mut Reader<'_>, selection: &Selection, portion: PortionSink<'_>) -> Result<Self, DbError> {
        Self::take_with(reader, selection, None, portion)
    }

    /// Takes the census, and keeps the backups whose hosts are to be replaced.
    pub fn take_with(
        reader: &mut Reader<'_>,
        selection: &Selection,
        rehost: Option<&RehostQuery<'_>>,
        portion: PortionSink<'_>,
    ) -> Result<Self, DbError> {
        let mut census = Self::default();
        let chains = reader.schema.columns >= ColumnSet::Liberty;
        let mut active = Vec::new();
        reader.live_backups(&mut |backup| {
            if let Some(query) = rehost {
                census.keep_hosted(&backup, selection, query);
            }
            if let Some(number) = census.count(backup, selection, chains) {
                active.push(number);
            }
        })?;
        census.settle();
        for volume in reader.volumes(&census.matched.missing_volumes(selection))? {
            census.matched.note(selection, volume.status.as_deref(), volume.project_id.as_deref(), Some(&volume.id));
        }
        census.active.reserve_exact(active.len());
        active.sort_unstable();
        for numbers in active.chunks(PORTION) {
            // In the same transaction, so these are the rows that were just counted.
            let backups = reader.backups(&census.ids_of(numbers))?;
            backups.iter().for_each(|backup| census.keep(backup));
            let mut snapshots: Vec<String> = backups.iter().filter_map(|backup| backup.snapshot_id.clone()).collect();
            snapshots.sort();
            snapshots.dedup();
            let held = reader.snapshots(&snapshots)?.into_iter().filter(|snapshot| snapshot.status.as_deref() == Some(BACKING_UP));
            census.held_snapshots.extend(held.map(|snapshot| row_number(&snapshot.id)));
            portion(reader, &backups)?;
        }
        census.of_volumes.0.sort_unstable();
        census.of_snapshots.0.sort_unstable();
        Ok(census)
    }

    /// Counts a live backup, of which only the counted columns were read; returns its number if it is active.
    fn count(&mut self, backup: Backup, selection: &Selection, chains: bool) -> Option<u128> {
        self.live += 1;
        self.matched.note(selection, backup.status.as_deref(), backup.project_id.as_deref(), backup.volume_id.as_deref());
        if let Some(project) = &backup.project_id {
            match self.projects.get_mut(project) {
                Some((count, size)) => (*count, *size) = (*count + 1, size.saturating_add(backup.size.unwrap_or(0))),
                None => {
                    self.projects.insert(project.clone(), (1, backup.size.unwrap_or(0)));
                }
            }
        }
        if let Some(host) = &backup.host {
            let at_rest = u64::from(is_at_rest(backup.status.as_deref()));
            match self.hosts.get_mut(host) {
                Some(number) => *number += at_rest,
                None => drop(self.hosts.insert(host.clone(), at_rest)),
            }
        }
        if chains {
            self.link(&backup);
        }
        if let Some(volume) = &backup.temp_volume_id {
            self.temporary_volumes.insert(row_number(volume));
            if backup.status.as_deref() == Some(CREATING) {
                self.temporaries_in_use.insert(row_number(volume));
            }
        }
        let is_selected = selection.takes(&backup);
        let has_temporaries = backup.temp_volume_id.is_some() || backup.temp_snapshot_id.is_some();
        if is_selected {
            self.selected.push(self.ids.add(&backup.id));
        } else if has_temporaries && selection.takes_inconsistent(&backup) {
            self.with_temporaries.push(self.ids.add(&backup.id));
        }
        let number = is_active(backup.status.as_deref()).then(|| self.ids.add(&backup.id));
        if !selection.backups.is_empty() && selection.names(&backup) {
            let Backup { id, display_name, status, .. } = backup;
            self.named.push(NamedBackup { id, display_name, status, is_selected });
        }
        number
    }

    /// Keeps a backup whose host is to be replaced, or that may show the driver of the new one.
    fn keep_hosted(&mut self, backup: &Backup, selection: &Selection, query: &RehostQuery<'_>) {
        let Some(host) = &backup.host else { return };
        if host == query.new_host {
            self.of_new_host.insert(self.ids.add(&backup.id));
            if self.of_new_host.len() > PORTION {
                self.of_new_host.pop_last();
            }
        } else if selection.takes_host_of(backup) && (query.is_retired)(host) {
            self.retired.push(self.ids.add(&backup.id));
        }
    }

    /// Keeps which rows an active backup uses.
    fn keep(&mut self, backup: &Backup) {
        let place = self.active.len();
        volumes_of(backup).for_each(|volume| self.of_volumes.add(volume, place));
        backup.snapshot_id.iter().for_each(|snapshot| self.of_snapshots.add(snapshot, place));
        let mut number = |id: &Option<String>| id.as_ref().map(|id| self.ids.add(id).to_be_bytes());
        let (volume, restore_volume) = (number(&backup.volume_id), number(&backup.restore_volume_id));
        let (snapshot, id) = (number(&backup.snapshot_id), self.ids.add(&backup.id).to_be_bytes());
        let status = (0..).zip(ACTIVE).find(|(_, status)| *status == backup.status.as_deref()).map_or(0, |(place, _)| place);
        if let Some(host) = &backup.host {
            self.queues.entry(host.clone()).or_default().add(backup);
        }
        self.active.push(Active { id, volume, restore_volume, snapshot, status });
    }

    /// Resolves ids and names to ids: every name must belong to exactly one backup, and an id always means its own backup. From then on
    /// only these backups are selected.
    pub fn resolve(&mut self, selection: &Selection) -> Result<Selection, String> {
        let named = self.named.iter().map(|backup| (backup.id.as_str(), backup.display_name.as_deref()));
        let resolved = Selection { backups: names::resolve(&selection.backups, named)?, ..selection.clone() };
        if !resolved.backups.is_empty() {
            let Self { selected, with_temporaries, retired, named, ids, .. } = self;
            for numbers in [selected, with_temporaries, retired] {
                numbers.retain(|number| resolved.backups.contains(&ids.id(*number)));
            }
            named.retain(|backup| resolved.backups.contains(&backup.id));
        }
        Ok(resolved)
    }

    /// Whether a backup is selected.
    pub(super) fn is_selected(&self, id: &str) -> bool {
        let number = CompactIds::number(id);
        self.selected.binary_search_by(|selected| self.ids.order(*selected, number)).is_ok()
    }

    /// The ids of the selected backups in their order, in portions.
    pub fn selected(&self) -> impl Iterator<Item = Vec<String>> {
        self.selected.chunks(PORTION).map(|numbers| self.ids_of(numbers))
    }

    /// The ids of the live backups that name temporary things and are not selected, in portions.
    pub(super) fn with_temporaries(&self) -> impl Iterator<Item = Vec<String>> {
        self.with_temporaries.chunks(PORTION).map(|numbers| self.ids_of(numbers))
    }

    /// The ids of the backups whose hosts are to be replaced, in their order and in portions.
    pub(super) fn retired(&self) -> impl Iterator<Item = Vec<String>> {
        self.retired.chunks(PORTION).map(|numbers| self.ids_of(numbers))
    }

    /// The ids of some backups on the new host: at most a portion.
    pub(super) fn of_new_host(&self) -> Vec<String> {
        self.of_new_host.iter().map(|number| self.ids.id(*number)).collect()
    }

    fn ids_of(&self, numbers: &[u128]) -> Vec<String> {
        numbers.iter().map(|number| self.ids.id(*number)).collect()
    }

    /// An active backup, or one that was active when the census was taken, as a peer of others. From Pike on, the backup of a snapshot holds
    /// only the snapshot, before only the volume; the snapshot's status tells which.
    pub fn peer(&self, backup: Backup) -> Peer {
        let Backup { id, status, volume_id, snapshot_id, restore_volume_id, .. } = backup;
        let is_held = |snapshot: &String| self.held_snapshots.contains(&row_number(snapshot));
        let volume_id = volume_id.filter(|_| !snapshot_id.as_ref().is_some_and(is_held));
        Peer { id, status, volume_id, snapshot_id, restore_volume_id, released: false }
    }

    fn peers(&self, places: impl IntoIterator<Item = usize>) -> Vec<Peer> {
        let id = |bytes: IdBytes| self.ids.id(u128::from_be_bytes(bytes));
        let peer = |active: &Active| {
            self.peer(Backup {
                id: id(active.id),
                status: ACTIVE.get(usize::from(active.status)).copied().flatten().map(str::to_owned),
                volume_id: active.volume.map(id),
                restore_volume_id: active.restore_volume.map(id),
                snapshot_id: active.snapshot.map(id),
                ..Backup::default()
            })
        };
        places.into_iter().filter_map(|place| self.active.get(place)).map(peer).collect()
    }

    fn link(&mut self, backup: &Backup) {
        let recorded = clamp(backup.num_dependent_backups.unwrap_or(0));
        let in_error = backup.status.as_deref() == Some(ERROR);
        let row = if in_error { SeenRow::RecordedInError(recorded) } else { SeenRow::Recorded(recorded) };
        let number = CompactIds::number(&backup.id);
        // A row without dependents on record needs an entry only once a child of it is seen.
        if let Some(link) = self.members.get_mut(&number) {
            link.row = row;
        } else if recorded != 0 || in_error {
            self.members.insert(self.ids.add(&backup.id), ChainMember { row, ..ChainMember::default() });
        } else {
            self.childless.push(number);
        }
        if let Some(parent) = &backup.parent_id {
            let mut children = Children::default();
            children.add(backup.status.as_deref());
            let link = self.members.entry(self.ids.add(parent)).or_default();
            link.certain = link.certain.saturating_add(clamp(children.certain));
            link.possible = link.possible.saturating_add(clamp(children.possible));
        }
    }

    /// Ends the pass: sorts what is in an order, and notes the rows that were seen before their children.
    fn settle(&mut self) {
        let ids = &self.ids;
        self.selected.sort_unstable_by(|one, other| ids.order(*one, *other));
        self.retired.sort_unstable_by(|one, other| ids.order(*one, *other));
        self.named.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        for number in std::mem::take(&mut self.childless) {
            if let Some(member) = self.members.get_mut(&number).filter(|member| matches!(member.row, SeenRow::None)) {
                member.row = SeenRow::Recorded(0);
            }
        }
    }

    /// Drops what is known of chains.
    pub(super) fn forget_chains(&mut self) {
        self.members = HashMap::new();
    }

    /// Whether some `temp_volume_id` names the volume.
    pub fn is_temporary(&self, volume: &str) -> bool {
        self.temporary_volumes.contains(&row_number(volume))
    }

    /// Whether the `temp_volume_id` of a backup that is being created names the volume.
    pub fn is_temporary_in_use(&self, volume: &str) -> bool {
        self.temporaries_in_use.contains(&row_number(volume))
    }

    /// The live children of a backup.
    pub fn children(&self, id: &str) -> Children {
        self.members.get(&CompactIds::number(id)).map(ChainMember::children).unwrap_or_default()
    }

    /// The dependents that a backup has on record, if it is live and has any on record or has children.
    pub fn recorded(&self, id: &str) -> Option<i64> {
        self.members.get(&CompactIds::number(id)).and_then(ChainMember::recorded)
    }

    /// Parents whose counter is wrong, and [`Self::parents_that_may_break_chains`]; as numbers, because they may be many.
    pub(super) fn doubtful_parents(&self) -> Vec<u128> {
        self.parents(|member| {
            member.recorded().is_none_or(|recorded| member.children().nearest(recorded) != recorded) || member.may_break_chain()
        })
    }

    /// The id of a parent.
    pub(super) fn parent(&self, number: u128) -> String {
        self.ids.id(number)
    }

    /// Parents that may break the chains of their children: those in `error`, and those without a row.
    pub fn parents_that_may_break_chains(&self) -> Vec<String> {
        self.parents(ChainMember::may_break_chain).into_iter().map(|number| self.parent(number)).collect()
    }

    fn parents(&self, wanted: impl Fn(&ChainMember) -> bool) -> Vec<u128> {
        let wanted = self.members.iter().filter(|(_, member)| wanted(member));
        let mut numbers: Vec<u128> = wanted.map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        numbers
    }
}

impl ActiveBackups for Census {
    fn of_volume(&self, id: &str) -> Vec<Peer> {
        self.peers(self.of_volumes.of(id))
    }

    fn of_snapshot(&self, id: &str) -> Vec<Peer> {
        self.peers(self.of_snapshots.of(id))
    }

    fn restoring(&self) -> Vec<Peer> {
        let restoring = |status| ACTIVE.get(usize::from(status)) == Some(&Some(RESTORING));
        self.peers(self.active.iter().enumerate().filter(|(_, active)| restoring(active.status)).map(|(place, _)| place))
    }
}

fn clamp(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(if number < 0 { i32::MIN } else { i32::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, parent: Option<&str>, status: &str, recorded: Option<i64>) -> Backup {
        Backup {
            id: id.into(),
            parent_id: parent.map(Into::into),
            status: Some(status.into()),
            num_dependent_backups: recorded,
            ..Backup::default()
        }
    }

    #[test]
    fn sizes_that_no_volume_has_are_summed_up_to_the_largest_number() {
        let mut census = Census::default();
        // SQLite keeps whatever number a row was given, and no table checks a size.
        for (id, size) in [("a", i64::MAX), ("b", i64::MAX), ("c", 1)] {
            let backup = Backup { project_id: Some("p".into()), size: Some(size), ..row(id, None, "available", None) };
            census.count(backup, &Selection::default(), true);
        }
        assert_eq!(census.projects.get("p"), Some(&(3, i64::MAX)));
    }

    #[test]
    fn chains_are_counted_whatever_order_the_rows_come_in() {
        let a = "00000000-0000-0000-0000-00000000000a";
        let rows = [
            row(a, None, "available", Some(2)),
            row("odd", Some(a), "available", None),
            row("b", Some("odd"), "creating", None),
            row("c", Some(a), "error", None),
            row("d", Some("gone"), "available", None),
        ];
        for turn in 0..rows.len() {
            let mut census = Census::default();
            for row in rows.iter().cycle().skip(turn).take(rows.len()) {
                census.count(row.clone(), &Selection::default(), true);
            }
            assert_eq!(census.children(a), Children { certain: 1, possible: 1 });
            assert_eq!(census.children("odd"), Children::default());
            census.settle();
            let doubtful: Vec<String> = census.doubtful_parents().into_iter().map(|number| census.parent(number)).collect();
            // The child of "odd" is being created and may count or not.
            assert_eq!(doubtful, ["gone"]);
            assert_eq!(census.parents_that_may_break_chains(), ["gone"]);
        }
    }
}
