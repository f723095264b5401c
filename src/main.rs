//! The program: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    cinder_backup_repair::cli::main()
}
