//! What a backup has on the storage: its list of objects, its side files, and the listing that must agree with them.

use std::ops::ControlFlow;

use jiff::Timestamp;

use super::confirm::{SideFile, transfer_damage};
use super::digest::Md5Reader;
use super::{StoredBackup, layout};
use crate::domain::id::same;
use crate::domain::{Backup, Problem, ProblemCode};
use crate::format::metadata::{Compression, Entry};
use crate::format::names::{self, Role};
use crate::format::sha256file::Outline;
use crate::format::{FormatError, metadata, sha256file};
use crate::storage::{ObjectInfo, ObjectStore, StorageError, StorageErrorKind};
use crate::verify::fault::{Faults, Severity};

/// Of a backup with more objects than this the list is not read to its end, for it would fill the memory: a full one would be
/// of a volume of 190 TiB at the drivers' smallest usual size, but an increment has an object for each stretch that changed.
const MOST_OBJECTS: usize = if cfg!(test) { 1 << 17 } else { 4_000_000 };
/// Checks that run side by side may each hold so many objects (4 MB); for more they take turns.
pub const LARGE: usize = 1 << 16;
/// A listing longer than that of the largest backup has no end.
pub(in crate::verify) const MOST_LISTED: u64 = 2 * MOST_OBJECTS as u64;
/// What a wrong sha256file means: Cinder's restore never reads it; an increment is made of the blocks whose digests are not in it.
///
/// Source: `cinder/backup/chunkeddriver.py` (`backup`, `_restore_v1`).
pub const WRONG_SHA256FILE: &str = "a restore does not read it, but an increment made on this backup would fail or hold wrong data: \
                                    make the next backup of the volume a full one";
/// A sha256file up to this size is read through by a quick check, too; a volume of about 28 GiB has so many digests.
const QUICKLY_READ: u64 = 64 << 20;

/// One object, as the list in the metadata has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object {
    /// Its number in its name, from 1.
    pub number: u64,
    /// Where its data belongs in the volume, in bytes.
    pub offset: u64,
    /// How much data it holds, before compression.
    pub length: u64,
    /// How that is stored.
    pub compression: Compression,
    /// The MD5 of the data before compression.
    pub md5: [u8; 16],
    /// Bytes as stored, if the listing has it.
    pub stored: Option<u64>,
    /// When that was written, in seconds of Unix' time; [`i64::MIN`] where nobody says. There may be millions of these.
    pub written: i64,
}

impl Object {
    /// The first byte of the volume behind it.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    /// Whether it was written again since it was listed. Some servers round times up in one answer and down in another.
    pub fn was_rewritten(&self, found: &ObjectInfo) -> bool {
        let moved = |at: Timestamp| self.written != i64::MIN && at.as_second().abs_diff(self.written) > 1;
        found.modified.is_some_and(moved) || self.stored.is_some_and(|stored| stored != found.size)
    }
}

/// When objects were written, by the storage's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// The newest.
    pub newest: Option<Timestamp>,
    /// The oldest.
    pub oldest: Option<Timestamp>,
    /// So many have no time that can be read.
    pub unknown: u64,
}

impl Times {
    /// Adds an object.
    pub fn add(&mut self, modified: Option<Timestamp>) {
        self.newest = self.newest.max(modified);
        self.oldest = self.oldest.into_iter().chain(modified).min();
        self.unknown += u64::from(modified.is_none());
    }

    /// The newest, where the storage tells the time of each.
    pub fn known_newest(&self) -> Option<Timestamp> {
        self.newest.filter(|_| self.unknown == 0)
    }
}

/// What a backup has on the storage.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// The beginning of all its objects' names.
    pub prefix: String,
    /// What the metadata lists, in the order of the volume.
    pub entries: Vec<Object>,
    /// Its metadata was read: only then an empty list says that there are no objects.
    pub known: bool,
    /// Numbered objects that the listing has.
    pub data_objects: u64,
    /// Objects of any kind that the listing has.
    pub present: u64,
    /// Bytes that these take on the storage.
    pub present_bytes: u64,
    /// The listing came to its end.
    pub listed: bool,
    /// Something of it is there, listed or not.
    pub begun: bool,
    /// The MD5 of its metadata, as it came.
    pub metadata_md5: Option<[u8; 16]>,
    /// The storage said of its metadata that there is none.
    metadata_gone: bool,
    /// Objects, by their places in the list, of which the listing says what does not fit the metadata.
    pub doubtful: Vec<usize>,
    /// The storage said that nothing of it is there: a listing alone does not, for it may lag behind.
    pub absent: bool,
    /// When its objects were written.
    pub times: Times,
    /// Bytes of the volume when it was read; `None` where nobody knows.
    pub volume_bytes: Option<u64>,
    /// The size of the blocks that have a digest; `None` where there is no usable sha256file.
    pub block_size: Option<u64>,
    /// How many such blocks have one.
    pub digests: u64,
    /// The size of the blocks and the number of digests that its own sha256file tells of, usable or not.
    pub told: Option<(u64, u64)>,
    /// What was done.
    pub depth: String,
}

