//! The tasks of a check of many backups: rows are read from the database in portions, while the check is running.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::check::{Portion, Tasks};
use crate::db::schema::Schema;
use crate::db::{Access, DbError, Session};
use crate::scan::Reader;
use crate::scan::catalog::{Catalog, CatalogEntry};
use crate::scan::lineage::Path;
use crate::verify::{Target, Task};

/// A session that was idle for longer is replaced: a server, a proxy or a firewall may have closed it silently.
const IDLE: Duration = Duration::from_secs(20);

/// Opens a session on the database.
type Open = Box<dyn Fn() -> Result<Box<dyn Session>, DbError> + Send>;

/// A catalog, and the database to read its rows from.
pub struct CatalogSource {
    pub catalog: Catalog,
    /// No more than this are checked.
    pub limit: Option<usize>,
    pub database: Open,
    pub schema: Schema,
}

impl CatalogSource {
    /// Tasks with the rows as they are when their turn comes.
    pub fn into_tasks(self) -> Tasks {
        let total = self.catalog.wanted().min(self.limit.unwrap_or(usize::MAX));
        let mut portions = Portions { source: self, session: None, path: Path::default(), left: total };
        let mut is_over = false;
        let portions = std::iter::from_fn(move || {
            if is_over {
                return None;
            }
            let portion = portions.next();
            is_over = portion.as_ref().map_or(true, |portion| portion.tasks.is_empty());
            Some(portion.map_err(super::Error::from))
        });
        Tasks { total, portions: Box::new(portions) }
    }
}

struct Portions {
    source: CatalogSource,
    /// The session, and when it was used last.
    session: Option<(Box<dyn Session>, Instant)>,
    path: Path,
    /// How many tasks are still to come.
    left: usize,
}

impl Portions {
    /// The next tasks. A portion without tasks is the last one, and says how many backups are gone.
    fn next(&mut self) -> Result<Portion, DbError> {
        while self.left > 0 {
            let entries = self.read()?;
            if entries.is_empty() {
                break;
            }
            let columns = self.source.schema.columns;
            let mut tasks = Vec::new();
            for CatalogEntry { is_wanted, backup, .. } in entries {
                let backup = Arc::new(backup);
                let ancestors = self.path.ancestors(&backup);
                if is_wanted && self.left > 0 {
                    self.left -= 1;
                    tasks.push(Task::from(Target { backup: backup.as_ref().clone(), ancestors, columns }));
                }
            }
            if !tasks.is_empty() {
                return Ok(Portion { tasks, gone: 0 });
            }
        }
        Ok(Portion { tasks: Vec::new(), gone: std::mem::take(&mut self.left) })
    }

    /// Reads the next rows, once more on a new session if the session was lost.
    fn read(&mut self) -> Result<Vec<CatalogEntry>, DbError> {
        self.session.take_if(|(_, used)| used.elapsed() > IDLE);
        let is_new = self.session.is_none();
        match self.read_once() {
            Err(error) if error.is_fatal() && !is_new => {
                self.session = None;
                self.read_once()
            }
            other => other,
        }
    }

    fn read_once(&mut self) -> Result<Vec<CatalogEntry>, DbError> {
        let (mut session, _) = match self.session.take() {
            Some(session) => session,
            None => ((self.source.database)()?, Instant::now()),
        };
        session.begin(Access::ReadOnly)?;
        let entries = self.source.catalog.next_portion(&mut Reader { session: session.as_mut(), schema: &self.source.schema });
        let ended = session.rollback();
        let entries = entries?;
        ended?;
        self.session = Some((session, Instant::now()));
        Ok(entries)
    }
}
