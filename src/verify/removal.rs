//! The commands of the storage's own tools that remove objects, for a script that a person reviews. Pure.
//!
//! Each name is one word for a POSIX shell. A name that a shell or a tool may read in another way gets no command.

use serde_json::json;

use crate::domain::Driver;
use crate::domain::text::{is_hostile, shell_word};

/// How many objects one command names.
pub const NAMES_OF_COMMAND: usize = 100;

/// Where objects are removed.
#[derive(Debug, Clone)]
pub struct Removal {
    /// The driver of the storage.
    pub driver: Driver,
    /// The directory, or the URL of the container; empty in Ceph.
    pub address: String,
    /// The container, bucket or pool; empty for a directory.
    pub container: String,
    /// The options that connect a command to the Ceph cluster.
    pub connection: Vec<String>,
}

impl Removal {
    /// Whether a command can have this name.
    pub fn may_name(&self, name: &str) -> bool {
        let is_plain = |text: &str| !text.is_empty() && !text.contains(is_hostile);
        let is_word = |text: &str| is_plain(text) && !text.starts_with('-');
        match self.driver {
            // The path of the directory comes before the name.
            Driver::Posix | Driver::Nfs | Driver::GlusterFs => is_plain(name) && is_word(&self.address),
            // So does `--image=` or another option.
            Driver::Ceph => is_plain(name) && is_plain(&self.container) && self.connection.iter().all(|option| is_plain(option)),
            // `gcloud storage` reads these as patterns and generations, and has no way to quote them.
            Driver::Gcs if name.contains(['*', '?', '[', ']', '{', '}', '#']) => false,
            Driver::Gcs | Driver::S3 | Driver::Swift => is_word(name) && is_word(&self.container) && is_word(&self.address),
        }
    }

    /// The command that removes these objects; `None` without one, or for one whose name it cannot have. In Ceph, it removes one image, one
    /// snapshot (`IMAGE@SNAPSHOT`) or one metadata object; `rbd` itself refuses an image that is open or has snapshots.
    pub fn command(&self, names: &[String]) -> Option<String> {
        if names.is_empty() || !names.iter().all(|name| self.may_name(name)) {
            return None;
        }
        let Self { address, container, .. } = self;
        // `container` is encoded in a URL; a container that needs it has an address that does not end with it.
        let server = || address.strip_suffix(container.as_str())?.strip_suffix('/').map(shell_word);
        let words = |prefix: &str| names.iter().map(|name| format!(" {}", shell_word(format!("{prefix}{name}")))).collect::<String>();
        Some(match self.driver {
            Driver::Posix | Driver::Nfs | Driver::GlusterFs => format!("rm -f --{}", words(&format!("{address}/"))),
            // Without a name, `swift delete` would remove the container.
            Driver::Swift => format!("swift --os-storage-url {} delete {}{}", server()?, shell_word(container), words("")),
            Driver::S3 => {
                let keys: Vec<_> = names.iter().map(|name| json!({ "Key": name })).collect();
                let delete = shell_word(json!({ "Objects": keys, "Quiet": true }));
                format!("aws s3api delete-objects --endpoint-url {} --bucket {} --delete {delete}", server()?, shell_word(container))
            }
            Driver::Gcs => format!("gcloud storage rm{}", words(&format!("gs://{container}/"))),
            Driver::Ceph => {
                let [name] = names else { return None };
                let options = self.connection.iter().map(|option| format!(" {}", shell_word(option))).collect::<String>();
                let options = format!("{options} {}", shell_word(format!("--pool={container}")));
                match name.split_once('@') {
                    _ if name.starts_with("backup.") => format!("rados{options} rm {}", shell_word(name)),
                    Some((image, snapshot)) => {
                        let [image, snapshot] = [format!("--image={image}"), format!("--snap={snapshot}")].map(shell_word);
                        format!("rbd snap rm{options} {image} {snapshot}")
                    }
                    None => format!("rbd rm{options}{}", words("--image=")),
                }
            }
        })
    }

