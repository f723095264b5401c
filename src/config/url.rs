//! Parses a database URL as SQLAlchemy does. `mysql` and `postgresql` interpret its options.

use percent_encoding::percent_decode_str;

use super::{ConfigError, Origin};

/// The decoded parts of a URL. It contains the password in plain text, so it is neither printed nor kept.
pub(super) struct Url {
    /// `mysql`, `mariadb`, `postgresql`, `postgres` or `sqlite`.
    pub dialect: String,
    /// The text after the `+`.
    pub driver: Option<String>,
    pub user: Option<String>,
    pub password: Option<String>,
    /// Without the brackets of an IPv6 address; several hosts are not split.
    pub host: Option<String>,
    pub port: Option<u16>,
    pub database: Option<String>,
    /// The options in order, without those that have no value, as in SQLAlchemy.
    pub query: Vec<(String, String)>,
    /// The URL as it was given, without a password.
    pub without_password: String,
    pub warnings: Vec<String>,
}

const FORMS: &str = "mysql+pymysql://USER:PASSWORD@HOST/cinder, postgresql://USER:PASSWORD@HOST/cinder or sqlite:////PATH";

impl Url {
    /// Parses a URL.
    pub fn parse(text: &str, origin: &Origin) -> Result<Self, ConfigError> {
        let wrong = |problem: &str| ConfigError::invalid(origin, problem);
        let text = text.trim();
        if text.chars().any(char::is_control) {
            return Err(wrong(
                "the database URL contains a line break or another control character; check whether the line after it is indented, and write \
                 such characters as %XX",
            ));
        }
        let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
            if text.starts_with(['/', '.', '~']) || text.ends_with(".db") || text.ends_with(".sqlite") {
                return Err(wrong("this is a path, not a URL; for a SQLite file use sqlite:///PATH (sqlite:////absolute/path)"));
            }
            return Err(wrong(&format!("this is not a database URL; use {FORMS}")));
        };
        let (dialect, driver) = match scheme.split_once('+') {
            Some((dialect, driver)) => (dialect, Some(driver.to_lowercase())),
            None => (scheme, None),
        };
        let dialect = dialect.to_lowercase();
        if !matches!(dialect.as_str(), "mysql" | "mariadb" | "postgresql" | "postgres" | "sqlite") {
            return Err(wrong(&format!("{dialect}:// is not a database that Cinder supports; use {FORMS}")));
        }

        let mut warnings = Vec::new();
        let (user, mut password, mut rest) = split_account(rest);
        let authority = rest.find(['/', '?']).unwrap_or(rest.len());
        let joined;
        if let (Some(begun), Some(at)) = (password, rest.get(..authority).and_then(|authority| authority.rfind('@'))) {
            // SQLAlchemy since 1.4 would read a host with an '@', which does not exist.
            joined = format!("{begun}@{}", rest.get(..at).unwrap_or_default());
            password = Some(&joined);
            rest = rest.get(at + 1..).unwrap_or_default();
            warnings.push(format!(
                "{origin}: an @ in the password must be written %40; it was read as part of the password, as in SQLAlchemy before 1.4"
            ));
        }

        let without_password = without_password(scheme, user, rest);
        let (address, rest) = rest.split_at_checked(rest.find(['/', '?']).unwrap_or(rest.len())).unwrap_or((rest, ""));
        let (host, port) = split_address(address, origin)?;
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };

        let mut decode = |what: &str, text: &str| decode(what, text, origin, &mut warnings);
        let user = user.map(|user| decode("user name", user)).transpose()?;
        let password = password.map(|password| decode("password", password)).transpose()?;
        let host = host.map(|host| if address.starts_with('[') { decode("host", host) } else { Ok(host.to_owned()) }).transpose()?;
        let database = path.strip_prefix('/').map(|database| decode("database name", database)).transpose()?;
        let mut options = Vec::new();
        for option in query.unwrap_or_default().split('&') {
            let Some((name, value)) = option.split_once('=').filter(|(_, value)| !value.is_empty()) else {
                // SQLAlchemy ignores an option without a value. Ignoring one for TLS would be unsafe.
                if option.starts_with("ssl") {
                    return Err(wrong(&format!("the URL's option {} has no value", option.trim_end_matches('='))));
                }
                continue;
            };
            let name = decode("options", &name.replace('+', " "))?;
            let value = decode("options", &value.replace('+', " "))?;
            options.push((name, value));
        }
        Ok(Self { dialect, driver, user, password, host, port, database, query: options, without_password, warnings })
    }
}

