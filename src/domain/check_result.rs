//! What a look at the storage says about a backup.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use jiff::civil::DateTime;

use super::status::{CREATING, DELETING, ERROR, ERROR_DELETING, RESTORING};
use super::time::{human, is_same_moment, moment, rfc3339, seconds_between};
use super::{Backup, Code, ColumnSet, Driver, Image, ProblemCode, Table};

/// Clocks of hosts that are kept right may be this far apart, in seconds.
const CLOCKS: i64 = 300;

/// Checks by the backup that each is about.
pub type Checks = BTreeMap<String, CheckResult>;

/// How deeply a backup is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Names, sizes and side files; no data is read.
    Quick,
    /// Every object is read, decompressed and compared with its length and digest.
    Deep,
    /// Every block of the volume, as a restore would write it, is compared with the digest taken when the volume was read.
    Restore,
}

impl Level {
    /// The word in JSON and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Deep => "deep",
            Self::Restore => "restore",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What the storage holds of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckVerdict {
    /// All of it, as far as the level looks.
    Intact,
    /// Part of it is not there.
    Incomplete,
    /// All of it is there, and part of it is wrong.
    Corrupt,
    /// Nothing of it is there.
    Missing,
    /// The check could not be finished, or this program does not know the driver.
    Unverifiable,
}

impl CheckVerdict {
    /// The word in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Intact => "intact",
            Self::Incomplete => "incomplete",
            Self::Corrupt => "corrupt",
            Self::Missing => "missing",
            Self::Unverifiable => "unverifiable",
        }
    }

    /// Whether a restore would fail or give wrong bytes.
    pub fn is_damage(self) -> bool {
        matches!(self, Self::Incomplete | Self::Corrupt | Self::Missing)
    }
}

impl fmt::Display for CheckVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One thing that is wrong, or worth knowing, about one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// The object's name on the storage; `None` where it is about the backup as a whole. Hostile text.
    pub object: Option<String>,
    /// A stable code such as `object-missing`.
    pub code: Code<ProblemCode>,
    /// The same in words. May hold names from the storage, which is hostile text.
    pub text: String,
}

impl Problem {
    /// About one object.
    pub fn of(object: impl Into<String>, code: ProblemCode, text: impl Into<String>) -> Self {
        Self { object: Some(object.into()), code: code.into(), text: text.into() }
    }

    /// Whether it says that a disk could not read the data: its own, or that of a backup below.
    pub fn is_unreadable(&self) -> bool {
        matches!(self.code.known(), Some(ProblemCode::Unreadable | ProblemCode::ParentUnreadable))
    }

    /// About the backup as a whole.
    pub fn general(code: ProblemCode, text: impl Into<String>) -> Self {
        Self { object: None, code: code.into(), text: text.into() }
    }
}

/// How much was looked at, and how much there should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Amount {
    /// So much was checked.
    pub checked: u64,
    /// So much there is to check.
    pub expected: u64,
}

/// What a listing shows of a backup: enough to see later whether something was added or taken away. Ceph has no listing; its
/// parts are counted in the place of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listing {
    /// Objects of any kind; in Ceph the image, the snapshots of it that are this backup's, and the object of metadata.
    pub objects: u64,
    /// Bytes that they take on the storage; in Ceph those in the extents of the image.
    pub bytes: u64,
}

/// What listings show of all the backups together that one rests on: of each alone, a survey of a chain would grow with the
/// square of its length.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Below {
    /// The sums.
    pub listing: Listing,
    /// When the newest object of them was written, RFC 3339, by the storage's clock.
    pub newest_object_at: Option<String>,
}

/// What the storage shows of a backup at a precheck: no object is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glance {
    /// As in [`Listing`].
    pub objects: u64,
    /// As in [`Listing`], or why they could not be counted.
    pub bytes: Result<u64, String>,
    /// When the newest object was written, RFC 3339, by the storage's clock.
    pub newest_object_at: Option<String>,
    /// Somebody has the image open (Ceph).
    pub watched: bool,
}

/// What came of a last look at the storage of a backup before it is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// All is as the check saw it.
    Same,
    /// What moved since the check, in words.
    Moved(String),
    /// The storage cannot be seen from here, and why.
    Unseen(String),
}

