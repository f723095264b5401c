//! Finds OpenStack Cinder backups that hang, says why, and repairs them in the database.

#![forbid(unsafe_code)]

pub mod audit;
pub mod config;
pub mod db;
pub mod domain;
pub mod report;
