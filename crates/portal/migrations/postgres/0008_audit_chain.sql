-- The audit log: what was before and after, a number without gaps, and a seal over the entry
-- and the seal before it. Entries from before this migration have no seal.
ALTER TABLE audit ADD COLUMN before TEXT;
ALTER TABLE audit ADD COLUMN after TEXT;
ALTER TABLE audit ADD COLUMN seq BIGINT;
ALTER TABLE audit ADD COLUMN seal BYTEA;

UPDATE audit SET seq = numbered.seq
FROM (SELECT id, row_number() OVER (PARTITION BY account_id ORDER BY id) AS seq FROM audit) AS numbered
WHERE numbered.id = audit.id;

CREATE UNIQUE INDEX audit_seq ON audit (account_id, seq);
CREATE INDEX audit_action ON audit (action, id);
CREATE INDEX audit_subject ON audit (subject_id, id);

-- Entries before `before_seq` may be forgotten; only inside the change that notes it.
CREATE TABLE audit_retention (
    account_id  UUID PRIMARY KEY,
    before_seq  BIGINT NOT NULL
);

CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF EXISTS (
            SELECT 1 FROM audit_retention
            WHERE audit_retention.account_id = OLD.account_id AND OLD.seq < audit_retention.before_seq
        ) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'the audit log is append-only';
END $$;

CREATE TRIGGER audit_is_not_changed BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER audit_is_not_truncated BEFORE TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
