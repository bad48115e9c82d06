-- One row: what holds for the whole store.
CREATE TABLE store (
    one         INTEGER PRIMARY KEY CHECK (one = 1),
    mark        INTEGER NOT NULL DEFAULT 0,  -- new namespaces start above this version: no old cursor matches again
    sequence    INTEGER NOT NULL DEFAULT 0,  -- change rows are numbered above this, also after the newest are erased
    erased      INTEGER NOT NULL DEFAULT 0,  -- the place of the last erase in that order
    indexed     INTEGER NOT NULL DEFAULT 0,  -- changes up to this one stand in changes_of_namespace
    trimmed     INTEGER NOT NULL DEFAULT 0,  -- the newest change row that any namespace has let go of
    policy      BLOB                         -- JSON; NULL: the built-in defaults
);
INSERT INTO store (one) VALUES (1);

-- The namespace row is the lock, the clock and the meter. AUTOINCREMENT: an id is never used twice.
CREATE TABLE namespaces (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT NOT NULL UNIQUE,
    version     INTEGER NOT NULL,
    created     INTEGER NOT NULL,            -- all times: microseconds since 1970
    updated     INTEGER NOT NULL,
    items       INTEGER NOT NULL DEFAULT 0,
    messages    INTEGER NOT NULL DEFAULT 0,
    conversations INTEGER NOT NULL DEFAULT 0,
    bytes       INTEGER NOT NULL DEFAULT 0,
    day         INTEGER NOT NULL DEFAULT 0,  -- days since 1970
    writes      INTEGER NOT NULL DEFAULT 0,  -- on that day
    sweep_at    INTEGER NOT NULL DEFAULT 0,  -- nothing is due for sweeping before; 0: nothing at all
    floor       INTEGER NOT NULL DEFAULT 0,  -- deletions up to this version are forgotten
    floor_at    INTEGER NOT NULL DEFAULT 0,  -- … and up to this time
    feed_floor  INTEGER NOT NULL DEFAULT 0,  -- changes up to this version are gone
    feed_trimmed INTEGER NOT NULL DEFAULT 0, -- … and up to this change row
    loading     INTEGER NOT NULL DEFAULT 0,  -- a Load is under way
    policy      BLOB
);

CREATE TABLE items (
    namespace   INTEGER NOT NULL,
    key         TEXT NOT NULL,
    version     INTEGER NOT NULL,
    value       BLOB,                        -- JSON; NULL: deleted, the row stays for its past
    created     INTEGER NOT NULL,
    updated     INTEGER NOT NULL,
    expires     INTEGER,
    meta        BLOB,                        -- JSON: tags, author
    past        BLOB,                        -- packed newest past values: botwire.revisions
    UNIQUE (namespace, key)
);
CREATE INDEX items_expiring ON items (namespace, expires) WHERE expires IS NOT NULL;
CREATE INDEX items_deleted ON items (namespace, updated) WHERE value IS NULL;

-- Past values that no longer fit into the item's row, several to a page.
CREATE TABLE revisions (
    namespace   INTEGER NOT NULL,
    key         TEXT NOT NULL,
    version     INTEGER NOT NULL,            -- of the newest revision in the page
    page        BLOB NOT NULL,               -- packed: botwire.revisions
    UNIQUE (namespace, key, version)
);

-- The feed: a narrow log in store-wide order.
CREATE TABLE changes (
    sequence    INTEGER PRIMARY KEY,
    namespace   INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    updated     INTEGER NOT NULL,
    kind        INTEGER NOT NULL,            -- place in ledger.KINDS
    name        TEXT                         -- the key or the conversation
);
-- … and where a namespace's own changes stand in it. Written some hundred changes at a time: what comes after
-- store.indexed is found by looking at the log's end.
CREATE TABLE changes_of_namespace (
    namespace   INTEGER NOT NULL,
    version     INTEGER NOT NULL,
    sequence    INTEGER NOT NULL,
    PRIMARY KEY (namespace, version)
) WITHOUT ROWID;

-- Where feeds over a subtree were cut by an erase below it.
CREATE TABLE feed_cuts (
    scope       TEXT PRIMARY KEY,
    sequence    INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE conversations (
    id          INTEGER PRIMARY KEY,
    namespace   INTEGER NOT NULL,
    name        TEXT NOT NULL,
    messages    INTEGER NOT NULL,
    bytes       INTEGER NOT NULL,
    version     INTEGER NOT NULL,            -- of its last message
    created     INTEGER NOT NULL,
    updated     INTEGER NOT NULL,
    oldest      INTEGER NOT NULL,            -- no message was said before: what retention by age goes by
    UNIQUE (namespace, name)
);
CREATE INDEX conversations_by_age ON conversations (namespace, oldest);

-- place = conversation << 32 | version: a conversation lies together and in order.
CREATE TABLE messages (
    place       INTEGER PRIMARY KEY,
    id          TEXT,                        -- NULL: known by its version
    created     INTEGER NOT NULL,
    role        TEXT,
    author      TEXT,
    edited      INTEGER,
    redacted    INTEGER NOT NULL DEFAULT 0,
    value       BLOB NOT NULL
);
CREATE UNIQUE INDEX messages_by_id ON messages (place >> 32, id) WHERE id IS NOT NULL;
CREATE INDEX messages_of_system ON messages (place) WHERE role IN ('system', 'developer');

-- Writes that may be repeated: what they were and what they answered, without values.
CREATE TABLE requests (
    id          TEXT PRIMARY KEY,
    digest      BLOB NOT NULL,
    results     BLOB NOT NULL,
    at          INTEGER NOT NULL
);
CREATE INDEX requests_by_age ON requests (at);
