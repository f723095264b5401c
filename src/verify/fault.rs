//! What is wrong with a backup, and the verdict that follows.

use crate::domain::{CheckVerdict, Problem, ProblemCode};
use crate::storage::{StorageError, StorageErrorKind};

/// The verdict that a problem leads to where something of the backup is on the storage. The greatest one of a backup decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The check could not find out.
    Unverifiable,
    /// Something is there and wrong.
    Corrupt,
    /// Something is not there.
    Incomplete,
}

impl Severity {
    /// The verdict of the greatest severity; `None` where there is no problem.
    pub fn verdict(greatest: Option<Self>) -> CheckVerdict {
        match greatest {
            None => CheckVerdict::Intact,
            Some(Self::Unverifiable) => CheckVerdict::Unverifiable,
            Some(Self::Corrupt) => CheckVerdict::Corrupt,
            Some(Self::Incomplete) => CheckVerdict::Incomplete,
        }
    }
}

/// An error of the storage as a problem. Where an object must exist, its absence is damage.
pub(super) fn storage_problem(object: Option<&str>, error: &StorageError) -> (Severity, Problem) {
    use Severity::{Corrupt, Incomplete, Unverifiable};
    let (severity, code) = match error.kind {
        StorageErrorKind::NoObject => (Incomplete, ProblemCode::ObjectMissing),
        StorageErrorKind::NoContainer => (Incomplete, ProblemCode::ContainerMissing),
        StorageErrorKind::NotAnObject => (Corrupt, ProblemCode::ObjectNotPlain),
        StorageErrorKind::NotFollowed => (Unverifiable, ProblemCode::NotFollowed),
        StorageErrorKind::Transient => (Unverifiable, ProblemCode::StorageUnreachable),
        StorageErrorKind::Unreachable => (Unverifiable, ProblemCode::StorageAway),
        StorageErrorKind::Authentication => (Unverifiable, ProblemCode::StorageAuthentication),
        StorageErrorKind::Permission => (Unverifiable, ProblemCode::StoragePermission),
        StorageErrorKind::Protocol => (Unverifiable, ProblemCode::StorageProtocol),
        StorageErrorKind::Configuration => (Unverifiable, ProblemCode::StorageConfiguration),
        StorageErrorKind::Media => (Unverifiable, ProblemCode::Unreadable),
        StorageErrorKind::Cancelled => (Unverifiable, ProblemCode::Cancelled),
    };
    (severity, Problem { object: object.map(str::to_owned), code: code.into(), text: error.text.clone() })
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    severity: Severity,
    problem: Problem,
    /// No restore reads it, neither of this backup nor of those that are based on it.
    local: bool,
}

impl Fault {
    /// Damage first, then what could not be checked; by object.
    fn order(&self) -> (bool, Option<&str>) {
        (self.severity == Severity::Unverifiable, self.problem.object.as_deref())
    }
}

/// The number of faults of one backup that are kept. More are counted.
const MOST: usize = 1_000;

/// The faults of one backup.
///
/// A fault of its sha256file is local, as no restore reads that. All others are inherited by the backups that are based on it.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    list: Vec<Fault>,
    more: usize,
    inherited: Option<Severity>,
    local: Option<Severity>,
}

impl Faults {
    /// Adds a fault that the backups based on this one inherit.
    pub fn add(&mut self, severity: Severity, problem: Problem) {
        self.inherited = self.inherited.max(Some(severity));
        self.keep(Fault { severity, problem, local: false });
    }

    /// Adds a fault that no restore meets.
    pub fn add_local(&mut self, severity: Severity, problem: Problem) {
        self.local = self.local.max(Some(severity));
        self.keep(Fault { severity, problem, local: true });
    }

    fn keep(&mut self, fault: Fault) {
        if self.list.len() < MOST {
            self.list.push(fault);
        } else {
            self.more += 1;
        }
    }

    /// Adds an error of the storage, as [`storage_problem`] judges it.
    pub fn add_error(&mut self, object: Option<&str>, error: &StorageError) {
        let (severity, problem) = storage_problem(object, error);
        self.add(severity, problem);
    }

    /// The problem that is reported first.
    pub fn first(&self) -> Option<&Problem> {
        self.list.iter().min_by_key(|fault| fault.order()).map(|fault| &fault.problem)
    }

    /// The first of the inherited problems.
    pub fn first_inherited(&self) -> Option<&Problem> {
        self.list.iter().filter(|fault| !fault.local).min_by_key(|fault| fault.order()).map(|fault| &fault.problem)
    }

    /// The greatest severity.
    pub fn severity(&self) -> Option<Severity> {
        self.inherited.max(self.local)
    }

    /// Whether something that a restore reads is known to be damaged.
    pub fn has_inherited_damage(&self) -> bool {
        self.inherited > Some(Severity::Unverifiable)
    }

    /// Whether something is known to be damaged.
    pub fn has_damage(&self) -> bool {
        self.severity() > Some(Severity::Unverifiable)
    }

    /// Whether all faults have this code.
    pub fn are_all(&self, code: ProblemCode) -> bool {
        self.more == 0 && self.list.iter().all(|fault| fault.problem.code == code)
    }

    /// Whether a disk gave read errors for something that a restore reads.
    pub fn has_inherited_read_error(&self) -> bool {
        self.list.iter().any(|fault| !fault.local && fault.problem.is_unreadable())
    }

    /// The verdict where something of the backup is on the storage.
    pub fn verdict(&self) -> CheckVerdict {
        Severity::verdict(self.severity())
    }

    /// The verdict for the backups that are based on this one.
    pub fn inherited_verdict(&self) -> CheckVerdict {
        Severity::verdict(self.inherited)
    }

    /// The problems in the order of a report: damage first, then what could not be checked; by object.
    pub fn into_problems(mut self) -> Vec<Problem> {
        self.list.sort_by(|a, b| a.order().cmp(&b.order()));
        let mut problems: Vec<Problem> = self.list.into_iter().map(|fault| fault.problem).collect();
        if self.more > 0 {
            problems.push(Problem::general(ProblemCode::More, format!("{} more problems are not listed", self.more)));
        }
        problems
    }

    /// Adds the faults of another.
    pub fn extend(&mut self, other: Self) {
        self.more += other.more;
        self.inherited = self.inherited.max(other.inherited);
        self.local = self.local.max(other.local);
        for fault in other.list {
            self.keep(fault);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(severities: &[Severity]) -> CheckVerdict {
        let mut faults = Faults::default();
        for severity in severities {
            faults.add(*severity, Problem::general(ProblemCode::Gap, "y"));
        }
        faults.verdict()
    }

    #[test]
    fn the_greatest_severity_decides_the_verdict() {
        use Severity::{Corrupt, Incomplete, Unverifiable};
        assert_eq!(verdict(&[]), CheckVerdict::Intact);
        assert_eq!(verdict(&[Unverifiable]), CheckVerdict::Unverifiable);
        assert_eq!(verdict(&[Unverifiable, Corrupt]), CheckVerdict::Corrupt);
        assert_eq!(verdict(&[Corrupt, Incomplete, Unverifiable]), CheckVerdict::Incomplete);
    }

    #[test]
    fn faults_beyond_the_limit_are_counted_and_not_kept() {
        let mut faults = Faults::default();
        for number in 0..MOST + 7 {
            faults.add(Severity::Corrupt, Problem::of(format!("o{number}"), ProblemCode::Gap, "y"));
        }
        let problems = faults.into_problems();
        assert_eq!(problems.len(), MOST + 1);
        assert!(problems.last().is_some_and(|last| last.text == "7 more problems are not listed"));
    }
}
