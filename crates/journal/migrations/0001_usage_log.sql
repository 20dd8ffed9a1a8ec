-- The usage log: one immutable row for every decision, and what is needed to prove that none is missing.
-- Partitions, one a month, are made by the journal: a month ahead, or when the first event of another month arrives.

CREATE TABLE usage_log (
    event_id             uuid        NOT NULL,
    at                   timestamptz NOT NULL,
    shard                integer     NOT NULL,
    seq                  bigint      NOT NULL,
    action_type          text        NOT NULL,
    code                 text        NOT NULL,
    success              boolean     NOT NULL,
    failure_reason       text        GENERATED ALWAYS AS (CASE WHEN success THEN NULL ELSE code END) STORED,
    replay               boolean     NOT NULL,
    mode                 text        NOT NULL,
    merchant_id          text        NOT NULL,
    currency             char(3),
    amount               bigint      NOT NULL,
    order_no             text        NOT NULL,
    payment_no           text,
    channel              text,
    attempt              uuid,
    reason               text,
    operator_id          text        NOT NULL,
    operator_type        text        NOT NULL CHECK (operator_type IN ('system', 'admin', 'api')),
    policy_version       text,
    trace_id             text,
    daily_window         integer     NOT NULL,
    daily_used_before    bigint      NOT NULL,
    daily_used_after     bigint      NOT NULL,
    daily_count_before   bigint      NOT NULL,
    daily_count_after    bigint      NOT NULL,
    monthly_window       integer     NOT NULL,
    monthly_used_before  bigint      NOT NULL,
    monthly_used_after   bigint      NOT NULL,
    monthly_count_before bigint      NOT NULL,
    monthly_count_after  bigint      NOT NULL,
    yearly_window        integer     NOT NULL,
    yearly_used_before   bigint      NOT NULL,
    yearly_used_after    bigint      NOT NULL,
    yearly_count_before  bigint      NOT NULL,
    yearly_count_after   bigint      NOT NULL,
    account_version      bigint      NOT NULL,
    stored_at            timestamptz NOT NULL DEFAULT now(),
    -- A partitioned table's key must hold the partition column. An event is delivered again with the same time, so the
    -- pair still stores it once. The id stands first because a decision is looked up by its id alone.
    PRIMARY KEY (event_id, at)
) PARTITION BY RANGE (at);

CREATE INDEX usage_log_merchant ON usage_log (merchant_id, at DESC);
CREATE INDEX usage_log_order ON usage_log (order_no, merchant_id);
CREATE INDEX usage_log_sequence ON usage_log (shard, seq);

COMMENT ON TABLE usage_log IS 'Every decision on quota, admitted or refused, written once and never changed.';
COMMENT ON COLUMN usage_log.event_id IS 'The decision id that the payment''s answer carries; an event delivered twice has the same, so it is stored once.';
COMMENT ON COLUMN usage_log.at IS 'When the server took the command, by its own clock; decides the partition.';
COMMENT ON COLUMN usage_log.shard IS 'The Redis shard that decided; with seq it proves that no event is missing.';
COMMENT ON COLUMN usage_log.seq IS 'Place in the shard''s gap-free sequence 1, 2, 3 ...; orders events of one account.';
COMMENT ON COLUMN usage_log.action_type IS 'What was asked: consume or void.';
COMMENT ON COLUMN usage_log.code IS 'The answer''s stable code, as in ADMITTED or DAILY_AMOUNT; what the caller saw.';
COMMENT ON COLUMN usage_log.success IS 'Whether the command was granted; tells refusals apart without knowing every code.';
COMMENT ON COLUMN usage_log.failure_reason IS 'The code where the command was refused, the name that callers of the former service know.';
COMMENT ON COLUMN usage_log.replay IS 'The order had been charged before: the row repeats an answer and changed no counter.';
COMMENT ON COLUMN usage_log.mode IS 'enforce, or shadow where a refused payment went through; a refusal in shadow mode stopped nobody.';
COMMENT ON COLUMN usage_log.merchant_id IS 'Whose quota.';
COMMENT ON COLUMN usage_log.currency IS 'ISO 4217 code of the account; null where a void named none.';
COMMENT ON COLUMN usage_log.amount IS 'Amount of the command in minor units of the currency.';
COMMENT ON COLUMN usage_log.order_no IS 'The idempotency key: all rows of one order share it.';
COMMENT ON COLUMN usage_log.payment_no IS 'The gateway''s own number of the payment, to find it there.';
COMMENT ON COLUMN usage_log.channel IS 'How the payment was made; a policy may restrict it.';
COMMENT ON COLUMN usage_log.attempt IS 'The one request through the proxy; a void names the attempt it takes back.';
COMMENT ON COLUMN usage_log.reason IS 'Why an attempt was voided, as in upstream_5xx.';
COMMENT ON COLUMN usage_log.operator_id IS 'Who asked, from the caller''s identity and never from the request''s body; proxy for payments.';
COMMENT ON COLUMN usage_log.operator_type IS 'system for the proxy and the server itself, admin for people, api for other programs.';
COMMENT ON COLUMN usage_log.policy_version IS 'Version of the limits in force; answers why a payment was refused after limits changed.';
COMMENT ON COLUMN usage_log.trace_id IS 'W3C trace id, to find the request in traces and logs.';
COMMENT ON COLUMN usage_log.daily_window IS 'The day counted against, YYYYMMDD in the merchant''s time zone; figures add up within one window only.';
COMMENT ON COLUMN usage_log.daily_used_before IS 'The day''s consumed amount before the command, in minor units.';
COMMENT ON COLUMN usage_log.daily_used_after IS 'The day''s consumed amount after it; equal to before where nothing changed.';
COMMENT ON COLUMN usage_log.daily_count_before IS 'The day''s number of charges before the command.';
COMMENT ON COLUMN usage_log.daily_count_after IS 'The day''s number of charges after it.';
COMMENT ON COLUMN usage_log.monthly_window IS 'The month counted against, YYYYMM in the merchant''s time zone.';
COMMENT ON COLUMN usage_log.monthly_used_before IS 'The month''s consumed amount before the command, in minor units.';
COMMENT ON COLUMN usage_log.monthly_used_after IS 'The month''s consumed amount after it.';
COMMENT ON COLUMN usage_log.monthly_count_before IS 'The month''s number of charges before the command.';
COMMENT ON COLUMN usage_log.monthly_count_after IS 'The month''s number of charges after it.';
COMMENT ON COLUMN usage_log.yearly_window IS 'The year counted against, YYYY in the merchant''s time zone.';
COMMENT ON COLUMN usage_log.yearly_used_before IS 'The year''s consumed amount before the command, in minor units.';
COMMENT ON COLUMN usage_log.yearly_used_after IS 'The year''s consumed amount after it.';
COMMENT ON COLUMN usage_log.yearly_count_before IS 'The year''s number of charges before the command.';
COMMENT ON COLUMN usage_log.yearly_count_after IS 'The year''s number of charges after it.';
COMMENT ON COLUMN usage_log.account_version IS 'Number of changes of the account so far; two rows that changed one account never share it.';
COMMENT ON COLUMN usage_log.stored_at IS 'When the row reached Postgres; the distance to at is the journal''s delay.';

