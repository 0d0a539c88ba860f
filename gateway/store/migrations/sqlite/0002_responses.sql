-- Responses that clients of OpenAI's Responses API go on from.

CREATE TABLE response (
    number INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    id TEXT NOT NULL,
    previous TEXT,
    used_s REAL NOT NULL,
    size_bytes INTEGER NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (tenant, id)
) STRICT;
CREATE INDEX response_by_use ON response (tenant, used_s, number, size_bytes);
CREATE INDEX response_by_age ON response (used_s);
