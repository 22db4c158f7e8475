//! Lists as values: one statement for many rows.
//!
//! PostgreSQL has arrays. SQLite has none: there, UUIDs lie behind each other in one BLOB, and other lists are JSON.
//! [`listed`] makes a table of lists of equal length in front of a statement, so that the statement itself is written
//! once.
//!
//! Deliberately absent: empty lists. Whoever has nothing to ask for asks nothing.

use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgArgumentBuffer, PgTypeInfo};
use sqlx::sqlite::{SqliteArgumentsBuffer, SqliteTypeInfo};
use sqlx::{Postgres, Sqlite, Type};
use uuid::Uuid;

use super::Statement;

/// Values of one column, for as many rows.
#[derive(Debug, Clone)]
pub(in super::super) enum List {
    /// BLOB; UUID\[\].
    Uuids(Uuids),
    /// JSON; BIGINT\[\].
    Integers(Integers),
    /// JSON; TEXT\[\].
    Texts(Texts),
}

#[derive(Debug, Clone)]
pub(in super::super) struct Uuids(pub(super) Vec<Uuid>);

#[derive(Debug, Clone)]
pub(in super::super) struct Integers(pub(super) Vec<i64>);

#[derive(Debug, Clone)]
pub(in super::super) struct Texts(pub(super) Vec<String>);

macro_rules! list {
    ($list:ident, $item:ty, $in_sqlite:ty, $self:ident => $value:expr) => {
        impl Type<Postgres> for $list {
            fn type_info() -> PgTypeInfo {
                <Vec<$item> as Type<Postgres>>::type_info()
            }
        }

        impl Encode<'_, Postgres> for $list {
            fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
                <Vec<$item> as Encode<'_, Postgres>>::encode_by_ref(&self.0, buffer)
            }
        }

        impl Type<Sqlite> for $list {
            fn type_info() -> SqliteTypeInfo {
                <$in_sqlite as Type<Sqlite>>::type_info()
            }
        }

        impl Encode<'_, Sqlite> for $list {
            fn encode_by_ref(&$self, arguments: &mut SqliteArgumentsBuffer) -> Result<IsNull, BoxDynError> {
                <$in_sqlite as Encode<'_, Sqlite>>::encode($value, arguments)
            }
        }
    };
}

list!(Uuids, Uuid, Vec<u8>, self => self.0.iter().flat_map(|id| *id.as_bytes()).collect());
list!(Integers, i64, String, self => serde_json::to_string(&self.0)?);
list!(Texts, String, String, self => serde_json::to_string(&self.0)?);

impl Statement {
    /// See [`listed`].
    pub(in super::super) const fn of_both(sqlite: &'static str, postgres: &'static str) -> Self {
        Self { sqlite, postgres }
    }
}

/// A statement behind a table of lists: `listed!(asked("$1" client: uuid, "$2" number: integer), "SELECT …")` can read from
/// `asked (place, client, number)`, whose `place` counts from one. The first list holds UUIDs.
macro_rules! listed {
    ($table:ident ($first:literal $first_column:ident: uuid $(, $number:literal $column:ident: $kind:ident)*),
     $($rest:tt)+) => {
        $crate::store::sql::Statement::of_both(
            concat!(
                "WITH RECURSIVE row_number (place) AS (
                     SELECT 1 UNION ALL SELECT place + 1 FROM row_number WHERE 16 * (place + 1) <= length(",
                $first,
                ")), ",
                stringify!($table),
                " (place, ",
                stringify!($first_column),
                $(", ", stringify!($column),)*
                ") AS (SELECT place, ",
                $crate::store::sql::listed!(@sqlite uuid $first),
                $(", ", $crate::store::sql::listed!(@sqlite $kind $number),)*
                " FROM row_number) ",
                $($rest)+
            ),
            concat!(
                "WITH ",
                stringify!($table),
                " (",
                stringify!($first_column),
                ", ",
                $(stringify!($column), ", ",)*
                "place) AS (SELECT * FROM unnest(",
                $first,
                $(", ", $number,)*
                ") WITH ORDINALITY) ",
                $($rest)+
            ),
        )
    };
    (@sqlite uuid $number:literal) => { concat!("substr(", $number, ", 16 * place - 15, 16)") };
    (@sqlite integer $number:literal) => { concat!($number, " ->> (place - 1)") };
    (@sqlite text $number:literal) => { concat!($number, " ->> (place - 1)") };
}
pub(in super::super) use listed;
