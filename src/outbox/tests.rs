//! The store on a real file, and a drain whose courier is the test's own.
