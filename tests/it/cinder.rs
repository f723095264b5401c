//! The real Cinder, in the Python environment that `tests/run` made.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::database::cache;
use crate::schemas::scratch;
use crate::servers::{refuse_in_fast_run, root, run};

/// What Cinder's start-up clean-up did.
#[derive(Debug)]
pub struct Cleanup {
    /// The recorded calls to cinder-volume, each with its `call` and ids.
    pub rpc: Vec<Value>,
    /// The backups whose data the driver deleted.
    pub deleted_data: Vec<String>,
    /// The errors that it logged before it continued with the next backup.
    pub problems: Vec<String>,
    /// The number of backups that it read, over all hosts.
    pub rows: u64,
    /// The time in seconds, without the start of Python.
    pub seconds: f64,
}

/// Runs `cinder-manage db sync` on an empty database.
pub fn sync(url: &str) {
    let config = config(url);
    run(Command::new(program("cinder-manage")).arg("--config-file").arg(&config).args(["db", "sync"]));
}

/// Runs `cinder-manage quota check` or `sync`; returns the lines about what was wrong. `check` never exits with 1.
pub fn quota(url: &str, action: &str) -> Vec<String> {
    let output = run(Command::new(program("cinder-manage")).arg("--config-file").arg(config(url)).args(["quota", action]));
    assert!(output.contains("Action successfully completed"), "{output}");
    output.lines().filter(|line| line.starts_with('\t')).map(|line| line.trim().to_owned()).collect()
}

/// Tells the user that the backup driver failed to create a backup, as cinder-backup does.
pub fn tell_user(url: &str, backup: &str) {
    const TELL: &str = "import sys\n\
        import cinder.objects\n\
        cinder.objects.register_all()\n\
        from oslo_config import cfg\n\
        from cinder import context\n\
        from cinder.message import api, message_field as field\n\
        cfg.CONF(['--config-file', sys.argv[1]], project='cinder', version='tests')\n\
        admin = context.RequestContext('u', 'p', is_admin=True)\n\
        api.API().create(admin, action=field.Action.BACKUP_CREATE, resource_type=field.Resource.VOLUME_BACKUP,\n\
            resource_uuid=sys.argv[2], detail=field.Detail.BACKUP_CREATE_DRIVER_ERROR)\n";
    run(Command::new(program("python")).args(["-c", TELL]).arg(config(url)).arg(backup));
}

/// The host that Cinder's API would send a restore or a deletion of each backup to, or the name of the exception that it raises.
pub fn available_hosts(url: &str, use_same_host: bool) -> BTreeMap<String, String> {
    const FIND: &str = "import json, sys\n\
        import cinder.objects\n\
        cinder.objects.register_all()\n\
        from oslo_config import cfg\n\
        from cinder import context\n\
        from cinder.backup import api\n\
        cfg.CONF(['--config-file', sys.argv[1]], project='cinder', version='tests')\n\
        cfg.CONF.set_override('backup_use_same_host', sys.argv[2] == 'true')\n\
        service = api.API.__new__(api.API)\n\
        found = {}\n\
        for backup in cinder.objects.BackupList.get_all(context.get_admin_context()):\n\
        \x20   try:\n\
        \x20       found[backup.id] = service._get_available_backup_service_host(backup.host, backup.availability_zone)\n\
        \x20   except Exception as error:\n\
        \x20       found[backup.id] = type(error).__name__\n\
        print(json.dumps(found))\n";
    let output = run(Command::new(program("python")).args(["-c", FIND]).arg(config(url)).arg(use_same_host.to_string()));
    serde_json::from_str(output.lines().last().unwrap_or_default()).unwrap_or_else(|error| panic!("{error} in: {output}"))
}

