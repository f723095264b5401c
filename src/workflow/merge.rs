//! `check merge`: the results of all shards of a catalog as one stream.
//!
//! Every part is read once to its end, which proves that it was not edited. The place of each record is kept, in 48 bytes. Then the results
//! are read again in the order of their ids and written, so that only one backup's results are in memory at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Error, Result, VerifyKey};
use crate::domain::CheckResult;
use crate::domain::record_stream::{StreamError, StreamReader, StreamWriter, read_again};
use crate::domain::shards::Shard;
use crate::domain::text::count;
use crate::scan::CompactIds;
use crate::verify::check_document::Summary;
use crate::verify::combine;
use crate::verify::partial::{CatalogPart, CheckResults, End, Head, Record, Sign};

/// The parts of one catalog, complete and without overlap.
pub struct Merge {
    parts: Vec<Part>,
    head: Head,
    /// How many backups the catalog has.
    backups: u64,
    /// Rows of ancestors, by their ids.
    rows: Vec<Place>,
    /// Results, by the ids of their backups.
    results: Vec<Place>,
}

struct Part {
    path: PathBuf,
    file: BufReader<File>,
    /// Length and time of the file when it was read first.
    state: (u64, Option<SystemTime>),
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// The number of the backup's id.
    id: u128,
    part: u32,
    offset: u64,
    /// What the record had when it was verified.
    fingerprint: u64,
}

/// What is known of a part after its first reading.
struct PartSummary {
    head: Head,
    of_catalog: CatalogPart,
    /// Why it is not complete.
    unfinished: bool,
}

impl Merge {
    /// Reads all parts. With `key`, each must be signed with it.
    ///
    /// # Errors
    /// A shard without a finished part, two parts with the same backups, parts of different checks, and an edited part.
    pub fn read(paths: &[PathBuf], key: Option<&VerifyKey>) -> Result<Self> {
        let (mut parts, mut rows, mut results) = (Vec::new(), Vec::new(), Vec::new());
        let mut first: Option<(Head, CatalogPart)> = None;
        let mut finished: BTreeMap<Shard, Option<&PathBuf>> = BTreeMap::new();
        for (number, path) in (0..).zip(paths) {
            let (part, summary) = Part::summarize(path, number, key, (&mut rows, &mut results))?;
            parts.push(part);
            let (head, of_catalog) = first.get_or_insert_with(|| (summary.head.clone(), summary.of_catalog.clone()));
            if let Some(what) = difference((head, of_catalog), &summary) {
                let other = paths.first().map(|path| path.display().to_string()).unwrap_or_default();
                return Err(Error::Unusable(format!("{} and {other} are not parts of one check: {what}", path.display())));
            }
            let known = finished.insert(summary.of_catalog.shard, (!summary.unfinished).then_some(path));
            if let Some(Some(known)) = known {
                let problem = format!("{} and {} are both shard {}", known.display(), path.display(), summary.of_catalog.shard);
                return Err(Error::Unfit(problem, "leave one of them out".to_owned()));
            }
        }
        let Some((mut head, of_catalog)) = first else { return Err(Error::Unusable("no part was given".to_owned())) };
        require_all(of_catalog.shard.of(), &finished)?;
        head.part = None;
        // Of several results of a backup in one part, the last one counts.
        results.sort_unstable();
        results.dedup_by(|later, kept| {
            let is_same = (later.id, later.part) == (kept.id, kept.part);
            if is_same {
                *kept = *later;
            }
            is_same
        });
        rows.sort_unstable();
        rows.dedup_by_key(|row| row.id);
        Ok(Self { parts, head, backups: of_catalog.backups, rows, results })
    }