/// What a look at the storage says about one backup: an entry of `results` in the document of `check`, and evidence for
/// a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckResult {
    /// The backup.
    pub id: String,
    /// Its name; hostile text.
    pub name: Option<String>,
    /// Its driver; `None` where this program does not know it.
    pub driver: Option<Driver>,
    /// `backups.service` as it was.
    pub service: Option<String>,
    /// Where its data is: a URL or a path without secrets, for Swift the container and the address of the login.
    pub location: Option<String>,
    /// How deeply it was to be checked.
    pub level: Level,
    /// What was really done, in words: the digest that ran, the share of the data that was read.
    pub depth: String,
    /// Only a sample or a part of the data was read: that finds damage, and proves nothing whole.
    pub partial: bool,
    /// What was found, as far as `level` looks.
    pub verdict: CheckVerdict,
    /// The deepest level at which it is known to be intact; `None` where there is none, and in documents of versions that did not
    /// say it. Below `level` where the storage keeps nothing to compare the data with (Ceph), and where only a sample was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level_reached: Option<Level>,
    /// The newest object is younger than `--settle`, or somebody has the image open: it is being written.
    pub busy: bool,
    /// Something of it is on the storage.
    pub begun: bool,
    /// Objects of this backup (at level restore of its whole chain), side files not counted; 0 for Ceph.
    pub objects: Amount,
    /// Bytes of the volume that these objects hold.
    pub bytes: Amount,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
    /// What is not wrong and should be known all the same.
    pub warnings: Vec<Problem>,
    /// Ids of the backups that a restore reads, this one first.
    pub chain: Vec<String>,
    /// What `backups.object_count` is to be once it is available; `None` where the driver leaves it NULL.
    pub object_count: Option<i64>,
    /// What `backups.service_metadata` is to be once it is available, where the driver sets that last (Ceph).
    pub service_metadata: Option<String>,
    /// When the newest object was written, RFC 3339, by the storage's clock; `None` where it does not tell that of each.
    pub newest_object_at: Option<String>,
    /// What the listing showed; `None` where there was none, and in documents of versions that did not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listing: Option<Listing>,
    /// What the listings of those that it rests on showed; `None` where it rests on none, or where they need not be there to
    /// restore it (Ceph), where one could not be listed, and in documents of versions that did not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<Below>,
    /// When the check ended, RFC 3339.
    pub checked_at: String,
    /// The host that it ran on; `None` in documents of versions that did not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The row that it was made for, and below it those that it rests on, the nearest first. A document of `check` has the
    /// latter once for all results.
    pub rows: Vec<Image>,
}

impl CheckResult {
    /// The deepest level at which it is known to be intact. Versions without this field claimed every level for Ceph, whatever they
    /// had compared; for those, the lowest level counts.
    pub fn reached(&self) -> Option<Level> {
        let by_verdict = || {
            let claims_too_much = self.partial || self.driver == Some(Driver::Ceph);
            (self.verdict == CheckVerdict::Intact).then_some(if claims_too_much { Level::Quick } else { self.level })
        };
        self.level_reached.or_else(by_verdict)
    }

    /// Whether it could not be verified because a disk cannot read the data: a restore would fail, today at least.
    pub fn is_unreadable(&self) -> bool {
        self.verdict == CheckVerdict::Unverifiable && self.problems.iter().any(Problem::is_unreadable)
    }

    /// Whether all of it was checked, and nothing is wrong at the level that was reached.
    pub fn is_whole(&self) -> bool {
        self.reached().is_some() && !self.partial && !self.busy
    }

    /// Whether the data itself was read, and found intact.
    pub fn is_read(&self) -> bool {
        self.reached() >= Some(Level::Deep)
    }

    /// Whether it lets a backup in this status become available: nothing is wrong, and the data was read. Of one that is being
    /// created, names and sizes are enough where `accept_quick` says so; of one in `error` cinder-backup itself said that it failed.
    pub fn earns_available(&self, status: Option<&str>, accept_quick: bool) -> bool {
        let accepted = accept_quick && status == Some(CREATING);
        matches!(status, Some(CREATING | ERROR)) && self.is_whole() && (self.is_read() || accepted)
    }

    /// Whether checking again at this level would tell nothing new: the check finished over all of the data, and nothing was being
    /// written.
    pub fn settles(&self, level: Level) -> bool {
        let came_so_far = if self.verdict.is_damage() { self.level >= level } else { self.reached() >= Some(level) };
        came_so_far && !self.partial && !self.busy
    }

    /// Whether the driver has nothing left to write, though its service lives: all that it writes last is there and whole, and
    /// nothing is younger than `--settle`. Objects without times do not show that, nor does an image that somebody has open or locked.
    pub fn is_finished(&self) -> bool {
        let in_use =
            self.warnings.iter().any(|warning| matches!(warning.code.known(), Some(ProblemCode::ImageOpen | ProblemCode::StaleLock)));
        self.is_whole() && self.newest_object_at.is_some() && !in_use
    }

