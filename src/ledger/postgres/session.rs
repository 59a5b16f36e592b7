//! A connection to the database that is made again when it is lost.

use std::collections::HashMap;
use std::error::Error as _;
use std::io;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row, Statement};

use super::config::PostgresConfig;
use super::failure;
use super::tls::Encrypted;
use crate::error::{Error, Result};

/// How long a call waits for a database that is not there.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest that an answer may take before the connection counts as lost.
pub(super) const ANSWER: Duration = Duration::from_secs(20);

/// A process that stops in the middle of a transaction must not hold its locks for long: others wait to take over.
const SETTINGS: &str = "SET idle_in_transaction_session_timeout = '4s'; SET statement_timeout = '15s'; \
     SET lock_timeout = '10s'; SET default_transaction_isolation = 'read committed'; SET timezone = 'UTC'; \
     SET client_min_messages = 'warning';";

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// What it commits is on the disk.
    Money,
    /// What it commits is safe from the end of this process, and on the disk a moment later.
    Passing,
}

/// One connection.
pub(super) struct Session {
    client: Client,
    statements: SyncMutex<HashMap<&'static str, Statement>>,
}

impl Session {
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Several statements without values.
    pub(super) async fn run(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.client.batch_execute(sql).await
    }

    async fn prepared(&self, sql: &'static str) -> Result<Statement, tokio_postgres::Error> {
        let statements = || {
            self.statements
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let known = statements().get(sql).cloned();
        if let Some(statement) = known {
            return Ok(statement);
        }
        let statement = self.client.prepare(sql).await?;
        statements().insert(sql, statement.clone());
        Ok(statement)
    }

    pub(super) async fn rows(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let statement = self.prepared(sql).await?;
        self.client.query(&statement, values).await
    }

    pub(super) async fn row(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, tokio_postgres::Error> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }

    /// How many rows a statement changed.
    pub(super) async fn change(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, tokio_postgres::Error> {
        let statement = self.prepared(sql).await?;
        self.client.execute(&statement, values).await
    }
}

/// Where sessions come from.
pub(super) struct Line {
    config: PostgresConfig,
    purpose: Purpose,
    current: Mutex<Option<Arc<Session>>>,
}

impl Line {
    pub(super) fn new(config: &PostgresConfig, purpose: Purpose) -> Self {
        Self {
            config: config.clone(),
            purpose,
            current: Mutex::new(None),
        }
    }

    /// The session, connected if need be; waits a while for a database that is not there.
    pub(super) async fn session(&self) -> Result<Arc<Session>> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.try_session().await {
                Err(Unreachable::NotNow(_)) if Instant::now() < until => sleep(PAUSE).await,
                Err(Unreachable::NotNow(error) | Unreachable::Never(error)) => return Err(error),
                Ok(session) => return Ok(session),
            }
        }
    }

    async fn try_session(&self) -> Result<Arc<Session>, Unreachable> {
        let mut current = self.current.lock().await;
        if let Some(session) = current.as_ref().filter(|session| !session.is_closed()) {
            return Ok(Arc::clone(session));
        }
        let connected = timeout(ANSWER, connect(&self.config, self.purpose)).await;
        let session = connected.unwrap_or_else(|_| Err(Unreachable::NotNow(unreachable())))?;
        let session = Arc::new(session);
        *current = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Connects anew the next time: what this session does cannot be trusted any more.
    pub(super) async fn drop_session(&self) {
        self.current.lock().await.take();
    }

    /// Asks something that may be asked twice.
    pub(super) async fn rows(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        let until = Instant::now() + PATIENCE;
        loop {
            let session = self.session().await?;
            let error = match timeout(ANSWER, session.rows(sql, values)).await {
                Ok(Ok(rows)) => return Ok(rows),
                Ok(Err(error)) => error,
                Err(_) => {
                    self.drop_session().await;
                    return Err(unreachable());
                }
            };
            let lost = is_lost(&error) || session.is_closed();
            if lost {
                self.drop_session().await;
            }
            if !(lost || is_conflict(&error)) || Instant::now() >= until {
                return Err(failure(&error));
            }
            sleep(PAUSE).await;
        }
    }

    /// As [`rows`](Self::rows), where there is at most one.
    pub(super) async fn row(
        &self,
        sql: &'static str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>> {
        Ok(self.rows(sql, values).await?.into_iter().next())
    }
}

/// Why there is no session.
enum Unreachable {
    /// It may be there in a moment.
    NotNow(Error),
    /// It will not let us in.
    Never(Error),
}

async fn connect(config: &PostgresConfig, purpose: Purpose) -> Result<Session, Unreachable> {
    let client = if config.is_encrypted() {
        let encrypted = Encrypted::new(config).map_err(Unreachable::Never)?;
        let (client, connection) = config.client.connect(encrypted).await.map_err(refused)?;
        tokio::spawn(connection);
        client
    } else {
        let (client, connection) = config.client.connect(NoTls).await.map_err(refused)?;
        tokio::spawn(connection);
        client
    };
    let session = Session {
        client,
        statements: SyncMutex::default(),
    };
    session.run(SETTINGS).await.map_err(refused)?;
    let flush = match purpose {
        Purpose::Money => "SET synchronous_commit = on",
        Purpose::Passing => "SET synchronous_commit = off",
    };
    session.run(flush).await.map_err(refused)?;
    Ok(session)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it is what an error is mapped by"
)]
fn refused(error: tokio_postgres::Error) -> Unreachable {
    // 28: not let in; 3D: no such database; 42501: not allowed.
    let never = error.code().is_some_and(|code| {
        let code = code.code();
        code.starts_with("28") || code.starts_with("3D") || code == "42501"
    });
    let error = failure(&error);
    if never {
        Unreachable::Never(error)
    } else {
        Unreachable::NotNow(error)
    }
}

pub(super) fn unreachable() -> Error {
    Error::ledger("the database of the ledger cannot be reached")
}

/// Whether the connection, and not the statement, is to blame.
pub(super) fn is_lost(error: &tokio_postgres::Error) -> bool {
    // 08: connection; 57P: the server ends it; 25P03: idle in a transaction for too long.
    error.is_closed()
        || match error.code() {
            None => error.source().is_some_and(|cause| cause.is::<io::Error>()),
            Some(code) => {
                let code = code.code();
                code.starts_with("08") || code.starts_with("57P") || code == "25P03"
            }
        }
}

/// Whether somebody else was in the way, and it may be tried again.
pub(super) fn is_conflict(error: &tokio_postgres::Error) -> bool {
    error
        .code()
        .is_some_and(|code| matches!(code.code(), "40001" | "40P01" | "55P03"))
}
