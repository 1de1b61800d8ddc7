//! Looking for damage in a database, for no longer than a start may take.

use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode};

use super::rows;

/// How long the start may take to look for damage. What a large file has beyond that is found when it is read.
const CHECK_BUDGET: Duration = Duration::from_millis(800);

/// Instructions of SQLite's machine between two looks at the clock.
const CHECK_OPS: i32 = 10_000;

/// What a look for damage has found.
pub enum Checked {
    Sound,
    Damaged(String),
}

/// Looks for damage for [`CHECK_BUDGET`]; `None`: that was not enough.
///
/// # Errors
/// The database cannot be read.
pub fn check_for_a_while(connection: &Connection) -> rusqlite::Result<Option<Checked>> {
    let until = Instant::now() + CHECK_BUDGET;
    let late = move || Instant::now() >= until;
    connection.progress_handler(CHECK_OPS, Some(late))?;
    let checked = check(connection);
    connection.progress_handler(0, None::<fn() -> bool>)?;
    match checked {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            Ok(None)
        }
        Err(error) => Err(error),
        Ok(Some(words)) => Ok(Some(Checked::Damaged(words))),
        Ok(None) => Ok(Some(Checked::Sound)),
    }
}

/// What is damaged, if anything is.
fn check(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let words: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))?;
    if words != "ok" {
        return Ok(Some(words.replace('\n', " ")));
    }
    rows::first_damaged(connection)
}
