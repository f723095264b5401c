//! Results for people and for other programs: tables, JSON, YAML, CSV, a plan as Markdown or as SQL.
//!
//! May use `domain`, `plan`, results, and the engine's name from `db`. It never prints: everything goes to a `&mut dyn io::Write` of
//! the caller, and an I/O error such as a broken pipe is returned unchanged. All text from the database passes through [`safe`].

mod expanded;
pub mod grid;
pub(crate) mod json;
pub mod markdown;
pub mod metrics;
pub mod safe;
pub mod script;
mod yaml;
