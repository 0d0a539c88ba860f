-- Pools of limits, the processes that hold slices of them, and the slices; see gateway/policy/lease.py.

CREATE TABLE limit_pool (
    name TEXT PRIMARY KEY,
    window_s DOUBLE PRECISION NOT NULL,
    held BIGINT NOT NULL,
    lost BIGINT NOT NULL,
    charges TEXT NOT NULL,
    seen_s DOUBLE PRECISION NOT NULL
);
CREATE INDEX limit_pool_by_age ON limit_pool (seen_s);

CREATE TABLE limit_holder (
    holder TEXT PRIMARY KEY,
    expires_s DOUBLE PRECISION NOT NULL
);

CREATE TABLE limit_share (
    holder TEXT NOT NULL,
    name TEXT NOT NULL,
    granted BIGINT NOT NULL,
    used BIGINT NOT NULL,
    returned BIGINT NOT NULL,
    PRIMARY KEY (holder, name)
);
