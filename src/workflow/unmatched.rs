//! Options that match no row: a typo must not look like "nothing to do".

use std::collections::{BTreeSet, HashSet};

use super::{Error, Observer, Result, Wanted, WorkEvent};
use crate::domain::text::{self, list};
use crate::domain::{AssumeDead, Matched, Selection, Services, Situation, is_same_host};
use crate::scan::Census;

/// The hosts that exist, and where they were searched.
pub struct Hosts<'h> {
    /// Those of backups, as their rows spell them.
    pub of_backups: &'h HashSet<String>,
    pub services: &'h Services,
    /// What was searched for a host, for messages.
    pub lacking: &'h str,
}

impl<'h> Hosts<'h> {
    pub fn of_database(of_backups: &'h HashSet<String>, services: &'h Services) -> Self {
        Self { of_backups, services, lacking: "no live backup and no cinder-backup" }
    }

    /// A sentence about every `--host` that does not exist.
    pub fn problems(&self, selection: &Selection) -> Vec<String> {
        selection.hosts.iter().filter_map(|name| self.problem("--host", name, &|host| host == name)).collect()
    }

    /// Refuses a selection with a value that matches nothing, unless it `may_be_empty`; then it is reported. If backups are named, each
    /// of them that other options leave out is reported anyway.
    pub fn require(&self, observer: &dyn Observer, selection: &Selection, matched: &Matched, may_be_empty: bool) -> Result<()> {
        let mut problems = self.problems(selection);
        if selection.backups.is_empty() {
            problems.extend(matched.problems(selection));
            if !may_be_empty && !problems.is_empty() {
                return Err(Error::Unmatched(problems));
            }
        }
        problems.into_iter().for_each(|problem| observer.event(WorkEvent::Warning(problem)));
        Ok(())
    }

    fn problem(&self, option: &str, name: &str, meant: &dyn Fn(&str) -> bool) -> Option<String> {
        if self.of_backups.iter().any(|host| meant(host)) {
            return None;
        }
        let alike: BTreeSet<&str> = self.of_backups.iter().map(String::as_str).filter(|host| is_same_host(host, name)).collect();
        if alike.is_empty() && self.services.knows(name) {
            return None;
        }
        let advice = if !alike.is_empty() {
            format!("it is spelled {}", list(&alike))
        } else {
            let all: BTreeSet<&str> = self.of_backups.iter().map(String::as_str).chain(self.services.hosts()).collect();
            let meant = text::meant(name, all.iter().copied());
            if all.is_empty() { "there are no hosts".to_owned() } else { format!("there are {}{meant}", list(&all)) }
        };
        Some(format!("{option} {name} matches nothing: {} has this host; {advice}", self.lacking))
    }
}

impl Wanted {
    /// Refuses a selection with a value that matches nothing in the database, unless it may be empty, and reports every `--assume-dead`
    /// that no live backup and no cinder-backup has: that only makes a repair do less.
    pub(super) fn require_matches(&self, census: &Census, situation: &Situation, observer: &dyn Observer) -> Result<()> {
        let of_backups = census.hosts.keys().cloned().collect();
        let hosts = Hosts::of_database(&of_backups, &situation.services);
        hosts.require(observer, &self.selection, &census.matched, self.may_be_empty)?;
        if let AssumeDead::Hosts(names) = &self.policy.assume_dead {
            for name in names {
                let alone = AssumeDead::Hosts([name.clone()].into());
                let problem = hosts.problem("--assume-dead", name, &|host| alone.covers(host));
                problem.into_iter().for_each(|problem| observer.event(WorkEvent::Warning(problem)));
            }
        }
        Ok(())
    }
}
