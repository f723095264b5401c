//! Making a connection to MySQL or MariaDB: addresses, TLS, what a password may be sent over.

use std::collections::HashMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mysql::consts::CapabilityFlags;
use mysql::{ClientIdentity, Conn, DriverError, Error, OptsBuilder, SslOpts};
use rustls::pki_types::CertificateDer;
use secrecy::ExposeSecret;
use tempfile::NamedTempFile;

use super::errors::{NO_SERVER_KEY, Place, describe};
use crate::config::{Host, ServerTarget, TlsMode, TlsSettings};
use crate::db::tls::{self, Verification};
use crate::db::{DbError, DbErrorKind, SessionSettings};

/// Rows of Cinder's are a few kilobytes; the driver otherwise asks the server, in a text query.
const MAX_PACKET: usize = 64 << 20;

/// A connection that has logged in, in no particular state.
pub(super) struct Connected {
    pub conn: Conn,
    pub encrypted: bool,
}

/// Connects and logs in within the time-out, which covers name, connection, TLS and log in together.
pub(super) fn connect(target: &ServerTarget, settings: &SessionSettings, place: &Place) -> Result<Connected, DbError> {
    let limit = target.connect_timeout.unwrap_or(settings.connect_timeout).max(Duration::from_millis(1));
    let attempt = Attempt {
        options: options(target, place)?,
        host: target.host.clone(),
        tls: target.tls.clone(),
        place: place.clone(),
        limit,
        insecure_auth: settings.insecure_auth,
    };
    // The driver's read time-out is that of statements and cannot be changed later. A server that accepts a connection
    // and says nothing must not cost as much, so the waiting is done here and a late connection is closed unused.
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("mysql-connect".to_owned())
        .spawn(move || {
            let _ = sender.send(attempt.run());
        })
        .map_err(|error| DbError::fatal(DbErrorKind::Other, format!("cannot start a thread: {error}")))?;
    match receiver.recv_timeout(limit) {
        // Without a connection there is nothing to go on with, whatever the reason.
        Ok(outcome) => outcome.map_err(|error| DbError { fatal: true, ..error }),
        Err(mpsc::RecvTimeoutError::Timeout) => Err(DbError::fatal(
            DbErrorKind::Connection,
            format!(
                "no connection to {} within {} s; check that the server answers, and host, port and firewall",
                place.name,
                seconds(limit)
            ),
        )),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            Err(DbError::fatal(DbErrorKind::Connection, format!("{} does not speak MySQL's protocol as it should", place.name)))
        }
    }
}

fn seconds(limit: Duration) -> String {
    limit.as_secs_f64().to_string()
}

/// Everything but the address and TLS.
fn options(target: &ServerTarget, place: &Place) -> Result<OptsBuilder, DbError> {
    let attributes = HashMap::from([("program_name", "cinder-backup-repair")]);
    let database = (!target.database.is_empty()).then(|| target.database.clone());
    let options = OptsBuilder::new()
        // The default would silently move a connection to localhost over to a socket, without TLS.
        .prefer_socket(false)
        .additional_capabilities(CapabilityFlags::CLIENT_FOUND_ROWS)
        .max_allowed_packet(Some(MAX_PACKET))
        .stmt_cache_size(Some(64))
        .read_timeout(place.patience)
        .write_timeout(place.patience)
        .tcp_keepalive_time_ms(Some(30_000))
        .tcp_keepalive_probe_interval_secs(Some(10))
        .tcp_keepalive_probe_count(Some(3))
        .user(target.user.clone())
        .pass(target.password.as_ref().map(|password| password.expose_secret().to_owned()))
        .db_name(database)
        .connect_attrs(Some(attributes));
    match &target.host {
        Host::Tcp { port, .. } => Ok(options.tcp_port(*port)),
        Host::Socket { path } => match path.to_str() {
            Some(text) => Ok(options.socket(Some(text))),
            None => Err(DbError::fatal(DbErrorKind::Configuration, format!("the socket's path {} is not valid UTF-8", path.display()))),
        },
    }
}

struct Attempt {
    options: OptsBuilder,
    host: Host,
    tls: TlsSettings,
    place: Place,
    limit: Duration,
    insecure_auth: bool,
}

impl Attempt {
    fn run(self) -> Result<Connected, DbError> {
        let doing = format!("cannot log in to {}", self.place.name);
        let Host::Tcp { name, port } = &self.host else {
            let conn = Conn::new(self.options).map_err(|error| describe(&error, &doing, &self.place))?;
            return Ok(Connected { conn, encrypted: false });
        };
        let addresses = resolve(name, *port, &self.place.name)?;
        let ways = ways(name, &addresses, &self.tls);
        let each = self.limit / u32::try_from(addresses.len().max(1)).unwrap_or(1);
        // Kept until the driver has read it.
        let (tls, _authorities) = match self.tls.mode {
            TlsMode::Disable => (None, None),
            _ => ssl_options(&self.tls).map(|(options, file)| (Some(options), file))?,
        };
        let loopback = addresses.iter().all(|address| address.ip().is_loopback());
        let plain_password = self.insecure_auth || loopback;
        let plain = |options: OptsBuilder| if plain_password { options } else { options.server_key_path(Some(NO_SERVER_KEY.into())) };
        let mut failure = None;
        for way in ways {
            let options = self.options.clone().ip_or_hostname(Some(way.host)).tcp_connect_timeout(Some(each)).bind_address(way.bind);
            let outcome = match &tls {
                None => Conn::new(plain(options)).map(|conn| (conn, false)),
                Some(tls) => match Conn::new(options.clone().ssl_opts(tls.clone())) {
                    Err(Error::DriverError(DriverError::TlsNotSupported)) if self.tls.mode == TlsMode::Prefer => {
                        Conn::new(plain(options)).map(|conn| (conn, false))
                    }
                    outcome => outcome.map(|conn| (conn, true)),
                },
            };
            match outcome {
                Ok((conn, encrypted)) => return Ok(Connected { conn, encrypted }),
                // Another address of the name may listen; a server that answered has given the answer.
                Err(error @ Error::DriverError(DriverError::ConnectTimeout | DriverError::CouldNotConnect(_))) => {
                    failure = Some(describe(&error, &doing, &self.place));
                }
                Err(error) => return Err(describe(&error, &doing, &self.place)),
            }
        }
        Err(failure.unwrap_or_else(|| DbError::fatal(DbErrorKind::Connection, format!("{} has no address", self.place.name))))
    }
}

