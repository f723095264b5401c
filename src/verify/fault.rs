//! What is wrong with a backup, and what that makes of the verdict.

use std::cmp::Ordering;

use crate::domain::{CheckVerdict, Problem, UNREADABLE};
use crate::storage::{StorageError, StorageErrorKind};

/// What a fault means for the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Something is not there.
    Absent,
    /// Something is there and wrong.
    Wrong,
    /// Nobody knows, because the check could not look.
    Unfinished,
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What it means.
    pub class: Class,
    /// What it is.
    pub problem: Problem,
    /// It stands in the way of nothing that rests on the backup.
    aside: bool,
}

impl Fault {
    /// What is wrong comes before what nobody could look at, then by object.
    fn order(&self, other: &Self) -> Ordering {
        (self.class == Class::Unfinished, &self.problem.object).cmp(&(other.class == Class::Unfinished, &other.problem.object))
    }
}

/// No more than this many faults are kept of one backup; how many more there are is counted.
const MOST: usize = 1_000;

/// Which classes of faults there are.
#[derive(Debug, Clone, Copy, Default)]
struct Kinds {
    absent: bool,
    wrong: bool,
    unfinished: bool,
}

impl Kinds {
    fn with(self, other: Self) -> Self {
        Self { absent: self.absent || other.absent, wrong: self.wrong || other.wrong, unfinished: self.unfinished || other.unfinished }
    }

    fn of(class: Class) -> Self {
        Self { absent: class == Class::Absent, wrong: class == Class::Wrong, unfinished: class == Class::Unfinished }
    }

    fn verdict(self) -> CheckVerdict {
        if self.absent {
            CheckVerdict::Incomplete
        } else if self.wrong {
            CheckVerdict::Corrupt
        } else if self.unfinished {
            CheckVerdict::Unverifiable
        } else {
            CheckVerdict::Intact
        }
    }
}

/// The faults of one backup.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    list: Vec<Fault>,
    more: usize,
    kinds: Kinds,
    /// Those of faults that stand in the way of nothing that rests on the backup.
    aside: Kinds,
}

impl Faults {
    /// Adds one.
    pub fn add(&mut self, class: Class, problem: Problem) {
        self.kinds = self.kinds.with(Kinds::of(class));
        self.keep(Fault { class, problem, aside: false });
    }

    /// Adds one that is the backup's alone: what rests on it can be restored all the same.
    pub fn add_aside(&mut self, class: Class, problem: Problem) {
        self.aside = self.aside.with(Kinds::of(class));
        self.keep(Fault { class, problem, aside: true });
    }

    fn keep(&mut self, fault: Fault) {
        if self.list.len() < MOST {
            self.list.push(fault);
        } else {
            self.more += 1;
        }
    }

    /// Adds what an error on the storage means; a missing object that should be there is absent.
    pub fn add_error(&mut self, object: Option<&str>, error: &StorageError) {
        let (class, code) = match error.kind {
            StorageErrorKind::NoObject => (Class::Absent, "object-missing"),
            StorageErrorKind::NoContainer => (Class::Absent, "container-missing"),
            StorageErrorKind::NotAnObject => (Class::Wrong, "object-not-plain"),
            StorageErrorKind::NotFollowed => (Class::Unfinished, "not-followed"),
            StorageErrorKind::Transient => (Class::Unfinished, "storage-unreachable"),
            StorageErrorKind::Away => (Class::Unfinished, "storage-away"),
            StorageErrorKind::Authentication => (Class::Unfinished, "storage-authentication"),
            StorageErrorKind::Permission => (Class::Unfinished, "storage-permission"),
            StorageErrorKind::Protocol => (Class::Unfinished, "storage-protocol"),
            StorageErrorKind::Configuration => (Class::Unfinished, "storage-configuration"),
            StorageErrorKind::Media => (Class::Unfinished, UNREADABLE),
            StorageErrorKind::Cancelled => (Class::Unfinished, "cancelled"),
        };
        self.add(class, Problem { object: object.map(str::to_owned), code: code.to_owned(), text: error.text.clone() });
    }

