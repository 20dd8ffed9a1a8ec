//! Whether a database can hold the journal: checked on each new connection of the journal before it changes anything, so that
//! later failures and losses are reported at the start, with what to do about them.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{Connection, Row};
use thiserror::Error;

/// Oldest version that is known to work, as `server_version_num` has it.
const VERSION_MIN: i32 = 130_000;
/// The only encoding that covers every text of a request.
const ENCODING: &str = "UTF8";
/// A pooler in between refuses our session settings.
const PROTOCOL_VIOLATION: &str = "08P01";

/// What is wrong with the database, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    #[error(
        "the database's encoding is {0}, in which not every text of a payment can be kept; it must be UTF8: make a new one with \
         CREATE DATABASE … TEMPLATE template0 ENCODING 'UTF8' and restore a dump into it"
    )]
    Encoding(String),
    #[error("postgres is of version {0}; it must be 13 or newer: upgrade it")]
    Version(String),
    #[error(
        "the database takes no changes (a standby, or default_transaction_read_only): name the primary in DATABASE_URL"
    )]
    ReadOnly,
    #[error(
        "the role {role} may not make tables in the schema {schema}: GRANT USAGE, CREATE ON SCHEMA {schema} TO {role}"
    )]
    NoCreate { role: String, schema: String },
    #[error("the role {role} has no schema to make tables in: create one, or set its search_path")]
    NoSchema { role: String },
    #[error(
        "the table usage_log belongs to another role than {role}, which must add partitions to it: ALTER TABLE … OWNER TO {role}"
    )]
    NotOwner { role: String },
    #[error(
        "a pooler in transaction mode stands between (as PgBouncer with pool_mode=transaction): prepared statements, LISTEN and \
         advisory locks need sessions of their own. Use pool_mode=session, or connect to postgres directly"
    )]
    Pooled,
}

/// What Postgres reports about itself and about us.
#[derive(Debug)]
struct Facts {
    encoding: String,
    version: String,
    version_num: String,
    read_only: bool,
    role: String,
    schema: Option<String>,
    creates: bool,
    owns: bool,
}

/// All in one statement of the simple protocol: a prepared one is what poolers break.
const FACTS: &str = "SELECT current_setting('server_encoding') AS encoding, current_setting('server_version') AS version, \
        current_setting('server_version_num') AS version_num, \
        (pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean)::text AS read_only, \
        current_user::text AS role, current_schema()::text AS schema, \
        coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)::text AS creates, \
        (NOT EXISTS (SELECT FROM pg_class WHERE relname = 'usage_log' AND relkind = 'p' \
            AND relnamespace = to_regnamespace(current_schema()::text) \
            AND NOT pg_has_role(relowner, 'USAGE')))::text AS owns";

impl Facts {
    async fn read(connection: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let row = sqlx::raw_sql(FACTS).fetch_one(connection).await?;
        let text = |name: &str| row.try_get::<String, _>(name);
        let truth = |name: &str| row.try_get::<String, _>(name).map(|text| text == "true");
        Ok(Self {
            encoding: text("encoding")?,
            version: text("version")?,
            version_num: text("version_num")?,
            read_only: truth("read_only")?,
            role: text("role")?,
            schema: row.try_get("schema")?,
            creates: truth("creates")?,
            owns: truth("owns")?,
        })
    }

    fn judge(self) -> Result<(), Unfit> {
        if self.version_num.parse::<i32>().is_ok_and(|version| version < VERSION_MIN) {
            return Err(Unfit::Version(self.version));
        }
        if self.encoding != ENCODING {
            return Err(Unfit::Encoding(self.encoding));
        }
        if self.read_only {
            return Err(Unfit::ReadOnly);
        }
        let role = self.role;
        match self.schema {
            None => Err(Unfit::NoSchema { role }),
            Some(schema) if !self.creates => Err(Unfit::NoCreate { role, schema }),
            Some(_) if !self.owns => Err(Unfit::NotOwner { role }),
            Some(_) => Ok(()),
        }
    }
}

/// Why the database was not accepted.
#[derive(Debug, Error)]
pub enum FitnessError {
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
}

/// Checks the database.
///
/// # Errors
/// [`FitnessError`]: what is wrong, or that Postgres gave no answer.
pub async fn check(connection: &mut PgConnection, options: &PgConnectOptions) -> Result<(), FitnessError> {
    Facts::read(connection).await?.judge()?;
    let mut other = PgConnection::connect_with(options).await?;
    let apart = have_sessions(connection, &mut other).await;
    // Its end is no news.
    let _ = other.close().await;
    if apart? { Ok(()) } else { Err(Unfit::Pooled.into()) }
}

/// An error of connecting, and its meaning where a pooler made it: it does not know the session's settings.
#[must_use]
pub fn of_connecting(error: sqlx::Error) -> FitnessError {
    let is_pooler = error.as_database_error().is_some_and(|error| {
        error.code().as_deref() == Some(PROTOCOL_VIOLATION) && error.message().contains("startup parameter")
    });
    if is_pooler { Unfit::Pooled.into() } else { error.into() }
}

/// Whether a connection's setting is still there in its next statement, and for no other connection. The odd number of
/// statements also finds a pooler that rotates its connections.
async fn have_sessions(one: &mut PgConnection, other: &mut PgConnection) -> Result<bool, sqlx::Error> {
    set(one, "one").await?;
    set(other, "other").await?;
    let mut kept = shows(other, "other").await?;
    for _ in 0..2 {
        kept &= shows(one, "one").await?;
    }
    Ok(kept && shows(other, "other").await?)
}

/// A setting that no other client uses.
async fn set(connection: &mut PgConnection, value: &'static str) -> Result<(), sqlx::Error> {
    let statement = match value {
        "one" => "SET sluice.session = 'one'",
        _ => "SET sluice.session = 'other'",
    };
    sqlx::raw_sql(statement).execute(connection).await.map(drop)
}

async fn shows(connection: &mut PgConnection, value: &str) -> Result<bool, sqlx::Error> {
    let statement = "SELECT coalesce(current_setting('sluice.session', true), '') AS session";
    let row = sqlx::raw_sql(statement).fetch_one(connection).await?;
    row.try_get::<String, _>("session").map(|found| found == value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            encoding: "UTF8".to_owned(),
            version: "15.4".to_owned(),
            version_num: "150004".to_owned(),
            read_only: false,
            role: "sluice".to_owned(),
            schema: Some("public".to_owned()),
            creates: true,
            owns: true,
        }
    }

    #[test]
    fn f9_f10_what_a_database_lacks_is_said_with_what_to_do() {
        assert_eq!(facts().judge(), Ok(()));
        let table: [(Facts, &str); 7] = [
            (Facts { encoding: "LATIN1".to_owned(), ..facts() }, "encoding is LATIN1"),
            (Facts { encoding: "SQL_ASCII".to_owned(), ..facts() }, "ENCODING 'UTF8'"),
            (Facts { version: "12.9".to_owned(), version_num: "120009".to_owned(), ..facts() }, "13 or newer"),
            (Facts { read_only: true, ..facts() }, "name the primary"),
            (Facts { creates: false, ..facts() }, "GRANT USAGE, CREATE ON SCHEMA public TO sluice"),
            (Facts { schema: None, creates: false, ..facts() }, "search_path"),
            (Facts { owns: false, ..facts() }, "OWNER TO sluice"),
        ];
        for (facts, part) in table {
            let message = facts.judge().unwrap_err().to_string();
            assert!(message.contains(part), "{message}");
        }
    }
}
