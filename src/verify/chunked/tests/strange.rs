//! Storages with wrong answers, or none at all.

use std::io::Read;
use std::ops::{ControlFlow, Range};

use super::*;
use crate::storage::{ObjectInfo, StorageErrorKind};

type Change = Box<dyn Fn(ObjectInfo) -> Option<ObjectInfo> + Send + Sync>;
type Refuse = Box<dyn Fn(&str) -> Option<StorageErrorKind> + Send + Sync>;

/// A store whose listing and whose answers are changed.
struct Strange {
    store: MemoryStore,
    /// What becomes of an entry of the listing.
    listed: Change,
    /// What becomes of an entry when the object is requested by name.
    stated: Change,
    /// What is answered in place of an object.
    refused: Refuse,
    /// What is answered in place of a listing.
    unlistable: Option<StorageErrorKind>,
}

impl Strange {
    fn of(chain: &Chain) -> Self {
        Self { store: chain.store.clone(), listed: Box::new(Some), stated: Box::new(Some), refused: Box::new(|_| None), unlistable: None }
    }

    fn lagging(chain: &Chain, listed: impl Fn(&str) -> bool + Send + Sync + 'static) -> Self {
        Self { listed: Box::new(move |found| listed(&found.name).then_some(found)), ..Self::of(chain) }
    }

    fn refusing(self, refused: impl Fn(&str) -> Option<StorageErrorKind> + Send + Sync + 'static) -> Self {
        Self { refused: Box::new(refused), ..self }
    }

    fn check(self, chain: &Chain, level: Level) -> CheckResult {
        let store: Arc<dyn ObjectStore> = Arc::new(self);
        chain.check_in(&store, 0, level, &ReadOptions { jobs: 2, ..ReadOptions::default() })
    }
}

fn refusal(kind: StorageErrorKind) -> StorageError {
    StorageError::new(kind, "refused")
}

impl ObjectStore for Strange {
    fn location(&self) -> &str {
        self.store.location()
    }

    fn concurrency(&self) -> usize {
        2
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>) -> Result<(), StorageError> {
        if let Some(kind) = self.unlistable {
            return Err(refusal(kind));
        }
        self.store.list(prefix, &mut |found| match (self.listed)(found) {
            Some(found) => each(found),
            None => ControlFlow::Continue(()),
        })
    }

    fn stat(&self, name: &str) -> Result<Option<ObjectInfo>, StorageError> {
        match (self.refused)(name) {
            Some(StorageErrorKind::NoObject) => Ok(None),
            Some(kind) => Err(refusal(kind)),
            None => Ok(self.store.stat(name)?.and_then(|found| (self.stated)(found))),
        }
    }

    fn open(&self, name: &str, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send + '_>, StorageError> {
        match (self.refused)(name) {
            Some(kind) => Err(refusal(kind)),
            None => self.store.open(name, range),
        }
    }
}

fn is_data(name: &str) -> bool {
    name.rsplit_once('-').is_some_and(|(_, number)| number.len() == 5)
}

fn codes(found: &CheckResult) -> Vec<&str> {
    found.problems.iter().map(|problem| problem.code.as_str()).collect()
}

#[test]
fn a_listing_that_lags_behind_is_not_damage() {
    let chain = Chain::of(&volumes(1, 8), Compression::None, BLOCK * 2);
    let second = names::data(&prefix(0), 2);
    for level in LEVELS {
        // One object, all of them.
        let second = second.clone();
        for lagging in [Strange::lagging(&chain, move |name| name != second), Strange::lagging(&chain, |_| false)] {
            let found = lagging.check(&chain, level);
            assert_eq!((found.verdict, found.begun), (CheckVerdict::Unverifiable, true), "{:?}", found.problems);
            assert!(codes(&found).iter().all(|code| *code == "listing-behind"), "{:?}", found.problems);
        }
        // Cinder asks for the sha256file by its name.
        let found = Strange::lagging(&chain, |name| !name.ends_with("_sha256file")).check(&chain, level);
        assert_eq!(found.verdict, CheckVerdict::Intact, "{:?}", found.problems);
        assert!(found.warnings.iter().any(|warning| warning.code.as_str() == "listing-behind"), "{:?}", found.warnings);
    }
}