    /// Writes the merged stream; returns its summary.
    ///
    /// # Errors
    /// The writer's errors, and backups that are missing from the parts or in several.
    pub fn write(mut self, out: impl Write, name: &str, sign: Option<Sign<'_>>) -> Result<Summary> {
        let cannot = |error| Error::Write(name.to_owned(), error);
        let mut stream = StreamWriter::<CheckResults, _>::begin(out, &self.head, sign).map_err(cannot)?;
        let (rows, results) = (std::mem::take(&mut self.rows), std::mem::take(&mut self.results));
        let mut is_written = vec![false; rows.len()];
        let (mut summary, mut backups) = (Summary::default(), 0);
        for places in results.chunk_by(|one, other| one.id == other.id) {
            let result = self.result(places)?;
            for id in result.chain.iter().skip(1) {
                let number = CompactIds::number(id);
                let index = rows.binary_search_by_key(&number, |row| row.id).ok();
                let row = index.and_then(|index| Some((rows.get(index)?, is_written.get_mut(index)?)));
                let Some((place, is_written)) = row else {
                    return Err(Error::Unusable(format!("the parts lack the row of backup {id}, which {} is based on", result.id)));
                };
                if !std::mem::replace(is_written, true) {
                    stream.add(&self.record(*place)?).map_err(cannot)?;
                }
            }
            summary.add(&result);
            backups += 1;
            stream.add(&Record::Result(Box::new(result))).map_err(cannot)?;
        }
        if backups != self.backups {
            let problem = format!("the parts have results of {}, but the catalog has {}", count_of(backups), count_of(self.backups));
            return Err(Error::Unusable(problem));
        }
        self.require_unchanged()?;
        stream.end(&End { interrupted: None, summary }).map_err(cannot)?;
        Ok(summary)
    }

    /// The result of a backup, from one part or, if its chain is split, from several.
    fn result(&mut self, places: &[Place]) -> Result<CheckResult> {
        let mut found = Vec::new();
        for place in places {
            match self.record(*place)? {
                Record::Result(result) => found.push(*result),
                Record::Row(_) => return Err(self.changed(place.part)),
            }
        }
        let id = found.first().map(|result| result.id.clone()).unwrap_or_default();
        let is_whole = |result: &CheckResult| result.part.is_none();
        match (found.len(), found.iter().all(is_whole)) {
            (1, true) => found.pop().ok_or_else(|| Error::Unusable(format!("no part has backup {id}"))),
            (_, true) => {
                let names: Vec<String> = places.iter().map(|place| self.name(place.part)).collect();
                Err(Error::Unusable(format!("backup {id} is in several parts: {}", names.join(", "))))
            }
            _ => combine(found).ok_or_else(|| Error::Unusable(format!("the parts do not have all objects of backup {id}, each once"))),
        }
    }

    fn record(&mut self, place: Place) -> Result<Record> {
        let changed = self.changed(place.part);
        let Some(part) = self.parts.get_mut(usize::try_from(place.part).unwrap_or(usize::MAX)) else { return Err(changed) };
        part.file.seek(SeekFrom::Start(place.offset)).map_err(|error| unreadable(&part.path, error.into()))?;
        let record = read_again::<CheckResults>(&mut part.file, place.fingerprint).map_err(|error| unreadable(&part.path, error))?;
        let id = match &record {
            Record::Row(row) => &row.id,
            Record::Result(result) => &result.id,
        };
        if CompactIds::number(id) == place.id { Ok(record) } else { Err(changed) }
    }

    fn require_unchanged(&self) -> Result<()> {
        let numbers = (0..).zip(&self.parts);
        let changed = numbers.filter(|(_, part)| state(part.file.get_ref()) != part.state).map(|(number, _)| self.changed(number));
        changed.map(Err).next().unwrap_or(Ok(()))
    }

    fn name(&self, part: u32) -> String {
        let part = self.parts.get(usize::try_from(part).unwrap_or(usize::MAX));
        part.map(|part| part.path.display().to_string()).unwrap_or_default()
    }

    fn changed(&self, part: u32) -> Error {
        Error::Unusable(format!("{} was changed while it was read", self.name(part)))
    }
}

