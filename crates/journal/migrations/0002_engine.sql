-- What the whole engine writes: holds, captures, refunds, corrections by hand, closed windows, and each account as it stood
-- after its last change.
--
-- The new columns are null, or have a constant default, so that adding them rewrites nothing and a server of before still
-- writes its rows.

ALTER TABLE usage_log
    ALTER COLUMN order_no DROP NOT NULL,
    ADD COLUMN operation_id            uuid,
    ADD COLUMN capture_no              text,
    ADD COLUMN refund_no               text,
    ADD COLUMN daily_epoch             smallint NOT NULL DEFAULT 0,
    ADD COLUMN monthly_epoch           smallint NOT NULL DEFAULT 0,
    ADD COLUMN yearly_epoch            smallint NOT NULL DEFAULT 0,
    ADD COLUMN daily_refunded_before   bigint   NOT NULL DEFAULT 0,
    ADD COLUMN daily_refunded_after    bigint   NOT NULL DEFAULT 0,
    ADD COLUMN monthly_refunded_before bigint   NOT NULL DEFAULT 0,
    ADD COLUMN monthly_refunded_after  bigint   NOT NULL DEFAULT 0,
    ADD COLUMN yearly_refunded_before  bigint   NOT NULL DEFAULT 0,
    ADD COLUMN yearly_refunded_after   bigint   NOT NULL DEFAULT 0,
    ADD COLUMN pending_before          bigint   NOT NULL DEFAULT 0,
    ADD COLUMN pending_after           bigint   NOT NULL DEFAULT 0,
    ADD COLUMN order_state             text,
    ADD COLUMN order_amount            bigint,
    ADD COLUMN order_settled           bigint,
    ADD COLUMN order_refunded          bigint,
    ADD COLUMN order_ttl_secs          bigint,
    ADD COLUMN hold_until              timestamptz,
    ADD COLUMN hold_on_expiry          text,
    ADD COLUMN wait_ms                 bigint   NOT NULL DEFAULT 0,
    ADD COLUMN suspended_at            timestamptz,
    ADD COLUMN counter                 text,
    ADD COLUMN change                  text,
    ADD COLUMN expected_version        bigint,
    ADD COLUMN remarks                 text,
    ADD COLUMN metadata                jsonb;

