//! Takes the inventory of a backup: reads its side files, and compares its metadata with a listing. No data is read.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::digest::Md5Reader;
use super::inspection::Inspection;
use super::inventory::{Digests, Inventory, LARGE, MOST_LISTED, MOST_OBJECTS, Object, StoredBackup, prefix_of};
use super::layout;
use super::transfer::{WRONG_SHA256FILE, add_sha256file_error, format_problem, into_format, transfer_damage};
use crate::domain::id::same;
use crate::domain::{Amount, Backup, Listing, Problem, ProblemCode};
use crate::format::metadata::ObjectEntry;
use crate::format::names::{self, ObjectRole};
use crate::format::sha256file::Outline;
use crate::format::{metadata, sha256file};
use crate::storage::{ObjectInfo, ObjectStore, StorageError, StorageErrorKind};
use crate::verify::{Faults, Severity};

/// A quick check reads a sha256file of up to this size to its end; a volume of about 28 GiB has that many digests.
const QUICKLY_READ: u64 = 64 << 20;

/// What is known of a side file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SideFile {
    /// It exists, with this many bytes.
    There(u64),
    /// The storage answered that it does not exist.
    Missing,
    /// The storage gave an error.
    Unknown,
}

/// An inventory that is being taken.
pub(super) struct Survey<'a> {
    pub(super) store: &'a dyn ObjectStore,
    pub(super) backup: &'a Backup,
    pub(super) inventory: Inventory,
    /// Everything else that shows without reading the data.
    pub(super) inspection: Inspection,
    /// The MD5 of the metadata, as received.
    metadata_md5: Option<[u8; 16]>,
    /// The storage answered that there is no metadata.
    metadata_missing: bool,
    /// Indexes of the entries that the listing contradicts.
    pub(super) doubtful: Vec<usize>,
}

impl Inspection {
    /// Checks names, sizes and side files. `thorough` reads small sha256files to their end; `before_large` is called before more than
    /// [`LARGE`] objects are held, and may wait.
    pub fn quick(stored: &StoredBackup<'_>, thorough: bool, before_large: &mut dyn FnMut()) -> Self {
        let mut inspection = Self::default();
        let Some(prefix) = prefix_of(stored.backup) else {
            inspection.absent = true;
            let text = "the driver never began: backups.container or service_metadata is not set, so nothing was written";
            inspection.faults.add(Severity::Incomplete, Problem::general(ProblemCode::NeverBegun, text));
            return inspection;
        };
        let store = match &stored.store {
            Ok(store) => store.as_ref(),
            Err(error) => {
                inspection.faults.add_error(None, error);
                return inspection;
            }
        };
        let mut survey = Survey::run(store, stored, prefix, thorough, before_large);
        // Damage is judged by the metadata, which may itself have been damaged on the network.
        let name = names::metadata(prefix);
        let damage = |survey: &Survey<'_>| transfer_damage(store, &name, survey.metadata_md5);
        if survey.inspection.faults.has_damage() && damage(&survey).is_some() {
            survey = Survey::run(store, stored, prefix, thorough, before_large);
            if let Some(problem) = damage(&survey) {
                survey.inspection.faults = Faults::default();
                survey.inspection.faults.add(Severity::Unverifiable, problem);
                (survey.inventory.entries, survey.inventory.known) = (Vec::new(), false);
            }
        }
        let Survey { inventory, inspection, .. } = survey;
        let listed = inspection.objects.checked;
        let is_beyond = stored.volume_bytes.is_some_and(|volume_bytes| layout::is_beyond(inventory.end(), volume_bytes));
        Self {
            object_count: i64::try_from(inventory.entries.len()).ok(),
            digests: inventory.digests,
            volume_bytes: inventory.volume_bytes,
            objects: Amount { checked: listed, expected: listed.max(inventory.entries.len() as u64) },
            bytes: Amount { checked: 0, expected: inventory.bytes() },
            inventory: (!is_beyond).then(|| Arc::new(inventory)),
            ..inspection
        }
    }
}

impl<'a> Survey<'a> {
    /// Takes the inventory; the parameters are as for [`Inspection::quick`].
    fn run(store: &'a dyn ObjectStore, stored: &StoredBackup<'a>, prefix: &str, thorough: bool, before_large: &mut dyn FnMut()) -> Self {
        let inventory = Inventory { prefix: prefix.to_owned(), volume_bytes: stored.volume_bytes, ..Inventory::default() };
        let inspection = Inspection { depth: "listing".to_owned(), ..Inspection::default() };
        let (metadata_md5, metadata_missing, doubtful) = (None, false, Vec::new());
        let mut survey = Self { store, backup: stored.backup, inventory, inspection, metadata_md5, metadata_missing, doubtful };
        if let Some(parsed) = names::Prefix::parse(prefix)
            && parsed.backup_id != stored.backup.id
        {
            let text = format!("service_metadata is {prefix:?}, which is the prefix of backup {}", parsed.backup_id);
            survey.inspection.faults.add(Severity::Corrupt, Problem::general(ProblemCode::PrefixOfAnother, text));
        }
        let head = survey.read_metadata(before_large);
        match survey.list(head.is_some()) {
            Err(error) => survey.add_listing_error(&error),
            Ok(sha256file) => match head {
                Some(head) => survey.compare(&head, sha256file, thorough),
                None if survey.metadata_missing && !survey.inspection.begun => survey.prove_absent(),
                None => {}
            },
        }
        survey
    }

