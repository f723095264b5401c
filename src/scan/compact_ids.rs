//! Ids in 16 bytes each, for maps with an entry for every row of a large table.

use std::cmp::Ordering;
use std::collections::HashMap;

use uuid::Uuid;

use crate::domain::digest;

/// Turns ids into numbers and back. Only ids that are not UUIDs in lower case are kept as text.
#[derive(Debug, Default)]
pub struct CompactIds {
    odd: HashMap<u128, String>,
}

impl CompactIds {
    /// The number of an id.
    pub fn number(id: &str) -> u128 {
        canonical(id).unwrap_or_else(|| digest::short(&[id]))
    }

    /// Adds an id and returns its number, which [`Self::id`] turns back into the id.
    pub fn add(&mut self, id: &str) -> u128 {
        let number = Self::number(id);
        if canonical(id).is_none() {
            self.odd.entry(number).or_insert_with(|| id.to_owned());
        }
        number
    }

    /// The order of the ids of two numbers that were added.
    pub fn order(&self, one: u128, other: u128) -> Ordering {
        // Numbers are in the order of UUIDs in lower case.
        if self.odd.is_empty() { one.cmp(&other) } else { self.id(one).cmp(&self.id(other)) }
    }

    /// The id of a number that was added.
    pub fn id(&self, number: u128) -> String {
        self.odd.get(&number).cloned().unwrap_or_else(|| Uuid::from_u128(number).to_string())
    }
}

fn canonical(id: &str) -> Option<u128> {
    let uuid = Uuid::try_parse(id).ok()?;
    let mut buffer = Uuid::encode_buffer();
    (uuid.hyphenated().encode_lower(&mut buffer) == id).then(|| uuid.as_u128())
}
