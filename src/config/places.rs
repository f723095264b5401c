//! The usual places of Cinder's configuration.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Environment;

/// The files and directories that exist, and where they were searched for.
#[derive(Default)]
pub(super) struct UsualPlaces {
    /// The files to read, in order.
    pub files: Vec<PathBuf>,
    /// The directories to read after them.
    pub dirs: Vec<PathBuf>,
    /// The places that were searched for the main file.
    pub searched: Vec<PathBuf>,
}

/// Finds the configuration that cinder-backup would read on this host, in `~/.cinder`, `~`, `/etc/cinder` and `/etc` as oslo.config
/// does. The distribution's file comes before it and the `.conf.d` directories after it. Otherwise finds the copies that Kolla keeps
/// on the host.
pub(super) fn usual_places(env: &Environment) -> UsualPlaces {
    let bases = bases(env);
    let first = |name: &str| bases.iter().map(|base| base.join(name)).find(|path| present(path));
    let mut places = UsualPlaces::default();
    if let Some(main) = first("cinder.conf") {
        // Red Hat's packages put their defaults here and name both files on the command line.
        places.files.extend(Some(env.at("/usr/share/cinder/cinder-dist.conf")).filter(|path| path.is_file()));
        places.files.push(main);
        places.files.extend(first("cinder-backup.conf"));
        places.dirs.extend(first("cinder.conf.d"));
        places.dirs.extend(first("cinder-backup.conf.d"));
        return places;
    }
    let kolla = kolla(env);
    places.files.extend(kolla.iter().find(|path| present(path)).cloned());
    places.searched.push(env.at("/etc/cinder/cinder.conf"));
    places.searched.extend(kolla);
    places
}

/// The directories of the main file, the first first.
fn bases(env: &Environment) -> Vec<PathBuf> {
    let homes = [env.in_home(".cinder"), env.home.clone()];
    homes.into_iter().flatten().chain([env.at("/etc/cinder"), env.at("/etc")]).collect()
}

fn kolla(env: &Environment) -> [PathBuf; 3] {
    ["cinder-backup", "cinder-api", "cinder-volume"].map(|service| env.at(&format!("/etc/kolla/{service}/cinder.conf")))
}

/// The places of the main file in which there is none.
pub(super) fn missing(env: &Environment) -> Vec<PathBuf> {
    let all = bases(env).into_iter().map(|base| base.join("cinder.conf")).chain(kolla(env));
    all.filter(|path| !present(path)).collect()
}

/// Whether the path exists, or may exist. A path that this account cannot access is reported when it is read, and not ignored.
fn present(path: &Path) -> bool {
    fs::metadata(path).map_or_else(|error| error.kind() == ErrorKind::PermissionDenied, |_| true)
}
