//! The options of every command that reads the storage.

use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::args::{number_up_to, span};
use super::{Context, Error, Result};
use crate::config::StorageOptions;
use crate::domain::Level;
use crate::domain::text::shell_word;
use crate::storage::{Limits, Network, Proxies, WaitLimit};
use crate::verify::Request;
use crate::verify::chunked::{ReadOptions, Share};
use crate::workflow::StorageSettings;

/// Where the storage is.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Storage")]
pub struct PlaceArgs {
    /// Read the backups of posix, nfs and glusterfs here, instead of in the directory in cinder.conf
    #[arg(long, value_name = "DIR")]
    pub storage_path: Option<PathBuf>,
    /// Override an option of cinder.conf that says where backups are, for example backup_s3_endpoint_url=https://…; NAME=@FILE
    /// reads the value, for example a secret, from the first line of a file; repeatable
    #[arg(long, value_name = "NAME=VALUE")]
    pub storage_option: Vec<String>,
    /// The URL of Google Cloud Storage, instead of its public one
    #[arg(long, value_name = "URL")]
    pub gcs_endpoint: Option<String>,
    /// Give up a storage that returns nothing useful for this long, over all attempts and backups [default: 1m]
    #[arg(long, value_name = "SPAN", value_parser = positive_span)]
    pub storage_timeout: Option<Duration>,
}

/// How the storage is reached and read.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Storage")]
pub struct StorageArgs {
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The pool of the source volumes, to compare Ceph backups with the snapshots that they were made from
    #[arg(long, value_name = "POOL")]
    pub ceph_source_pool: Option<String>,
    /// Settle time: a younger object means that the backup is still being written
    #[arg(long, value_name = "SPAN", default_value = "15m", value_parser = span)]
    pub settle: Duration,
    /// Number of threads that read [default: the number of cores; more help with a distant server]
    #[arg(long, value_name = "N", value_parser = number_up_to::<1_024>)]
    pub jobs: Option<usize>,
    /// Maximum memory for data
    #[arg(long, value_name = "SIZE", default_value = "512M", value_parser = memory)]
    pub memory: u64,
    /// Read at most this many bytes a second from all storages together, as they are stored, for example 200M
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    pub limit_rate: Option<NonZero<u64>>,
    /// Send at most this many requests a second to all storages together; in Ceph, each rbd or rados command is one
    #[arg(long, value_name = "N", value_parser = requests::<1_000_000>)]
    pub limit_requests: Option<NonZero<u64>>,
    /// Keep at most this many requests open at each storage (a server, a mount or a Ceph cluster); in Ceph, each rbd or rados command is
    /// one
    #[arg(long, value_name = "N", value_parser = requests::<1_024>)]
    pub limit_parallel: Option<NonZero<u64>>,
    /// Lower the priority of the check's threads, on Linux also for disks
    #[arg(long)]
    pub nice: bool,
}

/// Evidence and checks for a decision.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Storage")]
pub struct CheckArgs {
    /// Check the data of creating backups (and of error ones, if selected) before deciding: quick, deep or restore
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    pub check: Option<Level>,
    /// Use the results that `check --format json` or jsonl wrote on another host, or a ledger of `scrub`; repeatable
    #[arg(long, value_name = "FILE")]
    pub evidence: Vec<PathBuf>,
    /// Accept only evidence that is signed with the private key of this public key (Ed25519 in PEM)
    #[arg(long, value_name = "FILE", requires = "evidence")]
    pub verify_key: Option<PathBuf>,
    /// Allow a creating backup to become available on a quick check, which reads none of its data
    #[arg(long)]
    pub accept_quick: bool,
    /// Ignore checks that are older
    #[arg(long, value_name = "SPAN", default_value = "24h", value_parser = span)]
    pub evidence_max_age: Duration,
    #[command(flatten)]
    pub storage: StorageArgs,
}

impl PlaceArgs {
    /// Returns the options that make another command use the same storage, with a blank before each. The value of an option may be a
    /// secret, so it is repeated only if it is the name of a file.
    pub fn same(&self) -> String {
        let mut words = Vec::new();
        words.extend(self.storage_path.iter().map(|path| format!(" --storage-path {}", shell_word(path.display()))));
        words.extend(self.storage_option.iter().map(|option| match option.split_once('=') {
            Some((name, value)) if !value.starts_with('@') => format!(" --storage-option {}", shell_word(format!("{name}=…"))),
            _ => format!(" --storage-option {}", shell_word(option)),
        }));
        words.extend(self.gcs_endpoint.iter().map(|url| format!(" --gcs-endpoint {}", shell_word(url))));
        words.extend(self.storage_timeout.iter().map(|span| format!(" --storage-timeout {}s", span.as_secs())));
        words.concat()
    }

