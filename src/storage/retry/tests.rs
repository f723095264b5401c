//! The layer over a store whose troubles are written down beforehand.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::*;
use crate::storage::{MemoryStore, Patience, conformance};

const QUICK: RetryPolicy =
    RetryPolicy { attempts: 3, backoff: Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(4) } };

/// What befalls the next call.
#[derive(Debug, Clone)]
enum Trouble {
    /// It fails.
    Fails(StorageError),
    /// It works for so many objects or bytes, and then breaks off.
    BreaksAfter(usize, StorageError),
    None,
}

#[derive(Debug, Default)]
struct Troubled {
    store: MemoryStore,
    troubles: Mutex<VecDeque<Trouble>>,
    /// Every call's range.
    opened: Mutex<Vec<Option<Range<u64>>>>,
    backwards: bool,
}

impl Troubled {
    fn next(&self) -> Trouble {
        self.troubles.lock().unwrap().pop_front().unwrap_or(Trouble::None)
    }
}

struct Breaking<'a>(Box<dyn Read + Send + 'a>, usize, StorageError);

impl Read for Breaking<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.1 == 0 {
            return Err(self.2.clone().into_io());
        }
        let part = out.len().min(self.1);
        let read = self.0.read(&mut out[..part])?;
        self.1 -= read;
        Ok(read)
    }
}

impl ObjectStore for Troubled {
    fn location(&self) -> &str {
        "trouble"
    }

    fn concurrency(&self) -> usize {
        1
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>) -> Result<(), StorageError> {
        let (mut left, error) = match self.next() {
            Trouble::Fails(error) => return Err(error),
            Trouble::BreaksAfter(objects, error) => (objects, Some(error)),
            Trouble::None => (usize::MAX, None),
        };
        let mut all = Vec::new();
        self.store.list(prefix, &mut |info| {
            all.push(info);
            ControlFlow::Continue(())
        })?;
        // Every listing in another order.
        if self.backwards && left % 2 == 0 {
            all.reverse();
        }
        for info in all {
            if left == 0 {
                break;
            }
            left -= 1;
            if each(info).is_break() {
                return Ok(());
            }
        }
        error.map_or(Ok(()), Err)
    }

    fn stat(&self, name: &str) -> Result<Option<ObjectInfo>, StorageError> {
        match self.next() {
            Trouble::None => self.store.stat(name),
            Trouble::Fails(error) | Trouble::BreaksAfter(_, error) => Err(error),
        }
    }

    fn open(&self, name: &str, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send + '_>, StorageError> {
        self.opened.lock().unwrap().push(range.clone());
        match self.next() {
            Trouble::None => self.store.open(name, range),
            Trouble::Fails(error) => Err(error),
            Trouble::BreaksAfter(bytes, error) => Ok(Box::new(Breaking(self.store.open(name, range)?, bytes, error))),
        }
    }
}

fn transient() -> StorageError {
    StorageError::new(StorageErrorKind::Transient, "the connection was reset")
}

fn layer(troubles: impl IntoIterator<Item = Trouble>) -> Retrying<Troubled> {
    let mut store = MemoryStore::default();
    for number in 0..3000 {
        store.put(format!("many-{number:05}"), number.to_string(), None);
    }
    store.put("digits", "0123456789", None);
    let troubled = Troubled { store, troubles: Mutex::new(troubles.into_iter().collect()), ..Troubled::default() };
    Retrying::new(troubled, QUICK, Arc::default())
}

fn left(layer: &Retrying<Troubled>) -> usize {
    layer.store.troubles.lock().unwrap().len()
}

#[test]
fn keeps_the_contract() {
    let mut store = MemoryStore::default();
    for (name, bytes) in conformance::content(true) {
        store.put(name, bytes, None);
    }
    conformance::check(&store, true);
    conformance::check(&Retrying::new(store, QUICK, Arc::default()), true);
}

#[test]
fn passing_trouble_is_waited_out_and_lasting_trouble_told() {
    let fails = || Trouble::Fails(transient());
    assert_eq!(layer([fails(), fails()]).stat("digits").unwrap().unwrap().size, 10);
    let error = layer([fails(), fails(), fails()]).stat("digits").unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Transient);
    assert_eq!(error.text, "the connection was reset (3 attempts)");
    // The number of attempts is that of one call.
    let layer = layer([fails(), fails(), Trouble::None, fails(), fails()]);
    assert!(layer.stat("digits").is_ok());
    assert!(layer.open("digits", None).is_ok());
    assert_eq!(left(&layer), 0);
}

