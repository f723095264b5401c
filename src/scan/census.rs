//! What one pass over `backups` keeps.
//!
//! It keeps the live rows that a finding can follow from: active and selected backups, and those with temporary volumes or snapshots. Of
//! every other backup with increments it keeps 32 bytes, in a map that is between half full and full.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::active::{ActiveBackups, volumes_of};
use super::compact_ids::CompactIds;
use super::names;
use super::reader::Reader;
use crate::db::DbError;
use crate::domain::decide::Children;
use crate::domain::id::key;
use crate::domain::status::{BACKING_UP, CREATING, ERROR, RESTORING, is_active};
use crate::domain::{Backup, ColumnSet, Matched, Selection};

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
    /// Every active backup (`creating`, `restoring`, `deleting`) and every selected one, by id.
    pub kept: BTreeMap<String, Backup>,
    /// The ids of the selected ones.
    pub selected: HashSet<String>,
    /// Active backups by the [`key`]s of the volumes that they are made of or restored to.
    by_volume: HashMap<String, Vec<String>>,
    /// Active backups by the [`key`]s of the snapshots that they are made of.
    by_snapshot: HashMap<String, Vec<String>>,
    /// The [`key`]s of those of these snapshots that are `backing-up`.
    held_snapshots: HashSet<String>,
    /// Backups that are being restored.
    restoring: Vec<String>,
    /// The [`key`]s of volumes that some `temp_volume_id` names.
    temporary_volumes: HashSet<String>,
    /// Those of them that belong to a backup which is being created.
    temporaries_in_use: HashSet<String>,
    /// Live backups that name temporary things and are not being created.
    pub with_temporaries: Vec<Backup>,
    /// Live backups that were named but are in no status that can be repaired.
    pub idle: Vec<Backup>,
    /// Live backups and their GiB, by project.
    pub projects: HashMap<String, (i64, i64)>,
    /// Every host that a live backup names.
    pub hosts: HashSet<String>,
    /// Which parts of the selection a live backup matches, and which of its volumes exist.
    pub matched: Matched,
    /// How many live backups there are.
    pub live: u64,
    members: HashMap<u128, ChainMember>,
    /// During the pass: the backups that are not in `error`, have no children on record, and none so far.
    childless: Vec<u128>,
    ids: CompactIds,
}

impl Census {
    /// Takes the census.
    pub fn take(reader: &mut Reader<'_>, selection: &Selection) -> Result<Self, DbError> {
        let mut census = Self::default();
        let chains = reader.schema.columns >= ColumnSet::Liberty;
        let mut wanted = Vec::new();
        reader.live_backups(&mut |backup| {
            if census.count(&backup, selection, chains) {
                wanted.push(backup.id);
            }
        })?;
        census.settle();
        for volume in reader.volumes(&census.matched.missing_volumes(selection))? {
            census.matched.note(selection, volume.status.as_deref(), volume.project_id.as_deref(), Some(&volume.id));
        }
        // In the same transaction, so these are the rows that were just counted.
        for backup in reader.backups(&wanted)? {
            census.keep(backup, selection);
        }
        let snapshots: BTreeSet<&String> = census.kept.values().filter_map(|backup| backup.snapshot_id.as_ref()).collect();
        let snapshots: Vec<String> = snapshots.into_iter().cloned().collect();
        let held = reader.snapshots(&snapshots)?.into_iter().filter(|snapshot| snapshot.status.as_deref() == Some(BACKING_UP));
        census.held_snapshots = held.map(|snapshot| key(&snapshot.id).into_owned()).collect();
        Ok(census)
    }

    /// Counts a live backup, which needs only the columns that are counted; whether to keep it.
    fn count(&mut self, backup: &Backup, selection: &Selection, chains: bool) -> bool {
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
        if let Some(host) = backup.host.as_ref().filter(|host| !self.hosts.contains(*host)) {
            self.hosts.insert(host.clone());
        }
        if chains {
            self.link(backup);
        }
        if let Some(volume) = &backup.temp_volume_id {
            self.temporary_volumes.insert(key(volume).into_owned());
            if backup.status.as_deref() == Some(CREATING) {
                self.temporaries_in_use.insert(key(volume).into_owned());
            }
        }
        is_active(backup.status.as_deref())
            || selection.takes(backup)
            || has_temporaries(backup)
            || (!selection.backups.is_empty() && selection.names(backup))
    }

    /// Keeps a whole row if a finding can follow from it.
    fn keep(&mut self, backup: Backup, selection: &Selection) {
        let selected = selection.takes(&backup);
        if has_temporaries(&backup) && selection.takes_inconsistent(&backup) && !selected {
            self.with_temporaries.push(backup.clone());
        }
        let active = is_active(backup.status.as_deref());
        if !active && !selected {
            if !selection.backups.is_empty() && selection.names(&backup) {
                self.idle.push(backup);
            }
            return;
        }
        if active {
            if backup.status.as_deref() == Some(RESTORING) {
                self.restoring.push(backup.id.clone());
            }
            for volume in volumes_of(&backup) {
                self.by_volume.entry(key(volume).into_owned()).or_default().push(backup.id.clone());
            }
            if let Some(snapshot) = &backup.snapshot_id {
                self.by_snapshot.entry(key(snapshot).into_owned()).or_default().push(backup.id.clone());
            }
        }
        if selected {
            self.selected.insert(backup.id.clone());
        }
        self.kept.insert(backup.id.clone(), backup);
    }

    /// Resolves ids and names to ids: every name must belong to exactly one backup, and an id always means its own backup. From then on
    /// only these backups are selected.
    pub fn resolve(&mut self, selection: &Selection) -> Result<Selection, String> {
        let named = self.kept.values().chain(&self.idle).filter(|backup| selection.names(backup));
        let ids = names::resolve(&selection.backups, named)?;
        let resolved = Selection { backups: ids, ..selection.clone() };
        if !resolved.backups.is_empty() {
            self.selected.retain(|id| resolved.backups.contains(id));
            self.idle.retain(|backup| resolved.backups.contains(&backup.id));
            self.with_temporaries.retain(|backup| resolved.backups.contains(&backup.id));
        }
        Ok(resolved)
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

    /// Notes the rows that were seen before their children.
    fn settle(&mut self) {
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
        self.temporary_volumes.contains(key(volume).as_ref())
    }

    /// Whether the `temp_volume_id` of a backup that is being created names the volume.
    pub fn is_temporary_in_use(&self, volume: &str) -> bool {
        self.temporaries_in_use.contains(key(volume).as_ref())
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
    fn of_volume(&self, id: &str) -> Vec<&Backup> {
        self.by_volume.get(key(id).as_ref()).into_iter().flatten().filter_map(|id| self.kept.get(id)).collect()
    }

    fn of_snapshot(&self, id: &str) -> Vec<&Backup> {
        self.by_snapshot.get(key(id).as_ref()).into_iter().flatten().filter_map(|id| self.kept.get(id)).collect()
    }

    fn restoring(&self) -> Vec<&Backup> {
        self.restoring.iter().filter_map(|id| self.kept.get(id)).collect()
    }

    fn holds_volume(&self, backup: &Backup) -> bool {
        backup.snapshot_id.as_ref().is_none_or(|snapshot| !self.held_snapshots.contains(key(snapshot).as_ref()))
    }
}

fn has_temporaries(backup: &Backup) -> bool {
    backup.temp_volume_id.is_some() || backup.temp_snapshot_id.is_some()
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
            census.count(&backup, &Selection::default(), true);
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
                census.count(row, &Selection::default(), true);
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
