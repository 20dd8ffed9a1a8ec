-- Operations whose outcome at the gateway is unknown: an answer that says neither, or none at all. Their quota is kept until the
-- gateway's later word or a person settles them.

CREATE TABLE unknown_outcome (
    outcome_id        uuid        PRIMARY KEY,
    merchant_id       text        NOT NULL,
    currency          char(3)     NOT NULL,
    order_no          text        NOT NULL,
    attempt           uuid,
    operation         text        NOT NULL CHECK (operation IN ('consume', 'hold', 'settle', 'refund', 'void')),
    operation_id      uuid,
    operation_no      text,
    amount            bigint      NOT NULL,
    reason            text        NOT NULL,
    since             timestamptz NOT NULL,
    resolved_at       timestamptz,
    resolution        text        CHECK (resolution IN ('made', 'not_made')),
    resolved_by       text,
    resolved_event_id uuid,
    note              text,
    CHECK ((resolved_at IS NULL) = (resolution IS NULL)),
    CHECK ((resolved_at IS NULL) = (resolved_by IS NULL)),
    CHECK (resolved_at >= since)
);

CREATE UNIQUE INDEX unknown_outcome_open ON unknown_outcome
    (merchant_id, order_no, operation, coalesce(operation_id, '00000000-0000-0000-0000-000000000000'::uuid))
    WHERE resolved_at IS NULL;
CREATE INDEX unknown_outcome_since ON unknown_outcome (since, outcome_id) WHERE resolved_at IS NULL;
CREATE INDEX unknown_outcome_all ON unknown_outcome (since, outcome_id);
CREATE INDEX unknown_outcome_merchant ON unknown_outcome (merchant_id, since, outcome_id);

COMMENT ON TABLE unknown_outcome IS 'Operations whose outcome at the gateway is or was unknown, one row each, so that each can be found and settled.';
COMMENT ON COLUMN unknown_outcome.outcome_id IS 'The row of the usage log that reported it; the id by which it is resolved.';
COMMENT ON COLUMN unknown_outcome.merchant_id IS 'Whose quota.';
COMMENT ON COLUMN unknown_outcome.currency IS 'ISO 4217 code of the account.';
COMMENT ON COLUMN unknown_outcome.order_no IS 'The order, by which the gateway is asked what became of it.';
COMMENT ON COLUMN unknown_outcome.attempt IS 'The request through the proxy that was left open; a reserved refund is cancelled by it.';
COMMENT ON COLUMN unknown_outcome.operation IS 'What the gateway was asked for: consume, hold, settle, refund or void.';
COMMENT ON COLUMN unknown_outcome.operation_id IS 'Key of the capture or refund within its order: the same one, made later, settles it.';
COMMENT ON COLUMN unknown_outcome.operation_no IS 'The caller''s own number of the capture or refund, to find it there.';
COMMENT ON COLUMN unknown_outcome.amount IS 'What was asked for, in minor units; 0 where the request named no amount.';
COMMENT ON COLUMN unknown_outcome.reason IS 'Why it is unknown: a status as in status_503, a response flag of Envoy as in flag_UC, or another word.';
COMMENT ON COLUMN unknown_outcome.since IS 'When it was reported.';
COMMENT ON COLUMN unknown_outcome.resolved_at IS 'When it was settled; null while it is open.';
COMMENT ON COLUMN unknown_outcome.resolution IS 'What became of it: made, or not_made.';
COMMENT ON COLUMN unknown_outcome.resolved_by IS 'Who settled it: proxy for the gateway''s later word, else the caller''s subject.';
COMMENT ON COLUMN unknown_outcome.resolved_event_id IS 'The row of the usage log that settled it; null where nothing had to be changed.';
COMMENT ON COLUMN unknown_outcome.note IS 'Why, in the words of who settled it by hand, or the operation that did.';

COMMENT ON COLUMN usage_log.action_type IS 'What was asked: consume, hold, void, settle, reserve_refund, refund, release, expire, unknown, resolve, adjust, reset, suspend, resume, suspend_merchant, resume_merchant, initialize or roll.';
COMMENT ON COLUMN usage_log.change IS 'How it was adjusted: add, subtract or set. What an unknown outcome is of: charge, capture, refund or void. What became of one: made or not_made.';