#[test]
fn what_will_not_pass_is_not_tried_again() {
    use StorageErrorKind::*;
    for kind in [NoObject, NoContainer, Authentication, Permission, Protocol, Configuration, NotAnObject, NotFollowed, Cancelled] {
        let fails = || Trouble::Fails(StorageError::new(kind, "no"));
        let layer = layer([fails(), fails(), fails()]);
        assert_eq!(layer.stat("digits").unwrap_err(), StorageError::new(kind, "no"));
        assert_eq!(layer.open("digits", None).err().unwrap().kind, kind);
        assert_eq!(layer.list("", &mut |_| ControlFlow::Continue(())).unwrap_err().kind, kind);
        assert_eq!(left(&layer), 0);
    }
}

#[test]
fn a_listing_that_breaks_off_gives_each_object_once_in_whatever_order() {
    for backwards in [false, true] {
        let breaks = |objects| Trouble::BreaksAfter(objects, transient());
        let mut layer = layer([breaks(10), breaks(5), Trouble::None]);
        layer.store.backwards = backwards;
        let mut seen = Vec::new();
        layer
            .list("many-", &mut |info| {
                seen.push(info.name);
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(seen.len(), 3000);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 3000);
    }
}

#[test]
fn a_listing_that_gets_on_may_fail_more_often() {
    let breaks = |objects| Trouble::BreaksAfter(objects, transient());
    let all = |layer: &Retrying<Troubled>| layer.list("many-", &mut |_| ControlFlow::Continue(()));
    assert!(all(&layer([breaks(0), breaks(1000), breaks(1000), breaks(2000), breaks(2000), breaks(3000)])).is_ok());
    let stuck = layer([breaks(500), breaks(500), breaks(500)]);
    assert_eq!(all(&stuck).unwrap_err().kind, StorageErrorKind::Transient);
}

#[test]
fn a_stream_goes_on_where_it_broke_off() {
    let breaks = |bytes| Trouble::BreaksAfter(bytes, transient());
    let read = |layer: &Retrying<Troubled>, range| {
        let mut text = String::new();
        layer.open("digits", range).unwrap().read_to_string(&mut text).map(|_| text)
    };
    let whole = layer([breaks(4), Trouble::Fails(transient())]);
    assert_eq!(read(&whole, None).unwrap(), "0123456789");
    assert_eq!(*whole.store.opened.lock().unwrap(), [None, Some(4..u64::MAX), Some(4..u64::MAX)]);

    let part = layer([breaks(2), breaks(3)]);
    assert_eq!(read(&part, Some(1..8)).unwrap(), "1234567");
    assert_eq!(*part.store.opened.lock().unwrap(), [Some(1..8), Some(3..8), Some(6..8)]);

    // At its very end, and before its first byte.
    let ends = layer([breaks(10)]);
    assert_eq!(read(&ends, None).unwrap(), "0123456789");
    let begins = layer([breaks(0)]);
    assert_eq!(read(&begins, None).unwrap(), "0123456789");
    assert_eq!(*begins.store.opened.lock().unwrap(), [None, None]);

    let gone = layer([breaks(4), Trouble::Fails(StorageError::new(StorageErrorKind::NoObject, "gone"))]);
    let error = read(&gone, None).unwrap_err();
    assert_eq!(StorageError::of_io(&error).unwrap().kind, StorageErrorKind::NoObject);

    let lasting = layer([breaks(4), breaks(1), breaks(1)]);
    let error = read(&lasting, None).unwrap_err();
    assert_eq!(StorageError::of_io(&error).unwrap().text, "the connection was reset (3 attempts)");
}

#[test]
fn a_read_error_is_tried_once_more() {
    let media = || StorageError::new(StorageErrorKind::Media, "EIO");
    let (fails, breaks) = (|| Trouble::Fails(media()), |bytes| Trouble::BreaksAfter(bytes, media()));
    let once = layer([fails(), Trouble::None, fails(), breaks(3)]);
    assert_eq!(once.stat("digits").unwrap().unwrap().size, 10);
    let mut text = String::new();
    assert_eq!(once.open("digits", None).unwrap().read_to_string(&mut text).unwrap_err().to_string(), "EIO (2 attempts)");
    let passing = layer([breaks(3)]);
    passing.open("digits", None).unwrap().read_to_string(&mut text).unwrap();
    assert!(text.ends_with("0123456789"), "{text}");
    assert!(layer([breaks(5)]).list("many", &mut |_| ControlFlow::Continue(())).is_ok());

    let lasting = layer([fails(), fails(), Trouble::None, breaks(3), breaks(0), Trouble::None]);
    let error = lasting.stat("digits").unwrap_err();
    assert_eq!((error.kind, error.text.as_str()), (StorageErrorKind::Media, "EIO (2 attempts)"));
    assert!(lasting.stat("digits").is_ok());
    let error = lasting.open("digits", None).unwrap().read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(StorageError::of_io(&error).unwrap().kind, StorageErrorKind::Media);
    assert_eq!(left(&lasting), 1);
}

#[test]
fn a_stream_that_gets_on_may_fail_more_often() {
    let size = 3 * STREAM_PROGRESS as usize;
    let breaks = |bytes: u64| Trouble::BreaksAfter(bytes as usize, transient());
    let mut layer =
        layer([breaks(STREAM_PROGRESS), breaks(0), breaks(STREAM_PROGRESS), breaks(0), breaks(STREAM_PROGRESS), breaks(0), Trouble::None]);
    layer.store.store.put("big", vec![7; size], None);
    let mut bytes = Vec::new();
    layer.open("big", None).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), size);
}