    /// Takes it for busy where its newest object was not as old as `settle` seconds when it was checked: whoever checked it may have
    /// asked for less, and to decide is another's.
    pub fn hold_to(&mut self, settle: u64) {
        let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
        let newest = self.newest_object_at.as_deref().and_then(time);
        let young = newest.zip(time(&self.checked_at)).is_some_and(|(newest, checked)| {
            i64::try_from(settle).map_or(true, |settle| checked.duration_since(newest).as_secs() < settle)
        });
        // By how much is known to the check alone.
        let clock_behind = self.begun && self.warnings.iter().any(|warning| warning.code == ProblemCode::ClockBehind);
        self.busy |= young || clock_behind;
    }

    /// Why it says nothing about this row, or about one that it rests on (the nearest first), any more; `None` where it does.
    pub fn outdated(&self, backup: &Backup, ancestors: &[Arc<Backup>], columns: ColumnSet) -> Option<String> {
        let mut rows = self.rows.iter();
        let Some(seen) = rows.next().filter(|row| row.id == backup.id && row.table == Table::Backups) else {
            return Some("the check does not say which row it was made for".to_owned());
        };
        let now = backup.image(columns);
        if let Some(moved) = seen.moved(&now).into_iter().next() {
            let column = moved.column;
            return Some(format!("the row has moved on since it was checked ({column} is not what it was)"));
        }
        if now.columns.keys().any(|column| !seen.columns.contains_key(column)) {
            return Some("the check was made for a row with fewer columns".to_owned());
        }
        let mut ancestors = ancestors.iter();
        for seen in rows {
            let Some(ancestor) = ancestors.next().filter(|ancestor| ancestor.id == seen.id) else {
                return Some(format!("backup {}, which it rests on, was there when it was checked and is not any more", seen.id));
            };
            let now = ancestor.image(columns);
            // What is damaged does not become whole by that.
            let lost = (self.verdict == CheckVerdict::Intact && may_have_lost_data(seen, &now)).then_some("status");
            if let Some(column) = moved_below(seen, &now).or(lost) {
                let id = &seen.id;
                return Some(format!(
                    "the row of backup {id}, which it rests on, has moved on since it was checked ({column} is not what it was)"
                ));
            }
        }
        ancestors.next().map(|ancestor| format!("it rests on backup {}, which was not there when it was checked", ancestor.id))
    }

    /// Whether another check is about the same data: the same row, on rows that say the same of theirs.
    pub fn is_of_same_data(&self, other: &Self) -> bool {
        let same = |(number, (one, two)): (usize, (&Image, &Image))| match number {
            0 => one == two,
            _ => one.id == two.id && moved_data(one, two).is_none(),
        };
        self.rows.len() == other.rows.len() && self.rows.iter().zip(&other.rows).enumerate().all(same)
    }

    /// Whether another check saw the same objects as this one, so that nobody wrote anything in between.
    pub fn is_of_same_listing(&self, other: &Self) -> bool {
        self.listing.is_some()
            && self.listing == other.listing
            && is_same_moment(self.newest_object_at.as_deref(), other.newest_object_at.as_deref())
    }

    /// Whether anything is another than it was when this check was made. Where the check did not note all that there was, or the
    /// precheck could not see it, the answer is that it is not known.
    pub fn compared_with(&self, now: &Glance) -> Look {
        if now.watched && !self.busy {
            return Look::Moved("somebody has its image open".to_owned());
        }
        let what = if self.driver == Some(Driver::Ceph) { "parts (image, snapshots, object of metadata)" } else { "objects" };
        let then = (self.listing, self.newest_object_at.as_deref());
        if let Some(moved) = moved_between(what, then, (now.objects, now.bytes.as_ref().ok(), now.newest_object_at.as_deref())) {
            return Look::Moved(moved);
        }
        match (self.listing, &now.bytes) {
            (None, _) => Look::Unseen("its check does not say what was listed then, so that there is nothing to compare with".to_owned()),
            (Some(_), Err(why)) => Look::Unseen(why.clone()),
            (Some(_), Ok(_)) => Look::Same,
        }
    }

    /// The same of the backups that it rests on.
    pub fn compared_below(&self, now: &Below) -> Look {
        let Some(then) = &self.below else {
            let text =
                "its check does not say what was listed then of the backups that it rests on, so that there is nothing to compare with";
            return Look::Unseen(text.to_owned());
        };
        let seen = (now.listing.objects, Some(&now.listing.bytes), now.newest_object_at.as_deref());
        match moved_between("objects", (Some(then.listing), then.newest_object_at.as_deref()), seen) {
            Some(moved) => Look::Moved(format!("of the backups that it rests on: {moved}")),
            None => Look::Same,
        }
    }

