-- The schema of version 1, from which ledgers are carried over.
CREATE TABLE entry (
    number             INTEGER PRIMARY KEY,
    id                 TEXT NOT NULL UNIQUE,
    client             TEXT NOT NULL,
    identity           TEXT NOT NULL,
    capability         TEXT NOT NULL,
    amount             INTEGER NOT NULL CHECK (amount >= 0),
    unit               TEXT NOT NULL,
    pmi                TEXT NOT NULL,
    interaction        TEXT NOT NULL,
    state              TEXT NOT NULL CHECK (state IN
        ('quoted', 'issued', 'settled', 'claimed', 'delivered', 'abandoned', 'expired')),
    waiting            INTEGER NOT NULL CHECK (waiting IN (0, 1)),
    is_open            INTEGER NOT NULL CHECK (is_open = (state IN ('quoted', 'issued'))),
    is_finished        INTEGER NOT NULL CHECK (is_finished = (state IN ('delivered', 'abandoned'))),
    is_authorization   INTEGER NOT NULL CHECK (is_authorization = (state = 'settled' AND waiting = 0)),
    quoted_at_ms       INTEGER NOT NULL,
    deadline_ms        INTEGER NOT NULL,
    watch_until_ms     INTEGER,
    claimed_by         TEXT,
    route              TEXT NOT NULL,
    description        TEXT NOT NULL,
    meta               TEXT,
    payment_request    TEXT,
    reference          TEXT,
    settlement         TEXT,
    history            TEXT NOT NULL,
    request            TEXT,
    response           TEXT
) STRICT;

CREATE INDEX entry_open          ON entry (client, identity) WHERE is_open = 1;
CREATE INDEX entry_unfinished    ON entry (client, identity, quoted_at_ms) WHERE is_finished = 0;
CREATE INDEX entry_authorization ON entry (client, identity, quoted_at_ms) WHERE is_authorization = 1;
CREATE INDEX entry_claimed_by    ON entry (claimed_by) WHERE claimed_by <> id;
CREATE INDEX entry_state         ON entry (state, quoted_at_ms);
CREATE INDEX entry_quoted_at     ON entry (quoted_at_ms, id);

CREATE UNIQUE INDEX entry_reference ON entry (pmi, reference) WHERE reference IS NOT NULL;

CREATE TABLE answered (event TEXT PRIMARY KEY, at_ms INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX answered_at ON answered (at_ms);

CREATE TABLE tally (open_offers INTEGER NOT NULL) STRICT;
INSERT INTO tally VALUES (0);

CREATE TRIGGER entry_opens AFTER INSERT ON entry WHEN new.is_open = 1
    BEGIN UPDATE tally SET open_offers = open_offers + 1; END;
CREATE TRIGGER entry_opens_or_closes AFTER UPDATE OF is_open ON entry WHEN new.is_open <> old.is_open
    BEGIN UPDATE tally SET open_offers = open_offers + new.is_open - old.is_open; END;
CREATE TRIGGER entry_goes AFTER DELETE ON entry WHEN old.is_open = 1
    BEGIN UPDATE tally SET open_offers = open_offers - 1; END;