impl Part {
    /// Reads a part to its end, and notes where its records are.
    fn summarize(
        path: &Path,
        number: u32,
        key: Option<&VerifyKey>,
        (rows, results): (&mut Vec<Place>, &mut Vec<Place>),
    ) -> Result<(Self, PartSummary)> {
        let file = File::open(path).map_err(|error| unreadable(path, error.into()))?;
        let state = state(&file);
        let mut file = BufReader::new(file);
        let (head, mut stream) = StreamReader::<CheckResults, _>::begin(&mut file).map_err(|error| unreadable(path, error))?;
        let Some(of_catalog) = head.part.clone() else {
            let problem = format!("{} is not the result of one shard of a catalog", path.display());
            return Err(Error::Unfit(problem, "make parts with check --from CATALOG --shard K/N --out FILE.jsonl".to_owned()));
        };
        let unfinished = loop {
            let offset = stream.position();
            let (list, id) = match stream.next_record() {
                Ok(Some(Record::Row(row))) => (&mut *rows, row.id),
                Ok(Some(Record::Result(result))) => (&mut *results, result.id),
                Ok(None) => break stream.end().is_none_or(|end| end.interrupted.is_some() || end.summary.left > 0),
                Err(StreamError::CutOff(_)) => break true,
                Err(error) => return Err(unreadable(path, error)),
            };
            list.push(Place { id: CompactIds::number(&id), part: number, offset, fingerprint: stream.fingerprint() });
        };
        if let Some(key) = key {
            key.verify(&format!("the part {}", path.display()), stream.sha256(), stream.signature())?;
        }
        Ok((Self { path: path.to_owned(), file, state }, PartSummary { head, of_catalog, unfinished }))
    }
}

/// Why a part does not belong to the same check as the first one.
fn difference((head, of_catalog): (&Head, &CatalogPart), part: &PartSummary) -> Option<&'static str> {
    if part.of_catalog.catalog != of_catalog.catalog || part.of_catalog.backups != of_catalog.backups {
        return Some("they are about different catalogs");
    }
    if part.of_catalog.shard.of() != of_catalog.shard.of() {
        return Some("they have different numbers of shards");
    }
    let same = |head: &Head| (head.level, head.settle_seconds);
    (same(&part.head) != same(head)).then_some("they differ in --level or --settle")
}

/// Makes sure that every shard has a finished part.
fn require_all(of: u32, finished: &BTreeMap<Shard, Option<&PathBuf>>) -> Result<()> {
    let is_finished = |number: u32| Shard::new(number, of).is_some_and(|shard| matches!(finished.get(&shard), Some(Some(_))));
    let again: Vec<String> = (1..=of).filter(|number| !is_finished(*number)).map(|number| number.to_string()).collect();
    if again.is_empty() {
        return Ok(());
    }
    let list = again.join(",");
    let (shards, are) = if again.len() == 1 { ("shard", "is") } else { ("shards", "are") };
    let problem = format!("{shards} {list} of {of} {are} missing or not finished");
    Err(Error::Incomplete(problem, format!("run {shards} {list} again, and then merge all {of} parts")))
}

fn unreadable(path: &Path, error: StreamError) -> Error {
    Error::of_stream(&format!("the part {}", path.display()), error)
}

fn state(file: &File) -> (u64, Option<SystemTime>) {
    file.metadata().map_or((0, None), |metadata| (metadata.len(), metadata.modified().ok()))
}