#[test]
fn an_object_that_was_not_asked_for_is_not_missing() {
    let chain = Chain::of(&volumes(1, 240), Compression::None, BLOCK);
    let side_file = |name: &str| name.ends_with("_metadata") || name.ends_with("_sha256file");
    let found = Strange::lagging(&chain, side_file).check(&chain, Level::Quick);
    assert_eq!(found.verdict, CheckVerdict::Unverifiable, "{:?}", found.problems);
    let of = |found: &CheckResult, code: &str| codes(found).iter().filter(|other| **other == code).count();
    assert_eq!((of(&found, "listing-behind"), of(&found, "object-unlisted")), (100, 140));
    // Where those that are asked for are gone, that is damage, and no more is said of the others.
    let gone = Strange::lagging(&chain, side_file).refusing(|name| is_data(name).then_some(StorageErrorKind::NoObject));
    let found = gone.check(&chain, Level::Quick);
    assert_eq!(found.verdict, CheckVerdict::Incomplete);
    assert_eq!((of(&found, "object-missing"), of(&found, "object-unlisted")), (100, 140));
}

#[test]
fn nothing_is_missing_that_nobody_could_look_at() {
    let chain = Chain::of(&volumes(1, 8), Compression::None, BLOCK * 2);
    let nothing = |kind: StorageErrorKind| Strange::lagging(&chain, |_| false).refusing(move |_| Some(kind));
    for level in LEVELS {
        // Something in between answers that there is nothing in the listing, and nothing sensible for an object.
        for kind in [StorageErrorKind::Protocol, StorageErrorKind::Transient, StorageErrorKind::Permission] {
            let found = nothing(kind).check(&chain, level);
            assert_eq!((found.verdict, found.begun), (CheckVerdict::Unverifiable, false), "{kind:?} {:?}", found.problems);
        }
        let found = nothing(StorageErrorKind::NoObject).check(&chain, level);
        assert_eq!((found.verdict, found.begun), (CheckVerdict::Missing, false), "{:?}", found.problems);
        let found =
            Strange { unlistable: Some(StorageErrorKind::NoContainer), ..nothing(StorageErrorKind::NoContainer) }.check(&chain, level);
        assert_eq!((found.verdict, found.begun), (CheckVerdict::Missing, false), "{:?}", found.problems);
        // No container for the listing, and the metadata is there all the same.
        let found = Strange { unlistable: Some(StorageErrorKind::NoContainer), ..Strange::of(&chain) }.check(&chain, level);
        assert_eq!(found.verdict, CheckVerdict::Unverifiable, "{:?}", found.problems);
    }
}

#[test]
fn what_a_driver_has_begun_is_not_missing_though_no_listing_has_it() {
    let chain = Chain::of(&volumes(1, 8), Compression::None, BLOCK * 2);
    for there in ["-00001", "_sha256file"] {
        let begun =
            Strange::lagging(&chain, |_| false).refusing(move |name| (!name.ends_with(there)).then_some(StorageErrorKind::NoObject));
        let found = begun.check(&chain, Level::Quick);
        assert_eq!((found.verdict, found.begun), (CheckVerdict::Incomplete, true), "{there}: {:?}", found.problems);
        assert!(found.newest_object_at.is_some());
        // Whether it is there is not known.
        let unknown = Strange::lagging(&chain, |_| false)
            .refusing(move |name| Some(if name.ends_with(there) { StorageErrorKind::Transient } else { StorageErrorKind::NoObject }));
        let found = unknown.check(&chain, Level::Quick);
        assert_eq!((found.verdict, found.begun), (CheckVerdict::Incomplete, false), "{there}: {:?}", found.problems);
    }
}

#[test]
fn a_parent_whose_metadata_cannot_be_read_leaves_no_gap() {
    let chain = Chain::of(&volumes(2, 8), Compression::None, BLOCK * 2);
    let side_file = names::metadata(&prefix(0));
    let store: Arc<dyn ObjectStore> =
        Arc::new(Strange::of(&chain).refusing(move |name| (name == side_file).then_some(StorageErrorKind::Transient)));
    for level in LEVELS {
        let found = chain.check_in(&store, 1, level, &ReadOptions::default());
        assert_eq!(found.verdict, CheckVerdict::Unverifiable, "{level} {:?}", found.problems);
    }
}

