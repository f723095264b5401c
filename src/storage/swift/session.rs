//! Tokens: one login at a time, and no more logins than are needed, however many requests are refused at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::login::Session;
use crate::storage::{StorageError, StorageErrorKind};

/// A token in use.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) session: Session,
    proven: AtomicBool,
}

impl Live {
    /// The server has taken the token.
    pub(super) fn prove(&self) {
        self.proven.store(true, Ordering::Relaxed);
    }
}

/// The token for one project.
#[derive(Debug, Default)]
pub(super) struct Slot {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    live: Option<Arc<Live>>,
    /// Credentials that were refused once are not tried again: accounts are locked for less.
    failed: Option<StorageError>,
}

impl Slot {
    /// A token: the one in use, or, where that is the `refused` one or there is none, that of a new login. Whoever comes
    /// meanwhile waits for it.
    ///
    /// # Errors
    /// Those of the login. A token that the server has refused from the start is not replaced by another.
    pub(super) fn live(
        &self,
        refused: Option<&Arc<Live>>,
        login: impl FnOnce() -> Result<Session, StorageError>,
    ) -> Result<Arc<Live>, StorageError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        if let Some(live) = &state.live {
            if !refused.is_some_and(|refused| Arc::ptr_eq(refused, live)) {
                return Ok(Arc::clone(live));
            }
            if !live.proven.load(Ordering::Relaxed) {
                let text =
                    "Swift refuses the token that the login has just given (401); do Swift and backup_swift_auth_url belong together?";
                let error = StorageError::new(StorageErrorKind::Authentication, text);
                state.failed = Some(error.clone());
                return Err(error);
            }
        }
        match login() {
            Ok(session) => {
                let live = Arc::new(Live { session, proven: AtomicBool::new(false) });
                state.live = Some(Arc::clone(&live));
                Ok(live)
            }
            Err(error) => {
                if !error.is_transient() {
                    state.failed = Some(error.clone());
                }
                Err(error)
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::cell::Cell;

    use secrecy::SecretString;

    use super::*;

    fn session() -> Result<Session, StorageError> {
        Ok(Session { token: SecretString::from("t"), storage_url: None, project: None })
    }

    #[test]
    fn many_refusals_of_one_token_are_one_login() {
        let slot = Slot::default();
        let logins = Cell::new(0);
        let login = || {
            logins.set(logins.get() + 1);
            session()
        };
        let old = slot.live(None, login).unwrap();
        old.prove();
        let new = slot.live(Some(&old), login).unwrap();
        for _ in 0..5 {
            assert!(Arc::ptr_eq(&slot.live(Some(&old), login).unwrap(), &new));
            assert!(Arc::ptr_eq(&slot.live(None, login).unwrap(), &new));
        }
        assert_eq!(logins.get(), 2);
        // The new token was never taken by the server: no third login, now and later.
        for _ in 0..3 {
            assert_eq!(slot.live(Some(&new), login).unwrap_err().kind, StorageErrorKind::Authentication);
        }
        assert_eq!(logins.get(), 2);
    }

    #[test]
    fn refused_credentials_are_tried_once_and_a_server_that_is_away_again() {
        let slot = Slot::default();
        let fail = |kind| move || Err(StorageError::new(kind, "no"));
        assert!(slot.live(None, fail(StorageErrorKind::Transient)).unwrap_err().is_transient());
        assert_eq!(slot.live(None, fail(StorageErrorKind::Authentication)).unwrap_err().kind, StorageErrorKind::Authentication);
        assert_eq!(slot.live(None, session).unwrap_err().kind, StorageErrorKind::Authentication);
    }
}
