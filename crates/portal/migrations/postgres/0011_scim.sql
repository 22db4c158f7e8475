-- A further kind of token.
ALTER TABLE token DROP CONSTRAINT token_kind_check;
ALTER TABLE token ADD CONSTRAINT token_kind_check CHECK (kind IN ('client', 'gateway', 'relay', 'api', 'scim'));

CREATE UNIQUE INDEX actor_external ON actor (account_id, managed_by, external_id);
CREATE UNIQUE INDEX group_external ON actor_group (account_id, managed_by, external_id);
