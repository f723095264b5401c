//! A database URL taken apart as SQLAlchemy does it; what its options mean is said in `mysql` and `postgresql`.

use percent_encoding::percent_decode_str;

use super::{ConfigError, Origin};

/// A URL's parts, decoded. Holds the password as plain text and so is neither printed nor kept.
pub(super) struct Url {
    /// `mysql`, `mariadb`, `postgresql`, `postgres` or `sqlite`.
    pub dialect: String,
    /// What follows the `+`.
    pub driver: Option<String>,
    pub user: Option<String>,
    pub password: Option<String>,
    /// Without the brackets of an IPv6 address; several hosts are still together.
    pub host: Option<String>,
    pub port: Option<u16>,
    pub database: Option<String>,
    /// The options in their order; those without a value are left out, as SQLAlchemy does.
    pub query: Vec<(String, String)>,
    /// The URL as it was written, without a password.
    pub without_password: String,
    /// What deserves a warning.
    pub warnings: Vec<String>,
}

const FORMS: &str = "mysql+pymysql://USER:PASSWORD@HOST/cinder, postgresql://USER:PASSWORD@HOST/cinder or sqlite:////PATH";

impl Url {
    /// Takes a URL apart.
    pub fn parse(text: &str, origin: &Origin) -> Result<Self, ConfigError> {
        let wrong = |problem: &str| ConfigError::invalid(origin, problem);
        let text = text.trim();
        if text.chars().any(char::is_control) {
            return Err(wrong(
                "the database URL holds a line break or another control character; see whether the line after it is indented, and write such characters as %XX",
            ));
        }
        let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| is_scheme(scheme)) else {
            if text.starts_with(['/', '.', '~']) || text.ends_with(".db") || text.ends_with(".sqlite") {
                return Err(wrong("this is a path, not a URL; for a SQLite file write sqlite:///PATH (sqlite:////absolute/path)"));
            }
            return Err(wrong(&format!("this is not a database URL; write {FORMS}")));
        };
        let (dialect, driver) = match scheme.split_once('+') {
            Some((dialect, driver)) => (dialect, Some(driver.to_lowercase())),
            None => (scheme, None),
        };
        let dialect = dialect.to_lowercase();
        if !matches!(dialect.as_str(), "mysql" | "mariadb" | "postgresql" | "postgres" | "sqlite") {
            return Err(wrong(&format!("{dialect}:// is no database that Cinder runs on; write {FORMS}")));
        }

        let mut warnings = Vec::new();
        let (user, mut password, mut rest) = split_account(rest);
        let authority = rest.find(['/', '?']).unwrap_or(rest.len());
        let joined;
        if let (Some(begun), Some(at)) = (password, rest.get(..authority).and_then(|authority| authority.rfind('@'))) {
            // Not what SQLAlchemy reads since 1.4, but then the host would hold an '@', which no host does.
            joined = format!("{begun}@{}", rest.get(..at).unwrap_or_default());
            password = Some(&joined);
            rest = rest.get(at + 1..).unwrap_or_default();
            warnings.push(format!(
                "{origin}: an @ in the password is to be written %40; it was taken as part of the password, as SQLAlchemy before 1.4 did"
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
                // An option without a value: SQLAlchemy passes over it, but never over one that asks for safety.
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

/// Puts a URL together again: `rest` is what follows the account. Options that may hold a secret are left out.
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
    // Several hosts (PostgreSQL) are refused later, where they can be named.
    if address.contains(',') {
        return Ok((Some(address), None));
    }
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        match rest.rsplit_once(']') {
            Some(("", _)) => return wrong("the URL's host is empty: there is nothing between [ and ]"),
            Some((host, "")) => (host, None),
            Some((host, after)) => match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None => return wrong("after the ] of the URL's host only a :PORT may follow"),
            },
            None => return wrong("the [ of the URL's host has no ]"),
        }
    } else {
        match address.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        }
    };
    if port.is_some_and(|port| port.contains(':')) {
        return wrong("an IPv6 address in a URL has to stand in brackets: [::1]:3306");
    }
    let port = port.map(|port| parse_port(port, origin)).transpose()?;
    Ok((Some(host).filter(|host| !host.is_empty()), port))
}

/// A port from 1 to 65535.
pub(super) fn parse_port(text: &str, origin: &Origin) -> Result<u16, ConfigError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port > 0 => Ok(port),
        // What stands in the port's place can be a part of a password that holds a colon and an @.
        _ => Err(ConfigError::invalid(
            origin,
            "the port must be a number from 1 to 65535; if this is no port, write :, @ and / in the password as %3A, %40 and %2F",
        )),
    }
}

/// Percent-decodes; a `%` that begins no escape stays, as in SQLAlchemy, with a warning.
fn decode(what: &str, text: &str, origin: &Origin, warnings: &mut Vec<String>) -> Result<String, ConfigError> {
    let escaped = |rest: &str| rest.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    if text.split('%').skip(1).any(|rest| !escaped(rest)) {
        warnings.push(format!("{origin}: a % in the {what} of the URL begins no escape and was taken as it is; write it %25"));
    }
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| {
        ConfigError::invalid(origin, format!("the {what} of the URL is not UTF-8 once its %XX are decoded; write é as %C3%A9, for example"))
    })?;
    if decoded.contains('\0') {
        return Err(ConfigError::invalid(origin, format!("the {what} of the URL holds a NUL (%00)")));
    }
    Ok(decoded.into_owned())
}