    /// The one that is told first.
    pub fn first(&self) -> Option<&Problem> {
        self.list.iter().min_by(|a, b| a.order(b)).map(|fault| &fault.problem)
    }

    /// The first of those that count for what rests on the backup.
    pub fn first_below(&self) -> Option<&Problem> {
        self.list.iter().filter(|fault| !fault.aside).min_by(|a, b| a.order(b)).map(|fault| &fault.problem)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether something is known to be damaged that a restore reads.
    pub fn has_damage_below(&self) -> bool {
        self.kinds.absent || self.kinds.wrong
    }

    /// Whether something is known to be damaged.
    pub fn has_damage(&self) -> bool {
        let kinds = self.kinds.with(self.aside);
        kinds.absent || kinds.wrong
    }

    /// Whether all of them have this code.
    pub fn are_all(&self, code: &str) -> bool {
        self.more == 0 && self.list.iter().all(|fault| fault.problem.code == code)
    }

    /// Whether the disk could not read something that a restore reads.
    pub fn is_unreadable_below(&self) -> bool {
        self.list.iter().any(|fault| !fault.aside && fault.problem.is_unreadable())
    }

    /// What they come to, where something of the backup is on the storage. What is known to be wrong stays so, whatever else
    /// could not be looked at.
    pub fn verdict(&self) -> CheckVerdict {
        self.kinds.with(self.aside).verdict()
    }

    /// What they come to for what rests on the backup.
    pub fn verdict_below(&self) -> CheckVerdict {
        self.kinds.verdict()
    }

    /// As a report has them: damage first, then what could not be looked at; by object.
    pub fn into_problems(mut self) -> Vec<Problem> {
        self.list.sort_by(Fault::order);
        let mut problems: Vec<Problem> = self.list.into_iter().map(|fault| fault.problem).collect();
        if self.more > 0 {
            problems.push(Problem::general("more", format!("{} more problems are not listed", self.more)));
        }
        problems
    }

    /// Takes in those of another.
    pub fn extend(&mut self, other: Self) {
        self.more += other.more;
        self.kinds = self.kinds.with(other.kinds);
        self.aside = self.aside.with(other.aside);
        for fault in other.list {
            self.keep(fault);
        }
    }

    /// Takes in those of another, as [`Faults::add_aside`] does.
    pub fn extend_aside(&mut self, other: Self) {
        let aside = other.kinds.with(other.aside);
        let list = other.list.into_iter().map(|fault| Fault { aside: true, ..fault }).collect();
        self.extend(Self { list, kinds: Kinds::default(), aside, ..other });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(classes: &[Class]) -> CheckVerdict {
        let mut faults = Faults::default();
        for class in classes {
            faults.add(*class, Problem::general("x", "y"));
        }
        faults.verdict()
    }

    #[test]
    fn what_is_known_to_be_wrong_stays_so() {
        use Class::{Absent, Unfinished, Wrong};
        assert_eq!(verdict(&[]), CheckVerdict::Intact);
        assert_eq!(verdict(&[Unfinished]), CheckVerdict::Unverifiable);
        assert_eq!(verdict(&[Unfinished, Wrong]), CheckVerdict::Corrupt);
        assert_eq!(verdict(&[Wrong, Absent, Unfinished]), CheckVerdict::Incomplete);
    }

    #[test]
    fn a_flood_of_faults_is_counted_and_not_kept() {
        let mut faults = Faults::default();
        for number in 0..MOST + 7 {
            faults.add(Class::Wrong, Problem::of(format!("o{number}"), "x", "y"));
        }
        let problems = faults.into_problems();
        assert_eq!(problems.len(), MOST + 1);
        assert!(problems.last().is_some_and(|last| last.text == "7 more problems are not listed"));
    }
}
