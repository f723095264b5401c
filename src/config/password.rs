//! Finds the password: the file from the flag, a URL from the command line, the environment, any other URL, then the files of the
//! database's own client programs.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use secrecy::SecretString;

use super::url_options::PartialTarget;
use super::{ConfigError, DatabaseFlags, Environment, Origin, ServerKind, Setting, mysql, pgpass};

/// The longest password.
const LONGEST: u64 = 64 * 1024;

/// Takes the password from the strongest source that has one. `origin` is that of the URL.
pub(super) fn find(
    partial: &mut PartialTarget,
    origin: &Origin,
    flags: &DatabaseFlags,
    env: &Environment,
) -> Result<Option<Setting<SecretString>>, ConfigError> {
    if let Some(path) = &flags.password_file {
        return read_file(path, &mut partial.warnings).map(Some);
    }
    // An empty password in a URL counts as unset, as in PyMySQL and libpq. The variable may belong to another database than the one on
    // the command line.
    let on_command_line = match origin {
        Origin::Flag(_) => true,
        Origin::File { .. } => flags.names_files(),
        Origin::Default | Origin::Variable(_) => false,
    };
    let named = partial.password.take_if(|password| on_command_line && password.origin == *origin);
    if let Some(password) = named.map(Ok).or_else(|| variable(env, "CINDER_DATABASE_PASSWORD").transpose()) {
        return password.map(Some);
    }
    if let Some(password) = partial.password.take() {
        return Ok(Some(password));
    }
    let client_variable = match partial.server.kind {
        ServerKind::Mysql => "MYSQL_PWD",
        ServerKind::Postgresql => "PGPASSWORD",
    };
    if let Some(password) = variable(env, client_variable)? {
        return Ok(Some(password));
    }
    if let Some(password) = partial.file_password.take() {
        return Ok(Some(password));
    }
    Ok(match partial.server.kind {
        ServerKind::Mysql => mysql::home_password(partial.server.user.as_deref(), env, &mut partial.warnings),
        ServerKind::Postgresql => pgpass::find(&partial.server, partial.passfile.as_ref(), env, &mut partial.warnings),
    })
}

fn variable(env: &Environment, name: &'static str) -> Result<Option<Setting<SecretString>>, ConfigError> {
    Ok(env.text(name)?.map(|password| Setting::new(SecretString::from(password), Origin::Variable(name))))
}

/// The first line of a file or pipe without its line break.
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
        return Err(fail("its first line is empty; put the password there".to_owned()));
    }
    if line.contains('\0') {
        return Err(fail("its first line contains a NUL".to_owned()));
    }
    Ok(Setting::new(SecretString::from(line), flag))
}
