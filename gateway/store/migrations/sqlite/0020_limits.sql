-- Pools of limits, the processes that hold slices of them, and the slices; see gateway/policy/lease.py.

CREATE TABLE limit_pool (
    name TEXT PRIMARY KEY,
    window_s REAL NOT NULL,
    held INTEGER NOT NULL,
    lost INTEGER NOT NULL,
    charges TEXT NOT NULL,
    seen_s REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX limit_pool_by_age ON limit_pool (seen_s);

CREATE TABLE limit_holder (
    holder TEXT PRIMARY KEY,
    expires_s REAL NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE limit_share (
    holder TEXT NOT NULL,
    name TEXT NOT NULL,
    granted INTEGER NOT NULL,
    used INTEGER NOT NULL,
    returned INTEGER NOT NULL,
    PRIMARY KEY (holder, name)
) STRICT, WITHOUT ROWID;