/// What Cinder's API answers to a restore of each live backup into a large volume: `accepted`, or the name of the exception.
pub fn restores(url: &str, use_same_host: bool) -> BTreeMap<String, String> {
    const RESTORE: &str = "import json, sys, types\n\
        from unittest import mock\n\
        import cinder.objects\n\
        cinder.objects.register_all()\n\
        from oslo_config import cfg\n\
        from cinder import context\n\
        from cinder.backup import api\n\
        cfg.CONF(['--config-file', sys.argv[1]], project='cinder', version='tests')\n\
        cfg.CONF.set_override('backup_use_same_host', sys.argv[2] == 'true')\n\
        class Volume(dict):\n\
        \x20   id = '5f0e3c1a-0000-4000-8000-000000000001'\n\
        service = api.API.__new__(api.API)\n\
        service.db, service.backup_rpcapi, service.volume_api = mock.Mock(), mock.Mock(), mock.Mock()\n\
        service.volume_api.get.return_value = Volume(status='available', size=1000, display_name='v')\n\
        admin = context.RequestContext('u', 'p', is_admin=True)\n\
        found = {}\n\
        for backup in cinder.objects.BackupList.get_all(admin):\n\
        \x20   try:\n\
        \x20       service.restore(admin, backup.id, Volume.id)\n\
        \x20       found[backup.id] = 'accepted'\n\
        \x20   except Exception as error:\n\
        \x20       found[backup.id] = type(error).__name__\n\
        print(json.dumps(found))\n";
    let output = run(Command::new(program("python")).args(["-c", RESTORE]).arg(config(url)).arg(use_same_host.to_string()));
    serde_json::from_str(output.lines().last().unwrap_or_default()).unwrap_or_else(|error| panic!("{error} in: {output}"))
}

/// Runs `cinder-manage backup update_backup_host`.
pub fn update_backup_host(url: &str, from: &str, to: &str) {
    let mut manage = Command::new(program("cinder-manage"));
    run(manage.arg("--config-file").arg(config(url)).args(["backup", "update_backup_host", "--currenthost", from, "--newhost", to]));
}

/// Sets metadata on a backup, as Cinder's API does for its user.
pub fn set_metadata(url: &str, backup: &str, metadata: &serde_json::Value) {
    const SET: &str = "import json, sys\n\
        import cinder.objects\n\
        cinder.objects.register_all()\n\
        from oslo_config import cfg\n\
        from cinder import context\n\
        from cinder.db import api as db\n\
        cfg.CONF(['--config-file', sys.argv[1]], project='cinder', version='tests')\n\
        db.backup_metadata_update(context.get_admin_context(), sys.argv[2], json.loads(sys.argv[3]), False)\n";
    run(Command::new(program("python")).args(["-c", SET]).arg(config(url)).arg(backup).arg(metadata.to_string()));
}

/// Ends expired reservations, as Cinder's scheduler does.
pub fn expire_reservations(url: &str) {
    const EXPIRE: &str = "import sys\n\
        from oslo_config import cfg\n\
        from cinder import context\n\
        from cinder.common import config\n\
        from cinder.db import api as db\n\
        cfg.CONF(['--config-file', sys.argv[1]], project='cinder', version='tests')\n\
        db.reservation_expire(context.get_admin_context())\n";
    run(Command::new(program("python")).args(["-c", EXPIRE]).arg(config(url)));
}

/// Runs the clean-up that a cinder-backup on each of these hosts would run at its start, one host after the other.
pub fn clean_up(url: &str, hosts: &[&str]) -> Cleanup {
    let config = config(url);
    let mut command = Command::new(program("python"));
    command.arg(root().join("tests/cinder/cleanup.py")).arg("--config-file").arg(&config);
    for host in hosts {
        command.arg(format!("--host={host}"));
    }
    let output = run(&mut command);
    let result: Value = serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error} in: {output}"));
    let texts = |key: &str| -> Vec<String> {
        let list = result[key].as_array().expect("a list");
        list.iter().map(|text| text.as_str().expect("a text").to_owned()).collect()
    };
    Cleanup {
        rpc: result["rpc"].as_array().expect("a list").clone(),
        deleted_data: texts("deleted_data"),
        problems: texts("problems"),
        rows: result["rows"].as_u64().expect("a count"),
        seconds: result["seconds"].as_f64().expect("a duration"),
    }
}

/// A program of the Python environment.
pub fn program(name: &str) -> PathBuf {
    refuse_in_fast_run("Cinder");
    let path = cache().join("venv/bin").join(name);
    assert!(path.exists(), "{} is missing; tests/run makes it", path.display());
    path
}

/// A cinder.conf that names the database; its own folder holds what Cinder writes.
fn config(url: &str) -> PathBuf {
    let dir = scratch("cinder");
    let path = dir.join("cinder.conf");
    let shown = dir.display();
    // oslo.config substitutes `$`; SQLAlchemy reads the rest unchanged.
    let url = url.replace('$', "$$");
    let text = format!("[DEFAULT]\nstate_path = {shown}\n[oslo_concurrency]\nlock_path = {shown}\n[database]\nconnection = {url}\n");
    fs::write(&path, text).expect("a new folder");
    path
}
