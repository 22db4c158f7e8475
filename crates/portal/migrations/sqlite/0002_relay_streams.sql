-- Relays may listen on TCP and TLS too. Absent: they do not.
ALTER TABLE relay ADD COLUMN tcp_port INTEGER;
ALTER TABLE relay ADD COLUMN tls_port INTEGER;