fn count_of(backups: u64) -> String {
    count(usize::try_from(backups).unwrap_or(usize::MAX), "backup")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use std::fs;

    use super::*;
    use crate::domain::shards::ChainCosts;
    use crate::domain::{Backup, CheckVerdict, ColumnSet, DatabaseInfo, Image, Level, Listing};

    fn id(number: usize) -> String {
        format!("00000000-0000-4000-8000-{number:012}")
    }

    /// A backup of a chain of two: an even number is the parent of the next one.
    fn row(number: usize) -> Image {
        let parent_id = (number % 2 == 1).then(|| id(number - 1));
        Backup { id: id(number), parent_id, status: Some("available".to_owned()), ..Backup::default() }.image(ColumnSet::Mitaka)
    }

    fn result(number: usize) -> CheckResult {
        let chain = [number].into_iter().chain((number % 2 == 1).then(|| number - 1)).map(id).collect();
        CheckResult {
            id: id(number),
            level: Level::Deep,
            verdict: CheckVerdict::Intact,
            level_reached: Some(Level::Deep),
            chain,
            listing: Some(Listing::default()),
            checked_at: "2026-11-22T11:00:00Z".to_owned(),
            rows: vec![row(number)],
            ..CheckResult::default()
        }
    }

    fn head(shard: Shard, catalog: &str, backups: u64) -> Head {
        let database =
            DatabaseInfo { engine: "sqlite".into(), version: "3".into(), release: "r".into(), identity: "i".into(), location: None };
        let mut head = Head::new(database, "2026-11-22T10:00:00Z".to_owned(), Level::Deep, 900);
        head.part = Some(CatalogPart { catalog: catalog.to_owned(), backups, shard });
        head
    }

    fn write(path: &Path, head: &Head, results: &[CheckResult], end: Option<End>) {
        let mut stream = StreamWriter::<CheckResults, _>::begin(File::create(path).unwrap(), head, None).unwrap();
        for result in results {
            for ancestor in &result.chain[1..] {
                stream.add(&Record::Row(row(ancestor[24..].parse().unwrap()))).unwrap();
            }
            stream.add(&Record::Result(Box::new(result.clone()))).unwrap();
        }
        if let Some(end) = end {
            stream.end(&end).unwrap();
        }
    }

    fn finished(left: usize) -> Option<End> {
        Some(End { interrupted: None, summary: Summary { left, ..Summary::default() } })
    }

    /// Three parts of a catalog of these backups, the last ones first in each.
    fn parts(folder: &tempfile::TempDir, backups: usize) -> Vec<PathBuf> {
        (1..=3)
            .map(|number| {
                let path = folder.path().join(format!("{number}.jsonl"));
                let own: Vec<CheckResult> = (0..backups).rev().filter(|backup| backup / 2 % 3 + 1 == number).map(result).collect();
                write(&path, &head(shard(number), "c", backups as u64), &own, finished(0));
                path
            })
            .collect()
    }

    fn shard(number: usize) -> Shard {
        Shard::new(u32::try_from(number).unwrap(), 3).unwrap()
    }

    /// The merged stream: its records, and its summary.
    fn merged(paths: &[PathBuf]) -> Result<(Vec<Record>, Summary)> {
        let mut out = Vec::new();
        let summary = Merge::read(paths, None)?.write(&mut out, "out", None)?;
        let (head, mut stream) = StreamReader::<CheckResults, _>::begin(&out[..]).unwrap();
        assert_eq!(head.part, None);
        let mut records = Vec::new();
        while let Some(record) = stream.next_record().unwrap() {
            records.push(record);
        }
        assert_eq!(stream.end().unwrap().summary, summary);
        Ok((records, summary))
    }

    fn problem(paths: &[PathBuf]) -> (String, Option<String>) {
        match merged(paths).unwrap_err() {
            Error::Unfit(problem, hint) | Error::Incomplete(problem, hint) => (problem, Some(hint)),
            error => (error.to_string(), None),
        }
    }

    #[test]
    fn results_are_in_the_order_of_their_ids_and_rows_come_before_them() {
        let folder = tempfile::tempdir().unwrap();
        let (records, summary) = merged(&parts(&folder, 10)).unwrap();
        assert_eq!(summary, Summary { intact: 10, ..Summary::default() });
        let of = |record: &Record| match record {
            Record::Row(row) => format!("row {}", &row.id[35..]),
            Record::Result(result) => result.id[35..].to_owned(),
        };
        let order: Vec<String> = records.iter().map(of).collect();
        assert_eq!(order[..6], ["0", "row 0", "1", "2", "row 2", "3"].map(str::to_owned));
        assert_eq!(order.len(), 15);
    }

    #[test]
    fn shards_that_are_missing_or_not_finished_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let paths = parts(&folder, 10);
        let (text, hint) = problem(&paths[..2]);
        assert_eq!(text, "shard 3 of 3 is missing or not finished");
        assert_eq!(hint.unwrap(), "run shard 3 again, and then merge all 3 parts");
        let own = [result(0)];
        for end in [None, finished(1), Some(End { interrupted: Some("SIGTERM".to_owned()), summary: Summary::default() })] {
            write(&paths[0], &head(shard(1), "c", 10), &own, end);
            assert_eq!(problem(&[&paths[..2]].concat()).0, "shards 1,3 of 3 are missing or not finished");
        }
    }

    #[test]
    fn an_overlap_and_another_check_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let paths = parts(&folder, 10);
        let again = folder.path().join("again.jsonl");
        fs::copy(&paths[1], &again).unwrap();
        let (text, hint) = problem(&[&paths[..], &[again]].concat());
        assert!(text.ends_with("again.jsonl are both shard 2/3"), "{text}");
        assert_eq!(hint.unwrap(), "leave one of them out");
        write(&paths[2], &head(shard(3), "c", 10), &[result(0)], finished(0));
        assert!(problem(&paths).0.contains(&format!("backup {} is in several parts: ", id(0))));
        write(&paths[2], &head(shard(3), "other", 10), &[result(4)], finished(0));
        assert!(problem(&paths).0.ends_with("are not parts of one check: they are about different catalogs"));
        let mut quick = head(shard(3), "c", 10);
        quick.level = Level::Quick;
        write(&paths[2], &quick, &[result(4)], finished(0));
        assert!(problem(&paths).0.ends_with("they differ in --level or --settle"));
        write(&paths[2], &head(shard(3), "c", 10), &[result(4)], finished(0));
        assert_eq!(problem(&paths).0, "the parts have results of 9 backups, but the catalog has 10 backups");
    }

    #[test]
    fn an_edited_part_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let paths = parts(&folder, 10);
        let text = fs::read_to_string(&paths[1]).unwrap();
        fs::write(&paths[1], text.replacen("\"intact\"", "\"corrupt\"", 1)).unwrap();
        let error = Merge::read(&paths, None).err().unwrap();
        assert!(matches!(error, Error::Edited(_)) && error.to_string().contains("2.jsonl was edited after it was written"), "{error}");
    }

    #[test]
    fn the_last_result_of_a_backup_in_a_part_counts() {
        let folder = tempfile::tempdir().unwrap();
        let paths = parts(&folder, 3);
        let first = CheckResult { verdict: CheckVerdict::Unverifiable, level_reached: None, ..result(0) };
        write(&paths[0], &head(shard(1), "c", 3), &[first, result(1), result(0)], finished(0));
        assert_eq!(merged(&paths).unwrap().1, Summary { intact: 3, ..Summary::default() });
    }

    #[test]
    fn the_parts_of_a_split_chain_become_one_result() {
        let folder = tempfile::tempdir().unwrap();
        let mut costs = ChainCosts::default();
        costs.add(1, 1 << 40, true);
        let paths: Vec<PathBuf> = (1..=3)
            .map(|number| {
                let part = costs.content(shard(number)).chains[0].1;
                let path = folder.path().join(number.to_string());
                write(&path, &head(shard(number), "c", 1), &[CheckResult { part, partial: true, ..result(0) }], finished(0));
                path
            })
            .collect();
        let (records, summary) = merged(&paths).unwrap();
        assert_eq!((records.len(), summary), (1, Summary { intact: 1, ..Summary::default() }));
        write(&paths[1], &head(shard(2), "c", 1), &[], finished(0));
        assert_eq!(problem(&paths).0, format!("the parts do not have all objects of backup {}, each once", id(0)));
    }
}
