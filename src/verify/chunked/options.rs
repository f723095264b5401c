//! How the data of a backup is read.

use std::thread;

use super::digest::Digest;
use crate::domain::Driver;
use crate::domain::shards::ObjectPart;
use crate::verify::{Capacity, Watch};

/// How much of the data is read.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Share {
    #[default]
    All,
    /// The n-th of t parts (`--read-data-subset`), from 1: t runs read everything once.
    Part(u64, u64),
    /// The objects of one shard, if several shards read the chain.
    Objects(ObjectPart),
    /// About this share of the objects, chosen at random (`--sample`), from 0 to 1.
    Fraction(f64),
}

/// How the data is read.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadOptions {
    /// Threads; a store that is worth more at once gets more.
    pub jobs: usize,
    /// Bytes of memory that reading may take.
    pub memory: u64,
    pub share: Share,
    /// The digest that proves an object, if there are both.
    pub digest: Digest,
    /// Whether its threads run at the lowest priority.
    pub nice: bool,
}

impl ReadOptions {
    /// How many threads read a storage that is worth `worth` requests at once. More threads than cores only help if they wait for a
    /// remote server.
    pub(in crate::verify) fn readers(&self, worth: usize) -> usize {
        if self.jobs == 1 { 1 } else { self.jobs.max(worth) }
    }
}

impl Default for ReadOptions {
    fn default() -> Self {
        let jobs = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { jobs, memory: 512 << 20, share: Share::All, digest: Digest::cheaper(), nice: false }
    }
}

/// The options of a check, with what its checks share.
#[derive(Debug, Clone, Copy)]
pub struct ReadContext<'a> {
    pub options: &'a ReadOptions,
    /// Where progress is reported, and how the check is stopped.
    pub watch: &'a Watch,
    /// Memory and read slots of all checks.
    pub capacity: &'a Capacity,
    pub driver: Driver,
}