/// Assembles a URL without its password and without options that may be secret. `rest` is the text after the account.
fn without_password(scheme: &str, user: Option<&str>, rest: &str) -> String {
    let user = user.map(|user| format!("{user}@")).unwrap_or_default();
    let Some((place, query)) = rest.split_once('?') else { return format!("{scheme}://{user}{rest}") };
    let is_harmless = |option: &&str| {
        let name = option.split('=').next().unwrap_or_default().to_lowercase();
        name == "passfile" || !["pass", "pw", "secret", "token", "%"].iter().any(|part| name.contains(part))
    };
    let options: Vec<&str> = query.split('&').filter(is_harmless).collect();
    let question_mark = if options.is_empty() { "" } else { "?" };
    format!("{scheme}://{user}{place}{question_mark}{}", options.join("&"))
}

fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '+'))
}

/// Splits off `user:password@`. The user ends at the first colon, the password at the first `@` after it; without a
/// colon before the first slash the user ends at the last `@`.
fn split_account(rest: &str) -> (Option<&str>, Option<&str>, &str) {
    let end = rest.find([':', '/']).unwrap_or(rest.len());
    let (name, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
    if let Some(after) = after.strip_prefix(':')
        && let Some((password, after)) = after.split_once('@')
    {
        return (Some(name), Some(password), after);
    }
    match name.rfind('@') {
        Some(at) => (rest.get(..at), None, rest.get(at + 1..).unwrap_or_default()),
        None => (None, None, rest),
    }
}

/// Splits `host`, `host:port`, `[address]:port`.
fn split_address<'a>(address: &'a str, origin: &Origin) -> Result<(Option<&'a str>, Option<u16>), ConfigError> {
    let wrong = |problem: &str| Err(ConfigError::invalid(origin, problem));
    // Several hosts (PostgreSQL) are refused later, with a better error.
    if address.contains(',') {
        return Ok((Some(address), None));
    }
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        match rest.rsplit_once(']') {
            Some(("", _)) => return wrong("the host in the URL is empty: there is nothing between [ and ]"),
            Some((host, "")) => (host, None),
            Some((host, after)) => match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None => return wrong("after the ] of the host in the URL only a :PORT may follow"),
            },
            None => return wrong("the [ of the host in the URL has no ]"),
        }
    } else {
        match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        }
    };
    if port.is_some_and(|port| port.contains(':')) {
        return wrong("an IPv6 address in a URL must be in brackets: [::1]:3306");
    }
    let port = port.map(|port| parse_port(port, origin)).transpose()?;
    Ok((Some(host).filter(|host| !host.is_empty()), port))
}

/// A port from 1 to 65535.
pub(super) fn parse_port(text: &str, origin: &Origin) -> Result<u16, ConfigError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port > 0 => Ok(port),
        // It may be a part of a password with a colon and an @, so the error does not repeat it.
        _ => Err(ConfigError::invalid(
            origin,
            "the port must be a number from 1 to 65535; if it is a part of the password, write :, @ and / there as %3A, %40 and %2F",
        )),
    }
}

/// Percent-decodes. A `%` that does not begin an escape stays, as in SQLAlchemy, with a warning.
fn decode(what: &str, text: &str, origin: &Origin, warnings: &mut Vec<String>) -> Result<String, ConfigError> {
    let escaped = |rest: &str| rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    if text.split('%').skip(1).any(|rest| !escaped(rest)) {
        warnings.push(format!("{origin}: a % in the {what} of the URL does not begin an escape and was read as it is; write it as %25"));
    }
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| {
        ConfigError::invalid(origin, format!("the {what} of the URL is not UTF-8 after decoding %XX; for example, write é as %C3%A9"))
    })?;
    if decoded.contains('\0') {
        return Err(ConfigError::invalid(origin, format!("the {what} of the URL contains a NUL (%00)")));
    }
    Ok(decoded.into_owned())
}

#[cfg(test)]
mod tests;
