ALTER TABLE usage_log ADD COLUMN right_id uuid;
ALTER TABLE usage_log ADD COLUMN counted_in text;
COMMENT ON COLUMN usage_log.right_id IS 'The right that was granted (grant_right), that the payment was admitted from (consume), or that ended (release_right, orphan_right).';
COMMENT ON COLUMN usage_log.counted_in IS 'Of a payment admitted from a right: the windows that its amount was counted in, day, week, month and year each as id:epoch, where they are not those of the row.';
COMMENT ON COLUMN quota_alert.resolve_reason IS 'Why it ended: refund, void, release, settle, expire, adjust, reset, right_returned or a posting to the credit line, as what took usage below the threshold; limit_raised, thresholds_changed, window_closed, counters_lost, resumed, recovered; paid, replaced by the next notice, or cured; or by_hand.';
