//! Every row of the table in `docs/which-way-out.md`: the command does what the page says, and nothing happens without it.

use std::fs;

use super::{Placed, Site};
use crate::servers::root;

/// What the page says about one backup.
struct Way {
    status: String,
    service: String,
    storage: String,
    command: String,
    becomes: String,
}

/// The first words in backquotes.
fn quoted(cell: &str) -> Option<String> {
    cell.split('`').nth(1).map(str::to_owned)
}

fn ways() -> Vec<Way> {
    let page = fs::read_to_string(root().join("docs/which-way-out.md")).unwrap();
    let table = page.split("## A backup hangs").nth(1).unwrap().split("\n## ").next().unwrap().to_owned();
    let rows = table.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|line| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [status, service, storage, way, becomes] = cells[..] else { panic!("{line}") };
        let command = way.split('`').find(|words| words.starts_with("repair")).unwrap();
        Way {
            status: quoted(status).unwrap_or_else(|| status.to_owned()),
            service: service.to_owned(),
            storage: storage.to_owned(),
            command: command.replace("HOST", "ctl1"),
            becomes: quoted(becomes).unwrap(),
        }
    })
    .collect()
}

/// A backup as the row describes it.
fn arranged(site: &Site, way: &Way) -> Placed {
    let null = way.status == "NULL";
    let placed = site.backup(if null { "creating" } else { &way.status }, None);
    let host = if way.service == "up" { "ctl1" } else { "gone" };
    site.database.execute(&format!("UPDATE backups SET host = '{host}' WHERE id = '{}'", placed.id));
    if null {
        site.database.execute(&format!("UPDATE backups SET status = NULL WHERE id = '{}'", placed.id));
    }
    match way.storage.split(',').next().unwrap() {
        "complete" | "something is left" | "–" | "not known" => {}
        "damaged or missing" | "anything else" => placed.interrupt(),
        "nothing is left" => placed.empty(),
        "the container is missing" | "the directory is missing" => fs::remove_dir_all(&placed.dir).unwrap(),
        other => panic!("{other} is not arranged"),
    }
    placed
}

#[test]
fn each_row_of_the_page_ends_as_it_says() {
    let site = Site::new();
    // One of each host, where they are found.
    site.database.execute(&format!("UPDATE backups SET host = 'gone' WHERE id = '{}'", site.available().id));
    site.available();
    let ways = ways();
    assert!(ways.len() >= 17, "{}", ways.len());
    for way in &ways {
        let Way { status, service, storage, command, becomes } = way;
        let placed = arranged(&site, way);
        let before = site.database.cell("backups", &placed.id, "status");
        let run = |words: &str, code: i32| {
            let args: Vec<&str> = words.split(' ').chain(["--yes", placed.id.as_str()]).collect();
            site.program.expect(code, &args);
        };
        if service == "up" && command.contains("--assume-dead") {
            run("repair", 6);
            assert_eq!(site.database.cell("backups", &placed.id, "status"), before, "{status} {service} {storage}");
        }
        run(command, 0);
        assert_eq!(&site.status(&placed), becomes, "{status} {service} {storage}: {command}");
        // Not in the way of the next one.
        site.program.expect(0, &["undo", &site.program.last_run(), "--yes"]);
        site.database.execute(&format!("UPDATE backups SET status = 'deleted', deleted = 1 WHERE id = '{}'", placed.id));
    }
}
