//! Checks backups in Ceph.
//!
//! A backup is a snapshot on a base image if the volume was an RBD image itself, otherwise a full copy in an image of its own. One
//! small object holds the volume's metadata. No digest is stored. So these things can be proven:
//!
//! - [`Level::Quick`]: everything that was written still exists.
//! - [`Level::Deep`]: all of it can be read, and only imports, which make their snapshot last, wrote to the image. This cannot be
//!   proven for copies. For increments, their extents are compared with the volume's.
//! - [`Level::Restore`]: every byte is the volume's, as long as the volume still has the same snapshot.

mod compare;
mod extents;
mod judge;
mod names;
mod observe;
#[cfg(test)]
mod tests;

pub(crate) use self::names::{backup_of_meta, backup_of_snapshot, may_need_image, meta, owner_of_image, volume_of_image, volumes_of};

use std::sync::Arc;

use crate::domain::{Backup, CheckResult, CheckVerdict, Level, Listing, PrecheckListing, Problem, ProblemCode};
use crate::storage::ceph::{Cluster, Pool};
use crate::storage::{StorageError, StorageErrorKind};

use super::fault::storage_problem;
use super::{Subject, Watch};

/// Checks a backup. `source` is the pool of the volumes, if it may be read; `watch` counts the bytes that are read.
pub fn check(cluster: &Cluster, source: Option<&Pool<'_>>, subject: &Subject<'_>, watch: &Watch) -> CheckResult {
    let names = match names::of(subject.backup, subject.ancestors) {
        Ok(names) => names,
        Err(problem) if problem.code == ProblemCode::VolumeUnknown => return unread(subject, CheckVerdict::Unverifiable, problem),
        Err(problem) => return unread(subject, CheckVerdict::Corrupt, problem),
    };
    let pool = pool_of(cluster, subject.backup);
    let observed = match observe::observe(&pool, cluster.default_pool(), &names, &subject.backup.id) {
        Ok(observed) => observed,
        Err(error) => return unread(subject, CheckVerdict::Unverifiable, unanswered(&error)),
    };
    let mut result = judge::judge(subject, &names, &observed);
    if result.verdict == CheckVerdict::Missing
        && let Some(problem) = without_backups(cluster, &pool)
    {
        result.verdict = CheckVerdict::Unverifiable;
        result.problems.insert(0, problem);
    }
    // What is known to be damaged need not be read.
    let is_open = result.problems.iter().all(judge::is_possible_damage);
    if let (Some(image), true, true) = (&observed.image, is_open, subject.level > Level::Quick) {
        let finished = observed.meta.as_ref().and_then(|meta| meta.modified);
        let data = compare::ImageData { pool: &pool, image, subject, finished, watch };
        compare::read_data(&mut result, &data, source);
    }
    result
}

/// Why it proves nothing that a backup is missing: the pool holds no backup at all, or that is not known.
fn without_backups(cluster: &Cluster, pool: &Pool<'_>) -> Option<Problem> {
    match pool.contains(names::is_image, names::is_meta) {
        Ok(true) => None,
        Ok(false) => {
            let text = format!(
                "{} holds no Cinder backup: make sure that the pool and the cluster are the right ones; --storage-option \
                 backup_ceph_pool=POOL and --storage-option backup_ceph_conf=FILE select others",
                cluster.location(pool.name())
            );
            Some(Problem::general(ProblemCode::PoolWithoutBackups, text))
        }
        Err(error) => Some(unanswered(&error)),
    }
}

/// Lists the parts of a backup just before a change, with its newest object and the clients that have its image open. If there are as
/// many parts as `then`, when it was checked, its extents are counted, too: that can take as long as in a check.
///
/// # Errors
/// The first request that the cluster did not answer, except the one for the extents.
pub fn precheck(
    cluster: &Cluster,
    backup: &Backup,
    ancestors: &[Arc<Backup>],
    then: Option<Listing>,
) -> Result<PrecheckListing, StorageError> {
    let names = names::of(backup, ancestors).map_err(|problem| StorageError::new(StorageErrorKind::Protocol, problem.text))?;
    let pool = pool_of(cluster, backup);
    let observed = observe::observe_parts(&pool, cluster.default_pool(), &names, &backup.id)?;
    let objects = judge::parts(backup, &names, &observed);
    let bytes = match &observed.image {
        _ if then.is_none_or(|then| then.objects != objects) => Err("its extents were not counted".to_owned()),
        Some(image) if judge::is_in(backup, &names, image) => observe::extents(&pool, image, names.shape, &backup.id)
            .map(|extents| extents.bytes)
            .map_err(|error| format!("its extents could not be counted: {}", error.text)),
        _ => Ok(0),
    };
    Ok(judge::precheck(backup, &observed, objects, bytes))
}

/// The pool of a backup. The driver writes it to the row before it writes any data, so a row without a pool has no data in any.
fn pool_of<'c>(cluster: &'c Cluster, backup: &'c Backup) -> Pool<'c> {
    cluster.pool(backup.container.as_deref().filter(|pool| !pool.is_empty()).unwrap_or(cluster.default_pool()))
}

fn unread(subject: &Subject<'_>, verdict: CheckVerdict, problem: Problem) -> CheckResult {
    subject.unread(verdict, "nothing read", vec![problem])
}

/// A request that was not answered, as a problem.
fn unanswered(error: &StorageError) -> Problem {
    let code = match error.kind {
        StorageErrorKind::NoContainer => ProblemCode::PoolMissing,
        StorageErrorKind::NoObject => ProblemCode::ChangedMeanwhile,
        StorageErrorKind::Transient | StorageErrorKind::Unreachable => ProblemCode::StorageUnavailable,
        StorageErrorKind::NotAnObject | StorageErrorKind::NotFollowed => ProblemCode::StorageProtocol,
        _ => return storage_problem(None, error).1,
    };
    Problem::general(code, error.text.clone())
}