CREATE TABLE journal_rejected (
    shard        integer     NOT NULL,
    stream_id    text        NOT NULL,
    content_hash uuid        NOT NULL,
    fields       bytea[]     NOT NULL,
    reason       text        NOT NULL,
    rejected_at  timestamptz NOT NULL DEFAULT now(),
    seq          bigint      GENERATED ALWAYS AS (
        CASE WHEN stream_id ~ '^0-[0-9]{1,18}$' THEN substr(stream_id, 3)::bigint END
    ) STORED,
    PRIMARY KEY (shard, stream_id, content_hash)
);

CREATE INDEX journal_rejected_sequence ON journal_rejected (shard, seq);

COMMENT ON TABLE journal_rejected IS 'Events that could not be read as a usage log row, kept whole so that nothing is lost.';
COMMENT ON COLUMN journal_rejected.shard IS 'The shard whose stream held the event.';
COMMENT ON COLUMN journal_rejected.stream_id IS 'The event''s id in the stream; 0-<seq> for events of the server.';
COMMENT ON COLUMN journal_rejected.content_hash IS 'Hash of the fields: an event delivered again is stored once, another event under the same id is kept too.';
COMMENT ON COLUMN journal_rejected.fields IS 'The event as it was: name, value, name, value ...';
COMMENT ON COLUMN journal_rejected.reason IS 'Which field cannot be read and why.';
COMMENT ON COLUMN journal_rejected.rejected_at IS 'When it was set aside.';
COMMENT ON COLUMN journal_rejected.seq IS 'The number in the shard''s sequence: a number set aside is not missing. Null for a foreign id.';

CREATE TABLE journal_shard (
    shard          integer     PRIMARY KEY,
    contiguous_seq bigint      NOT NULL DEFAULT 0 CHECK (contiguous_seq >= 0),
    checked_at     timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE journal_shard IS 'How far each shard''s sequence was checked, so that every check looks at new rows only.';
COMMENT ON COLUMN journal_shard.shard IS 'The shard.';
COMMENT ON COLUMN journal_shard.contiguous_seq IS 'Every number up to this one is stored, or recorded as missing in journal_anomaly.';
COMMENT ON COLUMN journal_shard.checked_at IS 'When the check last moved.';

CREATE TABLE journal_anomaly (
    shard       integer     NOT NULL,
    kind        text        NOT NULL CHECK (kind IN ('missing', 'rewound')),
    first_seq   bigint      NOT NULL,
    last_seq    bigint      NOT NULL CHECK (last_seq >= first_seq),
    found_at    timestamptz NOT NULL DEFAULT now(),
    looked_at   timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz,
    PRIMARY KEY (shard, kind, first_seq, last_seq)
);

COMMENT ON TABLE journal_anomaly IS 'Where a shard''s sequence is not 1, 2, 3 ...: events that never came, or that came twice with different content.';
COMMENT ON COLUMN journal_anomaly.shard IS 'The shard.';
COMMENT ON COLUMN journal_anomaly.kind IS 'missing: the numbers never reached Postgres. rewound: Redis lost acknowledged writes and gave the numbers again.';
COMMENT ON COLUMN journal_anomaly.first_seq IS 'First number of the range.';
COMMENT ON COLUMN journal_anomaly.last_seq IS 'Last number of the range.';
COMMENT ON COLUMN journal_anomaly.found_at IS 'When it was found.';
COMMENT ON COLUMN journal_anomaly.looked_at IS 'When the check last looked whether its events had come; the gap looked at longest ago is the next.';
COMMENT ON COLUMN journal_anomaly.resolved_at IS 'Set by the check when missing events arrive after all, or by whoever repaired the counters; ends the alarm.';