/// The addresses of a host name.
fn resolve(name: &str, port: u16, place: &str) -> Result<Vec<SocketAddr>, DbError> {
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    match (bare, port).to_socket_addrs() {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) => {
            Err(DbError::fatal(DbErrorKind::Connection, format!("cannot find the address of {place}: {error}; check the host's name")))
        }
    }
}

/// One call of the driver: what it is told to connect to.
struct Way {
    host: String,
    bind: Option<SocketAddr>,
}

/// The driver tries only the first address of a name. Where the certificate's name is not looked at, each address is
/// given by itself; where it is, the driver must have the name, and tries all addresses of a family when the local end is
/// bound to that family.
fn ways(name: &str, addresses: &[SocketAddr], tls: &TlsSettings) -> Vec<Way> {
    let by_name = tls.mode != TlsMode::Disable && tls::verification(tls) == Verification::ChainAndName;
    if !by_name {
        return addresses.iter().map(|address| Way { host: literal(address.ip()), bind: None }).collect();
    }
    if addresses.len() < 2 || name.parse::<IpAddr>().is_ok() {
        let host = addresses.first().filter(|_| name.contains(':')).map_or_else(|| name.to_owned(), |address| literal(address.ip()));
        return vec![Way { host, bind: None }];
    }
    let any = |v4: bool| -> SocketAddr { if v4 { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() } };
    let first = addresses.first().is_none_or(SocketAddr::is_ipv4);
    [first, !first]
        .into_iter()
        .filter(|v4| addresses.iter().any(|address| address.is_ipv4() == *v4))
        .map(|v4| Way { host: name.to_owned(), bind: Some(any(v4)) })
        .collect()
}

fn literal(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// The driver's TLS options, with the file of authorities where one had to be written for it.
fn ssl_options(settings: &TlsSettings) -> Result<(SslOpts, Option<NamedTempFile>), DbError> {
    // Checked here, where the errors name the file.
    let authorities = tls::authorities(settings)?;
    tls::identity(settings)?;
    let mut options = SslOpts::default();
    let mut file = None;
    match tls::verification(settings) {
        Verification::Nothing => options = options.with_danger_accept_invalid_certs(true),
        verification => {
            tls::require_no_built_in_authorities(webpki_roots::TLS_SERVER_ROOTS)?;
            let path = match &settings.ca {
                Some(path) => path.clone(),
                None => file.insert(write_authorities(&authorities)?).path().to_owned(),
            };
            options = options.with_root_cert_path(Some(path));
            options = options.with_danger_skip_domain_validation(verification == Verification::Chain);
        }
    }
    if let (Some(cert), Some(key)) = (&settings.cert, &settings.key) {
        options = options.with_client_identity(Some(ClientIdentity::new(cert.clone(), key.clone())));
    }
    Ok((options, file))
}

/// Writes the system's authorities into one file, because the driver reads a file and nothing else.
fn write_authorities(certificates: &[CertificateDer<'static>]) -> Result<NamedTempFile, DbError> {
    let write = || -> std::io::Result<NamedTempFile> {
        let mut file = NamedTempFile::new()?;
        for certificate in certificates {
            file.write_all(pem(certificate).as_bytes())?;
        }
        file.flush()?;
        Ok(file)
    };
    write().map_err(|error| {
        DbError::fatal(DbErrorKind::Configuration, format!("cannot write the system's authorities to a temporary file: {error}"))
    })
}

/// A certificate in PEM. 48 bytes are a line of 64 characters.
fn pem(der: &[u8]) -> String {
    let lines: String = der.chunks(48).map(|line| STANDARD.encode(line) + "\n").collect();
    format!("-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject;

    #[test]
    fn what_is_written_as_pem_is_read_back() {
        for length in [0, 1, 2, 3, 47, 48, 49, 500] {
            let der: Vec<u8> = (0..length).map(|number: u16| number.to_le_bytes()[0]).collect();
            let text = pem(&der);
            assert!(text.lines().all(|line| line.len() <= 64), "{text}");
            assert_eq!(CertificateDer::from_pem_slice(text.as_bytes()).unwrap().as_ref(), der);
        }
    }

    #[test]
    fn a_name_with_two_addresses_is_tried_at_both() {
        let addresses = ["[::1]:3306".parse().unwrap(), "127.0.0.1:3306".parse().unwrap()];
        let tls = |mode| TlsSettings { mode, ca: None, cert: None, key: None };
        let hosts = |mode| -> Vec<String> { ways("db", &addresses, &tls(mode)).into_iter().map(|way| way.host).collect() };
        assert_eq!(hosts(TlsMode::Require), ["[::1]", "127.0.0.1"]);
        assert_eq!(hosts(TlsMode::VerifyFull), ["db", "db"]);
        let binds: Vec<bool> = ways("db", &addresses, &tls(TlsMode::VerifyFull)).iter().map(|way| way.bind.unwrap().is_ipv6()).collect();
        assert_eq!(binds, [true, false]);
    }
}
