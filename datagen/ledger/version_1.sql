-- One row for each request. state: sent (asked, outcome unknown), answered or failed (given up, error says why).
CREATE TABLE requests (
    stage TEXT NOT NULL,
    id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('sent', 'answered', 'failed')),
    tries INTEGER NOT NULL DEFAULT 0,
    prompt_hash TEXT NOT NULL,
    request TEXT NOT NULL,
    reply TEXT,
    finish_reason TEXT,
    model TEXT,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    cost_usd REAL,
    batch_id TEXT,
    error TEXT,
    created_at TEXT NOT NULL,
    sent_at TEXT,
    finished_at TEXT,
    PRIMARY KEY (stage, id)
) WITHOUT ROWID;
