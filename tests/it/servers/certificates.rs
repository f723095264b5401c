//! A private certificate authority and what it signed, made anew for each test process with the `openssl` command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::{run, shared_dir};

/// The name in a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerName {
    /// `localhost` and `127.0.0.1`, as the tests connect.
    #[default]
    Localhost,
    /// `elsewhere.example`, so that a client that checks the name must refuse.
    Elsewhere,
}

/// Certificates and keys as PEM files.
#[derive(Debug)]
pub struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// Those of this process.
    pub fn get() -> &'static Self {
        static CERTIFICATES: OnceLock<Certificates> = OnceLock::new();
        CERTIFICATES.get_or_init(Self::make)
    }

    /// The authority that signed the servers' and the clients' certificates.
    pub fn authority(&self) -> PathBuf {
        self.dir.join("authority.crt")
    }

    /// An authority that signed nothing here.
    pub fn other_authority(&self) -> PathBuf {
        self.dir.join("other.crt")
    }

    /// A server's certificate and key.
    pub fn server(&self, name: ServerName) -> (PathBuf, PathBuf) {
        self.pair(match name {
            ServerName::Localhost => "localhost",
            ServerName::Elsewhere => "elsewhere",
        })
    }

    /// A client's certificate and key.
    pub fn client(&self) -> (PathBuf, PathBuf) {
        self.pair("client")
    }

    fn pair(&self, name: &str) -> (PathBuf, PathBuf) {
        (self.dir.join(format!("{name}.crt")), self.dir.join(format!("{name}.key")))
    }

    fn make() -> Self {
        let made = Self { dir: shared_dir().join("certificates") };
        fs::create_dir(&made.dir).expect("a new folder");
        for (name, subject) in [("authority", "/CN=cinder-backup-repair tests"), ("other", "/CN=another authority")] {
            made.openssl(&[
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
                "-days",
                "2",
                "-subj",
                subject,
                "-addext",
                "basicConstraints=critical,CA:TRUE",
                "-addext",
                "keyUsage=critical,keyCertSign,cRLSign",
                "-keyout",
                &format!("{name}.key"),
                "-out",
                &format!("{name}.crt"),
            ]);
        }
        made.sign("localhost", "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n");
        made.sign("elsewhere", "subjectAltName=DNS:elsewhere.example\nextendedKeyUsage=serverAuth\n");
        made.sign("client", "subjectAltName=DNS:client.example\nextendedKeyUsage=clientAuth\n");
        made
    }

    fn sign(&self, name: &str, extensions: &str) {
        let (request, key, certificate) = (format!("{name}.csr"), format!("{name}.key"), format!("{name}.crt"));
        let file = format!("{name}.ext");
        fs::write(self.dir.join(&file), format!("basicConstraints=CA:FALSE\n{extensions}")).expect("written");
        self.openssl(&[
            "req",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-subj",
            &format!("/CN={name}"),
            "-keyout",
            &key,
            "-out",
            &request,
        ]);
        self.openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            "authority.crt",
            "-CAkey",
            "authority.key",
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            &file,
            "-out",
            &certificate,
        ]);
    }

    fn openssl(&self, arguments: &[&str]) {
        run(Command::new("openssl").args(arguments).current_dir(&self.dir));
    }
}

/// Copies a server's certificate, its key and the authority into `dir` under fixed names.
pub fn install(dir: &Path, name: ServerName) {
    let certificates = Certificates::get();
    let (certificate, key) = certificates.server(name);
    for (from, to) in [(certificates.authority(), "ca.pem"), (certificate, "server.pem"), (key, "server-key.pem")] {
        fs::copy(from, dir.join(to)).expect("copied");
    }
}