COMMENT ON COLUMN usage_log.action_type IS 'What was asked: consume, hold, void, settle, reserve_refund, refund, release, expire, adjust, reset, suspend, resume, initialize or roll.';
COMMENT ON COLUMN usage_log.amount IS 'Amount that the command moved, or would have, in minor units: the one it named, else all that was left.';
COMMENT ON COLUMN usage_log.order_no IS 'The idempotency key: all rows of one order share it. Null for commands about the account alone.';
COMMENT ON COLUMN usage_log.attempt IS 'The one request that asked; a void names the attempt it takes back. Null for commands about the account alone.';
COMMENT ON COLUMN usage_log.reason IS 'Why: of a void as in upstream_5xx, of a hold''s end as in hold_expired, of a change by hand in the words of who made it.';
COMMENT ON COLUMN usage_log.account_version IS 'Number of changes of the account so far; two rows that changed one account never share it. A change by hand may name the one it was decided on.';
COMMENT ON COLUMN usage_log.operation_id IS 'Idempotency key of a capture or refund within its order, a hash of the caller''s number; tells repetitions apart when a forgotten order is rebuilt.';
COMMENT ON COLUMN usage_log.capture_no IS 'The caller''s own number of a capture, to find it there.';
COMMENT ON COLUMN usage_log.refund_no IS 'The caller''s own number of a refund, to find it there.';
COMMENT ON COLUMN usage_log.daily_epoch IS 'How often the day was reset, modulo 256: a charge of before a reset is not returned into what came after it.';
COMMENT ON COLUMN usage_log.monthly_epoch IS 'How often the month was reset, modulo 256.';
COMMENT ON COLUMN usage_log.yearly_epoch IS 'How often the year was reset, modulo 256.';
COMMENT ON COLUMN usage_log.daily_refunded_before IS 'Refunds made in the day before the command, in minor units, whenever their charges were.';
COMMENT ON COLUMN usage_log.daily_refunded_after IS 'Refunds made in the day after it.';
COMMENT ON COLUMN usage_log.monthly_refunded_before IS 'Refunds made in the month before the command, in minor units.';
COMMENT ON COLUMN usage_log.monthly_refunded_after IS 'Refunds made in the month after it.';
COMMENT ON COLUMN usage_log.yearly_refunded_before IS 'Refunds made in the year before the command, in minor units.';
COMMENT ON COLUMN usage_log.yearly_refunded_after IS 'Refunds made in the year after it.';
COMMENT ON COLUMN usage_log.pending_before IS 'What open holds had not settled before the command, in minor units.';
COMMENT ON COLUMN usage_log.pending_after IS 'What open holds had not settled after it.';
COMMENT ON COLUMN usage_log.order_state IS 'The order after the command: open, charged, held, settled or voided. Null where the command was about none or about an unknown one.';
COMMENT ON COLUMN usage_log.order_amount IS 'What the order was charged with, in minor units; a refund is checked against it long after Redis has forgotten the order.';
COMMENT ON COLUMN usage_log.order_settled IS 'Captured of the order''s hold so far.';
COMMENT ON COLUMN usage_log.order_refunded IS 'Refunded of the order so far, reserved refunds included.';
COMMENT ON COLUMN usage_log.order_ttl_secs IS 'How long Redis remembers the order from this row on; one that it has forgotten sooner was lost.';
COMMENT ON COLUMN usage_log.hold_until IS 'When the order''s hold ends by itself.';
COMMENT ON COLUMN usage_log.hold_on_expiry IS 'What becomes of a new hold at its end, void or settle.';
COMMENT ON COLUMN usage_log.wait_ms IS 'How long the proxy held an admitted charge back, or after which time a throttled one may come again.';
COMMENT ON COLUMN usage_log.suspended_at IS 'Since when the account is suspended; null where it is not. Answers why charges are refused from then on.';
COMMENT ON COLUMN usage_log.counter IS 'What was adjusted by hand, as in daily_used, or the windows that were reset, as in day,month.';
COMMENT ON COLUMN usage_log.change IS 'How it was adjusted: add, subtract or set.';
COMMENT ON COLUMN usage_log.expected_version IS 'The account''s version that a change by hand was decided on; another one refused it.';
COMMENT ON COLUMN usage_log.remarks IS 'A person''s note on the operation.';
COMMENT ON COLUMN usage_log.metadata IS 'The caller''s own data on the operation, kept as it came.';

CREATE TABLE quota_window (
    merchant_id text        NOT NULL,
    currency    char(3)     NOT NULL,
    period      text        NOT NULL CHECK (period IN ('day', 'month', 'year')),
    window_id   integer     NOT NULL,
    epoch       smallint    NOT NULL,
    amount      bigint      NOT NULL,
    count       bigint      NOT NULL,
    refunded    bigint      NOT NULL,
    closed_at   timestamptz NOT NULL,
    event_id    uuid        NOT NULL,
    PRIMARY KEY (merchant_id, currency, period, window_id)
);

COMMENT ON TABLE quota_window IS 'The last figures of every window that is over, written once, so that totals need no walk through the usage log.';
COMMENT ON COLUMN quota_window.merchant_id IS 'Whose quota.';
COMMENT ON COLUMN quota_window.currency IS 'ISO 4217 code of the account.';
COMMENT ON COLUMN quota_window.period IS 'Kind of window: day, month or year.';
COMMENT ON COLUMN quota_window.window_id IS 'YYYYMMDD, YYYYMM or YYYY in the merchant''s time zone.';
COMMENT ON COLUMN quota_window.epoch IS 'How often the window was reset, modulo 256; its figures are those since the last time.';
COMMENT ON COLUMN quota_window.amount IS 'Consumed amount, in minor units.';
COMMENT ON COLUMN quota_window.count IS 'Number of charges.';
COMMENT ON COLUMN quota_window.refunded IS 'Refunds made in the window, in minor units.';
COMMENT ON COLUMN quota_window.closed_at IS 'When the first command of a later window came; a sweep sends one where no payment does.';
COMMENT ON COLUMN quota_window.event_id IS 'The row of the usage log that closed the window.';

