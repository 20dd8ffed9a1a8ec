-- Alerts: what was told of whom, to whom, and how it ended.

ALTER TABLE quota_account
    ADD COLUMN alert_marks integer NOT NULL DEFAULT 0,
    ADD COLUMN alert_list  integer NOT NULL DEFAULT 0;

COMMENT ON COLUMN quota_account.alert_marks IS 'How many thresholds the usage of each watched limit has reached, four bits each; a sweep compares them with what the policy of now says.';
COMMENT ON COLUMN quota_account.alert_list IS 'The list of thresholds that the marks are counted in; 0 where none is reached.';

ALTER TABLE limit_policy
    ADD COLUMN thresholds integer[] CHECK (cardinality(thresholds) <= 8 AND 1 <= ALL (thresholds) AND 1000 >= ALL (thresholds));

COMMENT ON COLUMN limit_policy.thresholds IS 'Percentages of the limits at which usage is told of; empty for none, null to inherit.';

CREATE TABLE quota_alert (
    alert_id          uuid        PRIMARY KEY,
    merchant_id       text,
    currency          char(3),
    subject           text        NOT NULL,
    threshold         integer     CHECK (threshold BETWEEN 1 AND 1000),
    alert_type        text        NOT NULL,
    alert_level       text        NOT NULL CHECK (alert_level IN ('warning', 'critical')),
    window_id         integer,
    current_used      bigint,
    max               bigint,
    usage_percent     numeric,
    message           text        NOT NULL,
    policy_version    text,
    event_id          uuid,
    shard             integer,
    raised_seq        bigint,
    trace_id          text,
    raised_at         timestamptz NOT NULL,
    acknowledged_at   timestamptz,
    acknowledged_by   text,
    acknowledge_notes text,
    resolved_at       timestamptz,
    resolved_by       text,
    resolve_reason    text,
    resolve_notes     text,
    resolve_event_id  uuid,
    raise_seen_at     timestamptz,
    resolve_seen_at   timestamptz,
    CHECK ((merchant_id IS NULL) = (currency IS NULL)),
    CHECK ((acknowledged_at IS NULL) = (acknowledged_by IS NULL)),
    CHECK ((resolved_at IS NULL) = (resolved_by IS NULL))
);

-- An event that comes again raises nothing again.
CREATE UNIQUE INDEX quota_alert_event ON quota_alert (event_id, subject, coalesce(threshold, 0)) WHERE event_id IS NOT NULL;
-- What is open is open once.
CREATE UNIQUE INDEX quota_alert_open ON quota_alert (
    coalesce(merchant_id, ''), coalesce(currency, ''), subject, coalesce(window_id, 0), coalesce(threshold, 0)
) WHERE resolved_at IS NULL AND subject <> 'over_capture';
CREATE INDEX quota_alert_unresolved ON quota_alert (raised_at, alert_id) WHERE resolved_at IS NULL;
CREATE INDEX quota_alert_merchant ON quota_alert (merchant_id, raised_at, alert_id);
-- What the notifier has yet to look at.
CREATE INDEX quota_alert_unseen ON quota_alert (alert_id)
    WHERE raise_seen_at IS NULL OR (resolved_at IS NOT NULL AND resolve_seen_at IS NULL);
CREATE INDEX quota_alert_raised ON quota_alert (raised_at, alert_id);
-- What is old enough to go.
CREATE INDEX quota_alert_resolved ON quota_alert (resolved_at) WHERE resolved_at IS NOT NULL;

