//! The one place where the files of `sql/` enter the program.
//!
//! A statement has one file an engine under the same name. MariaDB and MySQL share `sql/mysql/`. A variant is another
//! file and another name; no SQL is ever put together from pieces.

use super::Engine;

/// One statement in its three spellings.
#[derive(Debug, PartialEq, Eq)]
pub struct Statement {
    /// The file's name without folder and ending.
    pub name: &'static str,
    sqlite: &'static str,
    mysql: &'static str,
    postgres: &'static str,
}

impl Statement {
    /// The text for an engine.
    pub fn text(&self, engine: Engine) -> &'static str {
        match engine {
            Engine::Sqlite => self.sqlite,
            Engine::Mysql | Engine::Mariadb => self.mysql,
            Engine::Postgresql => self.postgres,
        }
    }
}

macro_rules! statements {
    ($($(#[$doc:meta])* $constant:ident = $name:literal;)*) => {
        $(
            $(#[$doc])*
            pub static $constant: Statement = Statement {
                name: $name,
                sqlite: include_str!(concat!("../../sql/sqlite/", $name, ".sql")),
                mysql: include_str!(concat!("../../sql/mysql/", $name, ".sql")),
                postgres: include_str!(concat!("../../sql/postgres/", $name, ".sql")),
            };
        )*
        /// Every statement that runs on all engines.
        pub static ALL: &[&Statement] = &[$(&$constant),*];
    };
}

statements! {}
