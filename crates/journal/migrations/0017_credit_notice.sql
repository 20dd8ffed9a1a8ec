-- Notices of dunning that were sent, and alerts that only some receive. A notice and the alert that carries it are written in one
-- transaction, so that each is sent once.

CREATE TABLE credit_notice (
    merchant_id text        NOT NULL,
    currency    char(3)     NOT NULL,
    cycle       integer     NOT NULL,
    step        smallint    NOT NULL,
    on_day      date        NOT NULL,
    due_on      date        NOT NULL,
    amount      bigint      NOT NULL CHECK (amount > 0),
    kind        text        NOT NULL CHECK (kind IN ('reminder', 'formal', 'final')),
    template    text        NOT NULL,
    recipients  text[]      NOT NULL CHECK (recipients <@ ARRAY['merchant', 'operators'] AND cardinality(recipients) > 0),
    channels    text[]      NOT NULL,
    sent_at     timestamptz NOT NULL,
    alert_id    uuid        NOT NULL,
    PRIMARY KEY (merchant_id, currency, cycle, step)
);

COMMENT ON TABLE credit_notice IS 'Every notice of dunning that was sent: one for each step of a statement. Rows are only added.';
COMMENT ON COLUMN credit_notice.merchant_id IS 'The merchant.';
COMMENT ON COLUMN credit_notice.currency IS 'ISO 4217.';
COMMENT ON COLUMN credit_notice.cycle IS 'The cycle of the statement: its first day, YYYYMMDD.';
COMMENT ON COLUMN credit_notice.step IS 'The step of the ladder: its day past due; 0 or less is before or on the due date.';
COMMENT ON COLUMN credit_notice.on_day IS 'The business day on which the step was reached.';
COMMENT ON COLUMN credit_notice.due_on IS 'When the statement is due.';
COMMENT ON COLUMN credit_notice.amount IS 'What was unpaid of the minimum when it was sent, minor units.';
COMMENT ON COLUMN credit_notice.kind IS 'reminder, formal or final, as in the terms of that day.';
COMMENT ON COLUMN credit_notice.template IS 'The id of the text.';
COMMENT ON COLUMN credit_notice.recipients IS 'Whom it was addressed to: merchant, operators or both.';
COMMENT ON COLUMN credit_notice.channels IS 'The alert channels that the step names, by id or kind.';
COMMENT ON COLUMN credit_notice.sent_at IS 'When its alert was raised, by Redis'' clock.';
COMMENT ON COLUMN credit_notice.alert_id IS 'The alert that carries it. Alerts that are over are removed after some time; the notice stays.';

CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON credit_notice FOR EACH ROW EXECUTE FUNCTION limit_policy_refuse();

ALTER TABLE quota_alert
    ADD COLUMN recipients text[] CHECK (recipients <@ ARRAY['merchant', 'operators'] AND cardinality(recipients) > 0),
    ADD COLUMN channels   text[];

COMMENT ON COLUMN quota_alert.recipients IS 'Who may see it and whose settings route it: merchant, operators or both; null for both.';
COMMENT ON COLUMN quota_alert.channels IS 'Of the channels that a route names, those that it is sent on, by id or kind, where one of them is among these; null for all.';
COMMENT ON COLUMN quota_alert.subject IS 'What it is about: a limit, as in daily_amount, monthly_count or pending_amount; or suspended, over_capture, degraded_store, journal_backlog, drift, clock_skew, credit_dunning or credit_watch.';
COMMENT ON COLUMN quota_alert.window_id IS 'The window whose usage it is: YYYYMMDD, YYYYMM or YYYY; of credit_dunning the cycle of the statement, of credit_watch the day since which risk watches the line; null where no window lifts it.';
COMMENT ON COLUMN quota_alert.resolve_reason IS 'Why it ended: refund, void, release, settle, expire, adjust or reset, as what took usage below the threshold; limit_raised, thresholds_changed, window_closed, counters_lost, resumed, recovered; paid, replaced by the next notice, or cured; or by_hand.';
