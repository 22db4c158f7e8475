-- The audit log: what was before and after, a number without gaps, and a seal over the entry
-- and the seal before it. Entries from before this migration have no seal.
ALTER TABLE audit ADD COLUMN before TEXT;
ALTER TABLE audit ADD COLUMN after TEXT;
ALTER TABLE audit ADD COLUMN seq INTEGER;
ALTER TABLE audit ADD COLUMN seal BLOB;

UPDATE audit SET seq = numbered.seq
FROM (SELECT id, row_number() OVER (PARTITION BY account_id ORDER BY id) AS seq FROM audit) AS numbered
WHERE numbered.id = audit.id;

CREATE UNIQUE INDEX audit_seq ON audit (account_id, seq);
CREATE INDEX audit_action ON audit (action, id);
CREATE INDEX audit_subject ON audit (subject_id, id);

-- Entries before `before_seq` may be forgotten; only inside the change that notes it.
CREATE TABLE audit_retention (
    account_id  BLOB PRIMARY KEY NOT NULL,
    before_seq  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;

CREATE TRIGGER audit_is_not_deleted BEFORE DELETE ON audit
WHEN NOT EXISTS (
    SELECT 1 FROM audit_retention
    WHERE audit_retention.account_id = OLD.account_id AND OLD.seq < audit_retention.before_seq
)
BEGIN
    SELECT RAISE(ABORT, 'the audit log is append-only');
END;
