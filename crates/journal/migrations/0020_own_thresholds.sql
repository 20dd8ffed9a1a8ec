-- Thresholds that merchants set for themselves, and alerts about what credit lines use of their limit.

ALTER TABLE quota_account
    ADD COLUMN credit_exposure bigint;

COMMENT ON COLUMN quota_account.credit_exposure IS 'What the account uses of its credit line, minor units; below zero where more was repaid than is owed, null without a line.';

ALTER TABLE quota_alert
    ADD COLUMN is_own          boolean NOT NULL DEFAULT false,
    ADD COLUMN remaining_below bigint  CHECK (remaining_below > 0);

COMMENT ON COLUMN quota_alert.is_own IS 'The threshold is one that the merchant set for itself; only the merchant is notified.';
COMMENT ON COLUMN quota_alert.remaining_below IS 'Of a threshold that is no percentage: less than this was left of the limit, in minor units or as a number of charges.';
COMMENT ON COLUMN quota_alert.threshold IS 'The percentage of the limit that usage has reached; null where the subject has no limit, and for thresholds of what is left.';
COMMENT ON COLUMN quota_alert.alert_type IS 'Subject and threshold as callers know them: daily_80, daily_count_100, pending_80, daily_remaining, credit_utilisation_80, suspended.';
COMMENT ON COLUMN quota_alert.subject IS 'What it is about: a limit, as in daily_amount, monthly_count or pending_amount; or suspended, over_capture, degraded_store, journal_backlog, drift, clock_skew, credit_dunning, credit_watch or credit_utilisation.';
COMMENT ON COLUMN quota_alert.resolve_reason IS 'Why it ended: refund, void, release, settle, expire, adjust, reset or a posting to the credit line, as what took usage below the threshold; limit_raised, thresholds_changed, window_closed, counters_lost, resumed, recovered; paid, replaced by the next notice, or cured; or by_hand.';

-- A merchant's own threshold and its policy's may be the same percentage.
DROP INDEX quota_alert_event;
CREATE UNIQUE INDEX quota_alert_event ON quota_alert (
    event_id, subject, coalesce(threshold, 0), is_own, coalesce(remaining_below, 0)
) WHERE event_id IS NOT NULL;
DROP INDEX quota_alert_open;
CREATE UNIQUE INDEX quota_alert_open ON quota_alert (
    coalesce(merchant_id, ''), coalesce(currency, ''), subject, coalesce(window_id, 0), coalesce(threshold, 0), is_own,
    coalesce(remaining_below, 0)
) WHERE resolved_at IS NULL AND subject <> 'over_capture';

-- The journal looks for these with every transaction.
CREATE INDEX alert_settings_own ON alert_settings (scope) WHERE document ? 'thresholds';
