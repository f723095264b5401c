//! One result from those of several shards that each read a part of a backup's objects.

use crate::domain::shards::ObjectPart;
use crate::domain::{Backup, CheckResult, CheckVerdict, Problem, ProblemCode, restorable};

/// The result of a backup whose objects were read in parts; `None` if the parts are not all of its objects, each once.
///
/// It is intact only if each part is. Otherwise the worst verdict counts.
pub fn combine(results: Vec<CheckResult>) -> Option<CheckResult> {
    let mut parts: Vec<ObjectPart> = results.iter().map(|result| result.part).collect::<Option<_>>()?;
    let count = parts.len();
    if !ObjectPart::are_all(&mut parts) {
        return None;
    }
    let mut results = results.into_iter();
    let mut all = results.next()?;
    let mut is_same = true;
    for result in results {
        let is_listed = all.listing.is_some() && result.listing.is_some();
        is_same &= all.is_of_same_data(&result) && all.chain == result.chain && (!is_listed || all.is_of_same_listing(&result));
        add(&mut all, result);
    }
    all.part = None;
    all.partial = false;
    all.level_reached = if all.verdict == CheckVerdict::Intact { Some(all.level) } else { all.level_reached };
    let method = all.depth.rsplit_once("; ").map_or(all.depth.as_str(), |(method, _)| method);
    all.depth = format!("{method}; {} of {} objects read, in {count} shards", all.objects.checked, all.objects.expected);
    if !is_same {
        let text = "its row or its objects changed between the checks of its parts: check it again";
        all.problems.push(Problem::general(ProblemCode::ChangedMeanwhile, text));
        if all.verdict == CheckVerdict::Intact {
            (all.verdict, all.level_reached, all.object_count) = (CheckVerdict::Unverifiable, None, None);
        }
    }
    // Each shard has judged its own part.
    if let Some(row) = all.rows.first().filter(|_| all.restorable.is_some()) {
        let (restorable, reasons) = restorable(&Backup::of_image(row), &all, None);
        (all.restorable, all.restorable_reasons) = (Some(restorable), reasons);
    }
    Some(all)
}

/// Adds what another shard found.
fn add(all: &mut CheckResult, other: CheckResult) {
    if rank(other.verdict) > rank(all.verdict) {
        all.verdict = other.verdict;
    }
    all.level_reached = all.level_reached.min(other.level_reached);
    all.object_count = all.object_count.filter(|_| other.object_count.is_some());
    all.busy |= other.busy;
    all.begun |= other.begun;
    all.objects.checked += other.objects.checked;
    all.bytes.checked += other.bytes.checked;
    for (list, more) in [(&mut all.problems, other.problems), (&mut all.warnings, other.warnings)] {
        let new: Vec<Problem> = more.into_iter().filter(|problem| !list.contains(problem)).collect();
        list.extend(new);
    }
    // As old as its oldest part.
    if other.checked_at < all.checked_at {
        (all.checked_at, all.host) = (other.checked_at, other.host);
    }
}

