//! Hosts on the command line that there are not: a slip of the pen must not look like "nothing to do".

use std::collections::BTreeSet;

use super::ui::Ui;
use crate::domain::{AssumeDead, Policy, Selection, is_same_host};
use crate::scan::Scan;

/// So many hosts are listed in a warning.
const MOST: usize = 6;

/// Warns of every `--host` and `--assume-dead` that no live backup and no cinder-backup has.
pub fn warn_of_unknown(ui: &Ui, scan: &Scan, selection: &Selection, policy: &Policy) {
    for name in &selection.hosts {
        warn(ui, scan, "--host", name, &|host| host == name);
    }
    if let AssumeDead::Hosts(names) = &policy.assume_dead {
        for name in names {
            let alone = AssumeDead::Hosts([name.clone()].into());
            warn(ui, scan, "--assume-dead", name, &|host| alone.covers(host));
        }
    }
}

fn warn(ui: &Ui, scan: &Scan, option: &str, name: &str, meant: &dyn Fn(&str) -> bool) {
    let of_backups = &scan.census.hosts;
    if of_backups.iter().any(|host| meant(host)) {
        return;
    }
    let alike: BTreeSet<&str> = of_backups.iter().map(String::as_str).filter(|host| is_same_host(host, name)).collect();
    let services = &scan.situation.services;
    if alike.is_empty() && services.knows(name) {
        return;
    }
    let advice = if !alike.is_empty() {
        format!("it is spelled {}", list(&alike))
    } else {
        let all: BTreeSet<&str> = of_backups.iter().map(String::as_str).chain(services.hosts()).collect();
        if all.is_empty() { "there are no hosts at all".to_owned() } else { format!("there are {}", list(&all)) }
    };
    ui.warn(format!("{option} {name} fits nothing: no live backup and no cinder-backup has this host; {advice}"));
}

fn list(hosts: &BTreeSet<&str>) -> String {
    let shown: Vec<&str> = hosts.iter().copied().take(MOST).collect();
    let more = hosts.len() - shown.len();
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}
