//! How often a run waits for the server: through a relay that counts each time the program sends something after it has read an answer.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use cinder_backup_repair::db::Engine;

use crate::program::Program;
use crate::rows::{Row, backup, volume};
use crate::schemas::{Columns, engines, fresh};

const TWO_HOURS: i64 = 7_200;

/// Relays connections to a server and counts the trips of all.
struct Relay {
    port: u16,
    trips: Arc<AtomicUsize>,
}

impl Relay {
    fn to(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let trips = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&trips);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let upstream = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).unwrap();
                // Each piece that the program sends after an answer begins a trip.
                let answered = Arc::new(AtomicBool::new(true));
                let (back, forth) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
                let (mark, count) = (Arc::clone(&answered), Arc::clone(&counted));
                thread::spawn(move || copy(forth, back, || mark.store(true, Ordering::SeqCst)));
                thread::spawn(move || {
                    copy(client, upstream, || {
                        if answered.swap(false, Ordering::SeqCst) {
                            count.fetch_add(1, Ordering::SeqCst);
                        }
                    });
                });
            }
        });
        Self { port, trips }
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, mut piece: impl FnMut()) {
    let mut buffer = vec![0; 1 << 18];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        // Before it is passed on: the answer to it must not arrive first.
        piece();
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// The trips of a repair of so many backups, each with a volume.
fn trips(engine: Engine, units: usize) -> usize {
    let database = fresh(engine, Columns::Full);
    let rows = (0..units).flat_map(|_| {
        let held = volume().status("backing-up").previous_status("available");
        let stuck = backup().status("creating").host("gone").volume_id(held.get_id()).age(TWO_HOURS);
        [held, stuck]
    });
    database.insert(&rows.collect::<Vec<Row>>());
    let server = database.server().port;
    let relay = Relay::to(server);
    let url = database.tcp_url().replace(&format!(":{server}/"), &format!(":{}/", relay.port));
    let program = Program::on(url);
    let most = units.to_string();
    let run = program.json(0, &["repair", "--yes", "--max-changes", &most, "--sessions", "1", "--assume-dead", "all"]);
    assert_eq!(run["summary"]["applied"], units, "{run}");
    relay.trips.load(Ordering::SeqCst)
}

#[test]
fn a_unit_takes_three_trips_to_the_server_whatever_its_number_of_rows() {
    for engine in engines().into_iter().filter(|engine| *engine != Engine::Sqlite) {
        // MySQL has no compound statements: begin, check, two locks, attachments, two UPDATEs, two rows read back, commit.
        let each: usize = if engine == Engine::Mysql { 10 } else { 3 };
        let counted = Mutex::new([0; 2]);
        thread::scope(|scope| {
            for (place, units) in [4, 24].into_iter().enumerate() {
                let counted = &counted;
                scope.spawn(move || counted.lock().unwrap()[place] = trips(engine, units));
            }
        });
        let [few, many] = *counted.lock().unwrap();
        // Either run may have read the heartbeats again, as every two seconds; that is less than a trip for each unit.
        assert!((each * 20).abs_diff(many - few) < 20, "{}: {few} trips for 4 units, {many} for 24", engine.name());
    }
}
