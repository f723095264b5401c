//! Finds the password: the file given by flag, a URL that the command line names, the environment, any other URL, then the files
//! that the database's own client programs look into.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrecy::SecretString;

use super::draft::Draft;
use super::pgpass::{self, Login};
use super::{ConfigError, DatabaseFlags, Environment, Origin, ServerKind, Setting, mysql};

/// No password is longer.
const LONGEST: u64 = 64 * 1024;

/// The strongest source that has one; `origin` is the URL's.
pub(super) fn find(
    draft: &mut Draft,
    origin: &Origin,
    flags: &DatabaseFlags,
    env: &Environment,
) -> Result<Option<Setting<SecretString>>, ConfigError> {
    if let Some(path) = &flags.password_file {
        return read_file(path, &mut draft.warnings).map(Some);
    }
    // An empty password in a URL is none, both to PyMySQL and to libpq. The variable's may be that of another database than the
    // command line names.
    let on_command_line = match origin {
        Origin::Flag(_) => true,
        Origin::File { .. } => flags.names_files(),
        Origin::Default | Origin::Variable(_) => false,
    };
    let named = draft.password.take_if(|password| on_command_line && password.origin == *origin);
    if let Some(password) = named.map(Ok).or_else(|| variable(env, "CINDER_DATABASE_PASSWORD").transpose()) {
        return password.map(Some);
    }
    if let Some(password) = draft.password.take() {
        return Ok(Some(password));
    }
    let clients = match draft.kind {
        ServerKind::Mysql => "MYSQL_PWD",
        ServerKind::Postgresql => "PGPASSWORD",
    };
    if let Some(password) = variable(env, clients)? {
        return Ok(Some(password));
    }
    if let Some(password) = draft.file_password.take() {
        return Ok(Some(password));
    }
    Ok(match draft.kind {
        ServerKind::Mysql => mysql::home_password(draft.user.as_deref(), env, &mut draft.warnings),
        ServerKind::Postgresql => {
            let login =
                Login { host: &draft.host, port: draft.port, database: &draft.database, user: draft.user.as_deref().unwrap_or_default() };
            pgpass::find(&login, draft.passfile.as_ref(), env, &mut draft.warnings)
        }
    })
}

fn variable(env: &Environment, name: &'static str) -> Result<Option<Setting<SecretString>>, ConfigError> {
    Ok(env.text(name)?.map(|password| Setting::new(SecretString::from(password), Origin::Variable(name))))
}

/// The first line of a file, or of a pipe, without its line end.
fn read_file(path: &Path, warnings: &mut Vec<String>) -> Result<Setting<SecretString>, ConfigError> {
    let flag = Origin::Flag("--password-file");
    let fail = |reason: String| ConfigError::invalid(&flag, format!("cannot read {}: {reason}", path.display()));
    let file = crate::input::open(path).map_err(|error| fail(error.to_string()))?;
    if file.get_ref().1.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o077 != 0) {
        warnings.push(format!("the password file {0} can be read by others; run chmod 600 {0}", path.display()));
    }
    let mut line = String::new();
    BufReader::new(file.take(LONGEST)).read_line(&mut line).map_err(|error| fail(error.to_string()))?;
    let line = line.strip_suffix('\n').map_or(line.as_str(), |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() {
        return Err(fail("its first line is empty; write the password there".to_owned()));
    }
    if line.contains('\0') {
        return Err(fail("its first line holds a NUL".to_owned()));
    }
    Ok(Setting::new(SecretString::from(line), flag))
}
