//! An open database.

use crate::config::{Resolved, Target};
use crate::db::schema::Schema;
use crate::db::statements::MISSING_PRIVILEGES;
use crate::db::{Access, DbError, Engine, Param, Session, SessionSettings};
use crate::domain::{DatabaseInfo, Policy, RestoreSite, Situation, Thresholds, Value};
use crate::scan::{Reader, database_info};

use super::error::{Error, Obstacle};

/// A session with what is known about its database.
pub struct Database {
    pub session: Box<dyn Session>,
    pub schema: Schema,
    /// Where it is, without the password.
    pub location: String,
    /// The URL without the password, if a URL on the command line or in the environment named the database.
    pub url: Option<String>,
    /// Cinder's `service_down_time`, in seconds.
    pub service_down_time: i64,
    /// Cinder's `report_interval`, in seconds.
    pub report_interval: u64,
    /// No cinder.conf was read, so that both are Cinder's defaults.
    pub has_default_intervals: bool,
    /// `backup_driver`, if a cinder.conf that was read sets it.
    pub backup_driver: Option<String>,
    /// `backup_use_same_host`.
    pub uses_same_host: bool,
    /// The GRANTs that the account lacks for a repair; empty until they were looked up.
    pub missing_grants: Vec<String>,
    pub(super) target: Target,
    pub(super) limits: SessionSettings,
}

impl Database {
    pub fn open(resolved: &Resolved, limits: SessionSettings) -> Result<Self, DbError> {
        let settings = &resolved.database;
        let mut session = crate::db::open(&settings.target, &limits)?;
        let schema = crate::db::schema::probe(session.as_mut())?;
        Ok(Self {
            session,
            schema,
            location: settings.target.describe(),
            url: settings.url.clone(),
            service_down_time: i64::try_from(resolved.service.service_down_time).unwrap_or(60),
            report_interval: resolved.service.report_interval,
            has_default_intervals: resolved.cinder.files().next().is_none(),
            backup_driver: resolved.service.backup_driver.clone(),
            uses_same_host: resolved.service.uses_same_host,
            missing_grants: Vec::new(),
            target: settings.target.clone(),
            limits,
        })
    }

    /// The time spans without options.
    pub fn thresholds(&self) -> Thresholds {
        Thresholds {
            service_down_time_seconds: self.service_down_time,
            down_time_is_assumed: self.has_default_intervals,
            ..Thresholds::default()
        }
    }

    /// Where it is.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The limits of a session on it.
    pub fn limits(&self) -> &SessionSettings {
        &self.limits
    }

    /// The database as documents name it.
    pub fn info(&self) -> DatabaseInfo {
        database_info(self.session.as_ref(), &self.schema)
    }

    /// What a restore depends on, with the services as they were read.
    pub(super) fn restore_site(&self, situation: Situation, thresholds: Thresholds) -> RestoreSite {
        let Situation { now, services, .. } = situation;
        let (uses_same_host, backup_driver) = (self.uses_same_host, self.backup_driver.clone());
        RestoreSite { now, services, thresholds, uses_same_host, backup_driver }
    }

    /// Refuses a document about another database. `what` begins the message: "the plan was made for".
    pub(super) fn require_identity(&self, what: &str, theirs: &DatabaseInfo) -> super::Result<()> {
        let ours = self.info();
        if ours.identity == theirs.identity {
            return Ok(());
        }
        Err(Error::OtherDatabase(format!("{what} {theirs}, but this is {ours}")))
    }

    /// Reads in a transaction that the database holds read-only.
    pub fn read<T>(&mut self, read: impl FnOnce(&mut Reader<'_>) -> Result<T, DbError>) -> Result<T, DbError> {
        self.session.begin(Access::ReadOnly)?;
        let read = read(&mut self.reader());
        let ended = self.session.rollback();
        let read = read?;
        ended?;
        Ok(read)
    }

    pub fn reader(&mut self) -> Reader<'_> {
        Reader { session: self.session.as_mut(), schema: &self.schema }
    }

    /// Connects again: a check of the storage can take longer than a server keeps an idle connection.
    pub fn reconnect(&mut self) -> Result<(), DbError> {
        let opened = self.opener()()?;
        self.session = opened;
        Ok(())
    }

    /// Runs `act`, once more on a new connection if this one was lost: while a person reads and types, a proxy or the server may close
    /// an idle connection.
    pub fn persist<T>(&mut self, act: impl Fn(&mut dyn Session) -> Result<T, DbError>) -> Result<T, DbError> {
        match act(self.session.as_mut()) {
            Err(error) if error.is_fatal() => {
                self.reconnect()?;
                act(self.session.as_mut())
            }
            other => other,
        }
    }

    /// A closure that opens another session on the same database, and borrows nothing of this one.
    pub fn opener(&self) -> impl Fn() -> Result<Box<dyn Session>, DbError> + use<> {
        let (target, limits, server) = (self.target.clone(), self.limits.clone(), self.session.server().clone());
        move || crate::db::reopen(&target, &limits, &server)
    }

    /// Refuses a database that accepts no writes, and an account that may not make them.
    pub fn require_writable(&mut self, policy: &Policy) -> super::Result<()> {
        self.obstacle(policy)?.map_or(Ok(()), |obstacle| Err(obstacle.into()))
    }

    /// Looks for what would keep a run from writing, without writing.
    pub fn obstacle(&mut self, policy: &Policy) -> Result<Option<Obstacle>, DbError> {
        let server = self.session.server();
        if server.read_only {
            return Ok(Some(Obstacle::ReadOnly(self.location.clone(), server.engine == Engine::Sqlite)));
        }
        self.missing_grants = self.find_missing_grants([policy.deletes(), policy.fix_quotas, policy.rehost.is_some()])?;
        let (location, grants) = (self.location.clone(), self.missing_grants.clone());
        Ok((!grants.is_empty()).then_some(Obstacle::Privileges(location, grants)))
    }

    /// The GRANTs that the account lacks for a repair, and, as asked, for one that deletes, corrects quotas or moves backups to another host.
    pub fn find_missing_grants(&mut self, options: [bool; 3]) -> Result<Vec<String>, DbError> {
        let grant = |row: &Vec<Value>| match row.as_slice() {
            [Value::Text(columns), Value::Text(table), Value::Text(account)] => {
                Some(format!("GRANT UPDATE ({columns}) ON {table} TO {account}"))
            }
            _ => None,
        };
        let params = options.map(|flag| Param::from(i64::from(flag)));
        Ok(self.persist(|session| session.rows(&MISSING_PRIVILEGES, &params))?.iter().filter_map(grant).collect())
    }
}