    /// Why it is not believed any more: it is older than `max_age` seconds, or cannot say how old it is. `now` is naive UTC.
    pub fn expired(&self, now: DateTime, max_age: i64) -> Option<String> {
        let Ok(at) = self.checked_at.parse::<jiff::Timestamp>() else {
            return Some(format!("its check says that it was made at {:?}, which is no time; check it again", self.checked_at));
        };
        let age = seconds_between(at.to_zoned(jiff::tz::TimeZone::UTC).datetime(), now);
        // Clocks differ a little between hosts; evidence out of the future is none.
        if age < -CLOCKS {
            let whose = self
                .host
                .as_ref()
                .map_or_else(|| "the host that checked it".to_owned(), |host| format!("host {host}, where it was checked,"));
            return Some(format!(
                "the clock of {whose} is {} ahead of the database's (checked at {at}, and it is {} now), so that its age is not known; \
                 set that clock right and check it again",
                human(-age),
                rfc3339(now)
            ));
        }
        (age > max_age).then(|| format!("its check of {at} is not of the last {} (--evidence-max-age); check it again", human(max_age)))
    }
}

/// What moved from a listing with its newest time to a number of objects with their bytes, as far as they are known, and the
/// newest time, in words.
fn moved_between(what: &str, then: (Option<Listing>, Option<&str>), now: (u64, Option<&u64>, Option<&str>)) -> Option<String> {
    let (listing, was, newest) = (then.0, then.1.and_then(moment), now.2.and_then(moment));
    if newest > was {
        let written = newest.map(|at| at.to_string()).unwrap_or_default();
        return Some(match was {
            Some(was) => format!("an object was written at {written}, and the newest was of {was} then"),
            None => format!("an object was written at {written}, and there was none then"),
        });
    }
    let (objects, bytes) = (now.0, now.1);
    if let Some(then) = listing.filter(|then| then.objects != objects || bytes.is_some_and(|bytes| *bytes != then.bytes)) {
        let of_bytes = bytes.map_or_else(String::new, |bytes| format!(" of {bytes}"));
        return Some(format!("{} {what} of {} bytes then, {objects}{of_bytes} now", then.objects, then.bytes));
    }
    (newest < was).then(|| "its newest object is not there any more".to_owned())
}

/// How the reason begins that this program gives a backup which it puts in `error`.
pub(super) const LEFT_IN: &str = "cinder-backup-repair: left in ";

/// What says in the row of a backup that others rest on which data it is about. Its counter, its times and its status may move.
fn moved_data(seen: &Image, now: &Image) -> Option<&'static str> {
    ["container", "service", "service_metadata", "parent_id", "size"].into_iter().find(|column| seen.value(column) != now.value(column))
}

/// What has moved in the row of a backup that others rest on; a deletion takes its data.
fn moved_below(seen: &Image, now: &Image) -> Option<&'static str> {
    let moved = moved_data(seen, now);
    let is_going = matches!(now.value("status").as_text(), Some(DELETING | ERROR_DELETING)) && now.value("status") != seen.value("status");
    moved.or(is_going.then_some("status"))
}

/// Whether a deletion may have taken part of the data since: one that fails half-way leaves its backup in `error`, as does
/// whoever gives it up. Other operations that are given up since leave the data as it is; a reason that was there before says
/// nothing of what happened since, for nobody clears it when a backup becomes available, and a state that is reset by hand
/// leaves it, too.
///
/// Source: `cinder/backup/manager.py` (`delete_backup`, `reset_status`).
fn may_have_lost_data(seen: &Image, now: &Image) -> bool {
    let differs = |column: &str| seen.value(column) != now.value(column);
    let given_up = now.value("fail_reason").as_text().and_then(|reason| reason.strip_prefix(LEFT_IN));
    let keeps_data = differs("fail_reason") && given_up.is_some_and(|was| was.starts_with(CREATING) || was.starts_with(RESTORING));
    now.value("status").as_text() == Some(ERROR) && (differs("status") || differs("fail_reason")) && !keeps_data
}

impl Backup {
    /// The row that an image of `backups` shows; columns that no guard compares are left empty.
    pub fn of_image(image: &Image) -> Self {
        let text = |column: &str| image.value(column).as_text().map(str::to_owned);
        let integer = |column: &str| image.value(column).as_integer();
        Self {
            id: image.id.clone(),
            status: text("status"),
            host: text("host"),
            service: text("service"),
            volume_id: text("volume_id"),
            size: integer("size"),
            object_count: integer("object_count"),
            container: text("container"),
            service_metadata: text("service_metadata"),
            fail_reason: text("fail_reason"),
            updated_at: text("updated_at"),
            parent_id: text("parent_id"),
            temp_volume_id: text("temp_volume_id"),
            temp_snapshot_id: text("temp_snapshot_id"),
            num_dependent_backups: integer("num_dependent_backups"),
            snapshot_id: text("snapshot_id"),
            restore_volume_id: text("restore_volume_id"),
            ..Self::default()
        }
    }
}
