//! A Galera cluster of three MariaDB nodes on this machine.

use std::net::TcpListener;
use std::process::Command;

use cinder_backup_repair::db::Engine;
use mysql::prelude::Queryable;

use super::process::{new_dir, without_fsync};
use super::{Process, Server, ServerName, certificates, free_port, is_root, mariadb, run};

/// Starts three nodes, one after the other, in about 15 s; each ends when it is dropped.
pub fn start() -> Vec<Server> {
    let first = free_ports_in_a_row();
    let mut nodes: Vec<Server> = Vec::new();
    for (index, base) in [first, free_ports_in_a_row(), free_ports_in_a_row()].into_iter().enumerate() {
        let address = if index == 0 { "gcomm://".to_owned() } else { format!("gcomm://127.0.0.1:{first}") };
        nodes.push(start_node(index, base, &address));
    }
    mariadb::set_up(&nodes[0]);
    nodes
}

fn start_node(index: usize, base: u16, cluster: &str) -> Server {
    let dir = new_dir(&std::env::temp_dir(), "galera");
    let data = dir.join("data");
    // A new node receives its data through rsync's daemon, which writes as nobody when root starts it.
    let user = if is_root() { "mysql".to_owned() } else { mariadb::user_name() };
    let port = free_port();
    let socket = dir.join("socket");
    let mut command = without_fsync().to_vec();
    command.push(mariadb::mariadbd().display().to_string());
    command.extend(mariadb::options(&user, &dir, &data, port));
    command.extend([
        "--innodb-log-file-size=16M".to_owned(),
        "--binlog-format=ROW".to_owned(),
        "--innodb-autoinc-lock-mode=2".to_owned(),
        "--wsrep-on=ON".to_owned(),
        "--wsrep-provider=/usr/lib/galera/libgalera_smm.so".to_owned(),
        "--wsrep-cluster-name=tests".to_owned(),
        format!("--wsrep-cluster-address={cluster}"),
        format!("--wsrep-node-name=node{index}"),
        format!("--wsrep-node-address=127.0.0.1:{base}"),
        format!("--wsrep-provider-options=gmcast.listen_addr=tcp://127.0.0.1:{base};ist.recv_addr=127.0.0.1:{};gcache.size=8M", base + 1),
        "--wsrep-sst-method=rsync".to_owned(),
        format!("--wsrep-sst-receive-address=127.0.0.1:{}", base + 2),
    ]);
    let process = Process::supervise("mariadbd (Galera)", &dir, "KILL", &command);
    certificates::install(&dir, ServerName::Localhost);
    if is_root() {
        run(Command::new("chown").args(["-R", "mysql:"]).arg(&dir));
    }
    mariadb::install(&user, &dir, &data);
    process.start(&|| is_synced(&socket));
    Server { engine: Engine::Mariadb, port, socket, process }
}

fn is_synced(socket: &std::path::Path) -> bool {
    let Some(mut conn) = mariadb::connect(socket, "root", None) else {
        return false;
    };
    let state: Result<Option<(String, String)>, _> = conn.query_first("SHOW STATUS LIKE 'wsrep_local_state_comment'");
    matches!(state, Ok(Some((_, state))) if state == "Synced")
}

/// A port that was free a moment ago, as were the two behind it.
fn free_ports_in_a_row() -> u16 {
    loop {
        let port = free_port();
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if port < u16::MAX - 2 && free(port + 1) && free(port + 2) {
            return port;
        }
    }
}