#[test]
fn what_could_not_be_read_does_not_count_as_read() {
    for compression in [Compression::None, Compression::Zlib] {
        let chain = Chain::of(&volumes(1, 16), compression, BLOCK * 2);
        for digest in [Digest::Md5, Digest::Sha256] {
            let check = |refused: &'static str| {
                let store = Strange::of(&chain)
                    .refusing(move |name| (is_data(name) && name.ends_with(refused)).then_some(StorageErrorKind::Permission));
                chain.check_in(
                    &(Arc::new(store) as Arc<dyn ObjectStore>),
                    0,
                    Level::Deep,
                    &ReadOptions { jobs: 2, digest, ..ReadOptions::default() },
                )
            };
            let found = check("");
            assert_eq!((found.objects.checked, found.objects.expected, found.bytes.checked), (0, 8, 0));
            assert!(found.depth.ends_with("; 0 of 8 objects read"), "{}", found.depth);
            let found = check("5");
            assert_eq!(found.objects.checked, 7);
            assert!(found.depth.ends_with("; 7 of 8 objects read"), "{}", found.depth);
            // What is wrong was read.
            let mut damaged = Chain { store: chain.store.clone(), backups: chain.backups.clone(), volume_bytes: chain.volume_bytes };
            damaged.store.bytes_mut(&names::data(&prefix(0), 5)).unwrap()[9] ^= 1;
            let found = damaged.check(0, Level::Deep);
            assert!(found.verdict.is_damage() && found.depth.ends_with("; all 8 objects read"), "{found:?}");
        }
    }
}

#[test]
fn digests_take_no_more_than_half_of_the_memory() {
    let chain = Chain::of(&volumes(1, 2000), Compression::Zlib, BLOCK * 1000);
    // Two objects of 1000 digests; a thread, and 33 bytes a digest four times over.
    for (memory, level, verdict, depth) in [
        (33 * 4 * 1000 * 2, Level::Deep, CheckVerdict::Intact, "SHA-256 of every block; all 2 objects read"),
        (33 * 4 * 999 * 2, Level::Deep, CheckVerdict::Intact, "SHA-256 of every block (2 objects by their MD5); all 2 objects read"),
        (
            33 * 4 * 1000 * 2,
            Level::Restore,
            CheckVerdict::Intact,
            "every block as a restore would write it, by its SHA-256; all 2 objects read",
        ),
        (
            33 * 4 * 999 * 2,
            Level::Restore,
            CheckVerdict::Unverifiable,
            "every block as a restore would write it, by its SHA-256 (2 objects by their MD5); all 2 objects read",
        ),
    ] {
        let found = chain.check_with(0, level, &ReadOptions { jobs: 1, memory, digest: Digest::Sha256, ..ReadOptions::default() });
        assert_eq!((found.verdict, found.depth.as_str()), (verdict, depth), "{:?}", found.problems);
        let told = found.problems.iter().filter(|problem| problem.text.ends_with("give more --memory")).count();
        assert_eq!(told, if verdict == CheckVerdict::Intact { 0 } else { 2 }, "{:?}", found.problems);
    }
}

#[test]
fn the_lists_of_a_chain_are_not_held_beyond_the_memory() {
    let chain = Chain::of(&volumes(3, 64), Compression::None, BLOCK);
    let entries: u64 = (0..3).map(|number| chain.check(number, Level::Quick).objects.expected).sum();
    let options = |memory| ReadOptions { jobs: 1, memory, digest: Digest::Sha256, ..ReadOptions::default() };
    let enough = entries * LISTED_OBJECT * 2;
    assert_eq!(chain.check_with(2, Level::Restore, &options(enough)).verdict, CheckVerdict::Intact);
    let found = chain.check_with(2, Level::Restore, &options(enough - 2));
    assert_eq!(found.verdict, CheckVerdict::Unverifiable);
    assert!(found.problems[0].text.ends_with("give more --memory"), "{:?}", found.problems);
}

