//! Hosts on the command line that there are not: a slip of the pen must not look like "nothing to do".

use std::collections::{BTreeSet, HashSet};

use super::ui::Ui;
use crate::domain::{AssumeDead, Policy, Selection, Services, is_same_host};
use crate::scan::Scan;

/// So many hosts are listed in a warning.
const MOST: usize = 6;

/// The hosts that there are, and where they were looked for.
pub struct Hosts<'h> {
    /// Those of backups, as their rows spell them.
    pub of_backups: &'h HashSet<String>,
    /// Those of services.
    pub services: &'h Services,
    /// What has no host of the name that fits nothing.
    pub lacking: &'h str,
}

impl<'h> Hosts<'h> {
    /// Those of a database.
    pub fn of_database(of_backups: &'h HashSet<String>, services: &'h Services) -> Self {
        Self { of_backups, services, lacking: "no live backup and no cinder-backup" }
    }

    /// Warns of every `--host` that none of them is.
    pub fn warn_of_unselected(&self, ui: &Ui, selection: &Selection) {
        for name in &selection.hosts {
            self.warn(ui, "--host", name, &|host| host == name);
        }
    }

    fn warn(&self, ui: &Ui, option: &str, name: &str, meant: &dyn Fn(&str) -> bool) {
        if self.of_backups.iter().any(|host| meant(host)) {
            return;
        }
        let alike: BTreeSet<&str> = self.of_backups.iter().map(String::as_str).filter(|host| is_same_host(host, name)).collect();
        if alike.is_empty() && self.services.knows(name) {
            return;
        }
        let advice = if !alike.is_empty() {
            format!("it is spelled {}", list(&alike))
        } else {
            let all: BTreeSet<&str> = self.of_backups.iter().map(String::as_str).chain(self.services.hosts()).collect();
            if all.is_empty() { "there are no hosts at all".to_owned() } else { format!("there are {}", list(&all)) }
        };
        ui.warn(format!("{option} {name} fits nothing: {} has this host; {advice}", self.lacking));
    }
}

/// Warns of every `--host` and `--assume-dead` that no live backup and no cinder-backup has.
pub fn warn_of_unknown(ui: &Ui, scan: &Scan, selection: &Selection, policy: &Policy) {
    let hosts = Hosts::of_database(&scan.census.hosts, &scan.situation.services);
    hosts.warn_of_unselected(ui, selection);
    if let AssumeDead::Hosts(names) = &policy.assume_dead {
        for name in names {
            let alone = AssumeDead::Hosts([name.clone()].into());
            hosts.warn(ui, "--assume-dead", name, &|host| alone.covers(host));
        }
    }
}

fn list(hosts: &BTreeSet<&str>) -> String {
    let shown: Vec<&str> = hosts.iter().copied().take(MOST).collect();
    let more = hosts.len() - shown.len();
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}