impl Inventory {
    /// Takes it, with every fault that can be seen without reading the data. `whole` reads small sha256files through; `large` is
    /// called before more than [`LARGE`] objects are held, and may wait.
    pub fn take(
        store: &dyn ObjectStore,
        link: &StoredBackup<'_>,
        prefix: &str,
        whole: bool,
        large: &mut dyn FnMut(),
        faults: &mut Faults,
        warnings: &mut Vec<Problem>,
    ) -> Self {
        let backup = link.backup;
        let mut this = Self { prefix: prefix.to_owned(), volume_bytes: link.volume_bytes, ..Self::default() };
        if let Some(parsed) = names::Prefix::parse(prefix)
            && parsed.backup_id != backup.id
        {
            let text = format!("service_metadata is {prefix:?}, which is the prefix of backup {}", parsed.backup_id);
            faults.add(Severity::Corrupt, Problem::general(ProblemCode::PrefixOfAnother, text));
        }
        let head = this.read_metadata(store, backup, large, faults);
        let sha256_size = match this.list(store, faults, head.is_some()) {
            Ok(size) => size,
            Err(error) => {
                this.depth = "listing".to_owned();
                // Where there is no container, nothing is in it; but then its metadata is not there, either.
                let gone = error.kind == StorageErrorKind::NoContainer;
                (this.listed, this.absent) = (gone && this.metadata_gone, gone && this.metadata_gone);
                if gone && !this.metadata_gone {
                    let text = format!("{}; yet nothing says that its metadata is not there", error.text);
                    faults.add(Severity::Unverifiable, Problem::general(ProblemCode::StorageContradicts, text));
                } else {
                    faults.add_error(None, &error);
                }
                return this;
            }
        };
        this.begun = this.present > 0;
        let Some(head) = head else {
            this.depth = "listing".to_owned();
            if this.metadata_gone && !this.begun {
                this.prove_absent(store, faults);
            }
            return this;
        };
        (this.begun, this.known) = (true, true);
        this.depth = "names, sizes and side files".to_owned();
        this.miss(store, faults);
        this.dispel(store, faults);
        let sha256_size = match sha256_size {
            Some(size) => SideFile::There(size),
            None => this.ask_for_sha256file(store, faults, warnings),
        };
        let digests = match sha256_size {
            SideFile::There(size) => this.read_sha256file(store, backup, size, whole, faults),
            SideFile::Gone | SideFile::Unknown => None,
        };
        if let Some(digests) = &digests {
            this.told = Some((digests.head.block_size, digests.hashes));
            this.measure(backup, digests, warnings);
        }
        layout::check(&this, backup, faults, warnings);
        if let Some(digests) = &digests {
            this.count(backup, digests, faults);
        } else if sha256_size == SideFile::Gone && head.knows_parents {
            let text = "its sha256file is missing: no increment can be made on it, and nothing tells what the volume held";
            // A restore reads the data of what a backup rests on, and never its sha256file.
            faults.add_local(Severity::Incomplete, Problem::of(names::sha256file(prefix), ProblemCode::Sha256fileMissing, text));
        } else if sha256_size == SideFile::Gone {
            let text = "made before Cinder wrote a sha256file: the MD5 of its objects is all that can be compared";
            warnings.push(Problem::general(ProblemCode::NoSha256file, text));
        }
        if this.block_size.is_none() && backup.snapshot_id.is_some() {
            // The volume may have been extended since the snapshot was taken, and nothing else tells.
            this.volume_bytes = None;
        }
        this
    }