fn rank(verdict: CheckVerdict) -> u8 {
    match verdict {
        CheckVerdict::Intact => 0,
        CheckVerdict::Unverifiable => 1,
        CheckVerdict::Corrupt => 2,
        CheckVerdict::Incomplete => 3,
        CheckVerdict::Missing => 4,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::domain::shards::{ChainCosts, Shard};
    use crate::domain::{Amount, Level, Listing};

    /// The parts of a chain that is split over three shards.
    fn parts() -> Vec<ObjectPart> {
        let mut costs = ChainCosts::default();
        costs.add(1, 1 << 40, true);
        (1..=3).map(|number| costs.content(Shard::new(number, 3).unwrap()).chains[0].1.unwrap()).collect()
    }

    fn result(part: ObjectPart, verdict: CheckVerdict) -> CheckResult {
        let level_reached = (verdict == CheckVerdict::Intact).then_some(Level::Quick);
        CheckResult {
            id: "b".to_owned(),
            level: Level::Deep,
            verdict,
            level_reached,
            partial: true,
            part: Some(part),
            depth: "SHA-256; 2 of 6 objects read".to_owned(),
            objects: Amount { checked: 2, expected: 6 },
            bytes: Amount { checked: 20, expected: 60 },
            object_count: level_reached.map(|_| 6),
            listing: Some(Listing { objects: 8, bytes: 80 }),
            checked_at: "2026-11-22T11:00:00Z".to_owned(),
            ..CheckResult::default()
        }
    }

    fn results(verdicts: [CheckVerdict; 3]) -> Vec<CheckResult> {
        parts().into_iter().zip(verdicts).map(|(part, verdict)| result(part, verdict)).collect()
    }

    #[test]
    fn only_intact_parts_make_an_intact_backup() {
        use CheckVerdict::{Corrupt, Incomplete, Intact, Unverifiable};
        let whole = combine(results([Intact; 3])).unwrap();
        assert!(whole.is_whole() && whole.is_read() && whole.settles(Level::Deep));
        assert_eq!((whole.objects, whole.bytes), (Amount { checked: 6, expected: 6 }, Amount { checked: 60, expected: 60 }));
        assert_eq!(whole.depth, "SHA-256; 6 of 6 objects read, in 3 shards");
        assert_eq!(whole.object_count, Some(6));
        for (verdicts, verdict) in [
            ([Intact, Corrupt, Intact], Corrupt),
            ([Unverifiable, Intact, Intact], Unverifiable),
            ([Unverifiable, Corrupt, Incomplete], Incomplete),
        ] {
            let found = combine(results(verdicts)).unwrap();
            assert_eq!((found.verdict, found.is_whole(), found.object_count), (verdict, false, None));
        }
    }

    #[test]
    fn a_part_that_is_missing_or_there_twice_makes_no_result() {
        let three = results([CheckVerdict::Intact; 3]);
        assert_eq!(combine(three[..2].to_vec()), None);
        assert_eq!(combine([&three[..], &three[..1]].concat()), None);
        let whole = CheckResult { part: None, ..three[0].clone() };
        assert_eq!(combine(vec![whole, three[1].clone(), three[2].clone()]), None);
    }

    #[test]
    fn a_backup_that_was_written_in_between_is_not_intact() {
        let mut three = results([CheckVerdict::Intact; 3]);
        three[1].listing = Some(Listing { objects: 9, bytes: 90 });
        let found = combine(three).unwrap();
        assert_eq!((found.verdict, found.reached()), (CheckVerdict::Unverifiable, None));
        assert_eq!(found.problems[0].code, ProblemCode::ChangedMeanwhile);
    }

    #[test]
    fn a_backup_with_one_damaged_part_is_not_restorable() {
        use crate::domain::{ColumnSet, Restorable};
        let row = Backup { id: "b".into(), status: Some("available".into()), size: Some(1), ..Backup::default() }.image(ColumnSet::Mitaka);
        let judged = |verdicts| {
            let parts = results(verdicts).into_iter();
            let parts = parts.map(|part| CheckResult { restorable: Some(Restorable::Unknown), rows: vec![row.clone()], ..part });
            combine(parts.collect()).unwrap().restorable
        };
        assert_eq!(judged([CheckVerdict::Intact; 3]), Some(Restorable::Unknown));
        assert_eq!(judged([CheckVerdict::Intact, CheckVerdict::Corrupt, CheckVerdict::Intact]), Some(Restorable::No));
        assert_eq!(combine(results([CheckVerdict::Intact; 3])).unwrap().restorable, None, "an older document");
    }

    #[test]
    fn it_is_as_old_as_its_oldest_part() {
        let mut three = results([CheckVerdict::Intact; 3]);
        three[2].checked_at = "2026-11-21T11:00:00Z".to_owned();
        three[2].host = Some("store3".to_owned());
        let found = combine(three).unwrap();
        assert_eq!((found.checked_at.as_str(), found.host.as_deref()), ("2026-11-21T11:00:00Z", Some("store3")));
    }
}
