//! `schema`

mod shapes;

use clap::Args;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema};
use serde_json::{Value, json};

use self::shapes::{
    Failed, HistoryList, HistoryReconcile, HistoryVerify, Line, LogLine, RescueEnd, RescueRecord, RunEnd, RunHead, RunRecord, Schemas,
    ScrubPause, ScrubRun, ScrubStatus,
};
use super::{check, config, doctor, explain, history, rescue};
use crate::cli::view::RunDocument;
use crate::cli::{Context, Error, Exit, Result};
use crate::domain::record_stream::StreamKind;
use crate::domain::text::meant;
use crate::plan::Plan;
use crate::plan::records::PlanRecords;
use crate::report::grid::{Column, Grid};
use crate::scan::ScanDocument;
use crate::scan::records::ScanRecords;
use crate::verify::CheckDocument;
use crate::verify::orphans::OrphanRecords;
use crate::verify::partial::CheckResults;

/// Prints the JSON Schema (draft 2020-12) of a document or of a line of a record stream that this program writes. Fields are only added:
/// ignore those that a schema does not have.
#[derive(Debug, Args)]
pub struct SchemaArgs {
    /// The name after `cinder-backup-repair/` in the field `schema` [default: list all names]
    #[arg(value_name = "NAME")]
    pub name: Option<String>,
}

/// A schema that this program writes.
struct Known {
    name: &'static str,
    /// What writes it.
    by: &'static str,
    /// One value on each line.
    is_lines: bool,
    schema: fn() -> Schema,
}

const fn document(name: &'static str, by: &'static str, schema: fn() -> Schema) -> Known {
    Known { name, by, is_lines: false, schema }
}

const fn lines(name: &'static str, by: &'static str, schema: fn() -> Schema) -> Known {
    Known { name, by, is_lines: true, schema }
}

const KNOWN: &[Known] = &[
    document("scan", "scan", root::<ScanDocument>),
    lines("scan-records", "scan -f jsonl", stream::<ScanRecords>),
    document("check", "check, check merge", root::<CheckDocument>),
    lines("check-results", "check -f jsonl, check --out FILE.jsonl", stream::<CheckResults>),
    document("orphans", "check --orphans", root::<check::OrphanDocument<'static>>),
    lines("orphan-records", "check --orphans -f jsonl", stream::<OrphanRecords>),
    document("plan", "plan", root::<Plan>),
    lines("plan-records", "plan -f jsonl, plan --out FILE.jsonl", stream::<PlanRecords>),
    document("apply", "apply", root::<RunDocument<'static>>),
    document("repair", "repair", root::<RunDocument<'static>>),
    document("undo", "undo", root::<RunDocument<'static>>),
    lines("run-records", "apply, repair, undo -f jsonl", root::<Line<RunHead, RunRecord, RunEnd>>),
    document("rescue", "rescue", root::<rescue::RescueDocument<'static>>),
    lines("rescue-records", "rescue -f jsonl", root::<Line<rescue::RescueHead<'static>, RescueRecord, RescueEnd>>),
    document("explain", "explain", root::<explain::Document<'static>>),
    document("doctor", "doctor", root::<doctor::Document>),
    document("scrub", "scrub run", root::<ScrubRun>),
    document("scrub-pause", "scrub pause, scrub resume; scrub run during a pause", root::<ScrubPause>),
    document("scrub-status", "scrub status", root::<ScrubStatus>),
    document("history", "history list", root::<HistoryList>),
    document("run", "history show", root::<history::Run<'static>>),
    document("history-verify", "history verify", root::<HistoryVerify>),
    document("history-reconcile", "history reconcile", root::<HistoryReconcile>),
    document("log-head", "history verify --out", root::<history::SignedHead>),
    lines("audit", "the audit log", root::<LogLine>),
    document("config", "config show", root::<config::Document>),
    document("schemas", "schema", root::<Schemas>),
    document("error", "a command that fails before it has a result", root::<Failed>),
];

const COLUMNS: &[Column<Known>] = &[
    ("Name", |known| known.name.into()),
    ("Written By", |known| known.by.into()),
    ("Form", |known| if known.is_lines { "JSON lines" } else { "JSON" }.into()),
];

pub fn run(context: &Context<'_>, args: &SchemaArgs) -> Result<Exit> {
    let ui = context.ui;
    let Some(name) = &args.name else {
        let list: Vec<Value> =
            KNOWN.iter().map(|known| json!({ "name": known.name, "written_by": known.by, "lines": known.is_lines })).collect();
        let document = json!({ "schema": "cinder-backup-repair/schemas", "schema_version": 1, "schemas": list });
        ui.result(&document, "schemas", || Grid::of(KNOWN, COLUMNS))?;
        return Ok(Exit::Done);
    };
    let name = name.strip_prefix("cinder-backup-repair/").unwrap_or(name);
    let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
        let meant = meant(name, KNOWN.iter().map(|known| known.name));
        return Err(Error::usage(format!("{name:?} is not a schema: `schema` lists all{meant}")));
    };
    let mut schema = (known.schema)();
    RecursiveTransform(|schema: &mut Schema| name_schema(schema, known.name)).transform(&mut schema);
    schema.insert("title".to_owned(), json!(format!("cinder-backup-repair/{}", known.name)));
    ui.text(&format!("{:#}\n", schema.as_value()))?;
    Ok(Exit::Done)
}

/// The schema of what a type writes.
fn root<T: JsonSchema>() -> Schema {
    let settings = SchemaSettings::draft2020_12().for_serialize().with_transform(RecursiveTransform(require_less));
    settings.into_generator().into_root_schema_for::<T>()
}

/// The schema of a line of a stream.
fn stream<K: StreamKind<Head: JsonSchema, Record: JsonSchema, End: JsonSchema>>() -> Schema {
    root::<Line<K::Head, K::Record, K::End>>()
}

/// Documents of earlier versions lack the fields that have a default when they are read.
fn require_less(schema: &mut Schema) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let has_default = |name: &Value| name.as_str().is_some_and(|name| properties.get(name).is_some_and(|of| of.get("default").is_some()));
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
    let required: Vec<Value> = required.filter(|name| !has_default(name)).cloned().collect();
    if !required.is_empty() {
        schema.insert("required".to_owned(), required.into());
    } else {
        schema.remove("required");
    }
}

/// Says which document it is, wherever it has both fields that do.
fn name_schema(schema: &mut Schema, name: &str) {
    let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) else { return };
    if properties.contains_key("schema") && properties.contains_key("schema_version") {
        properties.insert("schema".to_owned(), json!({ "const": format!("cinder-backup-repair/{name}") }));
        properties.insert("schema_version".to_owned(), json!({ "const": 1 }));
    }
}
