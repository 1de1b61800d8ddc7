//! The database: its files, its rows, the statements that read and change them, and what is counted of it. No thread is here,
//! and no policy: what is to be done is decided by the writer and by the redelivery.
//!
//! | part | what lives there |
//! |---|---|
//! | `file`, `check`, `damage`, `paths`, `wal`, `watch` | opening, locking, migrating; whether it could be opened; damage in it; what lies beside it; whether the files are still the ones that are written |
//! | `row`, `rows`, `by_id`, `filter`, `newest` | a row; the statements |
//! | `count_delta`, `stats`, `unknown` | counts on disk and in memory; for which backends something is pending that were never here |
//! | `checkpoint` | when the log goes to the database, and its bound |
//! | `clock` | time that the relay has lived through |
//! | `exported`, `copy` | notifications on their way to another file or machine; a new database made of them |
//! | `error` | why it cannot be opened, read or written |

pub mod by_id;
pub mod check;
pub mod checkpoint;
pub mod clock;
mod conditions;
pub mod copy;
pub mod count_delta;
mod damage;
pub mod error;
pub mod exported;
pub mod file;
pub mod filter;
pub mod newest;
mod paths;
pub mod row;
pub mod rows;
pub mod stats;
pub mod unknown;
mod wal;
pub mod watch;
