-- PostgreSQL reserves the word: one name for both.
ALTER TABLE authorization RENAME TO lease;

-- A digest of the portal's secret files: another set of them would make other pre-shared keys.
ALTER TABLE account ADD COLUMN secrets_digest BLOB;

-- Looked up whenever a device says hello, and whenever a token is revoked.
CREATE INDEX device_key ON device (public_key);
CREATE INDEX device_token ON device (token_id);

-- Old entries are forgotten if the operator wants it so.
CREATE INDEX audit_at ON audit (at_ms);
