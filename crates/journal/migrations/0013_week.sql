-- Weeks: a fourth window beside day, month and year, and its limits.
--
-- The new columns have a constant default or are null, so that adding them rewrites nothing, and a server of the release before
-- still reads and writes its own.

ALTER TABLE usage_log
    ADD COLUMN weekly_window          integer  NOT NULL DEFAULT 0,
    ADD COLUMN weekly_epoch           smallint NOT NULL DEFAULT 0,
    ADD COLUMN weekly_used_before     bigint   NOT NULL DEFAULT 0,
    ADD COLUMN weekly_used_after      bigint   NOT NULL DEFAULT 0,
    ADD COLUMN weekly_count_before    bigint   NOT NULL DEFAULT 0,
    ADD COLUMN weekly_count_after     bigint   NOT NULL DEFAULT 0,
    ADD COLUMN weekly_refunded_before bigint   NOT NULL DEFAULT 0,
    ADD COLUMN weekly_refunded_after  bigint   NOT NULL DEFAULT 0;

COMMENT ON COLUMN usage_log.weekly_window IS 'The week counted against: its first day, YYYYMMDD in the merchant''s time zone. 0 in rows that were written before weeks were counted.';
COMMENT ON COLUMN usage_log.weekly_epoch IS 'How often the week was reset, modulo 256.';
COMMENT ON COLUMN usage_log.weekly_used_before IS 'The week''s consumed amount before the command, in minor units.';
COMMENT ON COLUMN usage_log.weekly_used_after IS 'The week''s consumed amount after it.';
COMMENT ON COLUMN usage_log.weekly_count_before IS 'The week''s number of charges before the command.';
COMMENT ON COLUMN usage_log.weekly_count_after IS 'The week''s number of charges after it.';
COMMENT ON COLUMN usage_log.weekly_refunded_before IS 'Refunds made in the week before the command, in minor units.';
COMMENT ON COLUMN usage_log.weekly_refunded_after IS 'Refunds made in the week after it.';

ALTER TABLE quota_account
    ADD COLUMN weekly_window    integer NOT NULL DEFAULT 0,
    ADD COLUMN weekly_used      bigint  NOT NULL DEFAULT 0,
    ADD COLUMN weekly_count     bigint  NOT NULL DEFAULT 0,
    ADD COLUMN weekly_refunded  bigint  NOT NULL DEFAULT 0,
    ADD COLUMN alert_marks_more integer NOT NULL DEFAULT 0;

COMMENT ON COLUMN quota_account.weekly_window IS 'The week that the usage is of: its first day, YYYYMMDD in the merchant''s time zone.';
COMMENT ON COLUMN quota_account.weekly_used IS 'The week''s consumed amount, in minor units.';
COMMENT ON COLUMN quota_account.weekly_count IS 'The week''s number of charges.';
COMMENT ON COLUMN quota_account.weekly_refunded IS 'Refunds made in the week, in minor units.';
COMMENT ON COLUMN quota_account.alert_marks_more IS 'As alert_marks, for the limits after the first seven: those of the week.';

-- Without the scan that would hold up writers; rows of before have other periods only.
ALTER TABLE quota_window DROP CONSTRAINT quota_window_period_check;
ALTER TABLE quota_window ADD CONSTRAINT quota_window_period_check CHECK (period IN ('day', 'week', 'month', 'year')) NOT VALID;

COMMENT ON COLUMN quota_window.period IS 'Kind of window: day, week, month or year.';
COMMENT ON COLUMN quota_window.window_id IS 'YYYYMMDD of a day, or of the first day of a week, YYYYMM or YYYY in the merchant''s time zone.';

ALTER TABLE limit_policy
    ADD COLUMN weekly_limit            minor_amount,
    ADD COLUMN max_transactions_weekly minor_amount,
    ADD COLUMN week_starts_on          text CHECK (week_starts_on IN ('monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday'));
ALTER TABLE limit_policy
    ADD CONSTRAINT limit_policy_channel_week CHECK (channel = 'all' OR week_starts_on IS NULL);

COMMENT ON COLUMN limit_policy.weekly_limit IS 'Sum of a week''s payments.';
COMMENT ON COLUMN limit_policy.max_transactions_weekly IS 'Number of a week''s payments.';
COMMENT ON COLUMN limit_policy.week_starts_on IS 'The day on which the merchant''s weeks begin; Monday, as in ISO 8601, where none is given.';

ALTER TABLE policy_override
    ADD COLUMN weekly_limit            minor_amount,
    ADD COLUMN max_transactions_weekly minor_amount;

COMMENT ON COLUMN policy_override.weekly_limit IS 'Sum of a week''s payments.';
COMMENT ON COLUMN policy_override.max_transactions_weekly IS 'Number of a week''s payments.';
