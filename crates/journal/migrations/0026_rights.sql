ALTER TABLE usage_log ADD COLUMN right_id uuid;
ALTER TABLE usage_log ADD COLUMN counted_in text;
COMMENT ON COLUMN usage_log.right_id IS 'The right that was granted (grant_right), that the payment was admitted from (consume), or that ended (release_right, orphan_right).';
COMMENT ON COLUMN usage_log.counted_in IS 'Of a payment admitted from a right: the windows that its amount was counted in, day, week, month and year each as id:epoch, where they are not those of the row.';
