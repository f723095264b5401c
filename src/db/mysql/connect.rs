//! Connects to MySQL or MariaDB: addresses, TLS, and when a password may be sent.

use std::collections::HashMap;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mysql::consts::CapabilityFlags;
use mysql::{ClientIdentity, Conn, DriverError, Error, OptsBuilder, SslOpts};
use rustls::pki_types::CertificateDer;
use secrecy::ExposeSecret;
use tempfile::NamedTempFile;

use super::errors::{NO_SERVER_KEY, describe};
use crate::config::{Host, ServerTarget, TlsMode, TlsSettings};
use crate::db::remote::Remote;
use crate::db::tls::{self, Verification};
use crate::db::{DbError, DbErrorKind};

/// Cinder's rows take a few kilobytes. Without this value the driver asks the server in a text query.
const MAX_PACKET: usize = 64 << 20;

/// Connects and logs in within the time-out, which covers name lookup, connection, TLS and login together. Returns the connection, in
/// an unknown state, and whether it uses TLS.
pub(super) fn connect(target: &ServerTarget, remote: &Remote, insecure_auth: bool) -> Result<(Conn, bool), DbError> {
    let (options, target, server) = (options(target, remote)?, target.clone(), remote.clone());
    // The driver's read time-out is that of statements and cannot be changed later. A server that accepts a connection and then
    // sends nothing must not take that long. So a thread logs in, and a connection that comes too late is closed unused.
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::Builder::new()
        .name("mysql-connect".to_owned())
        .spawn(move || {
            let _ = sender.send(log_in(options, &target, &server, insecure_auth));
        })
        .map_err(|error| DbError::fatal(DbErrorKind::Other, format!("cannot start a thread: {error}")))?;
    match receiver.recv_timeout(remote.connect_timeout) {
        Ok(outcome) => outcome.map_err(DbError::into_fatal),
        Err(mpsc::RecvTimeoutError::Timeout) => Err(remote.connect_timed_out()),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            Err(DbError::fatal(DbErrorKind::Connection, format!("{} does not follow MySQL's protocol", remote.name)))
        }
    }
}

/// The driver's options without address and TLS.
fn options(target: &ServerTarget, remote: &Remote) -> Result<OptsBuilder, DbError> {
    let attributes = HashMap::from([("program_name", "cinder-backup-repair")]);
    let database = (!target.database.is_empty()).then(|| target.database.clone());
    let options = OptsBuilder::new()
        // By default the driver silently replaces a connection to localhost by one through a socket, without TLS.
        .prefer_socket(false)
        .additional_capabilities(CapabilityFlags::CLIENT_FOUND_ROWS)
        .max_allowed_packet(Some(MAX_PACKET))
        // More than the statements of `sql/` and the compound ones together: one that is in use must not be closed.
        .stmt_cache_size(Some(256))
        .read_timeout(remote.answer_timeout)
        .write_timeout(remote.answer_timeout)
        .tcp_keepalive_time_ms(Some(30_000))
        .tcp_keepalive_probe_interval_secs(Some(10))
        .tcp_keepalive_probe_count(Some(3))
        .user(target.user.clone())
        .pass(target.password.as_ref().map(|password| password.expose_secret().to_owned()))
        .db_name(database)
        .connect_attrs(Some(attributes));
    match &target.host {
        Host::Tcp(_) => Ok(options.tcp_port(target.port)),
        Host::Socket(path) => match path.to_str() {
            Some(text) => Ok(options.socket(Some(text))),
            None => Err(tls::configuration(format!("the socket path {} is not UTF-8", path.display()))),
        },
    }
}

