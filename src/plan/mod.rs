//! The plan: the changes to make, and what they are based on, as a sealed document.
//!
//! From findings to a document and back. May use `domain` and `spool` only: the units of a plan are in a temporary file if they are many.

pub mod records;
mod validate;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::sync::Arc;

use crate::domain::{
    Body, Change, CheckResult, Checks, ColumnSet, DatabaseInfo, Evidence, EvidenceCode, Finding, FindingKind, Image, Policy, Sealed,
    Selection, Services, Table, Verdict, digest,
};
use crate::spool::Spool;

/// What a plan is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// To repair what a scan found.
    Repair,
    /// To undo a run.
    Undo,
}

/// A backup, volume, snapshot or project with all rows that must change with it: one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// Its number, from 1.
    pub number: usize,
    /// The kind of the main row.
    pub kind: FindingKind,
    /// The main row's id; of a project, its own.
    pub id: String,
    /// Its name; hostile text.
    pub name: Option<String>,
    /// Its status when the plan was made.
    pub status: Option<String>,
    /// The host of its cinder-backup.
    pub host: Option<String>,
    /// Only the counter changes.
    pub counter: bool,
    /// `stuck` or, for a counter, `inconsistent`.
    pub verdict: Verdict,
    /// The reasons for the verdict.
    pub evidence: Vec<Evidence>,
    /// The pre-images of the rows to change.
    pub before: Vec<Image>,
    /// The changes, in the order in which rows are locked.
    pub changes: Vec<Change>,
    /// Commands for the operator, once the API is back.
    pub follow_up: Vec<String>,
}

impl Unit {
    /// What it is about, for people: the kind, the id, and the name if it has one. Hostile text.
    pub fn title(&self) -> String {
        let name = self.name.as_deref().map(|name| format!(" {name:?}")).unwrap_or_default();
        let of = if self.kind == FindingKind::Host { " of backup" } else { "" };
        format!("{}{of} {}{name}", self.kind, self.id)
    }

    /// The main row as planned.
    pub fn main_image(&self) -> Option<&Image> {
        match self.kind {
            // A project has no row of its own.
            FindingKind::Project => self.before.first(),
            kind => Image::of(&self.before, kind.table(), &self.id),
        }
    }

    /// Whether it makes a backup available although no data was read.
    pub fn is_accepted_quick(&self) -> bool {
        self.evidence.iter().any(|evidence| evidence.code == EvidenceCode::AcceptedQuick)
    }
}

/// What a plan is based on.
#[derive(Debug, Clone)]
pub struct Basis {
    /// A UUID of its own.
    pub id: String,
    /// The database's clock when the rows were read, RFC 3339.
    pub taken_at: String,
    /// The database.
    pub database: DatabaseInfo,
    /// The columns that it has.
    pub columns: ColumnSet,
    /// The options.
    pub policy: Policy,
    /// The selected rows.
    pub selection: Selection,
    /// The heartbeats.
    pub services: Services,
    /// The checks of the storage.
    pub checks: Checks,
}

/// The document `cinder-backup-repair/plan`.
pub type Plan = Sealed<PlanBody>;

/// The fields of a plan.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(test, derive(PartialEq))]
#[serde(deny_unknown_fields)]
pub struct PlanBody {
    /// A UUID: a plan is applied once.
    pub id: String,
    /// Repair or undo.
    pub purpose: Purpose,
    /// The run that it undoes, if it is for that.
    pub undoes: Option<String>,
    /// The database's clock when the rows were read, RFC 3339.
    pub taken_at: String,
    /// Name and version of the program that made it.
    pub program: String,
    /// The database that it is for.
    pub database: DatabaseInfo,
    /// The columns that the images have.
    pub columns: ColumnSet,
    /// The options, with the safety flags. `apply` decides by the same ones.
    pub policy: Policy,
    /// The selected rows.
    pub selection: Selection,
    /// The last heartbeat of each host that a unit names, RFC 3339.
    pub heartbeats: BTreeMap<String, Option<String>>,
    /// Results of the checks that the decisions depend on, in the order of their backups' ids.
    #[serde(serialize_with = "write_shared", deserialize_with = "read_shared")]
    #[schemars(with = "Vec<CheckResult>")]
    pub checks: Vec<Arc<CheckResult>>,
    /// The units, in the order in which they are applied.
    pub units: Spool<Unit>,
}