    /// What the command may not remove, for a comment before it.
    pub fn caution(&self) -> Option<&'static str> {
        match self.driver {
            Driver::S3 => Some(
                "in a bucket with versions or an object lock this only hides the objects: their versions stay, and cannot be removed before \
                 their retention ends (aws s3api list-object-versions shows them)",
            ),
            Driver::Gcs => Some("in a bucket with a retention policy, holds or object versions, the objects stay until these allow it"),
            Driver::Swift => Some("in a container with versions (X-Versions-Enabled, X-History-Location) the old versions stay"),
            _ => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn removal(driver: Driver) -> Removal {
        let address = if driver.is_directory() { "/srv/it's" } else { "http://h:1/v1/a/box" };
        let container = if driver.is_directory() { "" } else { "box" }.to_owned();
        Removal { driver, address: address.to_owned(), container, connection: vec!["--id=cinder".to_owned(), "--conf=/etc/a b".to_owned()] }
    }

    fn command(driver: Driver, names: &[&str]) -> Option<String> {
        removal(driver).command(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn each_storage_has_its_own_tool() {
        assert_eq!(command(Driver::Posix, &["ab/v_1", "$(x)"]).unwrap(), r#"rm -f -- "/srv/it's/ab/v_1" "/srv/it's/"'$(x)'"#);
        assert_eq!(
            command(Driver::Swift, &["v/1/az_x", "a b"]).unwrap(),
            "swift --os-storage-url http://h:1/v1/a delete box v/1/az_x 'a b'"
        );
        assert_eq!(
            command(Driver::S3, &["v/1", "$(x)"]).unwrap(),
            "aws s3api delete-objects --endpoint-url http://h:1/v1/a --bucket box --delete \
             '{\"Objects\":[{\"Key\":\"v/1\"},{\"Key\":\"$(x)\"}],\"Quiet\":true}'"
        );
        assert_eq!(command(Driver::Gcs, &["v/1"]).unwrap(), "gcloud storage rm gs://box/v/1");
    }

    #[test]
    fn a_pool_has_images_snapshots_and_metadata_objects() {
        let of = |name: &str| command(Driver::Ceph, &[name]);
        assert_eq!(of("volume-v.backup.b").unwrap(), "rbd rm '--id=cinder' '--conf=/etc/a b' '--pool=box' '--image=volume-v.backup.b'");
        assert_eq!(
            of("v@backup.b.snap.1").unwrap(),
            "rbd snap rm '--id=cinder' '--conf=/etc/a b' '--pool=box' '--image=v' '--snap=backup.b.snap.1'"
        );
        assert_eq!(of("backup.b.meta").unwrap(), "rados '--id=cinder' '--conf=/etc/a b' '--pool=box' rm backup.b.meta");
        assert_eq!(of("v\n"), None);
        let other = Removal { container: "a\nb".to_owned(), ..removal(Driver::Ceph) };
        assert_eq!(other.command(&["v".to_owned()]), None);
    }

    #[test]
    fn a_name_that_may_be_misread_has_no_command() {
        for driver in [Driver::Posix, Driver::Swift, Driver::S3, Driver::Gcs] {
            for name in ["", "a\nb", "a\0", "\u{1b}[2J", "a\u{202e}b"] {
                assert_eq!(command(driver, &["good", name]), None, "{name:?}");
            }
            assert_eq!(command(driver, &[]), None);
        }
        assert_eq!(command(Driver::Swift, &["--all"]), None);
        assert_eq!(command(Driver::Gcs, &["v/*"]), None);
        assert_eq!(command(Driver::Ceph, &["v", "w"]), None);
        let other = Removal { container: "b%20x".to_owned(), ..removal(Driver::Swift) };
        assert_eq!(other.command(&["v".to_owned()]), None, "the address is not that of this container");
    }

    proptest! {
        #[test]
        fn a_shell_reads_exactly_the_names(names in proptest::collection::vec("[ -~äé]{1,20}", 1..5)) {
            let removal = removal(Driver::Posix);
            if let Some(command) = removal.command(&names) {
                let words = shlex::split(&command).unwrap();
                let expected: Vec<String> = names.iter().map(|name| format!("/srv/it's/{name}")).collect();
                prop_assert_eq!(words.get(3..).unwrap(), expected.as_slice());
            }
        }
    }
}
