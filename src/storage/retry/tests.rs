//! The layer over a store that fails as scripted.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::*;
use crate::storage::{MemoryStore, WaitLimit, conformance};

const QUICK: RetryPolicy =
    RetryPolicy { attempts: 3, backoff: Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(4) } };

/// What happens to the next call.
#[derive(Debug, Clone)]
enum Event {
    /// It fails.
    Fails(StorageError),
    /// It breaks off after this number of objects or bytes.
    BreaksAfter(usize, StorageError),
    None,
}

#[derive(Debug, Default)]
struct ScriptedStore {
    store: MemoryStore,
    events: Mutex<VecDeque<Event>>,
    /// The range of every call of `open`.
    opened: Mutex<Vec<Option<Range<u64>>>>,
    backwards: bool,
}

impl ScriptedStore {
    fn next(&self) -> Event {
        self.events.lock().unwrap().pop_front().unwrap_or(Event::None)
    }
}

struct BreakingReader<'a>(Box<dyn Read + Send + 'a>, usize, StorageError);

impl Read for BreakingReader<'_> {
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

impl ObjectStore for ScriptedStore {
    fn location(&self) -> &str {
        "trouble"
    }

    fn concurrency(&self) -> usize {
        1
    }

    fn list(&self, prefix: &str, each: &mut dyn FnMut(ObjectInfo) -> ControlFlow<()>) -> Result<(), StorageError> {
        let (mut left, error) = match self.next() {
            Event::Fails(error) => return Err(error),
            Event::BreaksAfter(objects, error) => (objects, Some(error)),
            Event::None => (usize::MAX, None),
        };
        let mut all = Vec::new();
        self.store.list(prefix, &mut |info| {
            all.push(info);
            ControlFlow::Continue(())
        })?;
        // Listings differ in order.
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
            Event::None => self.store.stat(name),
            Event::Fails(error) | Event::BreaksAfter(_, error) => Err(error),
        }
    }

    fn open(&self, name: &str, range: Option<Range<u64>>) -> Result<Box<dyn Read + Send + '_>, StorageError> {
        self.opened.lock().unwrap().push(range.clone());
        match self.next() {
            Event::None => self.store.open(name, range),
            Event::Fails(error) => Err(error),
            Event::BreaksAfter(bytes, error) => Ok(Box::new(BreakingReader(self.store.open(name, range)?, bytes, error))),
        }
    }
}

fn transient() -> StorageError {
    StorageError::new(StorageErrorKind::Transient, "the connection was reset")
}

fn layer(events: impl IntoIterator<Item = Event>) -> RetryingStore<ScriptedStore> {
    layer_with(Health::default(), events)
}

fn layer_with(health: Health, events: impl IntoIterator<Item = Event>) -> RetryingStore<ScriptedStore> {
    let mut store = MemoryStore::default();
    for number in 0..3000 {
        store.put(format!("many-{number:05}"), number.to_string(), None);
    }
    store.put("digits", "0123456789", None);
    let store = ScriptedStore { store, events: Mutex::new(events.into_iter().collect()), ..ScriptedStore::default() };
    RetryingStore::new(store, QUICK, Arc::default(), Arc::new(health), Arc::default())
}

fn left(layer: &RetryingStore<ScriptedStore>) -> usize {
    layer.store.events.lock().unwrap().len()
}

#[test]
fn conforms_to_the_trait() {
    let mut store = MemoryStore::default();
    for (name, bytes) in conformance::content(true) {
        store.put(name, bytes, None);
    }
    conformance::check(&store, true);
    conformance::check(&RetryingStore::new(store, QUICK, Arc::default(), Arc::default(), Arc::default()), true);
}

#[test]
fn transient_errors_are_retried_and_lasting_ones_reported() {
    let fails = || Event::Fails(transient());
    assert_eq!(layer([fails(), fails()]).stat("digits").unwrap().unwrap().size, 10);
    let error = layer([fails(), fails(), fails()]).stat("digits").unwrap_err();
    assert_eq!(error.kind, StorageErrorKind::Transient);
    assert_eq!(error.text, "the connection was reset (3 attempts)");
    // Attempts are counted for each call.
    let layer = layer([fails(), fails(), Event::None, fails(), fails()]);
    assert!(layer.stat("digits").is_ok());
    assert!(layer.open("digits", None).is_ok());
    assert_eq!(left(&layer), 0);
}

