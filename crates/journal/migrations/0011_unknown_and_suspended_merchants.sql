-- Merchants as a whole: suspended in every currency at once, beside the suspension of single accounts; and unknown ones refused.

CREATE TABLE quota_merchant (
    merchant_id      text        PRIMARY KEY,
    shard            integer     NOT NULL,
    seq              bigint      NOT NULL,
    version          bigint      NOT NULL,
    suspended_at     timestamptz,
    suspended_reason text,
    suspended_by     text,
    updated_at       timestamptz NOT NULL,
    last_updated_by  text        NOT NULL
);

CREATE INDEX quota_merchant_suspended ON quota_merchant (merchant_id) WHERE suspended_at IS NOT NULL;

COMMENT ON TABLE quota_merchant IS 'Every merchant that was ever suspended as a whole, as its last change left it. Redis has the truth; from this it can be restored.';
COMMENT ON COLUMN quota_merchant.merchant_id IS 'Which merchant.';
COMMENT ON COLUMN quota_merchant.shard IS 'The Redis shard that holds its state.';
COMMENT ON COLUMN quota_merchant.seq IS 'The event that the row stems from; an older one, stored later, does not overwrite it.';
COMMENT ON COLUMN quota_merchant.version IS 'Number of changes of the merchant''s own state.';
COMMENT ON COLUMN quota_merchant.suspended_at IS 'Since when charges of all its accounts are refused; null where they are not.';
COMMENT ON COLUMN quota_merchant.suspended_reason IS 'Why, in the words of the operator.';
COMMENT ON COLUMN quota_merchant.suspended_by IS 'Who suspended it.';
COMMENT ON COLUMN quota_merchant.updated_at IS 'When it changed last, by the clock of the server that decided.';
COMMENT ON COLUMN quota_merchant.last_updated_by IS 'Who changed it last.';

-- The alert of a suspended merchant is of no currency.
ALTER TABLE quota_alert
    DROP CONSTRAINT quota_alert_check,
    ADD CONSTRAINT quota_alert_currency CHECK (merchant_id IS NOT NULL OR currency IS NULL);

COMMENT ON COLUMN quota_alert.merchant_id IS 'Whose account, or the merchant itself; null for what concerns operators only.';
COMMENT ON COLUMN quota_alert.currency IS 'ISO 4217 code of the account; null for a merchant as a whole, and for what concerns operators only.';
COMMENT ON COLUMN usage_log.action_type IS 'What was asked: consume, hold, void, settle, reserve_refund, refund, release, expire, adjust, reset, suspend, resume, suspend_merchant, resume_merchant, initialize or roll.';
COMMENT ON COLUMN usage_log.currency IS 'ISO 4217 code of the account; null where a void named none, and for a merchant as a whole.';
COMMENT ON COLUMN usage_log.account_version IS 'Number of changes of the account so far, or of the merchant''s own state; two rows that changed one account never share it.';

ALTER TABLE limit_policy
    ADD COLUMN unknown_merchants text CHECK (unknown_merchants IN ('default', 'refuse')),
    ADD CONSTRAINT limit_policy_unknown_merchants CHECK (
        unknown_merchants IS NULL OR (merchant_id IS NULL AND tier_id IS NULL AND channel = 'all' AND currency IS NULL)
    );

COMMENT ON COLUMN limit_policy.unknown_merchants IS 'Whether merchants that nothing names have the default policy or are refused; only in a policy for everybody, null to inherit.';

ALTER TABLE usage_log ADD COLUMN failure_details jsonb;

COMMENT ON COLUMN usage_log.failure_details IS 'What a refusal told beside its code: the bound that was passed, the first amount of the order, what is allowed; null where the code and the limit tell it in full.';