    fn add_listing_error(&mut self, error: &StorageError) {
        let faults = &mut self.inspection.faults;
        if error.kind != StorageErrorKind::NoContainer {
            faults.add_error(None, error);
        } else if self.metadata_missing {
            // A missing container is empty.
            faults.add_error(None, error);
            (self.inspection.listing, self.inspection.absent) = (Some(Listing::default()), true);
        } else {
            let text = format!("{}; but nothing shows that its metadata does not exist", error.text);
            faults.add(Severity::Unverifiable, Problem::general(ProblemCode::StorageContradicts, text));
        }
    }

    /// Compares the metadata, the listing and the sha256file. `listed` is the size of the sha256file in the listing.
    fn compare(&mut self, head: &metadata::MetadataHead, listed: Option<u64>, thorough: bool) {
        (self.inspection.begun, self.inventory.known) = (true, true);
        self.inspection.depth = "names, sizes and side files".to_owned();
        self.check_unlisted();
        self.check_doubtful();
        let side_file = listed.map_or_else(|| self.stat_sha256file(), SideFile::There);
        let outline = if let SideFile::There(size) = side_file { self.read_sha256file(size, thorough) } else { None };
        if let Some(Outline { head, hashes }) = &outline {
            self.inventory.claimed_digests = Some(Digests { block_size: head.block_size, count: *hashes });
            self.correct_volume_bytes();
        }
        layout::check(&self.inventory, self.backup, &mut self.inspection.faults, &mut self.inspection.warnings);
        if outline.is_some() {
            self.check_digest_count();
        } else if side_file == SideFile::Missing && head.has_parent_key {
            let text = "its sha256file is missing: no increment can be made on it, and nothing shows what the volume held";
            // A restore reads the data of the backups that it is based on, but never their sha256files.
            let name = names::sha256file(&self.inventory.prefix);
            self.inspection.faults.add_local(Severity::Incomplete, Problem::of(name, ProblemCode::Sha256fileMissing, text));
        } else if side_file == SideFile::Missing {
            let text = "made before Cinder wrote a sha256file: only the MD5 of its objects can be compared";
            self.inspection.warnings.push(Problem::general(ProblemCode::NoSha256file, text));
        }
        if self.inventory.digests.is_none() && self.backup.snapshot_id.is_some() {
            // The volume may have been extended since the snapshot was taken, and nothing else shows its size then.
            self.inventory.volume_bytes = None;
        }
    }