#[test]
fn a_request_to_stop_ends_everything_soon() {
    let is_stopped = |error: &StorageError| error.kind == StorageErrorKind::Cancelled;
    let raised = layer([]);
    let mut reader = raised.open("digits", None).unwrap();
    assert_eq!(reader.read(&mut [0; 3]).unwrap(), 3);
    let mut seen = 0;
    let listed = raised.list("many-", &mut |_| {
        seen += 1;
        if seen == 5 {
            raised.cancelled.store(true, Ordering::Relaxed);
        }
        ControlFlow::Continue(())
    });
    assert!(is_stopped(&listed.unwrap_err()));
    assert_eq!(seen, 5);
    assert!(is_stopped(StorageError::of_io(&reader.read(&mut [0; 3]).unwrap_err()).unwrap()));
    assert!(is_stopped(&raised.stat("digits").unwrap_err()));
    assert!(is_stopped(&raised.open("digits", None).err().unwrap()));

    // While it waits for longer than anybody would.
    let hour = Duration::from_secs(3600);
    let policy = RetryPolicy { attempts: 2, backoff: Backoff { first: hour, longest: hour } };
    let troubled = Troubled { troubles: Mutex::new([Trouble::Fails(transient())].into()), ..Troubled::default() };
    let cancelled = Arc::new(AtomicBool::new(false));
    let waiting = Retrying::new(troubled, policy, Arc::clone(&cancelled));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let stat = scope.spawn(|| waiting.stat("x"));
        std::thread::sleep(Duration::from_millis(20));
        cancelled.store(true, Ordering::Relaxed);
        assert!(is_stopped(&stat.join().unwrap().unwrap_err()));
    });
    assert!(begun.elapsed() < Duration::from_secs(60));
}

#[test]
fn the_server_may_ask_for_a_longer_wait_up_to_a_limit() {
    let policy = RetryPolicy { attempts: 2, backoff: Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(80) } };
    let waits = |retry_after| {
        let error = StorageError { retry_after, ..transient() };
        let begun = Instant::now();
        let mut tries = Tries::new(policy, Duration::from_secs(60));
        tries.after(error, &AtomicBool::new(false)).unwrap();
        begun.elapsed()
    };
    assert!(waits(Some(1_000_000)) >= Duration::from_millis(80));
    assert!(waits(Some(u64::MAX)) < Duration::from_secs(30));
    // Waits grow and stay bounded, also after very many failures.
    let mut tries = Tries::new(RetryPolicy { attempts: u32::MAX, ..QUICK }, Duration::from_secs(60));
    tries.failed = u32::MAX - 2;
    tries.after(transient(), &AtomicBool::new(false)).unwrap();
}

