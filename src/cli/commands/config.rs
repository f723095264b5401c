//! `config show`

use clap::{Args, Subcommand};
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::storage::PlaceArgs;
use crate::cli::{Context, Error, Exit, Result};
use crate::config::{DatabaseSettings, Origin, Target, searched_places};
use crate::domain::text::count;
use crate::report::grid::{Column, Grid};

#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// What to do
    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// The settings that would be used, each with where it was found; secrets are not shown. Connects to nothing
    Show(ShowArgs),
}

#[derive(Debug, Args)]
pub struct ShowArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// A setting as it is shown.
#[derive(Debug, Serialize, JsonSchema)]
struct Shown {
    name: String,
    /// `None` if it is unset.
    value: Option<String>,
    /// The value is not shown.
    secret: bool,
    /// A file with its line, an option, a variable or `default`.
    origin: Option<String>,
}

/// The document `cinder-backup-repair/config`.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Document {
    schema: &'static str,
    schema_version: u32,
    settings: Vec<Shown>,
    /// In their order: a later file overrides an earlier one.
    files_read: Vec<String>,
    /// Usual places without a file.
    files_not_found: Vec<String>,
    /// Why no database can be used.
    problem: Option<String>,
}

const SETTINGS: &[Column<Shown>] = &[
    ("Setting", |shown| shown.name.as_str().into()),
    ("Value", |shown| if shown.secret { Some("***") } else { shown.value.as_deref() }.into()),
    ("Origin", |shown| shown.origin.as_deref().into()),
];

pub fn run(context: &Context<'_>, args: &ConfigArgs) -> Result<Exit> {
    let ConfigCommand::Show(args) = &args.command;
    let (ui, flags) = (context.ui, &context.global.database.flags);
    ui.check_columns(SETTINGS)?;
    let cinder = context.cinder_conf()?;
    let (database, failure) = match context.resolve() {
        Ok(resolved) => (database(&resolved.database), None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let shown = |name: &str, value: Option<String>, origin: Option<&Origin>| {
        let origin = origin.map(ToString::to_string);
        Shown { name: name.to_owned(), secret: false, value, origin }
    };
    let mut settings = database;
    let log = context.global.record.audit_log.as_ref().map_or(Origin::Default, |_| Origin::Flag("--audit-log"));
    settings.push(shown("audit_log", context.audit_path().ok().map(|path| path.display().to_string()), Some(&log)));
    let storage = args.place.settings(context)?;
    if let Some(path) = &storage.path {
        settings.push(shown("storage_path", Some(path.display().to_string()), Some(&Origin::Flag("--storage-path"))));
    }
    for (name, found, secret) in storage.options.all().map_err(Error::usage)? {
        let (value, origin) = found.map(|found| (found.value, found.origin)).unzip();
        settings.push(Shown { secret: secret && value.is_some(), ..shown(name, value.filter(|_| !secret), origin.as_ref()) });
    }
    let text = |path: &std::path::Path| path.display().to_string();
    let document = Document {
        schema: "cinder-backup-repair/config",
        schema_version: 1,
        settings,
        files_read: cinder.files().map(text).collect(),
        files_not_found: searched_places(flags, context.environment).iter().map(|path| text(path)).collect(),
        problem: failure.as_ref().map(|failure| format!("{:#}", failure.error)),
    };
    ui.result(&document, "settings", || Grid::of(&document.settings, SETTINGS))?;
    if ui.is_table() {
        let Document { files_read, files_not_found, .. } = &document;
        ui.say(match files_read.as_slice() {
            [] => "No cinder.conf was read".to_owned(),
            files => format!("{} read, a later one overrides an earlier one: {}", count(files.len(), "file"), files.join(", ")),
        });
        if !files_not_found.is_empty() {
            ui.say(format!("Not found: {}", files_not_found.join(", ")));
        }
    }
    // What is known was shown; a command would fail.
    if let Some(failure) = &failure {
        ui.error(&format!("{:#}", failure.error), failure.hint.as_deref());
    }
    Ok(failure.map_or(Exit::Done, |failure| failure.exit))
}

/// The database, and how it would be connected to.
fn database(settings: &DatabaseSettings) -> Vec<Shown> {
    let url = Shown {
        name: "database".to_owned(),
        value: Some(settings.target.describe()),
        secret: false,
        origin: Some(settings.origin.to_string()),
    };
    let Target::Server(server) = &settings.target else { return vec![url] };
    let password = Shown {
        name: "password".to_owned(),
        value: None,
        secret: server.password.is_some(),
        origin: settings.password_origin.as_ref().map(ToString::to_string),
    };
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let tls = &server.tls;
    let values =
        [("tls_mode", Some(tls.mode.to_string())), ("tls_ca", path(&tls.ca)), ("tls_cert", path(&tls.cert)), ("tls_key", path(&tls.key))];
    let tls = values.into_iter().map(|(name, value)| Shown { name: name.to_owned(), value, secret: false, origin: None });
    [url, password].into_iter().chain(tls).collect()
}