    /// Opens the metadata; `None` if that fails, with the fault.
    fn open_metadata(&mut self, name: &str) -> Option<Box<dyn std::io::Read + Send + 'a>> {
        match self.store.open(name, None) {
            Ok(stream) => return Some(stream),
            Err(error) if error.kind == StorageErrorKind::NoObject => {
                self.metadata_missing = true;
                let text = "its metadata is missing: the driver writes that last, so the backup was not finished";
                self.inspection.faults.add(Severity::Incomplete, Problem::of(name, ProblemCode::MetadataMissing, text));
            }
            // Without a container there is no listing either, which reports it.
            Err(error) if error.kind == StorageErrorKind::NoContainer => self.metadata_missing = true,
            Err(error) => self.inspection.faults.add_error(Some(name), &error),
        }
        None
    }

    /// Reads the list of objects in the metadata.
    fn read_metadata(&mut self, before_large: &mut dyn FnMut()) -> Option<metadata::MetadataHead> {
        let name = names::metadata(&self.inventory.prefix);
        let mut stream = Md5Reader::new(self.open_metadata(&name)?);
        let (mut entries, mut too_many) = (Vec::new(), false);
        let read = metadata::read(&mut stream, &mut |entry| {
            if entries.len() == LARGE {
                before_large();
            }
            if entries.len() >= MOST_OBJECTS {
                too_many = true;
                return ControlFlow::Break(());
            }
            match object(&self.inventory.prefix, &entry) {
                Ok(object) => entries.push(object),
                Err(text) => self.inspection.faults.add(Severity::Corrupt, Problem::of(entry.name, ProblemCode::ObjectForeign, text)),
            }
            ControlFlow::Continue(())
        });
        if too_many {
            let text =
                format!("its metadata lists more than {MOST_OBJECTS} objects, the most that this program can hold: it was not checked");
            self.inspection.faults.add(Severity::Unverifiable, Problem::of(name, ProblemCode::TooLarge, text));
            return None;
        }
        self.metadata_md5 = stream.of_all(QUICKLY_READ);
        match read {
            Ok(head) => {
                self.check_metadata(&name, &head);
                // In place: the list may be large.
                entries.sort_unstable_by_key(|object| (object.offset, object.number));
                self.inventory.entries = entries;
                Some(head)
            }
            Err(error) => {
                let (severity, problem) = format_problem(&name, ProblemCode::MetadataMalformed, "its metadata cannot be read", error);
                self.inspection.faults.add(severity, problem);
                None
            }
        }
    }

    /// Compares the head of the metadata with the row.
    fn check_metadata(&mut self, name: &str, head: &metadata::MetadataHead) {
        let backup = self.backup;
        let mut add = |code: ProblemCode, text: String| self.inspection.faults.add(Severity::Corrupt, Problem::of(name, code, text));
        if head.backup_id != backup.id {
            add(ProblemCode::MetadataOfAnother, format!("its metadata belongs to backup {:?}", head.backup_id));
        }
        if is_of_another_volume(backup, &head.volume_id) {
            add(ProblemCode::MetadataOfAnother, format!("its metadata belongs to a backup of volume {:?}", head.volume_id));
        }
        if head.version != "1.0.0" {
            add(ProblemCode::MetadataVersion, format!("its metadata has version {:?}, which no release of Cinder restores", head.version));
        }
        if let Some(why) = &head.volume_meta_problem {
            let text = format!("a restore would write the data and then fail on volume_meta, the volume's own properties: {why}");
            add(ProblemCode::VolumeMeta, text);
        }
        if head.has_parent_key && head.parent_id != backup.parent_id {
            let stated = head.parent_id.as_deref().unwrap_or("none");
            let known = backup.parent_id.as_deref().unwrap_or("none");
            add(ProblemCode::ParentDiffers, format!("its metadata names the parent {stated}, but backups.parent_id is {known}"));
        }
    }

    /// Compares the listing with the metadata; returns the size of the sha256file, if it is listed.
    fn list(&mut self, has_metadata: bool) -> Result<Option<u64>, StorageError> {
        let Self { store, inventory, inspection, doubtful, .. } = self;
        let mut by_number: Vec<(u64, usize)> = inventory.entries.iter().enumerate().map(|(index, object)| (object.number, index)).collect();
        by_number.sort_unstable();
        for pair in by_number.windows(2) {
            if let [(first, _), (second, _)] = pair
                && first == second
            {
                let name = names::data(&inventory.prefix, *first);
                inspection
                    .faults
                    .add(Severity::Corrupt, Problem::of(name, ProblemCode::ObjectTwice, "its metadata lists this object twice"));
            }
        }
        let mut sha256file = None;
        let (mut received, mut listing) = (0_u64, Listing::default());
        let prefix = inventory.prefix.clone();
        store.list(&prefix, &mut |found| {
            received += 1;
            if received > MOST_LISTED {
                return ControlFlow::Break(());
            }
            // A store may list more than was requested.
            if !found.name.starts_with(&prefix) {
                return ControlFlow::Continue(());
            }
            listing.objects += 1;
            listing.bytes = listing.bytes.saturating_add(found.size);
            inspection.times.add(found.modified);
            match names::role(&prefix, &found.name) {
                ObjectRole::Metadata => {}
                ObjectRole::Sha256File => sha256file = Some(found.size),
                ObjectRole::Data(number) => {
                    inspection.objects.checked += 1;
                    let at = by_number.partition_point(|(other, _)| *other < number);
                    let index = by_number.get(at).filter(|(other, _)| *other == number).map(|(_, index)| *index);
                    match index.and_then(|index| inventory.entries.get_mut(index)) {
                        Some(object) => doubtful.extend(index.filter(|_| object.compare(&found).is_some())),
                        None if has_metadata => inspection.faults.add(Severity::Corrupt, extra(&found)),
                        None => {}
                    }
                }
                ObjectRole::Foreign if has_metadata => inspection.faults.add(Severity::Corrupt, extra(&found)),
                ObjectRole::Foreign => {}
            }
            ControlFlow::Continue(())
        })?;
        if received > MOST_LISTED {
            let text = format!("the listing of {} has more than {MOST_LISTED} objects", store.location());
            return Err(StorageError::new(StorageErrorKind::Protocol, text));
        }
        (inspection.begun, inspection.listing) = (listing.objects > 0, Some(listing));
        Ok(sha256file)
    }

    /// Reads what the sha256file has beside the digests, and counts these; `None` if it is not this backup's.
    fn read_sha256file(&mut self, size: u64, thorough: bool) -> Option<Outline> {
        let name = names::sha256file(&self.inventory.prefix);
        let thorough = thorough && size <= QUICKLY_READ;
        let mut md5 = None;
        let read = if thorough {
            self.store.open(&name, None).map_err(into_format).and_then(|stream| {
                let mut stream = Md5Reader::new(stream);
                let read = sha256file::count(&mut stream);
                md5 = stream.of_all(QUICKLY_READ);
                read
            })
        } else {
            sha256file::outline(size, &mut |range| self.store.open(&name, Some(range)).map_err(into_format))
        };
        let outline = match read {
            Ok(outline) => outline,
            Err(error) => {
                add_sha256file_error(&mut self.inspection.faults, self.store, &name, md5, error);
                return None;
            }
        };
        let head = &outline.head;
        let owner = if head.backup_id != self.backup.id {
            format!("backup {:?}", head.backup_id)
        } else if is_of_another_volume(self.backup, &head.volume_id) {
            format!("a backup of volume {:?}", head.volume_id)
        } else {
            let how = if thorough { "read to its end" } else { "both ends and the size" };
            self.inspection.depth = format!("{}; sha256file: {how}", self.inspection.depth);
            return Some(outline);
        };
        let text = format!("its sha256file belongs to {owner}");
        self.inspection.faults.add_local(Severity::Corrupt, Problem::of(name, ProblemCode::Sha256fileOfAnother, text));
        None
    }

    /// Corrects the size of the volume for a backup of a snapshot. Its row has the size of the volume, which may have been extended
    /// since the snapshot was taken: then only the sha256file shows how much was read.
    ///
    /// Source: `cinder/backup/api.py` (`create`), `cinder/backup/manager.py` (`_finish_backup`).
    fn correct_volume_bytes(&mut self) {
        let (Some(stated), Some(digests), Some(_)) =
            (self.inventory.volume_bytes, self.inventory.claimed_digests, &self.backup.snapshot_id)
        else {
            return;
        };
        let (end, covered) = (self.inventory.end(), digests.count.saturating_mul(digests.block_size));
        // The last block may be a short one, which only a full backup shows.
        let read = if self.backup.parent_id.is_none() { end } else { covered };
        if read > 0 && read < stated && end <= covered && read.div_ceil(digests.block_size) == digests.count {
            let text = format!(
                "{read} bytes were read, and backups.size is {stated} bytes: the volume was extended after the snapshot that was backed up"
            );
            self.inspection.warnings.push(Problem::general(ProblemCode::SmallerThanSize, text));
            self.inventory.volume_bytes = Some(read);
        }
    }

    /// Compares the number of digests with the size of the volume.
    fn check_digest_count(&mut self) {
        let inventory = &mut self.inventory;
        let Some(digests) = inventory.claimed_digests else { return };
        let (end, full) = (inventory.end(), self.backup.parent_id.is_none());
        let covered = if full { end } else { inventory.volume_bytes.unwrap_or(end).max(end) };
        let wanted = covered.div_ceil(digests.block_size);
        let Digests { block_size, count } = digests;
        // An increment may have been made of a device that is a little larger than its size in GiB.
        if count < wanted || (full && count != wanted) {
            let text = format!(
                "its sha256file has {count} digests of {block_size} bytes, but {covered} bytes of data need {wanted}: {WRONG_SHA256FILE}"
            );
            let problem = Problem::of(names::sha256file(&inventory.prefix), ProblemCode::Sha256fileWrong, text);
            return self.inspection.faults.add_local(Severity::Corrupt, problem);
        }
        inventory.digests = Some(digests);
    }
}

fn is_of_another_volume(backup: &Backup, volume_id: &str) -> bool {
    backup.volume_id.as_deref().is_some_and(|volume| !same(volume, volume_id))
}

fn object(prefix: &str, entry: &ObjectEntry) -> Result<Object, String> {
    let ObjectRole::Data(number) = names::role(prefix, &entry.name) else {
        return Err("its metadata lists an object whose name does not belong to this backup; that object was not read".to_owned());
    };
    if entry.length == 0 {
        return Err("its metadata lists an object without any data".to_owned());
    }
    let ObjectEntry { offset, length, compression, md5, .. } = *entry;
    Ok(Object { number, offset, length, compression, md5, stored: None, written: i64::MIN })
}

fn extra(found: &ObjectInfo) -> Problem {
    let text = "its metadata does not list this object, so Cinder would refuse to restore it";
    Problem::of(found.name.clone(), ProblemCode::ObjectExtra, text)
}