fn log_in(options: OptsBuilder, target: &ServerTarget, remote: &Remote, insecure_auth: bool) -> Result<(Conn, bool), DbError> {
    let failed = |error: &Error| describe(error, &format!("cannot log in to {}", remote.name), remote);
    let Host::Tcp(name) = &target.host else {
        return Conn::new(options).map(|conn| (conn, false)).map_err(|error| failed(&error));
    };
    let addresses: Vec<SocketAddr> =
        (name.as_str(), target.port).to_socket_addrs().map_err(|error| remote.unknown_address(&error))?.collect();
    let each = remote.connect_timeout / u32::try_from(addresses.len().max(1)).unwrap_or(1);
    // The file must exist until the driver has read it.
    let (tls, _authorities) = match remote.tls.mode {
        TlsMode::Disable => (None, None),
        _ => ssl_options(&remote.tls).map(|(options, file)| (Some(options), file))?,
    };
    let loopback = addresses.iter().all(|address| address.ip().is_loopback());
    let plain_password = insecure_auth || loopback;
    let plain = |options: OptsBuilder| {
        let options = if plain_password { options } else { options.server_key_path(Some(NO_SERVER_KEY.into())) };
        Conn::new(options).map(|conn| (conn, false))
    };
    let mut failure = None;
    for route in routes(name, &addresses, &remote.tls) {
        let options = options.clone().ip_or_hostname(Some(route.host)).tcp_connect_timeout(Some(each)).bind_address(route.bind);
        let outcome = match &tls {
            None => plain(options),
            Some(tls) => match Conn::new(options.clone().ssl_opts(tls.clone())) {
                Err(Error::DriverError(DriverError::TlsNotSupported)) if remote.tls.mode == TlsMode::Prefer => plain(options),
                outcome => outcome.map(|conn| (conn, true)),
            },
        };
        match outcome {
            Ok(connected) => return Ok(connected),
            // The server may listen at another address of the name. Any other error is the server's answer.
            Err(error @ Error::DriverError(DriverError::ConnectTimeout | DriverError::CouldNotConnect(_))) => {
                failure = Some(failed(&error));
            }
            Err(error) => return Err(failed(&error)),
        }
    }
    Err(failure.unwrap_or_else(|| DbError::fatal(DbErrorKind::Connection, format!("{} has no address", remote.name))))
}

/// The arguments of one call to the driver.
struct Route {
    host: String,
    bind: Option<SocketAddr>,
}

/// The driver tries only the first address of a name. If the name is not verified, each address gets a call of its own. If it is, the
/// driver needs the name; bound to a local address it tries all addresses of that family.
fn routes(name: &str, addresses: &[SocketAddr], tls: &TlsSettings) -> Vec<Route> {
    let verifies_name = tls.mode != TlsMode::Disable && tls::verification(tls) == Verification::ChainAndName;
    if !verifies_name {
        return addresses.iter().map(|address| Route { host: in_brackets(address.ip()), bind: None }).collect();
    }
    if addresses.len() < 2 || name.parse::<IpAddr>().is_ok() {
        let address = addresses.first().filter(|_| name.contains(':'));
        return vec![Route { host: address.map_or_else(|| name.to_owned(), |address| in_brackets(address.ip())), bind: None }];
    }
    let any = |v4: bool| -> SocketAddr { if v4 { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() } };
    let first = addresses.first().is_none_or(SocketAddr::is_ipv4);
    [first, !first]
        .into_iter()
        .filter(|v4| addresses.iter().any(|address| address.is_ipv4() == *v4))
        .map(|v4| Route { host: name.to_owned(), bind: Some(any(v4)) })
        .collect()
}

fn in_brackets(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// The driver's TLS options, and the file of authorities if one had to be written.
fn ssl_options(settings: &TlsSettings) -> Result<(SslOpts, Option<NamedTempFile>), DbError> {
    // Read here because the driver's errors do not name the file.
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

/// Writes the system's authorities into one file, because the driver only reads a file.
fn write_authorities(certificates: &[CertificateDer<'static>]) -> Result<NamedTempFile, DbError> {
    let write = || -> std::io::Result<NamedTempFile> {
        let mut file = NamedTempFile::new()?;
        for certificate in certificates {
            file.write_all(pem(certificate).as_bytes())?;
        }
        file.flush()?;
        Ok(file)
    };
    write().map_err(|error| tls::configuration(format!("cannot write the system's authorities to a temporary file: {error}")))
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
    fn a_certificate_in_pem_can_be_read_back() {
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
        let hosts = |mode| -> Vec<String> { routes("db", &addresses, &tls(mode)).into_iter().map(|route| route.host).collect() };
        assert_eq!(hosts(TlsMode::Require), ["[::1]", "127.0.0.1"]);
        assert_eq!(hosts(TlsMode::VerifyFull), ["db", "db"]);
        let binds: Vec<bool> =
            routes("db", &addresses, &tls(TlsMode::VerifyFull)).iter().map(|route| route.bind.unwrap().is_ipv6()).collect();
        assert_eq!(binds, [true, false]);
    }
}
