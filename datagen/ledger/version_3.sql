-- One row for each input file of a provider's batch interface. state: 'planned' (its requests and their worst case are
-- written down; it may or may not have reached the provider), 'open' (the provider has it, as batch_id), 'ended'.
CREATE TABLE batches (
    number INTEGER PRIMARY KEY,
    stage TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('planned', 'open', 'ended')),
    base_url TEXT NOT NULL,
    model TEXT NOT NULL,
    requests INTEGER NOT NULL,
    prompt_tokens INTEGER NOT NULL,
    content TEXT NOT NULL,
    batch_id TEXT,
    status TEXT NOT NULL DEFAULT '',
    completed INTEGER NOT NULL DEFAULT 0,
    failed INTEGER NOT NULL DEFAULT 0,
    planned_at TEXT NOT NULL,
    checked_at TEXT,
    ended_at TEXT,
    words TEXT NOT NULL DEFAULT ''
);
