-- What the admin API keeps: access tokens, and the answers to requests with an Idempotency-Key.

CREATE TABLE access_token (
    id           uuid        PRIMARY KEY,
    name         text        NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    secret_hash  bytea       NOT NULL UNIQUE CHECK (octet_length(secret_hash) = 32),
    role         text        NOT NULL CHECK (role IN ('admin', 'operator', 'merchant')),
    merchant_id  text,
    permissions  text[],
    created_at   timestamptz NOT NULL DEFAULT now(),
    created_by   text        NOT NULL,
    expires_at   timestamptz,
    last_used_at timestamptz,
    replaces     uuid        UNIQUE REFERENCES access_token (id),
    revoked_at   timestamptz,
    revoked_by   text,
    CHECK (role <> 'merchant' OR merchant_id IS NOT NULL),
    CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);

CREATE INDEX access_token_created ON access_token (created_at DESC, id DESC);

COMMENT ON TABLE access_token IS 'Opaque bearer tokens for programs. Rows are never removed: they are the record of who could do what, and when.';
COMMENT ON COLUMN access_token.id IS 'Names the token in the API; the actor of what is done with it is token:<id>.';
COMMENT ON COLUMN access_token.name IS 'What the token is for, in the words of who made it.';
COMMENT ON COLUMN access_token.secret_hash IS 'SHA-256 of the token''s text, which is kept nowhere: it is 256 random bits, so that a plain hash cannot be searched.';
COMMENT ON COLUMN access_token.role IS 'What the token may do at most.';
COMMENT ON COLUMN access_token.merchant_id IS 'The only merchant whose data the token sees; null for all of them.';
COMMENT ON COLUMN access_token.permissions IS 'Narrows the role''s permissions to these; null for all that the role grants.';
COMMENT ON COLUMN access_token.created_at IS 'When it was made.';
COMMENT ON COLUMN access_token.created_by IS 'Who made it, from the caller''s identity.';
COMMENT ON COLUMN access_token.expires_at IS 'From when on it is refused; null for a token that only a revocation ends.';
COMMENT ON COLUMN access_token.last_used_at IS 'When it was last used, to the minute; tells which tokens nobody needs any more.';
COMMENT ON COLUMN access_token.replaces IS 'The token that was rotated into this one; each at most once.';
COMMENT ON COLUMN access_token.revoked_at IS 'From when on it is refused; rotation revokes, too.';
COMMENT ON COLUMN access_token.revoked_by IS 'Who revoked or rotated it.';

CREATE TABLE idempotency_key (
    subject     text        NOT NULL,
    path        text        NOT NULL,
    key         text        NOT NULL,
    fingerprint bytea       NOT NULL CHECK (octet_length(fingerprint) = 32),
    claim       uuid        NOT NULL,
    claimed_at  timestamptz NOT NULL DEFAULT now(),
    status      smallint,
    headers     text[],
    body        bytea,
    PRIMARY KEY (subject, path, key)
);

CREATE INDEX idempotency_key_claimed ON idempotency_key (claimed_at);

COMMENT ON TABLE idempotency_key IS 'The answers to POSTs with an Idempotency-Key, for a day: the same request again gets the same answer.';
COMMENT ON COLUMN idempotency_key.subject IS 'Whose key: callers do not see each other''s.';
COMMENT ON COLUMN idempotency_key.path IS 'The path of the request: a key may be used for another operation.';
COMMENT ON COLUMN idempotency_key.key IS 'The key as the caller gave it.';
COMMENT ON COLUMN idempotency_key.fingerprint IS 'SHA-256 of query and body: the key with another request is refused.';
COMMENT ON COLUMN idempotency_key.claim IS 'The one try that may write the answer; one that was given up for dead must not.';
COMMENT ON COLUMN idempotency_key.claimed_at IS 'When the try began; a day later the row goes.';
COMMENT ON COLUMN idempotency_key.status IS 'The answer''s HTTP status; null while there is none.';
COMMENT ON COLUMN idempotency_key.headers IS 'The answer''s headers that matter: name, value, name, value ...';
COMMENT ON COLUMN idempotency_key.body IS 'The answer''s body, without what is shown only once.';
