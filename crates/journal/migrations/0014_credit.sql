-- Credit lines: what a decision did to an account's exposure.
--
-- The new columns are null in rows of accounts without a line, and a server of the release before still writes its own.

ALTER TABLE usage_log
    ADD COLUMN posting_no      text,
    ADD COLUMN credit_cycle    integer,
    ADD COLUMN exposure_before bigint,
    ADD COLUMN exposure_after  bigint,
    ADD COLUMN unbilled_before bigint,
    ADD COLUMN unbilled_after  bigint;

COMMENT ON COLUMN usage_log.posting_no IS 'The number of a posting to the credit line, among those of its kind (action_type).';
COMMENT ON COLUMN usage_log.credit_cycle IS 'The billing cycle of the credit line: its first day, YYYYMMDD in the merchant''s time zone. Null for an account without a line.';
COMMENT ON COLUMN usage_log.exposure_before IS 'What is held and owed on the credit line before the command, in minor units; below 0 where more was repaid than is owed.';
COMMENT ON COLUMN usage_log.exposure_after IS 'The same after it.';
COMMENT ON COLUMN usage_log.unbilled_before IS 'Charged in the billing cycle and not on a statement yet, before the command, in minor units.';
COMMENT ON COLUMN usage_log.unbilled_after IS 'The same after it.';
COMMENT ON COLUMN usage_log.action_type IS 'What was asked, as in consume, settle, refund, adjust or repayment.';
