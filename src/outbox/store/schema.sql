-- One row for each notification. seq is the order in which they were stored.
-- state: 0 pending, 1 done, 2 dead
-- due, stored_ms, turn_ms: the outbox's own time in ms. due: not to be sent before; 0: as soon as possible; the largest
-- integer: a session has it in hand. turn_ms: pending: when it expires; done: when it is deleted; dead: when it died.
-- at_ms: the system's time when it was taken.
CREATE TABLE notification (
  seq       INTEGER PRIMARY KEY,
  id        BLOB NOT NULL UNIQUE,
  backend   TEXT NOT NULL,
  route     TEXT NOT NULL,
  verified  TEXT NOT NULL,
  event     TEXT,
  event_key BLOB,
  at_ms     INTEGER NOT NULL,
  state     INTEGER NOT NULL,
  tries     INTEGER NOT NULL,
  due       INTEGER NOT NULL,
  stored_ms INTEGER NOT NULL,
  turn_ms   INTEGER NOT NULL,
  bytes     INTEGER NOT NULL,
  why       TEXT NOT NULL,
  steps     TEXT NOT NULL
) STRICT;

CREATE INDEX pending ON notification (backend, due) WHERE state = 0;
CREATE INDEX held ON notification (due) WHERE state = 0 AND due = 9223372036854775807;
CREATE INDEX event ON notification (seq, event_key, stored_ms) WHERE event_key IS NOT NULL;
CREATE INDEX turn ON notification (state, turn_ms);

-- What a redelivery carries; apart, so that a change of state does not write it again.
CREATE TABLE payload (
  seq    INTEGER PRIMARY KEY,
  head   BLOB NOT NULL,
  body   BLOB NOT NULL,
  digest BLOB NOT NULL
) STRICT;

-- Sums, kept with every change, so that nobody has to count.
CREATE TABLE backend (
  name    TEXT PRIMARY KEY,
  pending INTEGER NOT NULL,
  dead    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE total (
  one      INTEGER PRIMARY KEY CHECK (one = 1),
  pending  INTEGER NOT NULL,
  done     INTEGER NOT NULL,
  dead     INTEGER NOT NULL,
  clock_ms INTEGER NOT NULL
) STRICT;
INSERT INTO total VALUES (1, 0, 0, 0, 0);