/// With so many failures before it comes back.
fn away(failures: usize, patience: Patience) -> Retrying<Troubled> {
    layer((0..failures).map(|_| Trouble::Fails(transient()))).with_health(Arc::new(Health::new(patience)))
}

#[test]
fn a_storage_that_is_away_is_not_waited_for_once_for_each_object() {
    let patience = Patience { all: Duration::from_secs(1), pause: Duration::from_millis(100) };
    let layer = away(1_000_000, patience);
    let begun = Instant::now();
    let kinds: Vec<StorageErrorKind> = (0..1000)
        .map(|number| match number % 3 {
            0 => layer.stat("digits").unwrap_err().kind,
            1 => layer.open("digits", None).err().unwrap().kind,
            _ => layer.list("many", &mut |_| ControlFlow::Continue(())).unwrap_err().kind,
        })
        .collect();
    // Three with all their attempts, and then one attempt from time to time.
    assert_eq!(kinds[..3], [StorageErrorKind::Transient; 3]);
    let asked = 1_000_000 - left(&layer);
    let looks = begun.elapsed().as_millis() as usize / 100 + 1;
    assert!((9..=9 + looks).contains(&asked), "{asked} {looks}");
    assert!(kinds.iter().filter(|kind| **kind == StorageErrorKind::Away).count() >= 1000 - 3 - looks);
    let error = layer.stat("digits").unwrap_err();
    assert!(
        error.kind == StorageErrorKind::Transient || error.text == "storage unreachable, giving up after 1 s: the connection was reset",
        "{error}"
    );
}

#[test]
fn a_storage_that_comes_back_is_waited_for() {
    // All attempts of three calls, and two looks.
    let layer = away(3 * 3 + 2, Patience { all: Duration::from_secs(60), pause: Duration::from_millis(5) });
    for _ in 0..5 {
        assert_eq!(layer.stat("digits").unwrap_err().kind, StorageErrorKind::Transient);
    }
    let mut bytes = Vec::new();
    layer.open("digits", None).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"0123456789");
    // What is not there is an answer, too, and so are failures with something good between them.
    let fails = || (0..3).map(|_| Trouble::Fails(transient()));
    let layer = self::layer((0..20).flat_map(|_| fails().chain([Trouble::None])));
    for _ in 0..20 {
        assert_eq!(layer.stat("digits").unwrap_err().kind, StorageErrorKind::Transient);
        assert_eq!(layer.stat("nothing").unwrap(), None);
    }
    assert_eq!(left(&layer), 0);
}

#[test]
fn who_waits_for_a_storage_that_is_away_can_be_stopped() {
    let layer = away(1_000, Patience { all: Duration::from_secs(3_600), pause: Duration::from_secs(3_600) });
    for _ in 0..3 {
        assert_eq!(layer.stat("digits").unwrap_err().kind, StorageErrorKind::Transient);
    }
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| layer.stat("digits").unwrap_err().kind);
        std::thread::sleep(Duration::from_millis(20));
        layer.cancelled.store(true, Ordering::Relaxed);
        assert_eq!(waits.join().unwrap(), StorageErrorKind::Cancelled);
    });
}

#[test]
fn a_container_in_trouble_does_not_speak_for_the_others_of_its_server() {
    let patience = Patience { all: Duration::from_millis(400), pause: Duration::from_secs(3_600) };
    let server = Arc::new(Health::new(patience));
    let container = |troubles: usize, text: &str| {
        let error = StorageError::new(StorageErrorKind::Transient, text);
        layer((0..troubles).map(|_| Trouble::Fails(error.clone()))).with_health(Arc::new(Health::below(Arc::clone(&server))))
    };
    let given_up = |layer: &Retrying<Troubled>| {
        let begun = Instant::now();
        loop {
            let error = layer.stat("digits").unwrap_err();
            if error.kind == StorageErrorKind::Away {
                return error.text;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "{error}");
        }
    };
    let (bad, good) = (container(1_000_000, "503 of the bad one"), container(0, ""));
    given_up(&bad);
    for _ in 0..20 {
        assert_eq!(good.stat("digits").unwrap().unwrap().size, 10);
        assert_eq!(good.open("digits", None).unwrap().read_to_end(&mut Vec::new()).unwrap(), 10);
    }
    // That others answer does not help the one that does not.
    assert!(given_up(&bad).contains("503 of the bad one"));
    // What answered until now is tried as often as ever, though the server is thought to be away.
    let asleep = container(0, "");
    assert!(asleep.stat("digits").is_ok());
    let another = container(1_000_000, "503 of another");
    given_up(&another);
    asleep.store.troubles.lock().unwrap().extend([Trouble::Fails(transient()), Trouble::Fails(transient())]);
    assert!(asleep.stat("digits").is_ok());

    // Where all of a server is away, each container asks once, and then waits no longer than the others; it quotes itself.
    given_up(&container(1_000_000, "503 of a third"));
    let late = container(1_000_000, "503 of a late one");
    server.spoke();
    assert_eq!(late.stat("digits").unwrap_err().text, "503 of a late one");
    assert_eq!(1_000_000 - left(&late), 1);
    assert!(given_up(&late).contains("503 of a late one"));
    assert_eq!(1_000_000 - left(&late), 1);
}

