//! Converts values to and from PostgreSQL's types.

use std::error::Error as StdError;

use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql, Type};

use crate::db::{DbError, DbErrorKind, Param, task};
use crate::domain::Value;

/// A parameter that owns its value.
pub(super) type OwnedParam = (Box<dyn ToSql + Sync + Send>, Type);

/// The values for a statement's placeholders. Their types are fixed; the statements cast them where a column has another type.
pub(super) fn bind(params: &[Param]) -> Vec<OwnedParam> {
    params
        .iter()
        .map(|param| -> OwnedParam {
            match param {
                Param::One(Value::Null) => (Box::new(None::<String>), Type::TEXT),
                Param::One(Value::Integer(number)) => (Box::new(*number), Type::INT8),
                Param::One(Value::Text(text) | Value::Unsupported(text)) => (Box::new(text.clone()), Type::TEXT),
                Param::Ids(ids) => (Box::new(ids.clone()), Type::TEXT_ARRAY),
            }
        })
        .collect()
}

/// The cells of a row.
pub(super) fn decode(row: &Row, statement: &str) -> Result<Vec<Value>, DbError> {
    let mut cells = Vec::with_capacity(row.len());
    for (index, column) in row.columns().iter().enumerate() {
        let cell: Option<Cell> = row.try_get(index).map_err(|error| {
            let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
            let message = format!("cannot {}: the column {} has the type {}{cause}", task(statement), column.name(), column.type_());
            DbError::new(DbErrorKind::Schema, message)
        })?;
        cells.push(cell.map_or(Value::Null, |cell| cell.0));
    }
    Ok(cells)
}

const TEXTS: &[Type] = &[Type::TEXT, Type::VARCHAR, Type::BPCHAR, Type::NAME, Type::UNKNOWN];

/// A cell of one of the types that the statements return.
struct Cell(Value);

impl<'a> FromSql<'a> for Cell {
    fn from_sql(kind: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn StdError + Sync + Send>> {
        let value = match *kind {
            Type::BOOL => Value::Integer(i64::from(bool::from_sql(kind, raw)?)),
            Type::INT2 => Value::Integer(i64::from(i16::from_sql(kind, raw)?)),
            Type::INT4 => Value::Integer(i64::from(i32::from_sql(kind, raw)?)),
            Type::INT8 => Value::Integer(i64::from_sql(kind, raw)?),
            Type::OID => Value::Integer(i64::from(u32::from_sql(kind, raw)?)),
            Type::UUID => Value::Text(uuid::Uuid::from_slice(raw)?.to_string()),
            _ => crate::db::text(raw.to_vec()),
        };
        Ok(Self(value))
    }

    fn accepts(kind: &Type) -> bool {
        TEXTS.contains(kind) || matches!(*kind, Type::BOOL | Type::INT2 | Type::INT4 | Type::INT8 | Type::OID | Type::UUID)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn cells_become_shared_values() {
        let read = |kind: &Type, raw: &[u8]| Cell::from_sql(kind, raw).unwrap().0;
        assert_eq!(read(&Type::BOOL, &[1]), Value::Integer(1));
        assert_eq!(read(&Type::INT2, &[0xff, 0xfe]), Value::Integer(-2));
        assert_eq!(read(&Type::INT8, &[0, 0, 0, 0, 0, 0, 1, 0]), Value::Integer(256));
        assert_eq!(read(&Type::VARCHAR, "für".as_bytes()), Value::from("für"));
        assert_eq!(read(&Type::UUID, &[0x11; 16]), Value::from("11111111-1111-1111-1111-111111111111"));
        assert!(!<Cell as FromSql>::accepts(&Type::TIMESTAMP), "the statement must cast it");
    }

    #[test]
    fn parameters_have_fixed_types() {
        let params = [Param::from(1), Param::from("a"), Param::One(Value::Null), Param::Ids(vec!["b".to_owned()])];
        let types: Vec<Type> = bind(&params).into_iter().map(|(_, kind)| kind).collect();
        assert_eq!(types, [Type::INT8, Type::TEXT, Type::TEXT, Type::TEXT_ARRAY]);
    }
}
