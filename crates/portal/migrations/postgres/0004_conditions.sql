-- What a policy asks for besides group and resource, as JSON; `{}` asks for nothing.
ALTER TABLE policy ADD COLUMN conditions TEXT NOT NULL DEFAULT '{}';

-- Since when an administrator vouches for a client. Absent: nobody does.
ALTER TABLE device ADD COLUMN verified_ms BIGINT;
