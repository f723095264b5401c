//! A Ceph cluster of one monitor and one OSD on this machine.
//!
//! The OSD keeps its data compressed in a sparse file, because a backup is a whole number of GiB, mostly zeros.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Process, free_port, new_dir, run};

/// The pool that backups are in, as Cinder's default says.
pub const BACKUPS: &str = "backups";
/// The pool that volumes are in.
pub const VOLUMES: &str = "volumes";
/// The account that cinder-backup uses.
pub const CINDER: &str = "cinder";
/// An account with no more rights than a check needs.
pub const READER: &str = "reader";

/// A running cluster. The OSD ends first.
#[derive(Debug)]
pub struct Ceph {
    /// The only OSD. If it is stopped, commands wait, as with full pools.
    pub osd: Process,
    /// The only monitor; its folder contains everything.
    pub monitor: Process,
    /// The ceph.conf for clients; keyrings are beside it.
    pub conf: PathBuf,
}

/// Starts a cluster in about five seconds; it ends when it is dropped.
pub fn start() -> Ceph {
    let dir = new_dir(&std::env::temp_dir(), "ceph");
    let conf = dir.join("ceph.conf");
    let port = free_port();
    let monitor = Process::supervise("ceph-mon", &dir, "KILL", &daemon("ceph-mon", "a", &conf));
    let osd_dir = new_dir(&std::env::temp_dir(), "ceph-osd");
    let osd = Process::supervise("ceph-osd", &osd_dir, "KILL", &daemon("ceph-osd", "0", &conf));
    let fsid = uuid::Uuid::new_v4();
    fs::write(&conf, configuration(&dir, &osd_dir, port, &fsid.to_string())).expect("a new folder");
    make_monitor(&dir, &conf, port, &fsid.to_string());
    let ceph = Ceph { osd, monitor, conf };
    ceph.monitor.start(&|| ceph.try_run("ceph", &["--connect-timeout=3", "mon", "stat"]).is_some());
    ceph.make_osd(&osd_dir);
    ceph.osd.start(&|| ceph.admin(&["osd", "stat", "--format=json"])["num_up_osds"] == 1);
    for pool in [BACKUPS, VOLUMES] {
        ceph.make_pool(pool);
    }
    ceph.account(CINDER, "profile rbd", &format!("profile rbd pool={VOLUMES}, profile rbd pool={BACKUPS}"));
    ceph.account(READER, "profile rbd-read-only", &format!("profile rbd-read-only pool={BACKUPS}"));
    ceph
}

impl Ceph {
    /// Makes an account with these capabilities on monitors and OSDs.
    pub fn account(&self, name: &str, monitors: &str, osds: &str) {
        let keyring = self.keyring(name);
        let client = format!("client.{name}");
        let keyring_text = keyring.display().to_string();
        self.run("ceph", &["auth", "get-or-create", &client, "mon", monitors, "osd", osds, "-o", &keyring_text]);
        fs::set_permissions(&keyring, fs::Permissions::from_mode(0o644)).expect("the keyring is there");
    }

    /// The path of an account's keyring.
    pub fn keyring(&self, name: &str) -> PathBuf {
        self.conf.with_file_name(format!("client.{name}.keyring"))
    }

    /// Runs a command as the administrator; panics when it fails.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
        run(&mut self.command(program, arguments))
    }

    /// Runs a command as the administrator; `None` when it fails.
    pub fn try_run(&self, program: &str, arguments: &[&str]) -> Option<String> {
        let output = self.command(program, arguments).stdin(Stdio::null()).output().expect("tests/run installs Ceph");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.arg("--conf").arg(&self.conf).args(arguments).env_remove("CEPH_ARGS").env_remove("CEPH_CONF");
        command
    }

    fn admin(&self, arguments: &[&str]) -> Value {
        self.try_run("ceph", arguments).and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    fn make_osd(&self, dir: &Path) {
        let id = uuid::Uuid::new_v4().to_string();
        self.run("ceph", &["osd", "new", &id]);
        let keyring = dir.join("keyring").display().to_string();
        self.run("ceph", &["auth", "get-or-create", "osd.0", "mon", "allow profile osd", "osd", "allow *", "-o", &keyring]);
        self.run("ceph-osd", &["-i", "0", "--mkfs", "--osd-uuid", &id]);
    }

    fn make_pool(&self, pool: &str) {
        self.run("ceph", &["osd", "pool", "create", pool, "8"]);
        self.run("ceph", &["osd", "pool", "application", "enable", pool, "rbd"]);
    }
}

fn daemon(program: &str, id: &str, conf: &Path) -> Vec<String> {
    let words = [program, "-f", "-i", id, "-c"].map(str::to_owned);
    words.into_iter().chain([conf.display().to_string()]).collect()
}

fn make_monitor(dir: &Path, conf: &Path, port: u16, fsid: &str) {
    let path = |name: &str| dir.join(name).display().to_string();
    let (monitor, admin, map) = (path("mon.keyring"), path("client.admin.keyring"), path("monmap"));
    let tool = |program: &str, arguments: &[&str]| run(Command::new(program).args(arguments));
    tool("ceph-authtool", &["--create-keyring", &monitor, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *"]);
    let caps = ["--cap", "mon", "allow *", "--cap", "osd", "allow *"];
    tool("ceph-authtool", &[&["--create-keyring", &admin, "--gen-key", "-n", "client.admin"], caps.as_slice()].concat());
    tool("ceph-authtool", &[&monitor, "--import-keyring", &admin]);
    let address = format!("[v2:127.0.0.1:{port}]");
    tool("monmaptool", &["--create", "--fsid", fsid, "--addv", "a", &address, "--enable-all-features", &map]);
    let conf = conf.display().to_string();
    tool("ceph-mon", &["-c", &conf, "-i", "a", "--mkfs", "--monmap", &map, "--keyring", &monitor]);
    fs::copy(&monitor, dir.join("mon/keyring")).expect("the monitor made its folder");
}

fn configuration(dir: &Path, osd: &Path, port: u16, fsid: &str) -> String {
    let (dir, osd) = (dir.display(), osd.display());
    // Monitors agree on a new map once per interval. With the default of 1 s, pools and accounts would take 10 s.
    format!(
        "[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{port}]
public network = 127.0.0.0/8
cluster network = 127.0.0.0/8
ms bind ipv6 = false
ms bind msgr1 = false
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
auth allow insecure global id reclaim = false
keyring = {dir}/$name.keyring
run dir = {dir}
admin socket = {dir}/$name.$pid.asok
pid file = {dir}/$name.daemon
log file = {dir}/$name.log
crash dir = {dir}
paxos propose interval = 0.05
paxos min wait = 0.01
mon tick interval = 1
mon allow pool size one = true
mon data avail warn = 2
mon data avail crit = 1
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
[mon]
mon data = {dir}/mon
mon cluster log file = {dir}/cluster.log
keyring = {dir}/mon.keyring
[osd]
osd data = {osd}
keyring = {osd}/keyring
osd objectstore = bluestore
osd class update on start = false
osd memory target = 939524096
# Half a minute by default: who was killed counts as at work for so long.
osd client watch timeout = 8
bluestore block create = true
bluestore block size = 17179869184
bluestore block wal create = false
bluestore block db create = false
bluestore cache autotune = false
bluestore cache size = 134217728
bluestore compression mode = force
bluestore compression algorithm = snappy
"
    )
}