COMMENT ON TABLE quota_alert IS 'Every alert: one row from the crossing that raised it until its end. Those of accounts come from the journal''s events, those of operators from the servers.';
COMMENT ON COLUMN quota_alert.alert_id IS 'UUIDv7.';
COMMENT ON COLUMN quota_alert.merchant_id IS 'Whose account; null for what concerns operators only.';
COMMENT ON COLUMN quota_alert.currency IS 'ISO 4217 code of the account; null for what concerns operators only.';
COMMENT ON COLUMN quota_alert.subject IS 'What it is about: a limit, as in daily_amount, monthly_count or pending_amount; or suspended, over_capture, degraded_store, journal_backlog or drift.';
COMMENT ON COLUMN quota_alert.threshold IS 'The percentage of the limit that usage has reached; null where the subject is no limit.';
COMMENT ON COLUMN quota_alert.alert_type IS 'Subject and threshold as callers know them: daily_80, daily_count_100, pending_80, suspended.';
COMMENT ON COLUMN quota_alert.alert_level IS 'critical from 100 % on, and for what stops payments or the proof of them; else warning.';
COMMENT ON COLUMN quota_alert.window_id IS 'The window whose usage it is: YYYYMMDD, YYYYMM or YYYY; null where no window lifts it.';
COMMENT ON COLUMN quota_alert.current_used IS 'What counted against the limit when it was raised, in minor units or as a number of charges.';
COMMENT ON COLUMN quota_alert.max IS 'The limit then.';
COMMENT ON COLUMN quota_alert.usage_percent IS 'The one as a percentage of the other, without an upper bound; null for a limit of nothing.';
COMMENT ON COLUMN quota_alert.message IS 'The same in words.';
COMMENT ON COLUMN quota_alert.policy_version IS 'The policy that set the limit.';
COMMENT ON COLUMN quota_alert.event_id IS 'The row of the usage log that raised it.';
COMMENT ON COLUMN quota_alert.shard IS 'The Redis shard of that event.';
COMMENT ON COLUMN quota_alert.raised_seq IS 'That event''s number; an older event that comes again does not end the alert.';
COMMENT ON COLUMN quota_alert.trace_id IS 'The trace of the request that raised it, 32 hexadecimal digits.';
COMMENT ON COLUMN quota_alert.raised_at IS 'When usage crossed the threshold, by the clock of the server that decided.';
COMMENT ON COLUMN quota_alert.acknowledged_at IS 'When somebody took it on.';
COMMENT ON COLUMN quota_alert.acknowledged_by IS 'Who did.';
COMMENT ON COLUMN quota_alert.acknowledge_notes IS 'In their words.';
COMMENT ON COLUMN quota_alert.resolved_at IS 'When it ended; null while it is open.';
COMMENT ON COLUMN quota_alert.resolved_by IS 'Who ended it; system where usage fell or the trouble passed.';
COMMENT ON COLUMN quota_alert.resolve_reason IS 'Why it ended: refund, void, release, settle, expire, adjust or reset, as what took usage below the threshold; limit_raised, thresholds_changed, window_closed, counters_lost, resumed, recovered; or by_hand.';
COMMENT ON COLUMN quota_alert.resolve_notes IS 'In the words of who ended it.';
COMMENT ON COLUMN quota_alert.resolve_event_id IS 'The row of the usage log that ended it.';
COMMENT ON COLUMN quota_alert.raise_seen_at IS 'When the messages that tell of it were made, by the settings of then.';
COMMENT ON COLUMN quota_alert.resolve_seen_at IS 'When those that tell of its end were.';

CREATE TABLE alert_settings (
    scope      text        PRIMARY KEY CHECK (scope = 'operators' OR scope LIKE 'merchant:%'),
    document   jsonb       NOT NULL,
    revision   bigint      NOT NULL DEFAULT 1,
    updated_at timestamptz NOT NULL DEFAULT now(),
    updated_by text        NOT NULL
);

COMMENT ON TABLE alert_settings IS 'Who is told of which alerts, and how.';
COMMENT ON COLUMN alert_settings.scope IS 'operators, or merchant: and the merchant''s id.';
COMMENT ON COLUMN alert_settings.document IS 'Channels and routes as the API takes them, secrets included: keep dumps of this table private.';
COMMENT ON COLUMN alert_settings.revision IS 'Number of changes; a change may name the one it was decided on.';
COMMENT ON COLUMN alert_settings.updated_at IS 'Last change.';
COMMENT ON COLUMN alert_settings.updated_by IS 'Whose it was.';

CREATE TABLE alert_message (
    message_id   uuid        PRIMARY KEY,
    alert_id     uuid        REFERENCES quota_alert ON DELETE CASCADE,
    kind         text        NOT NULL CHECK (kind IN ('raised', 'resolved', 'digest', 'test')),
    scope        text        NOT NULL,
    channel_id   text        NOT NULL,
    channel_kind text        NOT NULL,
    alert_type   text        NOT NULL,
    alert_level  text        NOT NULL,
    body         jsonb       NOT NULL,
    state        text        NOT NULL CHECK (state IN ('pending', 'held', 'sent', 'dead')),
    told         text[]      NOT NULL DEFAULT '{}',
    attempts     integer     NOT NULL DEFAULT 0,
    attempts_before integer  NOT NULL DEFAULT 0,
    created_at   timestamptz NOT NULL DEFAULT now(),
    next_try_at  timestamptz NOT NULL DEFAULT now(),
    give_up_at   timestamptz NOT NULL,
    ended_at     timestamptz,
    held_by      text        CHECK (held_by IN ('limit', 'route')),
    digest_id    uuid,
    by_hand      text
);

-- One change of an alert is told once on each channel.
CREATE UNIQUE INDEX alert_message_once ON alert_message (alert_id, kind, scope, channel_id) WHERE alert_id IS NOT NULL;
-- The next of one channel, and from channel to channel, however many of one wait.
CREATE INDEX alert_message_due ON alert_message (scope, channel_id, next_try_at, message_id) WHERE state = 'pending';
CREATE INDEX alert_message_overdue ON alert_message (give_up_at) WHERE state = 'pending';
CREATE INDEX alert_message_held ON alert_message (scope, channel_id, next_try_at) WHERE state = 'held';
CREATE INDEX alert_message_digest ON alert_message (digest_id) WHERE digest_id IS NOT NULL;
CREATE INDEX alert_message_digests ON alert_message (scope, channel_id, created_at) WHERE kind = 'digest';
-- Lists, the newest first.
CREATE INDEX alert_message_created ON alert_message (created_at, message_id);
CREATE INDEX alert_message_scope ON alert_message (scope, created_at, message_id);
CREATE INDEX alert_message_dead ON alert_message (created_at, message_id) WHERE state = 'dead';
-- What is old enough to go.
CREATE INDEX alert_message_ended ON alert_message (ended_at) WHERE ended_at IS NOT NULL;
CREATE INDEX alert_message_by_hand ON alert_message (scope) WHERE by_hand IS NOT NULL;

