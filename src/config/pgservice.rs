//! PostgreSQL's connection service file (`service=NAME`), by libpq's rules.

use super::environment::read_text;
use super::{ConfigError, Environment, Origin, Setting};

/// The options of a service, from `PGSERVICEFILE` or `~/.pg_service.conf`, or else from the system's file.
pub(super) fn find(service: &Setting<String>, env: &Environment) -> Result<Vec<(String, Setting<String>)>, ConfigError> {
    let own = env.path_var("PGSERVICEFILE").or_else(|| env.in_home(".pg_service.conf"));
    let system = match env.path_var("PGSYSCONFDIR") {
        Some(directory) => vec![directory],
        None => vec![env.at("/etc/postgresql-common"), env.at("/etc/sysconfig/pgsql"), env.at("/etc")],
    };
    let files: Vec<_> = own.into_iter().chain(system.into_iter().map(|directory| directory.join("pg_service.conf"))).collect();
    for path in files.iter().filter(|path| path.is_file()) {
        let text = read_text(path)?;
        let shown = env.shown(path);
        if let Some(options) = section(&text, service, &shown)? {
            return Ok(options);
        }
    }
    let searched: Vec<String> = files.iter().map(|path| env.shown(path).display().to_string()).collect();
    Err(ConfigError::invalid(
        &service.origin,
        format!("the service {} does not exist in {}", service.value.escape_default(), searched.join(", ")),
    ))
}

type ServiceOptions = Vec<(String, Setting<String>)>;

/// The options of one section; `None` if the file does not have it.
fn section(text: &str, service: &Setting<String>, shown: &std::path::Path) -> Result<Option<ServiceOptions>, ConfigError> {
    let mut found: Option<ServiceOptions> = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            if rest.strip_suffix(']') == Some(service.value.as_str()) {
                found = Some(Vec::new());
            }
            continue;
        }
        let Some(options) = &mut found else { continue };
        let wrong = |problem: &str| ConfigError::Syntax { path: shown.display().to_string(), line: index + 1, problem: problem.to_owned() };
        if line.starts_with("ldap:") {
            return Err(wrong("services in an LDAP directory are not supported; put the options here"));
        }
        let (name, value) = line.split_once('=').ok_or_else(|| wrong("an option must be written name=value"))?;
        if name == "service" {
            return Err(wrong("a service cannot name another service"));
        }
        let origin = Origin::option(shown, index + 1, &service.value, name);
        if !options.iter().any(|(known, _)| known == name) && !value.is_empty() {
            options.push((name.to_owned(), Setting::new(value.to_owned(), origin)));
        }
    }
    Ok(found)
}
