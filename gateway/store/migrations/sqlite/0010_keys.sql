-- Virtual keys. A key has one secret or, while it is rotated, two; what is kept of a secret is its HMAC.
CREATE TABLE virtual_key (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    team TEXT NOT NULL,
    org TEXT NOT NULL,
    priority TEXT NOT NULL,
    models TEXT NOT NULL,      -- JSON arrays of strings; empty means all
    assistants TEXT NOT NULL,
    endpoints TEXT NOT NULL,
    networks TEXT NOT NULL,
    rpm INTEGER,               -- NULL means no limit
    rpd INTEGER,
    tpm INTEGER,
    tpd INTEGER,
    max_concurrent INTEGER,
    budget_micro_usd INTEGER,
    period TEXT NOT NULL,
    created_s REAL NOT NULL,   -- seconds since the epoch
    expires_s REAL,
    revoked_s REAL
) STRICT;
CREATE UNIQUE INDEX virtual_key_by_name ON virtual_key (name) WHERE revoked_s IS NULL;

CREATE TABLE key_secret (
    digest TEXT PRIMARY KEY,   -- HMAC-SHA256(pepper, key), hexadecimal
    key_id TEXT NOT NULL REFERENCES virtual_key (id) ON DELETE CASCADE,
    prefix TEXT NOT NULL,
    created_s REAL NOT NULL,
    ends_s REAL                -- set when another secret takes its place
) STRICT;
CREATE INDEX key_secret_of_key ON key_secret (key_id);

-- One row: every change of a key counts, so that others see by one number that they have to read again.
CREATE TABLE key_state (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
    version INTEGER NOT NULL,
    pepper_check TEXT NOT NULL -- tells a wrong pepper; '' before the first key
) STRICT;
INSERT INTO key_state (only_one, version, pepper_check) VALUES (1, 0, '');
