-- What operators changed, by whom and how it ended. See gateway/store/audit.py.
CREATE TABLE audit (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at_s DOUBLE PRECISION NOT NULL, -- seconds since the epoch
    who TEXT NOT NULL,              -- fingerprint of the admin key
    client TEXT NOT NULL,           -- network address
    action TEXT NOT NULL,           -- keys.create, keys.rotate, keys.revoke
    subject TEXT NOT NULL,          -- of what: a key's id, or its name before it has one
    outcome TEXT NOT NULL           -- begun, done, or the code of the error
);
CREATE INDEX audit_by_time ON audit (at_s);