#[test]
fn permanent_errors_are_not_retried() {
    use StorageErrorKind::*;
    for kind in [NoObject, NoContainer, Authentication, Permission, Protocol, Configuration, NotAnObject, NotFollowed, Cancelled] {
        let fails = || Event::Fails(StorageError::new(kind, "no"));
        let layer = layer([fails(), fails(), fails()]);
        assert_eq!(layer.stat("digits").unwrap_err(), StorageError::new(kind, "no"));
        assert_eq!(layer.open("digits", None).err().unwrap().kind, kind);
        assert_eq!(layer.list("", &mut |_| ControlFlow::Continue(())).unwrap_err().kind, kind);
        assert_eq!(left(&layer), 0);
    }
}

#[test]
fn a_listing_that_breaks_off_gives_each_object_once_in_any_order() {
    for backwards in [false, true] {
        let breaks = |objects| Event::BreaksAfter(objects, transient());
        let mut layer = layer([breaks(10), breaks(5), Event::None]);
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
fn a_listing_with_progress_may_fail_more_often() {
    let breaks = |objects| Event::BreaksAfter(objects, transient());
    let all = |layer: &RetryingStore<ScriptedStore>| layer.list("many-", &mut |_| ControlFlow::Continue(()));
    assert!(all(&layer([breaks(0), breaks(1000), breaks(1000), breaks(2000), breaks(2000), breaks(3000)])).is_ok());
    let stuck = layer([breaks(500), breaks(500), breaks(500)]);
    assert_eq!(all(&stuck).unwrap_err().kind, StorageErrorKind::Transient);
}

#[test]
fn a_stream_continues_where_it_broke_off() {
    let breaks = |bytes| Event::BreaksAfter(bytes, transient());
    let read = |layer: &RetryingStore<ScriptedStore>, range| {
        let mut text = String::new();
        layer.open("digits", range).unwrap().read_to_string(&mut text).map(|_| text)
    };
    let whole = layer([breaks(4), Event::Fails(transient())]);
    assert_eq!(read(&whole, None).unwrap(), "0123456789");
    assert_eq!(*whole.store.opened.lock().unwrap(), [None, Some(4..u64::MAX), Some(4..u64::MAX)]);

    let part = layer([breaks(2), breaks(3)]);
    assert_eq!(read(&part, Some(1..8)).unwrap(), "1234567");
    assert_eq!(*part.store.opened.lock().unwrap(), [Some(1..8), Some(3..8), Some(6..8)]);

    // At the end, and before the first byte.
    let ends = layer([breaks(10)]);
    assert_eq!(read(&ends, None).unwrap(), "0123456789");
    let begins = layer([breaks(0)]);
    assert_eq!(read(&begins, None).unwrap(), "0123456789");
    assert_eq!(*begins.store.opened.lock().unwrap(), [None, None]);

    let gone = layer([breaks(4), Event::Fails(StorageError::new(StorageErrorKind::NoObject, "gone"))]);
    let error = read(&gone, None).unwrap_err();
    assert_eq!(StorageError::of_io(&error).unwrap().kind, StorageErrorKind::NoObject);

    let lasting = layer([breaks(4), breaks(1), breaks(1)]);
    let error = read(&lasting, None).unwrap_err();
    assert_eq!(StorageError::of_io(&error).unwrap().text, "the connection was reset (3 attempts)");
}

#[test]
fn a_read_error_is_retried_once() {
    let media = || StorageError::new(StorageErrorKind::Media, "EIO");
    let (fails, breaks) = (|| Event::Fails(media()), |bytes| Event::BreaksAfter(bytes, media()));
    let once = layer([fails(), Event::None, fails(), breaks(3)]);
    assert_eq!(once.stat("digits").unwrap().unwrap().size, 10);
    let mut text = String::new();
    assert_eq!(once.open("digits", None).unwrap().read_to_string(&mut text).unwrap_err().to_string(), "EIO (2 attempts)");
    let passing = layer([breaks(3)]);
    passing.open("digits", None).unwrap().read_to_string(&mut text).unwrap();
    assert!(text.ends_with("0123456789"), "{text}");
    assert!(layer([breaks(5)]).list("many", &mut |_| ControlFlow::Continue(())).is_ok());

    let lasting = layer([fails(), fails(), Event::None, breaks(3), breaks(0), Event::None]);
    let error = lasting.stat("digits").unwrap_err();
    assert_eq!((error.kind, error.text.as_str()), (StorageErrorKind::Media, "EIO (2 attempts)"));
    assert!(lasting.stat("digits").is_ok());
    let error = lasting.open("digits", None).unwrap().read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(StorageError::of_io(&error).unwrap().kind, StorageErrorKind::Media);
    assert_eq!(left(&lasting), 1);
}

#[test]
fn a_stream_with_progress_may_fail_more_often() {
    let size = 3 * STREAM_PROGRESS as usize;
    let breaks = |bytes: u64| Event::BreaksAfter(bytes as usize, transient());
    let mut layer =
        layer([breaks(STREAM_PROGRESS), breaks(0), breaks(STREAM_PROGRESS), breaks(0), breaks(STREAM_PROGRESS), breaks(0), Event::None]);
    layer.store.store.put("big", vec![7; size], None);
    let mut bytes = Vec::new();
    layer.open("big", None).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes.len(), size);
}

#[test]
fn a_request_to_stop_ends_every_call() {
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

    // During a long pause.
    let hour = Duration::from_secs(3600);
    let policy = RetryPolicy { attempts: 2, backoff: Backoff { first: hour, longest: hour } };
    let store = ScriptedStore { events: Mutex::new([Event::Fails(transient())].into()), ..ScriptedStore::default() };
    let cancelled = Arc::new(AtomicBool::new(false));
    let waiting = RetryingStore::new(store, policy, Arc::clone(&cancelled), Arc::default(), Arc::default());
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
fn the_server_may_ask_for_a_longer_pause_up_to_a_limit() {
    let policy = RetryPolicy { attempts: 2, backoff: Backoff { first: Duration::from_millis(1), longest: Duration::from_millis(80) } };
    let waits = |retry_after| {
        let error = StorageError { retry_after, ..transient() };
        let begun = Instant::now();
        let mut attempts = Attempts::new(policy, Duration::from_secs(60));
        attempts.pause_after(error, &AtomicBool::new(false)).unwrap();
        begun.elapsed()
    };
    assert!(waits(Some(1_000_000)) >= Duration::from_millis(80));
    assert!(waits(Some(u64::MAX)) < Duration::from_secs(30));
    // Pauses stay bounded after many failures.
    let mut attempts = Attempts::new(RetryPolicy { attempts: u32::MAX, ..QUICK }, Duration::from_secs(60));
    attempts.failed = u32::MAX - 2;
    attempts.pause_after(transient(), &AtomicBool::new(false)).unwrap();
}

/// A layer over a store that fails this number of times before it recovers.
fn failing(failures: usize, limit: WaitLimit) -> RetryingStore<ScriptedStore> {
    layer_with(Health::new(limit), (0..failures).map(|_| Event::Fails(transient())))
}

#[test]
fn an_unreachable_storage_is_not_waited_for_once_for_each_object() {
    let limit = WaitLimit { total: Duration::from_secs(1), probe_interval: Duration::from_millis(100) };
    let layer = failing(1_000_000, limit);
    let begun = Instant::now();
    let kinds: Vec<StorageErrorKind> = (0..1000)
        .map(|number| match number % 3 {
            0 => layer.stat("digits").unwrap_err().kind,
            1 => layer.open("digits", None).err().unwrap().kind,
            _ => layer.list("many", &mut |_| ControlFlow::Continue(())).unwrap_err().kind,
        })
        .collect();
    // Three calls with all their attempts, then one probe in each interval.
    assert_eq!(kinds[..3], [StorageErrorKind::Transient; 3]);
    let asked = 1_000_000 - left(&layer);
    let probes = begun.elapsed().as_millis() as usize / 100 + 1;
    assert!((9..=9 + probes).contains(&asked), "{asked} {probes}");
    assert!(kinds.iter().filter(|kind| **kind == StorageErrorKind::Unreachable).count() >= 1000 - 3 - probes);
    let error = layer.stat("digits").unwrap_err();
    assert!(
        error.kind == StorageErrorKind::Transient || error.text == "storage unreachable, giving up after 1 s: the connection was reset",
        "{error}"
    );
}

#[test]
fn a_storage_that_recovers_is_waited_for() {
    // All attempts of three calls, and two probes.
    let layer = failing(3 * 3 + 2, WaitLimit { total: Duration::from_secs(60), probe_interval: Duration::from_millis(5) });
    for _ in 0..5 {
        assert_eq!(layer.stat("digits").unwrap_err().kind, StorageErrorKind::Transient);
    }
    let mut bytes = Vec::new();
    layer.open("digits", None).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"0123456789");
    // An absent object is progress, and a success between failures resets their count.
    let fails = || (0..3).map(|_| Event::Fails(transient()));
    let layer = self::layer((0..20).flat_map(|_| fails().chain([Event::None])));
    for _ in 0..20 {
        assert_eq!(layer.stat("digits").unwrap_err().kind, StorageErrorKind::Transient);
        assert_eq!(layer.stat("nothing").unwrap(), None);
    }
    assert_eq!(left(&layer), 0);
}

#[test]
fn a_call_that_waits_for_an_unreachable_storage_can_be_stopped() {
    let layer = failing(1_000, WaitLimit { total: Duration::from_secs(3_600), probe_interval: Duration::from_secs(3_600) });
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
fn a_failing_container_does_not_stop_others_of_its_server() {
    let limit = WaitLimit { total: Duration::from_millis(400), probe_interval: Duration::from_secs(3_600) };
    let server = Arc::new(Health::new(limit));
    let container = |events: usize, text: &str| {
        let error = StorageError::new(StorageErrorKind::Transient, text);
        layer_with(Health::of_container(Arc::clone(&server)), (0..events).map(|_| Event::Fails(error.clone())))
    };
    let given_up = |layer: &RetryingStore<ScriptedStore>| {
        let begun = Instant::now();
        loop {
            let error = layer.stat("digits").unwrap_err();
            if error.kind == StorageErrorKind::Unreachable {
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
    // The success of others does not help the failing container.
    assert!(given_up(&bad).contains("503 of the bad one"));
    // A container that worked so far has all its attempts although the server counts as unreachable.
    let asleep = container(0, "");
    assert!(asleep.stat("digits").is_ok());
    let another = container(1_000_000, "503 of another");
    given_up(&another);
    asleep.store.events.lock().unwrap().extend([Event::Fails(transient()), Event::Fails(transient())]);
    assert!(asleep.stat("digits").is_ok());

    // If the whole server is unreachable, each container tries once and gives up with the others. Its error is its own.
    given_up(&container(1_000_000, "503 of a third"));
    let late = container(1_000_000, "503 of a late one");
    server.responded();
    assert_eq!(late.stat("digits").unwrap_err().text, "503 of a late one");
    assert_eq!(1_000_000 - left(&late), 1);
    assert!(given_up(&late).contains("503 of a late one"));
    assert_eq!(1_000_000 - left(&late), 1);
}

#[test]
fn a_silent_server_stops_all_its_containers() {
    let limit = WaitLimit { total: Duration::from_millis(50), probe_interval: Duration::from_secs(3_600) };
    let server = Arc::new(Health::new(limit));
    let container = || layer_with(Health::of_container(Arc::clone(&server)), (0..1_000).map(|_| Event::Fails(transient())));
    let first = container();
    while first.stat("digits").unwrap_err().kind != StorageErrorKind::Unreachable {}
    // One other container is tried, because the first one may be silent alone; then none.
    let others: Vec<_> = (0..20).map(|_| container()).collect();
    for other in &others {
        assert_eq!(other.stat("digits").unwrap_err().kind, StorageErrorKind::Unreachable);
    }
    assert_eq!(others.iter().map(|other| 1_000 - left(other)).sum::<usize>(), 1);
    // Until one of them makes progress.
    server.progressed();
    let asked = left(&others[7]);
    assert!(others[7].stat("digits").is_err());
    assert!(left(&others[7]) < asked);
}

/// Two calls of a container that works reached the silent server at once: one was sent, and the other gave up before its answer came.
#[test]
fn calls_wait_for_the_answer_of_the_one_that_probes_a_silent_server() {
    let limit = WaitLimit { total: Duration::from_secs(20), probe_interval: Duration::from_secs(3_600) };
    let server = Arc::new(Health::new(limit));
    let (bad, good) = (Health::of_container(Arc::clone(&server)), Health::of_container(Arc::clone(&server)));
    bad.attempt_failed(limit.total);
    bad.call_failed(&transient());
    let running = AtomicBool::new(false);
    good.wait(&running).unwrap();
    std::thread::scope(|scope| {
        let second = scope.spawn(|| good.wait(&running));
        std::thread::sleep(Duration::from_millis(300));
        assert!(!second.is_finished());
        good.progressed();
        assert!(second.join().unwrap().is_ok());
    });
}

/// If each waiting call became the next probe, every container would wait for the time-out once more.
#[test]
fn calls_that_wait_for_a_probe_of_a_silent_server_give_up_with_it() {
    let limit = WaitLimit { total: Duration::from_secs(2), probe_interval: Duration::from_secs(3_600) };
    let server = Arc::new(Health::new(limit));
    server.attempt_failed(limit.total);
    let running = AtomicBool::new(false);
    let containers: Vec<Health> = std::iter::repeat_with(|| Health::of_container(Arc::clone(&server))).take(9).collect();
    let sent = containers.iter().filter(|container| {
        // The failure of a call that was sent before.
        server.call_failed(&transient());
        container.wait(&running).is_ok()
    });
    assert_eq!(sent.count(), 1);
}

#[test]
fn no_call_waits_longer_than_the_total() {
    // Independent of the progress of other calls.
    let most = Duration::from_secs(60);
    let mut attempts = Attempts::new(RetryPolicy { attempts: u32::MAX, ..QUICK }, most);
    attempts.waited = most - Duration::from_secs(1);
    assert!(attempts.pause_after(transient(), &AtomicBool::new(false)).is_ok());
    attempts.waited = most;
    assert_eq!(attempts.pause_after(transient(), &AtomicBool::new(false)).unwrap_err().text, "the connection was reset (2 attempts)");
    // A single pause is not longer either.
    let pauses =
        RetryPolicy { attempts: u32::MAX, backoff: Backoff { first: Duration::from_secs(600), longest: Duration::from_secs(600) } };
    let mut attempts = Attempts::new(pauses, Duration::from_millis(20));
    assert!(attempts.pause_after(transient(), &AtomicBool::new(false)).is_ok());
    assert!(attempts.pause_after(transient(), &AtomicBool::new(false)).is_err());
}

#[test]
fn a_response_is_waited_for_no_longer_than_is_left() {
    let health = Health::new(WaitLimit::of(Duration::from_secs(60)));
    let seconds = |usual| health.response_limit(Duration::from_secs(usual)).as_secs_f64().round();
    // Half of the total, so that there is time for a second attempt.
    assert_eq!((seconds(300), seconds(10)), (30.0, 10.0));
    // `rbd diff` of a large image, and the listing of a large bucket, return nothing for minutes, so a longer limit is possible.
    let patient = Health::new(WaitLimit::of(Duration::from_secs(1800)));
    assert_eq!(patient.response_limit(Duration::from_secs(60)), Duration::from_secs(900));
    assert_eq!(Health::new(WaitLimit::of(Duration::from_secs(4))).response_limit(Duration::from_secs(1)), Duration::from_secs(1));
    health.attempt_failed(Duration::from_secs(45));
    assert_eq!((seconds(300), seconds(10)), (15.0, 10.0));
    health.attempt_failed(Duration::from_secs(10));
    health.attempt_failed(Duration::from_secs(600));
    assert_eq!(seconds(300), 15.0, "the first failure counts");
    health.progressed();
    health.attempt_failed(Duration::from_secs(600));
    assert_eq!(seconds(300), 30.0, "what came before the answer does not");
}