    fn read_metadata(
        &mut self,
        store: &dyn ObjectStore,
        backup: &Backup,
        large: &mut dyn FnMut(),
        faults: &mut Faults,
    ) -> Option<metadata::Head> {
        let name = names::metadata(&self.prefix);
        let stream = match store.open(&name, None) {
            Ok(stream) => stream,
            Err(error) if error.kind == StorageErrorKind::NoObject => {
                self.metadata_gone = true;
                let text = "its metadata is missing: the driver writes that last, so the backup never came to its end";
                faults.add(Severity::Incomplete, Problem::of(name, ProblemCode::MetadataMissing, text));
                return None;
            }
            Err(error) => {
                // Where there is no container there is no listing either, which says so.
                self.metadata_gone = error.kind == StorageErrorKind::NoContainer;
                if !self.metadata_gone {
                    faults.add_error(Some(&name), &error);
                }
                return None;
            }
        };
        let mut entries = Vec::new();
        let mut too_many = false;
        let (stream, taken) = Md5Reader::of(stream);
        let read = metadata::read(stream, &mut |entry| {
            if entries.len() == LARGE {
                large();
            }
            if entries.len() >= MOST_OBJECTS {
                too_many = true;
                return ControlFlow::Break(());
            }
            match self.object(&entry) {
                Ok(object) => entries.push(object),
                Err(text) => faults.add(Severity::Corrupt, Problem::of(entry.name, ProblemCode::ObjectForeign, text)),
            }
            ControlFlow::Continue(())
        });
        if too_many {
            let text = format!("its metadata lists more than {MOST_OBJECTS} objects, and this program holds no more: it was not checked");
            faults.add(Severity::Unverifiable, Problem::of(name, ProblemCode::TooLarge, text));
            return None;
        }
        self.metadata_md5 = taken.of_all(QUICKLY_READ);
        let head = match read {
            Ok(head) => head,
            Err(error) => {
                add_format_error(faults, &name, ProblemCode::MetadataMalformed, "its metadata cannot be read", error);
                return None;
            }
        };
        let mut wrong = |code: ProblemCode, text: String| faults.add(Severity::Corrupt, Problem::of(name.clone(), code, text));
        if head.backup_id != backup.id {
            wrong(ProblemCode::MetadataOfAnother, format!("its metadata belongs to backup {:?}", head.backup_id));
        }
        if backup.volume_id.as_deref().is_some_and(|volume| !same(volume, &head.volume_id)) {
            wrong(ProblemCode::MetadataOfAnother, format!("its metadata belongs to a backup of volume {:?}", head.volume_id));
        }
        if head.version != "1.0.0" {
            wrong(
                ProblemCode::MetadataVersion,
                format!("its metadata has version {:?}, which no release of Cinder restores", head.version),
            );
        }
        if let Some(why) = &head.meta_wrong {
            let text = format!("a restore would write the data and then fail over volume_meta, the volume's own properties: {why}");
            wrong(ProblemCode::VolumeMeta, text);
        }
        if head.knows_parents && head.parent_id != backup.parent_id {
            let said = head.parent_id.as_deref().unwrap_or("none");
            let known = backup.parent_id.as_deref().unwrap_or("none");
            wrong(ProblemCode::ParentDiffers, format!("its metadata names the parent {said}, and backups.parent_id {known}"));
        }
        // In admission: the list may be large.
        entries.sort_unstable_by_key(|object| (object.offset, object.number));
        self.entries = entries;
        Some(head)
    }

    fn object(&self, entry: &Entry) -> Result<Object, String> {
        let Role::Data(number) = names::role(&self.prefix, &entry.name) else {
            return Err("its metadata lists an object whose name is none of this backup's; it was not looked at".to_owned());
        };
        if entry.length == 0 {
            return Err("its metadata lists an object without any data".to_owned());
        }
        Ok(Object {
            number,
            offset: entry.offset,
            length: entry.length,
            compression: entry.compression,
            md5: entry.md5,
            stored: None,
            written: i64::MIN,
        })
    }