COMMENT ON TABLE alert_message IS 'What one channel is to be told; a digest sums up several that were held back.';
COMMENT ON COLUMN alert_message.message_id IS 'UUIDv7, the webhook-id: the same at every try, so that a receiver knows a repetition.';
COMMENT ON COLUMN alert_message.alert_id IS 'The alert; null for digests and tests.';
COMMENT ON COLUMN alert_message.kind IS 'That an alert was raised or resolved, a digest, or a test by hand.';
COMMENT ON COLUMN alert_message.scope IS 'Whose settings name the channel: operators, or merchant: and the id.';
COMMENT ON COLUMN alert_message.channel_id IS 'The channel''s own name in those settings.';
COMMENT ON COLUMN alert_message.channel_kind IS 'webhook, email, bark, gotify or slack.';
COMMENT ON COLUMN alert_message.alert_type IS 'The alert''s type, by which messages are counted against the rate limit.';
COMMENT ON COLUMN alert_message.alert_level IS 'warning or critical; critical ones are not held back.';
COMMENT ON COLUMN alert_message.body IS 'What it says, in a form that every kind of channel can be written from.';
COMMENT ON COLUMN alert_message.state IS 'pending until it is sent, held for a digest, sent, or dead when its time was over.';
COMMENT ON COLUMN alert_message.told IS 'Recipients of mail that have taken it; a further try goes to the others only.';
COMMENT ON COLUMN alert_message.attempts IS 'How often it was tried.';
COMMENT ON COLUMN alert_message.attempts_before IS 'How often before somebody asked for it again: the waits between tries begin anew with that.';
COMMENT ON COLUMN alert_message.created_at IS 'When it was made.';
COMMENT ON COLUMN alert_message.next_try_at IS 'When it is tried next; of one that is held, when its digest is due.';
COMMENT ON COLUMN alert_message.give_up_at IS 'When it is tried no more.';
COMMENT ON COLUMN alert_message.ended_at IS 'When it was sent, or given up.';
COMMENT ON COLUMN alert_message.held_by IS 'What holds it back: the rate limit, or a route whose delivery is a digest.';
COMMENT ON COLUMN alert_message.digest_id IS 'The digest that it was summed up in; it ends with that.';
COMMENT ON COLUMN alert_message.by_hand IS 'Who asked for the next try; null for those in turn.';

CREATE TABLE alert_delivery (
    delivery_id uuid        PRIMARY KEY,
    message_id  uuid        NOT NULL REFERENCES alert_message ON DELETE CASCADE,
    attempt     integer     NOT NULL,
    started_at  timestamptz NOT NULL,
    took_ms     bigint      NOT NULL,
    outcome     text        NOT NULL CHECK (outcome IN ('sent', 'failed')),
    status      integer,
    response    text,
    error       text,
    next_try_at timestamptz,
    by_hand     text
);

CREATE INDEX alert_delivery_message ON alert_delivery (message_id, attempt);
-- What was asked for by hand of late is bounded.
CREATE INDEX alert_delivery_by_hand ON alert_delivery (started_at) WHERE by_hand IS NOT NULL;

COMMENT ON TABLE alert_delivery IS 'Every try to deliver a message.';
COMMENT ON COLUMN alert_delivery.delivery_id IS 'UUIDv7.';
COMMENT ON COLUMN alert_delivery.message_id IS 'What was delivered.';
COMMENT ON COLUMN alert_delivery.attempt IS 'The number of the try, from 1.';
COMMENT ON COLUMN alert_delivery.started_at IS 'When it began.';
COMMENT ON COLUMN alert_delivery.took_ms IS 'How long it took.';
COMMENT ON COLUMN alert_delivery.outcome IS 'Whether the receiver took it.';
COMMENT ON COLUMN alert_delivery.status IS 'The status that was answered: of HTTP, or of SMTP.';
COMMENT ON COLUMN alert_delivery.response IS 'The beginning of the answer, without the channel''s secrets.';
COMMENT ON COLUMN alert_delivery.error IS 'Why there was no answer, or why it does not count.';
COMMENT ON COLUMN alert_delivery.next_try_at IS 'When the next try is due; null where there is none.';
COMMENT ON COLUMN alert_delivery.by_hand IS 'Who asked for this try; null for those in turn.';
