//! The walk, and what it says when a step goes wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use clap::Parser;

use super::stage::{STORAGE, Stage};
use super::walk::{PROGRAM, walk};
use crate::cli::commands::{self, Cli, Command};
use crate::cli::{Context, Exit, Result, Ui};
use crate::config::Environment;

fn walked(words: &[&str], change: impl FnOnce(&Stage)) -> Result<Exit> {
    let cli = Cli::try_parse_from(words).unwrap();
    let Command::Demo(args) = &cli.command else { panic!("another command") };
    let ui = Ui::inner(&cli.global.output, true);
    let environment = Environment::default();
    let context = Context { ui: &ui, global: &cli.global, environment: &environment, monitor: &crate::cli::Monitor::none() };
    let stage = Stage::build(None).unwrap();
    change(&stage);
    walk(&context, args, &stage, &commands::inner)
}

#[test]
fn every_step_does_what_it_should() {
    assert_eq!(walked(&[PROGRAM, "-q", "demo"], |_| ()).unwrap(), Exit::Done);
    assert_eq!(walked(&[PROGRAM, "-q", "demo", "--all"], |_| ()).unwrap(), Exit::Done);
}

#[test]
fn a_step_that_goes_wrong_is_named_with_its_reason() {
    let error = walked(&[PROGRAM, "-q", "demo", "--all"], |stage| stage.execute("DROP TABLE snapshots").unwrap()).unwrap_err();
    assert_eq!(error.exit, Exit::Unexpected);
    assert!(error.error.to_string().contains("snapshots"), "{}", error.error);

    let heal = "UPDATE backups SET status = 'available' WHERE status = 'restoring'";
    let error = walked(&[PROGRAM, "-q", "demo", "--all"], |stage| stage.execute(heal).unwrap()).unwrap_err();
    let text = error.error.to_string();
    assert!(text.contains("scan --status restoring") && text.contains("ended with 2 where the demo expects 3"), "{text}");
}

#[test]
fn a_row_too_many_is_noticed() {
    // One more stuck backup of ctl1: everything goes well, but not as it should.
    let stray = "UPDATE backups SET status = 'deleting' WHERE display_name = 'shop-db increment 3'";
    let error = walked(&[PROGRAM, "-q", "demo", "--all"], |stage| stage.execute(stray).unwrap()).unwrap_err();
    let text = error.error.to_string();
    assert!(text.contains("apply") && text.contains("changed 14 rows where the demo expects 13"), "{text}");
}

/// What the demo says when something happens to an object of a backup before it begins.
fn tampered(id: &str, number: u32, tamper: impl Fn(&Path)) -> String {
    let change = |stage: &Stage| {
        let row = stage.stored(id).unwrap();
        tamper(&stage.file(STORAGE).join(&row.container).join(format!("{}-{number:05}", row.prefix)));
    };
    walked(&[PROGRAM, "-q", "demo", "--all"], change).unwrap_err().error.to_string()
}

#[test]
fn what_lost_an_object_does_not_become_available() {
    let text = tampered("3f6c1b52-9e07-4d8a-b1c4-85d2f7e06a93", 1, |object| fs::remove_file(object).unwrap());
    assert!(text.contains("apply") && text.contains("changed 12 rows where the demo expects 13"), "{text}");
}

#[test]
fn a_backup_that_is_no_more_corrupt_is_noticed() {
    let text = tampered("5a90c7e3-d216-4f8b-9e45-b07d1f3c6a28", 10, |object| {
        let mut bytes = fs::read(object).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(object, &bytes).unwrap();
        let old = SystemTime::now() - Duration::from_secs(10_000);
        File::options().write(true).open(object).unwrap().set_modified(old).unwrap();
    });
    assert!(text.contains("check 'ledger-db nightly' --level deep") && text.contains("ended with 0 where"), "{text}");
}