    /// Compares the listing with the list; gives the size of the sha256file, if there is one.
    fn list(&mut self, store: &dyn ObjectStore, faults: &mut Faults, has_list: bool) -> Result<Option<u64>, StorageError> {
        let mut by_number: Vec<(u64, usize)> = self.entries.iter().enumerate().map(|(index, object)| (object.number, index)).collect();
        by_number.sort_unstable();
        for pair in by_number.windows(2) {
            if let [(first, _), (second, _)] = pair
                && first == second
            {
                let name = names::data(&self.prefix, *first);
                faults.add(Severity::Corrupt, Problem::of(name, ProblemCode::ObjectTwice, "its metadata lists this object twice"));
            }
        }
        let mut sha256_size = None;
        let (mut given, mut endless) = (0_u64, false);
        let prefix = self.prefix.clone();
        store.list(&prefix, &mut |found| {
            given += 1;
            if given > MOST_LISTED {
                endless = true;
                return ControlFlow::Break(());
            }
            // A store may match more than it was asked for.
            if !found.name.starts_with(&prefix) {
                return ControlFlow::Continue(());
            }
            self.present += 1;
            self.present_bytes = self.present_bytes.saturating_add(found.size);
            self.times.add(found.modified);
            match names::role(&prefix, &found.name) {
                Role::Metadata => {}
                Role::Sha256File => sha256_size = Some(found.size),
                Role::Data(number) => {
                    self.data_objects += 1;
                    let at = by_number.partition_point(|(other, _)| *other < number);
                    let index = by_number.get(at).filter(|(other, _)| *other == number).map(|(_, index)| *index);
                    match index.and_then(|index| self.entries.get_mut(index)) {
                        Some(object) => self.doubtful.extend(index.filter(|_| compare(object, &found).is_some())),
                        None if has_list => faults.add(Severity::Corrupt, extra(&found)),
                        None => {}
                    }
                }
                Role::Foreign if has_list => faults.add(Severity::Corrupt, extra(&found)),
                Role::Foreign => {}
            }
            ControlFlow::Continue(())
        })?;
        if endless {
            let text = format!("the listing of {} goes on for more than {MOST_LISTED} objects", store.location());
            return Err(StorageError::new(StorageErrorKind::Protocol, text));
        }
        self.listed = true;
        Ok(sha256_size)
    }

    /// What there is beside the digests, and how many there are; `None` where it is not this backup's.
    fn read_sha256file(
        &mut self,
        store: &dyn ObjectStore,
        backup: &Backup,
        size: u64,
        whole: bool,
        faults: &mut Faults,
    ) -> Option<Outline> {
        let name = names::sha256file(&self.prefix);
        let whole = whole && size <= QUICKLY_READ;
        let mut came = None;
        let read = if whole {
            let mut hashes = 0;
            let read = store.open(&name, None).map_err(into_format).and_then(|stream| {
                let (stream, taken) = Md5Reader::of(stream);
                let read = sha256file::read_hashes(stream, &mut |_| {
                    hashes += 1;
                    ControlFlow::Continue(())
                });
                came = taken.of_all(QUICKLY_READ);
                read
            });
            read.map(|head| Outline { head, hashes })
        } else {
            sha256file::outline(size, &mut |range| store.open(&name, Some(range)).map_err(into_format))
        };
        let outline = match read {
            Ok(outline) => outline,
            Err(error) => {
                add_sha256file_error(faults, store, &name, came, error);
                return None;
            }
        };
        let head = &outline.head;
        let of_another = if head.backup_id != backup.id {
            Some(format!("its sha256file belongs to backup {:?}", head.backup_id))
        } else if backup.volume_id.as_deref().is_some_and(|volume| !same(volume, &head.volume_id)) {
            Some(format!("its sha256file belongs to a backup of volume {:?}", head.volume_id))
        } else {
            None
        };
        if let Some(text) = of_another {
            faults.add_local(Severity::Corrupt, Problem::of(name, ProblemCode::Sha256fileOfAnother, text));
            return None;
        }
        let how = if whole { "read through" } else { "both ends and the size" };
        self.depth = format!("{}; sha256file: {how}", self.depth);
        Some(outline)
    }

    /// The end of the last object.
    fn end(&self) -> u64 {
        self.entries.iter().map(Object::end).max().unwrap_or(0)
    }

