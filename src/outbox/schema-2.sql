-- in_use: 1 from the start of a relay to its orderly end. While it is 1, the newest notifications are in the -wal file only.
ALTER TABLE total ADD COLUMN in_use INTEGER NOT NULL DEFAULT 0;