    /// The storage that these options and cinder.conf name.
    pub fn settings(&self, context: &Context<'_>) -> Result<StorageSettings> {
        Ok(StorageSettings {
            options: StorageOptions::new(context.cinder_conf()?, &self.storage_option).map_err(Error::usage)?,
            path: self.storage_path.clone(),
            gcs_endpoint: self.gcs_endpoint.clone(),
            ceph_source_pool: None,
            network: Network { proxies: Proxies::of(context.environment).map_err(Error::usage)?, ..Network::default() },
            wait_limit: self.storage_timeout.map_or_else(WaitLimit::default, WaitLimit::of),
            limits: Arc::default(),
        })
    }
}

impl StorageArgs {
    /// The storage that these options and cinder.conf name.
    pub fn settings(&self, context: &Context<'_>) -> Result<StorageSettings> {
        let limits = Limits::new(self.limit_rate, self.limit_requests, self.limit_parallel);
        let (ceph_source_pool, limits) = (self.ceph_source_pool.clone(), Arc::new(limits));
        Ok(StorageSettings { ceph_source_pool, limits, ..self.place.settings(context)? })
    }

    /// What is asked of every backup.
    pub fn request(&self, level: Level, share: Share) -> Request {
        let usual = ReadOptions::default();
        let options =
            ReadOptions { jobs: self.jobs.unwrap_or(usual.jobs), memory: self.memory, share, digest: usual.digest, nice: self.nice };
        Request { level, options, settle: self.settle }
    }
}

pub fn level(text: &str) -> std::result::Result<Level, String> {
    let level = [Level::Quick, Level::Deep, Level::Restore].into_iter().find(|level| level.to_string() == text);
    level.ok_or_else(|| format!("{text:?} is not a level: use quick, deep or restore"))
}

/// Reads a time span of at least 1 s.
pub fn positive_span(text: &str) -> std::result::Result<Duration, String> {
    span(text).and_then(|span| if span.is_zero() { Err("must be at least 1 s".to_owned()) } else { Ok(span) })
}

/// Reads a size: a number of bytes, or with K, M, G or T (times 1024).
pub fn size(text: &str) -> std::result::Result<u64, String> {
    let usage = || format!("{text:?} is not a size: use for example 512M or 2G");
    let trimmed = text.trim().trim_end_matches(['B', 'b']).trim_end_matches(['i', 'I']);
    let units = [(['K', 'k'], 10), (['M', 'm'], 20), (['G', 'g'], 30), (['T', 't'], 40)];
    let with_unit = units.into_iter().find_map(|(letters, shift)| Some((trimmed.strip_suffix(letters)?, shift)));
    let (digits, shift) = with_unit.unwrap_or((trimmed, 0));
    let number: u64 = digits.parse().map_err(|_| usage())?;
    number.checked_mul(1 << shift).ok_or_else(usage)
}

fn memory(text: &str) -> std::result::Result<u64, String> {
    let bytes = size(text)?;
    if bytes < 16 << 20 { Err(format!("{text} is too little memory: use at least 16M")) } else { Ok(bytes) }
}

/// Reads bytes a second. With fewer, a server would close connections that wait for their turn.
fn rate(text: &str) -> std::result::Result<NonZero<u64>, String> {
    let bytes = NonZero::new(size(text)?).filter(|bytes| bytes.get() >= 64 << 10);
    bytes.ok_or_else(|| format!("{text} is too slow: use at least 64K"))
}

fn requests<const MOST: usize>(text: &str) -> std::result::Result<NonZero<u64>, String> {
    let requests = number_up_to::<MOST>(text)?;
    NonZero::new(requests as u64).ok_or_else(|| "must be at least 1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_repeated_without_a_secret() {
        let place = PlaceArgs {
            storage_path: Some("/mnt/it's".into()),
            storage_option: vec!["backup_s3_store_secret_key=hunter2".into(), "backup_s3_store_access_key=@/etc/key".into()],
            gcs_endpoint: None,
            storage_timeout: Some(Duration::from_secs(90)),
        };
        let wanted = " --storage-path \"/mnt/it's\" --storage-option 'backup_s3_store_secret_key=…' \
            --storage-option 'backup_s3_store_access_key=@/etc/key' --storage-timeout 90s";
        assert_eq!(place.same(), wanted);
        assert_eq!(PlaceArgs::default().same(), "");
    }
}