#[test]
fn a_server_that_gives_no_answer_at_all_is_no_trouble_of_a_container() {
    let patience = Patience { all: Duration::from_millis(50), pause: Duration::from_secs(3_600) };
    let server = Arc::new(Health::new(patience));
    let container = || layer((0..1_000).map(|_| Trouble::Fails(transient()))).with_health(Arc::new(Health::below(Arc::clone(&server))));
    let first = container();
    while first.stat("digits").unwrap_err().kind != StorageErrorKind::Away {}
    // One other is asked, for it may be the first alone; then none.
    let others: Vec<_> = (0..20).map(|_| container()).collect();
    for other in &others {
        assert_eq!(other.stat("digits").unwrap_err().kind, StorageErrorKind::Away);
    }
    assert_eq!(others.iter().map(|other| 1_000 - left(other)).sum::<usize>(), 1);
    // Until one of them has an answer.
    server.answered();
    let asked = left(&others[7]);
    assert!(others[7].stat("digits").is_err());
    assert!(left(&others[7]) < asked);
}

#[test]
fn no_call_waits_longer_than_a_storage_is_waited_for() {
    // Whatever others have meanwhile.
    let most = Duration::from_secs(60);
    let mut tries = Tries::new(RetryPolicy { attempts: u32::MAX, ..QUICK }, most);
    tries.waited = most - Duration::from_secs(1);
    assert!(tries.after(transient(), &AtomicBool::new(false)).is_ok());
    tries.waited = most;
    assert_eq!(tries.after(transient(), &AtomicBool::new(false)).unwrap_err().text, "the connection was reset (2 attempts)");
    // Nor does it pause longer than that.
    let pauses =
        RetryPolicy { attempts: u32::MAX, backoff: Backoff { first: Duration::from_secs(600), longest: Duration::from_secs(600) } };
    let mut tries = Tries::new(pauses, Duration::from_millis(20));
    assert!(tries.after(transient(), &AtomicBool::new(false)).is_ok());
    assert!(tries.after(transient(), &AtomicBool::new(false)).is_err());
}

#[test]
fn an_answer_is_waited_for_no_longer_than_is_left() {
    let health = Health::new(Patience::of(Duration::from_secs(60)));
    let seconds = |usual| health.limit(Duration::from_secs(usual)).as_secs_f64().round();
    // A second attempt is left.
    assert_eq!((seconds(300), seconds(10)), (30.0, 10.0));
    // `rbd diff` of a large image, and the listing of a large bucket, give nothing for minutes: who asks for more patience has it.
    let patient = Health::new(Patience::of(Duration::from_secs(1800)));
    assert_eq!(patient.limit(Duration::from_secs(60)), Duration::from_secs(900));
    assert_eq!(Health::new(Patience::of(Duration::from_secs(4))).limit(Duration::from_secs(1)), Duration::from_secs(1));
    health.stumbled(Duration::from_secs(45));
    assert_eq!((seconds(300), seconds(10)), (15.0, 10.0));
    health.stumbled(Duration::from_secs(10));
    health.stumbled(Duration::from_secs(600));
    assert_eq!(seconds(300), 15.0, "the first failure counts");
    health.answered();
    health.stumbled(Duration::from_secs(600));
    assert_eq!(seconds(300), 30.0, "what came before the answer does not");
}
