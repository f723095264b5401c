//! Oracle's MySQL, for `caching_sha2_password`: from Debian unstable in its own folder, which only root can install.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use cinder_backup_repair::db::Engine;

use super::process::{new_dir, without_fsync};
use super::{Process, Server, ServerName, certificates, free_port, is_root, mariadb, root, run};

/// The options of a server for one test.
#[derive(Debug, Default)]
pub struct Settings {
    /// The name in its certificate.
    pub certificate: ServerName,
    /// More options for `mysqld`.
    pub options: Vec<String>,
}

/// Starts a server; `None` if it is not installed. It ends when it is dropped.
pub fn start(settings: &Settings) -> Option<Server> {
    let system = root().join(".cache/mysql-sid");
    if !is_root() || !system.join("usr/sbin/mysqld").exists() {
        return None;
    }
    let dir = new_dir(&system.join("tmp"), "mysql");
    let name = dir.file_name().expect("a folder of ours has a name");
    let inside = Path::new("/tmp").join(name);
    let data = inside.join("data");
    fs::create_dir_all(system.join("var/lib/mysql-files")).expect("the system is ours");
    let port = free_port();
    let env = without_fsync();
    let mut command = vec!["chroot".to_owned(), system.display().to_string()];
    command.extend(env.clone());
    command.push("mysqld".to_owned());
    command.extend(mariadb::options("root", &inside, &data, port));
    command.extend(["--secure-file-priv=", "--mysqlx=OFF", "--innodb-redo-log-capacity=64M", "--skip-log-bin"].map(String::from));
    command.extend(settings.options.iter().cloned());
    let process = Process::supervise("mysqld", &dir, "KILL", &command);
    run(Command::new("chroot")
        .arg(&system)
        .args(&env)
        .args(["mysqld", "--no-defaults", "--initialize-insecure", "--user=root", "--innodb-redo-log-capacity=64M"])
        .args([format!("--datadir={}", data.display()), format!("--tmpdir={}", inside.display())]));
    certificates::install(&dir, settings.certificate);
    let socket = short_socket(&dir);
    process.start(&|| mariadb::connect(&socket, "root", None).is_some());
    let server = Server { engine: Engine::Mysql, port, socket, process };
    mariadb::set_up(&server);
    Some(server)
}

/// A path to the socket that fits into the 107 bytes a socket's address has, wherever the checkout is.
fn short_socket(dir: &Path) -> PathBuf {
    let name = dir.file_name().expect("a folder of ours has a name");
    let link = super::shared_dir().join(name);
    symlink(dir, &link).expect("a new link");
    link.join("socket")
}