#[test]
fn a_digest_in_a_listing_is_no_more_than_a_suspicion() {
    let chain = Chain::of(&volumes(1, 240), Compression::None, BLOCK * 2);
    let digest = |md5: Option<[u8; 16]>| move |found: ObjectInfo| Some(ObjectInfo { md5: md5.filter(|_| is_data(&found.name)), ..found });
    let check = |stated: Option<[u8; 16]>, refused: Option<StorageErrorKind>| {
        let store = Strange { listed: Box::new(digest(Some([7; 16]))), stated: Box::new(digest(stated)), ..Strange::of(&chain) };
        store.refusing(move |name| refused.filter(|_| is_data(name))).check(&chain, Level::Quick)
    };
    let of = |found: &CheckResult, code: &str| codes(found).iter().filter(|other| **other == code).count();
    // Encrypted with a key of the key service: the object itself gives no digest.
    let found = check(None, None);
    assert_eq!(found.verdict, CheckVerdict::Intact, "{:?}", found.problems);
    let found = check(Some([7; 16]), None);
    assert_eq!(found.verdict, CheckVerdict::Corrupt);
    assert_eq!((of(&found, "object-digest"), of(&found, "object-doubtful")), (100, 20));
    for (kind, code) in [(StorageErrorKind::Permission, "storage-permission"), (StorageErrorKind::NoObject, "storage-contradicts")] {
        let found = check(Some([7; 16]), Some(kind));
        assert_eq!((found.verdict, of(&found, code)), (CheckVerdict::Unverifiable, 100), "{:?}", found.problems);
    }
}

#[test]
fn an_object_without_a_time_leaves_the_newest_time_unknown() {
    let chain = Chain::of(&volumes(1, 8), Compression::None, BLOCK * 2);
    assert!(Strange::of(&chain).check(&chain, Level::Quick).newest_object_at.is_some());
    let timeless = |found: ObjectInfo| Some(ObjectInfo { modified: found.modified.filter(|_| !found.name.ends_with("-00002")), ..found });
    for strange in [
        Strange { listed: Box::new(timeless), ..Strange::of(&chain) },
        Strange { stated: Box::new(timeless), ..Strange::lagging(&chain, |name| !name.ends_with("-00002")) },
    ] {
        let found = strange.check(&chain, Level::Quick);
        assert_eq!((found.newest_object_at, found.busy), (None, false));
        assert!(found.warnings.iter().any(|warning| warning.code.as_str() == "no-times" && warning.text.contains("when 1 of its objects")));
    }
}

#[test]
fn a_link_in_a_listing_is_not_an_empty_object() {
    let chain = Chain::of(&volumes(1, 8), Compression::None, BLOCK * 2);
    for (kind, verdict, code) in [
        (StorageErrorKind::NotFollowed, CheckVerdict::Unverifiable, "not-followed"),
        (StorageErrorKind::NotAnObject, CheckVerdict::Corrupt, "object-not-plain"),
    ] {
        for level in LEVELS {
            let odd = |name: &str| name.ends_with("-00002");
            let listed =
                Box::new(move |found: ObjectInfo| Some(ObjectInfo { size: if odd(&found.name) { 0 } else { found.size }, ..found }));
            let strange = Strange { listed, ..Strange::of(&chain) }.refusing(move |name| odd(name).then_some(kind));
            let found = strange.check(&chain, level);
            assert_eq!((found.verdict, codes(&found)[0]), (verdict, code), "{level} {:?}", found.problems);
        }
    }
}

