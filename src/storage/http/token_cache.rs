//! A cache for the token of a login. There is one login at a time, and no more than needed, even if many requests fail at once.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::HttpResponse;
use crate::parallel::lock;
use crate::storage::{StorageError, StorageErrorKind};

/// A token from a login.
#[derive(Debug)]
struct CachedToken<S> {
    /// The token, with other results of the login.
    token: S,
    until: Option<Instant>,
    /// The server has accepted the token.
    accepted: AtomicBool,
}

/// A cache for one token.
#[derive(Debug)]
pub(in crate::storage) struct TokenCache<S> {
    state: Mutex<State<S>>,
    /// Logins that failed.
    failures: AtomicU64,
}

#[derive(Debug)]
struct State<S> {
    cached: Option<Arc<CachedToken<S>>>,
    /// The error of the last login. After a permanent one there is no other login, because refused credentials may lock the account.
    error: Option<StorageError>,
}

impl<S> Default for TokenCache<S> {
    fn default() -> Self {
        Self { state: Mutex::new(State { cached: None, error: None }), failures: AtomicU64::new(0) }
    }
}

impl<S> TokenCache<S> {
    /// Sends a request with a token, and repeats it with a new one if the token is refused.
    pub(in crate::storage) fn send(
        &self,
        login: impl Fn() -> Result<(S, Option<Instant>), StorageError>,
        request: impl Fn(&S) -> Result<HttpResponse, StorageError>,
    ) -> Result<HttpResponse, StorageError> {
        let mut cached = self.get(None, &login)?;
        let mut response = request(&cached.token)?;
        if response.status() == 401 {
            cached = self.get(Some(&cached), &login)?;
            response = request(&cached.token)?;
        }
        if !matches!(response.status(), 401 | 500..) {
            cached.accepted.store(true, Ordering::Relaxed);
        }
        Ok(response)
    }

    /// Returns the cached token, or logs in if there is none, if it has expired or if it is the `refused` one. `login` also returns
    /// when the token expires. Other callers wait for it.
    ///
    /// # Errors
    /// Those of the login. A token that the server never accepted is not replaced.
    fn get(
        &self,
        refused: Option<&Arc<CachedToken<S>>>,
        login: impl FnOnce() -> Result<(S, Option<Instant>), StorageError>,
    ) -> Result<Arc<CachedToken<S>>, StorageError> {
        let failures = self.failures.load(Ordering::Relaxed);
        let mut state = lock(&self.state);
        // Callers that waited for a failed login share its error. Otherwise they would log in one after the other.
        if let Some(error) = &state.error
            && (!error.is_transient() || self.failures.load(Ordering::Relaxed) != failures)
        {
            return Err(error.clone());
        }
        if let Some(cached) = state.cached.as_ref().filter(|cached| cached.until.is_none_or(|until| Instant::now() < until)) {
            if !refused.is_some_and(|refused| Arc::ptr_eq(refused, cached)) {
                return Ok(Arc::clone(cached));
            }
            if !cached.accepted.load(Ordering::Relaxed) {
                let text = "the storage refuses a new token (401); check that the login belongs to this storage";
                let error = StorageError::new(StorageErrorKind::Authentication, text);
                return Err(state.error.insert(error).clone());
            }
        }
        match login() {
            Ok((token, until)) => {
                let cached = Arc::new(CachedToken { token, until, accepted: AtomicBool::new(false) });
                (state.cached, state.error) = (Some(Arc::clone(&cached)), None);
                Ok(cached)
            }
            Err(error) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                Err(state.error.insert(error).clone())
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::*;

    #[test]
    fn many_refusals_of_one_token_are_one_login() {
        let token_cache = TokenCache::default();
        let logins = Cell::new(0);
        let login = || {
            logins.set(logins.get() + 1);
            Ok(((), None))
        };
        let old = token_cache.get(None, login).unwrap();
        old.accepted.store(true, Ordering::Relaxed);
        let new = token_cache.get(Some(&old), login).unwrap();
        for _ in 0..5 {
            assert!(Arc::ptr_eq(&token_cache.get(Some(&old), login).unwrap(), &new));
            assert!(Arc::ptr_eq(&token_cache.get(None, login).unwrap(), &new));
        }
        assert_eq!(logins.get(), 2);
        // The server never accepted the new token: no further login.
        for _ in 0..3 {
            assert_eq!(token_cache.get(Some(&new), login).unwrap_err().kind, StorageErrorKind::Authentication);
        }
        assert_eq!(logins.get(), 2);
    }

    #[test]
    fn refused_credentials_are_tried_once_and_transient_errors_again() {
        let token_cache = TokenCache::<()>::default();
        let fail = |kind| move || Err(StorageError::new(kind, "no"));
        assert!(token_cache.get(None, fail(StorageErrorKind::Transient)).unwrap_err().is_transient());
        assert_eq!(token_cache.get(None, fail(StorageErrorKind::Authentication)).unwrap_err().kind, StorageErrorKind::Authentication);
        assert_eq!(token_cache.get(None, || Ok(((), None))).unwrap_err().kind, StorageErrorKind::Authentication);
    }

    #[test]
    fn callers_that_wait_for_a_login_share_its_error() {
        let (token_cache, logins) = (TokenCache::<()>::default(), AtomicU64::new(0));
        let (tell, told) = std::sync::mpsc::channel::<()>();
        let told = Mutex::new(told);
        let login = || {
            logins.fetch_add(1, Ordering::Relaxed);
            told.lock().unwrap().recv().unwrap();
            Err(StorageError::new(StorageErrorKind::Transient, "no response in time"))
        };
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(|| token_cache.get(None, login).unwrap_err())).collect();
            // All callers wait when the first login ends; a late one logs in itself.
            std::thread::sleep(Duration::from_millis(200));
            drop(std::iter::repeat_with(|| tell.send(())).take(8).collect::<Vec<_>>());
            for one in all {
                assert!(one.join().unwrap().is_transient());
            }
        });
        assert!(logins.load(Ordering::Relaxed) < 8);
        // Later it is tried again.
        assert!(token_cache.get(None, || Ok(((), None))).is_ok());
    }

    #[test]
    fn a_token_that_has_run_out_is_replaced_unasked() {
        let token_cache = TokenCache::default();
        let number = Cell::new(0);
        let login = |life: u64| {
            number.set(number.get() + 1);
            Ok((number.get(), Some(Instant::now() + Duration::from_secs(life))))
        };
        assert_eq!(token_cache.get(None, || login(0)).unwrap().token, 1);
        assert_eq!(token_cache.get(None, || login(60)).unwrap().token, 2);
        assert_eq!(token_cache.get(None, || login(60)).unwrap().token, 2);
    }
}
