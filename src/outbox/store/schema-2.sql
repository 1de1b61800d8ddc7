-- in_use: 0: closed in good order. 1 in the database file itself while the newest notifications are in its log: found there
-- without the log, something is lost. 2 in the log: whoever moves the whole log into the database moves this too.
-- wall_ms, boot_ms, boot_id: the system's time, the machine's uptime, and which start of the machine that counts from, at the
-- moment of clock_ms.
ALTER TABLE total ADD COLUMN in_use INTEGER NOT NULL DEFAULT 0;
ALTER TABLE total ADD COLUMN wall_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE total ADD COLUMN boot_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE total ADD COLUMN boot_id TEXT NOT NULL DEFAULT '';