/// Writes shared results as plain ones.
fn write_shared<S: Serializer>(checks: &[Arc<CheckResult>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(checks.iter().map(AsRef::as_ref))
}

fn read_shared<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Arc<CheckResult>>, D::Error> {
    Ok(Vec::<CheckResult>::deserialize(deserializer)?.into_iter().map(Arc::new).collect())
}

impl Body for PlanBody {
    const SCHEMA: &'static str = "cinder-backup-repair/plan";
    const SCHEMA_VERSION: u32 = 1;
    const KIND: &'static str = "a plan of this program";
    const INSTEAD: &'static str = "make a new plan instead of editing one";

    fn validate(&self) -> Result<(), String> {
        self.check()
    }
}

impl Unit {
    /// The unit that repairs a finding, which has the rows to change. Its number is given by the plan.
    pub fn of_finding(finding: Finding) -> Self {
        let counter = finding.kind == FindingKind::Backup && finding.verdict == Verdict::Inconsistent;
        Self {
            number: 0,
            kind: finding.kind,
            id: finding.id,
            name: finding.name,
            status: finding.status,
            host: finding.host,
            counter,
            verdict: finding.verdict,
            evidence: finding.evidence,
            before: finding.rows,
            changes: finding.proposal.map(|proposal| proposal.changes).unwrap_or_default(),
            follow_up: finding.follow_up,
        }
    }

    /// Backups before the volumes that they explain, and by id, so that every run takes locks in the same order.
    fn rank(&self) -> (FindingKind, &str, Verdict) {
        (self.kind, &self.id, self.verdict)
    }
}

/// The units of a plan as they are found, in any order.
#[derive(Debug, Default)]
pub struct Proposed {
    units: Spool<Unit>,
    /// The last one, as far as the units are in the order of the plan.
    last: Option<(FindingKind, String, Verdict)>,
    is_out_of_order: bool,
}

impl Proposed {
    /// Adds a unit.
    ///
    /// # Errors
    /// Those of the temporary file.
    pub fn add(&mut self, mut unit: Unit) -> io::Result<()> {
        unit.number = self.units.len() + 1;
        let last = self.last.replace((unit.kind, unit.id.clone(), unit.verdict));
        self.is_out_of_order |= last.is_some_and(|(kind, id, verdict)| (kind, id.as_str(), verdict) > unit.rank());
        self.units.push(&unit)
    }

    /// The units in the order of the plan.
    fn in_order(self) -> io::Result<Spool<Unit>> {
        #[derive(Deserialize)]
        struct Rank {
            kind: FindingKind,
            id: String,
            verdict: Verdict,
        }
        let mut units = self.units;
        if self.is_out_of_order {
            let ranks = units.parts::<Rank>(0..units.len()).map(|rank| rank.map(|rank| (rank.kind, rank.id, rank.verdict)));
            let mut ranks: Vec<_> = ranks.zip(0..).map(|(rank, place)| Ok((rank?, place))).collect::<io::Result<_>>()?;
            ranks.sort();
            units.rearrange(ranks.into_iter().map(|(_, place)| place));
            units = numbered(&units, &BTreeSet::new())?;
        }
        Ok(units)
    }
}

/// The units without those with these numbers, numbered from 1 again.
fn numbered(units: &Spool<Unit>, left_out: &BTreeSet<usize>) -> io::Result<Spool<Unit>> {
    let mut kept = Spool::default();
    for unit in units {
        let unit = unit?;
        if !left_out.contains(&unit.number) {
            kept.push(&Unit { number: kept.len() + 1, ..unit })?;
        }
    }
    Ok(kept)
}

impl Plan {
    /// Plans the repair of what was found. `basis.id` is a new UUID.
    ///
    /// # Errors
    /// Those of the temporary file.
    pub fn propose(proposed: Proposed, basis: Basis) -> io::Result<Self> {
        Self::of_units(Purpose::Repair, None, basis, proposed.in_order()?)
    }

    /// Seals a plan with these units.
    ///
    /// # Errors
    /// Those of the temporary file.
    pub fn of_units(purpose: Purpose, undoes: Option<String>, basis: Basis, units: Spool<Unit>) -> io::Result<Self> {
        #[derive(Deserialize)]
        struct About {
            kind: FindingKind,
            id: String,
            host: Option<String>,
            counter: bool,
        }
        let Basis { id, taken_at, database, columns, policy, selection, services, checks: mut known } = basis;
        let (mut heartbeats, mut checks) = (BTreeMap::new(), Vec::new());
        for unit in units.parts::<About>(0..units.len()) {
            let unit = unit?;
            if let Some(host) = unit.host.filter(|host| !heartbeats.contains_key(host)) {
                let beat = services.last_beat(&host);
                heartbeats.insert(host, beat);
            }
            if unit.kind == FindingKind::Backup && !unit.counter {
                checks.extend(known.remove(&unit.id));
            }
        }
        checks.sort_by(|a, b| a.id.cmp(&b.id));
        let program = program();
        let body = PlanBody { id, purpose, undoes, taken_at, program, database, columns, policy, selection, heartbeats, checks, units };
        let mut plan = Self { schema_version: PlanBody::SCHEMA_VERSION, body, sha256: String::new(), signature: None };
        plan.try_seal()?;
        Ok(plan)
    }

    /// The check of the backup that a unit is about.
    pub fn check_of(&self, unit: &Unit) -> Option<&CheckResult> {
        let about = unit.kind == FindingKind::Backup && !unit.counter;
        let found = self.checks.binary_search_by(|check| check.id.cmp(&unit.id)).ok().filter(|_| about);
        found.and_then(|place| self.checks.get(place)).map(AsRef::as_ref)
    }

    /// Keeps only the units with these numbers, which stay the same, and seals the plan again.
    ///
    /// # Errors
    /// Those of the temporary file.
    pub fn keep(&mut self, numbers: &BTreeSet<usize>) -> io::Result<()> {
        #[derive(Deserialize)]
        struct Numbered {
            number: usize,
        }
        let kept = self.units.parts::<Numbered>(0..self.units.len()).enumerate().filter_map(|(place, unit)| match unit {
            Ok(unit) => numbers.contains(&unit.number).then_some(Ok(place)),
            Err(error) => Some(Err(error)),
        });
        let kept: Vec<usize> = kept.collect::<io::Result<_>>()?;
        self.units.rearrange(kept);
        self.try_seal()
    }

    /// Removes units, numbers the others again, and seals the plan again.
    ///
    /// # Errors
    /// Those of the temporary file.
    pub fn leave_out(&mut self, numbers: &BTreeSet<usize>) -> io::Result<()> {
        self.units = numbered(&self.units, numbers)?;
        self.try_seal()
    }

    /// The number of rows that it changes. A parent whose counter several units change is one row.
    ///
    /// # Errors
    /// Those of the temporary file.
    pub fn rows(&self) -> io::Result<usize> {
        #[derive(Deserialize)]
        struct Before {
            before: Vec<Row>,
        }
        #[derive(Deserialize)]
        struct Row {
            table: Table,
            id: String,
        }
        let mut rows = HashSet::new();
        for unit in self.units.parts::<Before>(0..self.units.len()) {
            rows.extend(unit?.before.iter().map(|row| digest::short(&[&row.table.to_string(), &row.id])));
        }
        Ok(rows.len())
    }
}

/// Name and version of this program.
pub fn program() -> String {
    format!("{} {}", env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use crate::domain::text::json_escaped;
    use crate::domain::{Backup, SealError};

    fn plan() -> Plan {
        let change =
            Change { table: Table::Backups, id: "b1".into(), column: "status".into(), from: "creating".into(), to: "error".into() };
        let before = Backup { id: "b1".into(), status: Some("creating".into()), ..Backup::default() }.image(ColumnSet::Mitaka);
        Plan::new(PlanBody {
            id: "11111111-1111-4111-8111-111111111111".into(),
            purpose: Purpose::Repair,
            undoes: None,
            taken_at: "2026-11-22T18:46:33Z".into(),
            program: program(),
            database: DatabaseInfo {
                engine: "sqlite".into(),
                version: "3".into(),
                release: "r".into(),
                identity: "i".into(),
                location: None,
            },
            columns: ColumnSet::Mitaka,
            policy: Policy::default(),
            selection: Selection::default(),
            heartbeats: BTreeMap::new(),
            checks: Vec::new(),
            units: Spool::of([Unit {
                number: 1,
                kind: FindingKind::Backup,
                id: "b1".into(),
                name: Some("\u{1b}[2J\"=cmd()".into()),
                status: Some("creating".into()),
                host: None,
                counter: false,
                verdict: Verdict::Stuck,
                evidence: vec![Evidence::new(EvidenceCode::NeverScheduled, "x")],
                before: vec![before],
                changes: vec![change],
                follow_up: Vec::new(),
            }])
            .unwrap(),
        })
    }

    /// A plan as a file holds it.
    fn text(plan: &Plan) -> String {
        json_escaped(&serde_json::to_string_pretty(plan).unwrap()).into_owned() + "\n"
    }

    fn edit(plan: &mut Plan, edit: impl FnOnce(&mut Vec<Unit>)) {
        let mut units = plan.units.read(0..plan.units.len()).unwrap();
        edit(&mut units);
        plan.units = Spool::of(units).unwrap();
        plan.try_seal().unwrap();
    }

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        let plan = plan();
        assert!(Plan::parse(text(&plan).as_bytes()).unwrap() == plan);
        // Another program may change the layout.
        assert!(Plan::parse(&serde_json::to_vec(&plan).unwrap()).unwrap() == plan);
    }

    #[test]
    fn a_plan_of_a_version_without_zones_is_read_unless_it_moves_a_backup() {
        let mut plan = plan();
        edit(&mut plan, |units| drop(units[0].before[0].columns.remove("availability_zone")));
        assert!(Plan::parse(text(&plan).as_bytes()).is_ok());
        edit(&mut plan, |units| units[0].kind = FindingKind::Host);
        let error = Plan::parse(text(&plan).as_bytes()).unwrap_err().to_string();
        assert!(error.contains("does not have the columns of such a row"), "{error}");
    }

    #[test]
    fn units_are_numbered_in_the_order_of_the_plan_whatever_order_they_are_found_in() {
        let unit = plan().units.get(0).unwrap().unwrap();
        let named = |(kind, id): (FindingKind, &str)| Unit { kind, id: id.to_owned(), ..unit.clone() };
        let mut proposed = Proposed::default();
        for about in [(FindingKind::Volume, "a"), (FindingKind::Backup, "b"), (FindingKind::Backup, "a")] {
            proposed.add(named(about)).unwrap();
        }
        let units =
            proposed.in_order().unwrap().iter().map(|unit| unit.unwrap()).map(|unit| (unit.number, unit.kind, unit.id)).collect::<Vec<_>>();
        let expected = [(1, FindingKind::Backup, "a"), (2, FindingKind::Backup, "b"), (3, FindingKind::Volume, "a")];
        assert_eq!(units, expected.map(|(number, kind, id)| (number, kind, id.to_owned())));
    }

    #[test]
    fn a_plan_of_version_0_1_is_read_and_written_as_it_was() {
        let file = include_str!("../../tests/fixtures/plan-0.1.json");
        let plan = Plan::parse(file.as_bytes()).unwrap();
        assert!(plan.signature.is_some() && text(&plan) == *file);
    }

    #[test]
    fn a_code_of_another_version_is_kept() {
        let mut plan = plan();
        edit(&mut plan, |units| units[0].evidence[0] = serde_json::from_str(r#"{"code":"moonlight","text":"x"}"#).unwrap());
        let read = Plan::parse(text(&plan).as_bytes()).unwrap();
        assert!(read == plan);
        let unit = read.units.get(0).unwrap().unwrap();
        let code = &unit.evidence[0].code;
        assert_eq!((code.as_str(), code.known()), ("moonlight", None));
    }

    #[test]
    fn a_row_that_two_units_change_is_one_row() {
        let mut plan = plan();
        let parent = Backup { id: "p".into(), ..Backup::default() }.image(ColumnSet::Mitaka);
        edit(&mut plan, |units| {
            let mut second = units[0].clone();
            second.before[0].id = "b2".into();
            units.push(second);
            units.iter_mut().for_each(|unit| unit.before.push(parent.clone()));
        });
        assert_eq!(plan.rows().unwrap(), 3);
    }

    #[test]
    fn every_edit_is_noticed() {
        let text = text(&plan());
        for (from, to) in [
            ("\"error\"", "\"available\""),
            ("\"b1\"", "\"b2\""),
            ("\"number\": 1", "\"number\": 2"),
            ("\"all\"", "\"none\""),
            ("\"allow_unverified\": false", "\"allow_unverified\": true"),
            ("\"counter\": false", "\"counter\": true"),
        ] {
            let edited = text.replacen(from, to, 1);
            if edited != text {
                assert_eq!(Plan::parse(edited.as_bytes()).unwrap_err(), SealError::Edited(PlanBody::INSTEAD), "{from}");
            }
        }
    }

    #[test]
    fn another_document_is_not_a_plan() {
        let text = text(&plan());
        assert!(matches!(Plan::parse(b"{}"), Err(SealError::Invalid { .. })));
        assert!(matches!(Plan::parse(b"\xff"), Err(SealError::Invalid { .. })));
        assert!(matches!(Plan::parse(&text.as_bytes()[..text.len() / 2]), Err(SealError::Invalid { .. })));
        assert!(matches!(Plan::parse(text.replacen("\"units\"", "\"more\": 1, \"units\"", 1).as_bytes()), Err(SealError::Invalid { .. })));
        assert!(matches!(Plan::parse(text.replacen('{', "{\"sha256\": \"\",", 1).as_bytes()), Err(SealError::Invalid { .. })), "twice");
        let newer = text.replacen("\"schema_version\": 1", "\"schema_version\": 2", 1);
        assert_eq!(Plan::parse(newer.as_bytes()).unwrap_err(), SealError::Newer(2));
    }
}
