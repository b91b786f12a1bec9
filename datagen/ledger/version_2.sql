-- One row for each try that may cost money. outcome: 'open' (in flight, or cut off by a kill), 'settled' (the
-- service said how many tokens), 'free' (surely not billed), 'unknown' (its worst case counts as spent).
CREATE TABLE tries (
    number INTEGER PRIMARY KEY,
    stage TEXT NOT NULL,
    id TEXT NOT NULL,
    model TEXT NOT NULL,
    batch INTEGER NOT NULL DEFAULT 0,
    outcome TEXT NOT NULL DEFAULT 'open' CHECK (outcome IN ('open', 'settled', 'free', 'unknown')),
    most_prompt_tokens INTEGER NOT NULL,
    most_completion_tokens INTEGER NOT NULL,
    reserved_usd REAL,
    prompt_tokens INTEGER,
    completion_tokens INTEGER,
    cost_usd REAL,
    sent_at TEXT NOT NULL,
    finished_at TEXT
);
CREATE INDEX tries_open ON tries (number) WHERE outcome = 'open';

-- What a run wants a reader to know, such as how far it is.
CREATE TABLE notes (key TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;

-- Version 1 counted tries and knew nothing of money. The try that brought the answer has its tokens; the others of
-- a request become one row whose bounds are theirs together: bytes of the body, and the reply's limit.
INSERT INTO tries (stage, id, model, outcome, most_prompt_tokens, most_completion_tokens, prompt_tokens,
    completion_tokens, sent_at, finished_at)
SELECT stage, id, COALESCE(json_extract(request, '$.model'), model, ''), 'settled',
    LENGTH(CAST(request AS BLOB)) + 128, COALESCE(json_extract(request, '$.max_tokens'), 0),
    prompt_tokens, completion_tokens, COALESCE(sent_at, created_at), finished_at
FROM requests WHERE state = 'answered' AND prompt_tokens > 0;
INSERT INTO tries (stage, id, model, outcome, most_prompt_tokens, most_completion_tokens, sent_at, finished_at)
SELECT stage, id, COALESCE(json_extract(request, '$.model'), model, ''), 'unknown',
    (LENGTH(CAST(request AS BLOB)) + 128) * many, COALESCE(json_extract(request, '$.max_tokens'), 0) * many,
    COALESCE(sent_at, created_at), finished_at
FROM (SELECT *, tries - (state = 'answered' AND prompt_tokens > 0) AS many FROM requests) WHERE many > 0;