CREATE TABLE quota_account (
    merchant_id      text        NOT NULL,
    currency         char(3)     NOT NULL,
    shard            integer     NOT NULL,
    seq              bigint      NOT NULL,
    version          bigint      NOT NULL,
    daily_window     integer     NOT NULL,
    daily_used       bigint      NOT NULL,
    daily_count      bigint      NOT NULL,
    daily_refunded   bigint      NOT NULL,
    monthly_window   integer     NOT NULL,
    monthly_used     bigint      NOT NULL,
    monthly_count    bigint      NOT NULL,
    monthly_refunded bigint      NOT NULL,
    yearly_window    integer     NOT NULL,
    yearly_used      bigint      NOT NULL,
    yearly_count     bigint      NOT NULL,
    yearly_refunded  bigint      NOT NULL,
    pending_amount   bigint      NOT NULL,
    open_until       integer,
    suspended_at     timestamptz,
    suspended_reason text,
    suspended_by     text,
    last_order_no    text,
    last_payment_no  text,
    last_updated_by  text        NOT NULL,
    updated_at       timestamptz NOT NULL,
    PRIMARY KEY (merchant_id, currency)
-- Rows change all the time: room on their pages keeps a change from touching the indexes.
) WITH (fillfactor = 70);

CREATE INDEX quota_account_open ON quota_account (open_until, merchant_id, currency) WHERE open_until IS NOT NULL;
CREATE INDEX quota_account_suspended ON quota_account (merchant_id, currency) WHERE suspended_at IS NOT NULL;

COMMENT ON TABLE quota_account IS 'Every account as its last change left it, for lists and sweeps. Redis has the truth; this follows by the journal''s delay, and still shows windows that are over.';
COMMENT ON COLUMN quota_account.merchant_id IS 'Whose quota.';
COMMENT ON COLUMN quota_account.currency IS 'ISO 4217 code of the account.';
COMMENT ON COLUMN quota_account.shard IS 'The Redis shard that holds the account.';
COMMENT ON COLUMN quota_account.seq IS 'The event that the row stems from; an older one, stored later, does not overwrite it.';
COMMENT ON COLUMN quota_account.version IS 'Number of changes of the account; a change by hand names the one it was decided on.';
COMMENT ON COLUMN quota_account.daily_window IS 'The day that the figures are of, YYYYMMDD in the merchant''s time zone; an earlier one than today counts as nothing used.';
COMMENT ON COLUMN quota_account.daily_used IS 'Consumed in the day, in minor units.';
COMMENT ON COLUMN quota_account.daily_count IS 'Charges in the day.';
COMMENT ON COLUMN quota_account.daily_refunded IS 'Refunds made in the day, in minor units.';
COMMENT ON COLUMN quota_account.monthly_window IS 'The month that the figures are of, YYYYMM.';
COMMENT ON COLUMN quota_account.monthly_used IS 'Consumed in the month, in minor units.';
COMMENT ON COLUMN quota_account.monthly_count IS 'Charges in the month.';
COMMENT ON COLUMN quota_account.monthly_refunded IS 'Refunds made in the month, in minor units.';
COMMENT ON COLUMN quota_account.yearly_window IS 'The year that the figures are of, YYYY.';
COMMENT ON COLUMN quota_account.yearly_used IS 'Consumed in the year, in minor units.';
COMMENT ON COLUMN quota_account.yearly_count IS 'Charges in the year.';
COMMENT ON COLUMN quota_account.yearly_refunded IS 'Refunds made in the year, in minor units.';
COMMENT ON COLUMN quota_account.pending_amount IS 'What open holds have not settled, in minor units.';
COMMENT ON COLUMN quota_account.open_until IS 'Last day, YYYYMMDD, of the shortest window that has counted something: after it the window''s figures wait to be closed. Null where none has.';
COMMENT ON COLUMN quota_account.suspended_at IS 'Since when charges are refused; null where they are not.';
COMMENT ON COLUMN quota_account.suspended_reason IS 'Why, in the words of who suspended it.';
COMMENT ON COLUMN quota_account.suspended_by IS 'Who suspended it.';
COMMENT ON COLUMN quota_account.last_order_no IS 'The order that changed the account last.';
COMMENT ON COLUMN quota_account.last_payment_no IS 'The gateway''s number of the last payment that named one.';
COMMENT ON COLUMN quota_account.last_updated_by IS 'Who changed the account last.';
COMMENT ON COLUMN quota_account.updated_at IS 'When that was, by the clock of the server that decided.';
