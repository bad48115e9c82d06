-- Search. Each namespace has its own index: what a search counts and reads is of its scope alone. What is written is not
-- indexed then: a search takes in what has changed since (in memory), and some hundred changes at a time are written here.

-- How far a namespace's index has come, and what it counts.
CREATE TABLE search_namespaces (
    namespace   INTEGER PRIMARY KEY,
    version     INTEGER NOT NULL,            -- changes up to this one are in
    generation  INTEGER NOT NULL,            -- drawn anew with every write to this index: what a process remembers of it is over
    terms       INTEGER NOT NULL,            -- botwire.search.words.VERSION that it was made with
    counts      TEXT NOT NULL                -- JSON: see index.Counts
);

-- What is indexed: an item by its key, a message by its place.
-- document: conversation << 32 | position in it, or 1 << 62 | namespace << 32 | number
CREATE TABLE search_documents (
    document    INTEGER PRIMARY KEY,
    namespace   INTEGER NOT NULL,
    place       INTEGER,
    key         TEXT,
    terms       BLOB NOT NULL,               -- its terms, a line each: what has to go when it goes
    digest      INTEGER                      -- of its text, if that was embedded; 0: there was nothing to embed
);
CREATE INDEX search_documents_by_digest ON search_documents (namespace, digest);
CREATE UNIQUE INDEX search_documents_by_place ON search_documents (place) WHERE place IS NOT NULL;
CREATE UNIQUE INDEX search_documents_by_key ON search_documents (namespace, key) WHERE key IS NOT NULL;

-- What ranking needs to know of documents, 256 neighbours to a block: document >> 8 = block.
CREATE TABLE search_blocks (
    namespace   INTEGER NOT NULL,
    block       INTEGER NOT NULL,
    first_at    INTEGER NOT NULL,            -- no document in it is older
    last_at     INTEGER NOT NULL,            -- … or newer
    data        BLOB NOT NULL,               -- packed: see index.Block
    PRIMARY KEY (namespace, block)
) WITHOUT ROWID;

-- Which documents hold a term, and how often, in order; a page begins at or after `first`.
CREATE TABLE search_postings (
    namespace   INTEGER NOT NULL,
    term        TEXT NOT NULL,
    first       INTEGER NOT NULL,
    data        BLOB NOT NULL,               -- packed: ids of 8 bytes, then counts of one
    PRIMARY KEY (namespace, term, first)
) WITHOUT ROWID;

-- Embeddings, by what was embedded: they outlive an index that is made anew. One model to a namespace.
CREATE TABLE search_vectors (
    namespace   INTEGER NOT NULL,
    digest      INTEGER NOT NULL,
    vector      BLOB NOT NULL,               -- float32, little-endian
    UNIQUE (namespace, digest)
);
CREATE TABLE search_embedders (
    namespace   INTEGER PRIMARY KEY,
    model       TEXT NOT NULL,
    dimension   INTEGER NOT NULL
);

-- Where a conversation's next message goes.
CREATE TABLE search_conversations (
    namespace   INTEGER NOT NULL,
    name        TEXT NOT NULL,
    conversation INTEGER NOT NULL,
    position    INTEGER NOT NULL,            -- of its last message
    session     INTEGER NOT NULL,            -- … the session that it is in
    at          INTEGER NOT NULL,            -- … and when it was said
    PRIMARY KEY (namespace, name)
) WITHOUT ROWID;

-- Changes that the feed has let go of before they were indexed.
CREATE TABLE search_pending (
    namespace   INTEGER NOT NULL,
    kind        INTEGER NOT NULL,
    name        TEXT NOT NULL,               -- '' where the change has none
    first       INTEGER NOT NULL,            -- version of the first of them
    last        INTEGER NOT NULL,
    PRIMARY KEY (namespace, kind, name)
) WITHOUT ROWID;

-- What is there already is indexed little by little. (No index was ever made of terms of version 0.)
INSERT INTO search_namespaces SELECT id, version, 0, 0, '{"walk":{"version":0}}' FROM namespaces;

-- A conversation's id is never used twice: documents are named by it. No conversation above this id was ever deleted.
ALTER TABLE store ADD COLUMN conversations INTEGER NOT NULL DEFAULT 0;

-- Messages that search leaves out.
ALTER TABLE messages ADD COLUMN unsearched INTEGER NOT NULL DEFAULT 0;
