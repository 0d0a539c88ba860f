-- Documents, profiles and conversations.

CREATE TABLE file (
    id INTEGER PRIMARY KEY,
    collection TEXT NOT NULL,
    path TEXT NOT NULL,
    mtime_ns INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    digest BLOB NOT NULL,
    UNIQUE (collection, path)
) STRICT;

CREATE TABLE passage (
    id INTEGER PRIMARY KEY,
    file INTEGER NOT NULL REFERENCES file (id) ON DELETE CASCADE,
    heading TEXT NOT NULL,
    body TEXT NOT NULL
) STRICT;
CREATE INDEX passage_of_file ON passage (file);

CREATE VIRTUAL TABLE passage_words USING fts5 (
    heading, body, content = 'passage', content_rowid = 'id', tokenize = 'porter unicode61 remove_diacritics 2'
);
INSERT INTO passage_words (passage_words, rank) VALUES ('rank', 'bm25(3.0, 1.0)');
CREATE TRIGGER passage_added AFTER INSERT ON passage BEGIN
    INSERT INTO passage_words (rowid, heading, body) VALUES (new.id, new.heading, new.body);
END;
CREATE TRIGGER passage_removed AFTER DELETE ON passage BEGIN
    INSERT INTO passage_words (passage_words, rowid, heading, body) VALUES ('delete', old.id, old.heading, old.body);
END;

CREATE TABLE profile (
    user TEXT PRIMARY KEY,
    fields TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE turn (
    id INTEGER PRIMARY KEY,
    tenant TEXT NOT NULL,
    conversation TEXT NOT NULL,
    role TEXT NOT NULL,
    body TEXT NOT NULL,
    at_s REAL NOT NULL
) STRICT;
CREATE INDEX turn_of_conversation ON turn (tenant, conversation, id);
CREATE INDEX turn_by_age ON turn (at_s);