#[test]
fn what_rests_on_a_backup_needs_its_data_and_not_its_sha256file() {
    for compression in [Compression::None, Compression::Zlib] {
        let chain = Chain::of(&volumes(3, 24), compression, BLOCK * 8);
        let side_file = names::sha256file(&prefix(0));
        type Damage<'a> = Box<dyn Fn(&mut MemoryStore) + 'a>;
        let damages: [(CheckVerdict, Damage<'_>); 3] = [
            (CheckVerdict::Incomplete, Box::new(|store| drop(store.remove(&side_file)))),
            (CheckVerdict::Corrupt, Box::new(|store| store.bytes_mut(&side_file).unwrap().truncate(300))),
            (
                CheckVerdict::Corrupt,
                Box::new(|store| store.put(side_file.clone(), chain.store.clone().remove(&names::sha256file(&prefix(1))).unwrap(), None)),
            ),
        ];
        for (verdict, damage) in damages {
            let mut damaged = Chain { store: chain.store.clone(), backups: chain.backups.clone(), volume_bytes: chain.volume_bytes };
            damage(&mut damaged.store);
            for level in LEVELS {
                for digest in [Digest::Md5, Digest::Sha256] {
                    let options = ReadOptions { jobs: 2, digest, ..ReadOptions::default() };
                    let check = |damaged: &Chain, number| damaged.check_with(number, level, &options);
                    assert!(check(&damaged, 0).verdict == verdict, "{verdict} {:?}", check(&damaged, 0));
                    for number in [1, 2] {
                        let found = check(&damaged, number);
                        assert_eq!(found.verdict, CheckVerdict::Intact, "{level} {:?}", found.problems);
                        let told = found.warnings.iter().find(|warning| warning.code.as_str() == "parent-sha256file").unwrap();
                        assert!(told.text.contains(&id(0)), "{told:?}");
                    }
                    // Its data is needed all the same.
                    let mut broken =
                        Chain { store: damaged.store.clone(), backups: chain.backups.clone(), volume_bytes: chain.volume_bytes };
                    broken.store.remove(&names::data(&prefix(0), 2));
                    assert_eq!(check(&broken, 1).verdict, CheckVerdict::Corrupt);
                }
            }
        }
    }
}

#[test]
fn a_list_that_is_too_long_to_be_held_is_no_damage() {
    let mut chain = Chain::of(&volumes(1, 8), Compression::None, BLOCK * 2);
    let bytes = chain.store.bytes_mut(&names::metadata(&prefix(0))).unwrap();
    let entry = |number: u64| {
        let name = names::data(&prefix(0), number);
        format!(r#"{{"{name}":{{"offset":{},"length":64,"compression":"none","md5":"{}"}}}}"#, number * 64, "0".repeat(32))
    };
    let list: Vec<String> = (1..=(1 << 17) + 1).map(entry).collect();
    let text = String::from_utf8(bytes.clone()).unwrap().replace(r#""objects": ["#, &format!(r#""objects": [{},"#, list.join(",")));
    *bytes = text.into_bytes();
    for level in LEVELS {
        let found = chain.check(0, level);
        assert_eq!((found.verdict, codes(&found)), (CheckVerdict::Unverifiable, vec!["too-large"]), "{level}");
    }
}

#[test]
fn that_the_storage_is_away_is_said_once() {
    let chain = Chain::of(&volumes(1, 400), Compression::None, BLOCK * 2);
    let away = |name: &str| is_data(name).then_some(StorageErrorKind::Unreachable);
    for digest in [Digest::Md5, Digest::Sha256] {
        let store: Arc<dyn ObjectStore> = Arc::new(Strange::of(&chain).refusing(away));
        let found = chain.check_in(&store, 0, Level::Deep, &ReadOptions { jobs: 2, digest, ..ReadOptions::default() });
        assert_eq!((found.verdict, codes(&found)), (CheckVerdict::Unverifiable, vec!["storage-away"]));
        assert!(found.depth.ends_with("; 0 of 200 objects read"), "{}", found.depth);
    }
    let found = Strange::lagging(&chain, |name| !is_data(name)).refusing(away).check(&chain, Level::Quick);
    assert_eq!((found.verdict, codes(&found)), (CheckVerdict::Unverifiable, vec!["storage-away"]));
}

/// A store whose bytes change on their way, or whose object is written again behind the listing's back.
struct Spoiling {
    store: MemoryStore,
    /// The MD5s that the storage took when the bytes were written, as it tells them.
    told: bool,
    /// The end of an object's name, and how many reads of that object are damaged.
    spoils: (&'static str, std::sync::atomic::AtomicUsize),
    /// The time and size that are reported when the object is requested by name.
    stated: Change,
}

impl ObjectStore for Spoiling {
    fn location(&self) -> &str {
        self.store.location()
    }

    fn concurrency(&self) -> usize {
        2
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>) -> Result<(), StorageError> {
        self.store.list(prefix, each)
    }

    fn stat(&self, name: &str) -> Result<Option<ObjectInfo>, StorageError> {
        use md5::Digest as _;
        let found = self.store.stat(name)?.and_then(|found| if name.ends_with(self.spoils.0) { (self.stated)(found) } else { Some(found) });
        let mut bytes = Vec::new();
        self.store.open(name, None)?.read_to_end(&mut bytes).unwrap();
        let md5 = self.told.then(|| md5::Md5::digest(&bytes).into());
        Ok(found.map(|found| ObjectInfo { md5, ..found }))
    }

    fn open(&self, name: &str, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send + '_>, StorageError> {
        use std::sync::atomic::Ordering::SeqCst;
        let mut bytes = Vec::new();
        self.store.open(name, range)?.read_to_end(&mut bytes).unwrap();
        let spoils = |left: usize| left.checked_sub(1);
        if name.ends_with(self.spoils.0) && self.spoils.1.fetch_update(SeqCst, SeqCst, spoils).is_ok() {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
        }
        Ok(Box::new(std::io::Cursor::new(bytes)))
    }
}

impl Spoiling {
    fn check(chain: &Chain, level: Level, told: bool, spoils: (&'static str, usize), stated: Change) -> CheckResult {
        let spoils = (spoils.0, spoils.1.into());
        let store: Arc<dyn ObjectStore> = Arc::new(Self { store: chain.store.clone(), told, spoils, stated });
        chain.check_in(&store, 0, level, &ReadOptions { jobs: 2, ..ReadOptions::default() })
    }
}

#[test]
fn bytes_damaged_on_their_way_are_never_corrupt() {
    for compression in ALL {
        let chain = Chain::of(&volumes(1, 24), compression, BLOCK * 8);
        for (name, level) in
            [("-00002", Level::Deep), ("-00002", Level::Restore), ("_metadata", Level::Quick), ("_sha256file", Level::Restore)]
        {
            let check = |told, times| Spoiling::check(&chain, level, told, (name, times), Box::new(Some));
            let what = format!("{compression:?} {name} {level}");
            // The storage says what it took in, and that did not come.
            let found = check(true, 1_000);
            assert_eq!(
                (found.verdict, codes(&found)),
                (CheckVerdict::Unverifiable, vec!["transfer-differs"]),
                "{what} {:?}",
                found.problems
            );
            // Without that nobody can tell.
            assert!(check(false, 1_000).verdict.is_damage(), "{what}");
            // Once.
            if name != "_sha256file" {
                let found = check(true, 1);
                assert_eq!(found.verdict, CheckVerdict::Intact, "{what} {:?}", found.problems);
            }
        }
        // What the storage itself holds is wrong, and it says so.
        let mut wrong = Chain { store: chain.store.clone(), backups: chain.backups.clone(), volume_bytes: chain.volume_bytes };
        wrong.store.bytes_mut(&names::data(&prefix(0), 2)).unwrap()[40] ^= 4;
        let found = Spoiling::check(&wrong, Level::Deep, true, ("nothing", 0), Box::new(Some));
        assert_eq!(found.verdict, CheckVerdict::Corrupt, "{compression:?} {:?}", found.problems);
    }
}

#[test]
fn an_object_that_is_written_again_behind_its_listing_is_busy_and_not_corrupt() {
    let chain = Chain::of(&volumes(1, 24), Compression::Zlib, BLOCK * 8);
    let check = |seconds: i64, bytes: u64| {
        let moved = move |found: ObjectInfo| {
            let modified = found.modified.map(|at| at + jiff::SignedDuration::from_secs(seconds));
            Some(ObjectInfo { modified, size: found.size + bytes, ..found })
        };
        Spoiling::check(&chain, Level::Deep, false, ("-00002", 1_000), Box::new(moved))
    };
    for (seconds, bytes) in [(30, 0), (-30, 0), (0, 1)] {
        let found = check(seconds, bytes);
        assert_eq!((found.verdict, codes(&found)), (CheckVerdict::Unverifiable, vec!["object-rewritten"]), "{:?}", found.problems);
        assert!(found.busy);
    }
    // Servers round.
    for seconds in [-1, 0, 1] {
        let found = check(seconds, 0);
        assert_eq!((found.verdict, found.busy), (CheckVerdict::Corrupt, false), "{:?}", found.problems);
    }
}
