//! Finds OpenStack Cinder backups that hang, says why, and repairs them in the database.

#![forbid(unsafe_code)]

pub mod audit;
pub mod db;
pub mod domain;
pub mod plan;
pub mod report;
pub mod scan;