    /// A backup of a snapshot has the size of the volume in its row, and the volume may have been extended since the snapshot
    /// was taken: how much was read is then known to the sha256file alone.
    ///
    /// Source: `cinder/backup/api.py` (`create`), `cinder/backup/manager.py` (`_finish_backup`).
    fn measure(&mut self, backup: &Backup, digests: &Outline, warnings: &mut Vec<Problem>) {
        let (Some(said), Some(_)) = (self.volume_bytes, &backup.snapshot_id) else { return };
        let (end, told) = (self.end(), digests.hashes.saturating_mul(digests.head.block_size));
        // The last block may be a short one, which only a full backup shows.
        let read = if backup.parent_id.is_none() { end } else { told };
        if read > 0 && read < said && end <= told && read.div_ceil(digests.head.block_size) == digests.hashes {
            let text = format!(
                "{read} bytes were read and backups.size is {said} bytes: the volume was extended after the snapshot that this is a backup of"
            );
            warnings.push(Problem::general(ProblemCode::SmallerThanSize, text));
            self.volume_bytes = Some(read);
        }
    }

    /// Compares the number of digests with the size of the volume.
    fn count(&mut self, backup: &Backup, digests: &Outline, faults: &mut Faults) {
        let Outline { head, hashes } = digests;
        let (end, full) = (self.end(), backup.parent_id.is_none());
        let covered = if full { end } else { self.volume_bytes.unwrap_or(end).max(end) };
        let wanted = covered.div_ceil(head.block_size);
        // An incremental one may have been made of a device that is a little larger than its size in GiB.
        if *hashes < wanted || (full && *hashes != wanted) {
            let of = format!("its sha256file has {hashes} digests of {} bytes", head.block_size);
            let text = format!("{of}, and {wanted} are wanted for {covered} bytes of data: {WRONG_SHA256FILE}");
            return faults.add_local(Severity::Corrupt, Problem::of(names::sha256file(&self.prefix), ProblemCode::Sha256fileWrong, text));
        }
        (self.block_size, self.digests) = (Some(head.block_size), *hashes);
    }
}

/// What does not fit the metadata in what the storage says of an object.
pub fn compare(object: &mut Object, found: &ObjectInfo) -> Option<Problem> {
    object.stored = Some(found.size);
    object.written = found.modified.map_or(i64::MIN, Timestamp::as_second);
    let plausible = match object.compression {
        Compression::None => found.size == object.length,
        // What does not shrink is stored as it is, but until Liberty it was stored compressed all the same: no compressor
        // adds more than this.
        _ => found.size > 0 && found.size <= object.length.saturating_add(object.length / 64).saturating_add(1024),
    };
    if !plausible {
        let how = if object.compression == Compression::None { "stored as they are" } else { "compressed" };
        let text = format!("it is {} bytes long, and should hold {} bytes, {how}", found.size, object.length);
        return Some(Problem::of(found.name.clone(), ProblemCode::ObjectSize, text));
    }
    let differs = object.compression == Compression::None && found.md5.is_some_and(|md5| md5 != object.md5);
    let text = "the MD5 that the storage took of it is not the one in the metadata";
    differs.then(|| Problem::of(found.name.clone(), ProblemCode::ObjectDigest, text))
}

fn extra(found: &ObjectInfo) -> Problem {
    Problem::of(
        found.name.clone(),
        ProblemCode::ObjectExtra,
        "its metadata does not list this object, so that Cinder would refuse to restore it",
    )
}

/// What a side file that cannot be read means: its content is wrong, or the storage would not.
fn add_format_error(faults: &mut Faults, name: &str, code: ProblemCode, what: &str, error: FormatError) {
    match error {
        FormatError::Io(error) => match StorageError::of_io(&error) {
            Some(error) => faults.add_error(Some(name), error),
            None => faults.add(Severity::Unverifiable, Problem::of(name, ProblemCode::StorageUnreadable, format!("{what}: {error}"))),
        },
        FormatError::Malformed(text) => faults.add(Severity::Corrupt, Problem::of(name, code, format!("{what}: {text}"))),
    }
}

/// The same of the sha256file, which nothing that rests on the backup needs. `came` is the MD5 of what came.
pub(super) fn add_sha256file_error(faults: &mut Faults, store: &dyn ObjectStore, name: &str, came: Option<[u8; 16]>, error: FormatError) {
    let mut local = Faults::default();
    match transfer_damage(store, name, came) {
        Some(problem) if matches!(error, FormatError::Malformed(_)) => local.add(Severity::Unverifiable, problem),
        _ => add_format_error(&mut local, name, ProblemCode::Sha256fileMalformed, "its sha256file cannot be read", error),
    }
    faults.extend_local(local);
}

fn into_format(error: StorageError) -> FormatError {
    FormatError::Io(error.into_io())
}
