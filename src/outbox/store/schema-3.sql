-- store_id: by what this database is known to other nodes (outbox.shared). A database that is made anew is another one.
ALTER TABLE total ADD COLUMN store_id TEXT NOT NULL DEFAULT '';
UPDATE total SET store_id = lower(hex(randomblob(16)));
