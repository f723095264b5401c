//! Where Cinder's configuration usually is.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::Environment;

/// The files and directories that are there, and where was looked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UsualPlaces {
    /// The files to read, in their order.
    pub files: Vec<PathBuf>,
    /// The directories to read after them.
    pub dirs: Vec<PathBuf>,
    /// The places that were looked at for the main file.
    pub looked: Vec<PathBuf>,
}

/// Finds the configuration that cinder-backup would read on this machine: `~/.cinder`, `~`, `/etc/cinder` and `/etc` as
/// oslo.config has it, with the distribution's file under it and the `.conf.d` directories over it; else the copies that
/// Kolla keeps on the host.
pub fn usual_places(env: &Environment) -> UsualPlaces {
    let homes = [env.in_home(".cinder"), env.home.clone()];
    let bases: Vec<PathBuf> = homes.into_iter().flatten().chain([env.at("/etc/cinder"), env.at("/etc")]).collect();
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
    let kolla = ["cinder-backup", "cinder-api", "cinder-volume"].map(|service| env.at(&format!("/etc/kolla/{service}/cinder.conf")));
    places.files.extend(kolla.iter().find(|path| present(path)).cloned());
    places.looked.push(env.at("/etc/cinder/cinder.conf"));
    places.looked.extend(kolla);
    places
}

/// Whether something is there, or may be: what this account cannot look at is reported when it is read, not passed over.
fn present(path: &Path) -> bool {
    fs::metadata(path).map_or_else(|error| error.kind() == ErrorKind::PermissionDenied, |_| true)
}

/// The files that [`usual_places`] finds, those of its directories not among them.
pub fn usual_files(env: &Environment) -> Vec<PathBuf> {
    usual_places(env).files
}
