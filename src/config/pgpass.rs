//! PostgreSQL's password file (`~/.pgpass`), by libpq's rules.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::environment::read_text;
use super::{Environment, Host, Origin, ServerTarget, Setting};

/// The host as libpq looks it up. A socket in the usual directory is `localhost`.
fn host_key(host: &Host) -> String {
    match host {
        Host::Tcp(name) => name.clone(),
        Host::Socket(path) if is_usual_socket_directory(path) => "localhost".to_owned(),
        Host::Socket(path) => path.to_string_lossy().into_owned(),
    }
}

/// Whether libpq looks for sockets in this directory by default, in distributions or as built from source.
fn is_usual_socket_directory(path: &Path) -> bool {
    ["/var/run/postgresql", "/run/postgresql", "/tmp"].iter().any(|usual| path == Path::new(usual))
}

/// Finds the password for a server and account, in the file that the URL names, or else `PGPASSFILE`, or else `~/.pgpass`.
pub(super) fn find(
    server: &ServerTarget,
    named: Option<&Setting<PathBuf>>,
    env: &Environment,
    warnings: &mut Vec<String>,
) -> Option<Setting<SecretString>> {
    let (path, asked_for) = match named {
        Some(setting) => (setting.value.clone(), true),
        None => match env.path_var("PGPASSFILE") {
            Some(path) => (path, true),
            None => (env.in_home(".pgpass")?, false),
        },
    };
    let file = env.shown(&path);
    let shown = file.display();
    let warning = match fs::metadata(&path) {
        Err(_) if !asked_for => return None,
        Err(_) => format!("the password file {shown} does not exist"),
        Ok(data) if !data.is_file() => format!("the password file {shown} is ignored because it is not a regular file"),
        Ok(data) if data.permissions().mode() & 0o077 != 0 => {
            format!("the password file {shown} is ignored because others may read it, as libpq does; run chmod 600 {shown}")
        }
        Ok(_) => match read_text(&path) {
            Ok(text) => return search(&text, server).map(|(line, password)| Setting::new(password, Origin::line(file, line))),
            Err(error) => format!("the password file is ignored: {error}"),
        },
    };
    warnings.push(warning);
    None
}

/// The number and the password of the first line that matches.
fn search(text: &str, server: &ServerTarget) -> Option<(usize, SecretString)> {
    let (host, port) = (host_key(&server.host), server.port.to_string());
    let user = server.user.as_deref().unwrap_or_default();
    for (index, line) in text.lines().enumerate() {
        if line.starts_with('#') {
            continue;
        }
        let mut rest = Some(line);
        for wanted in [host.as_str(), port.as_str(), server.database.as_str(), user] {
            rest = rest.and_then(|rest| {
                let (field, after) = take_field(rest);
                // Only an unescaped star is a wildcard.
                let matches = rest.starts_with("*:") || field == wanted;
                if matches { after } else { None }
            });
        }
        if let Some(rest) = rest {
            let (password, _) = take_field(rest);
            return (!password.is_empty()).then(|| (index + 1, SecretString::from(password)));
        }
    }
    None
}

/// The field up to the next colon, without its backslashes, and the text after the colon.
fn take_field(text: &str) -> (String, Option<&str>) {
    let mut field = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            ':' => return (field, text.get(at + 1..)),
            '\\' => field.push(chars.next().map_or('\\', |(_, escaped)| escaped)),
            _ => field.push(c),
        }
    }
    (field, None)
}

#[cfg(test)]
mod tests;
