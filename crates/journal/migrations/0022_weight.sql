ALTER TABLE limit_policy ADD COLUMN weight_bp integer CHECK (weight_bp BETWEEN 0 AND 1000000);
ALTER TABLE limit_policy ADD COLUMN units_per_payment bigint CHECK (units_per_payment BETWEEN 0 AND 9007199254740991);
ALTER TABLE limit_policy ADD CONSTRAINT limit_policy_weight CHECK (weight_bp IS NULL OR units_per_payment IS NULL);
COMMENT ON COLUMN limit_policy.weight_bp IS 'The share of each amount that counts against the amount limits, in basis points, rounded up.';
COMMENT ON COLUMN limit_policy.units_per_payment IS 'What every payment counts against the amount limits instead of its amount, minor units.';

ALTER TABLE usage_log ADD COLUMN counted_amount bigint;
ALTER TABLE usage_log ADD COLUMN weight_bp integer;
ALTER TABLE usage_log ADD COLUMN units_per_payment bigint;
COMMENT ON COLUMN usage_log.counted_amount IS 'What the amount counts against the amount limits, consumed, captured or returned, where payments have a weight; null where it is the amount itself.';
COMMENT ON COLUMN usage_log.weight_bp IS 'With counted_amount: the share of the amount that counts, in basis points, rounded up; 0 where units_per_payment counts.';
COMMENT ON COLUMN usage_log.units_per_payment IS 'With counted_amount: what every payment counts instead of its amount; 0 where a share counts.';
