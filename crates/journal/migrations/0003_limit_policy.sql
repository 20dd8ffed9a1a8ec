-- Limit policies: who is limited to what, in which state, and who changed it why. `0001_usage_log.sql` has what they decide.
-- Whoever writes sets `sluice.actor`, `sluice.action` and `sluice.reason` for the transaction; a change made by hand is
-- recorded under the database's user.

CREATE DOMAIN minor_amount AS bigint CHECK (VALUE BETWEEN 0 AND 9007199254740991);
COMMENT ON DOMAIN minor_amount IS 'An amount in minor units, or a count: up to 2^53 - 1, which lifts an inherited limit.';

CREATE TABLE tier (
    tier_id            uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    tier_code          text        NOT NULL UNIQUE CHECK (tier_code ~ '^[!-~]{1,64}$'),
    tier_level         integer     NOT NULL CHECK (tier_level BETWEEN 1 AND 5),
    allowed_channels   text[],
    allowed_currencies text[],
    remarks            text        CHECK (length(remarks) <= 2000),
    created_by         text        NOT NULL,
    created_at         timestamptz NOT NULL DEFAULT now(),
    updated_at         timestamptz NOT NULL DEFAULT now(),
    deleted_at         timestamptz,
    revision           bigint      NOT NULL DEFAULT 1
);

COMMENT ON TABLE tier IS 'Groups of merchants with the same limits.';
COMMENT ON COLUMN tier.tier_id IS 'Names the tier in policies and bindings.';
COMMENT ON COLUMN tier.tier_code IS 'The tier''s name, as in starter, basic, professional, enterprise or premium; the same name in the policy file is the same tier.';
COMMENT ON COLUMN tier.tier_level IS 'Place in the order of tiers, 1 to 5.';
COMMENT ON COLUMN tier.allowed_channels IS 'Channels that the tier''s merchants may charge; null for every one.';
COMMENT ON COLUMN tier.allowed_currencies IS 'ISO 4217 codes that the tier''s merchants may charge; null for every one.';
COMMENT ON COLUMN tier.remarks IS 'Words for people.';
COMMENT ON COLUMN tier.created_by IS 'Who made it.';
COMMENT ON COLUMN tier.created_at IS 'When it was made.';
COMMENT ON COLUMN tier.updated_at IS 'When it last changed.';
COMMENT ON COLUMN tier.deleted_at IS 'Since when it is no more; it stays for the history. Only a tier without merchants can be deleted.';
COMMENT ON COLUMN tier.revision IS 'Number of its changes, so that of two writers the second notices.';

CREATE TABLE limit_policy (
    policy_id                uuid         NOT NULL DEFAULT gen_random_uuid(),
    version                  integer      NOT NULL DEFAULT 1 CHECK (version >= 1),
    merchant_id              text         CHECK (merchant_id ~ '^[!-9;-~]{1,64}$'),
    tier_id                  uuid         REFERENCES tier,
    channel                  text         NOT NULL DEFAULT 'all' CHECK (channel ~ '^[!-~]{1,32}$'),
    currency                 char(3)      CHECK (currency ~ '^[A-Z]{3}$'),
    single_trans_min         minor_amount,
    single_trans_max         minor_amount,
    daily_limit              minor_amount,
    monthly_limit            minor_amount,
    yearly_limit             minor_amount,
    max_transactions_daily   minor_amount,
    max_transactions_monthly minor_amount,
    max_transactions_yearly  minor_amount,
    max_pending_amount       minor_amount,
    max_refund_daily         minor_amount,
    max_refund_monthly       minor_amount,
    timezone                 text,
    cutoff_hour              integer      CHECK (cutoff_hour BETWEEN 0 AND 23),
    allowed_channels         text[],
    allowed_currencies       text[],
    breach                   text         CHECK (breach IN ('reject', 'throttle')),
    throttle_per_minute      integer      CHECK (throttle_per_minute BETWEEN 1 AND 1000000),
    throttle_burst           integer      CHECK (throttle_burst BETWEEN 1 AND 100000),
    throttle_delay_ms_max    integer      CHECK (throttle_delay_ms_max BETWEEN 0 AND 30000),
    throttle_ceiling_percent integer      CHECK (throttle_ceiling_percent BETWEEN 100 AND 1000),
    hold_lifetime_secs       integer      CHECK (hold_lifetime_secs BETWEEN 1 AND 34560000),
    hold_on_expiry           text         CHECK (hold_on_expiry IN ('void', 'settle')),
    over_capture_percent     integer      CHECK (over_capture_percent BETWEEN 0 AND 100),
    effective_date           timestamptz,
    expiry_date              timestamptz,
    priority                 integer      NOT NULL DEFAULT 0,
    state                    text         NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'approved', 'active', 'inactive')),
    status                   text         GENERATED ALWAYS AS (CASE WHEN state IN ('draft', 'approved') THEN 'pending' ELSE state END) STORED,
    created_by               text         NOT NULL,
    created_at               timestamptz  NOT NULL DEFAULT now(),
    edited_by                text[]       NOT NULL,
    updated_at               timestamptz  NOT NULL DEFAULT now(),
    approved_by              text,
    approved_at              timestamptz,
    metadata                 jsonb,
    remarks                  text         CHECK (length(remarks) <= 2000),
    revision                 bigint       NOT NULL DEFAULT 1,
    PRIMARY KEY (policy_id, version),
    CONSTRAINT limit_policy_one_scope CHECK (merchant_id IS NULL OR tier_id IS NULL),
    CONSTRAINT limit_policy_dates CHECK (effective_date < expiry_date),
    CONSTRAINT limit_policy_single CHECK (single_trans_min <= single_trans_max),
    CONSTRAINT limit_policy_channel_calendar CHECK (channel = 'all' OR (timezone IS NULL AND cutoff_hour IS NULL AND allowed_channels IS NULL)),
    CONSTRAINT limit_policy_throttle CHECK (
        (breach IS NOT DISTINCT FROM 'throttle')
        = (num_nulls(throttle_per_minute, throttle_burst, throttle_delay_ms_max, throttle_ceiling_percent) = 0)
        AND num_nulls(throttle_per_minute, throttle_burst, throttle_delay_ms_max, throttle_ceiling_percent) IN (0, 4)
    ),
    CONSTRAINT limit_policy_approved CHECK (state NOT IN ('approved', 'active') OR (approved_by IS NOT NULL AND approved_at IS NOT NULL)),
    CONSTRAINT limit_policy_four_eyes CHECK (approved_by IS NULL OR NOT (approved_by = created_by OR approved_by = ANY (edited_by)))
);

CREATE UNIQUE INDEX limit_policy_one_active ON limit_policy (policy_id) WHERE state = 'active';
CREATE UNIQUE INDEX limit_policy_one_pending ON limit_policy (policy_id) WHERE state IN ('draft', 'approved');
CREATE INDEX limit_policy_merchant ON limit_policy (merchant_id, created_at);
CREATE INDEX limit_policy_tier ON limit_policy (tier_id);
CREATE INDEX limit_policy_listed ON limit_policy (created_at, policy_id, version);

COMMENT ON TABLE limit_policy IS 'Limits of a merchant, of a tier or (with neither) of everybody, by channel and currency. A field that is null is inherited.';
COMMENT ON COLUMN limit_policy.policy_id IS 'Names the policy in all its versions.';
COMMENT ON COLUMN limit_policy.version IS 'A change of an active policy is another version, so that decisions of the past can be explained.';
COMMENT ON COLUMN limit_policy.merchant_id IS 'Whose limits; null for a tier''s or everybody''s.';
COMMENT ON COLUMN limit_policy.tier_id IS 'The tier whose limits; null for a merchant''s or everybody''s.';
COMMENT ON COLUMN limit_policy.channel IS 'The channel it is for; all for every one. A specific channel outranks all.';
COMMENT ON COLUMN limit_policy.currency IS 'ISO 4217 code it is for; null for every currency. A specific currency outranks null.';
COMMENT ON COLUMN limit_policy.single_trans_min IS 'Smallest amount of one payment.';
COMMENT ON COLUMN limit_policy.single_trans_max IS 'Largest amount of one payment.';
COMMENT ON COLUMN limit_policy.daily_limit IS 'Sum of a day''s payments.';
COMMENT ON COLUMN limit_policy.monthly_limit IS 'Sum of a month''s payments.';
COMMENT ON COLUMN limit_policy.yearly_limit IS 'Sum of a year''s payments.';
COMMENT ON COLUMN limit_policy.max_transactions_daily IS 'Number of a day''s payments.';
COMMENT ON COLUMN limit_policy.max_transactions_monthly IS 'Number of a month''s payments.';
COMMENT ON COLUMN limit_policy.max_transactions_yearly IS 'Number of a year''s payments.';
COMMENT ON COLUMN limit_policy.max_pending_amount IS 'Sum of open holds.';
COMMENT ON COLUMN limit_policy.max_refund_daily IS 'Sum of refunds made in a day.';
COMMENT ON COLUMN limit_policy.max_refund_monthly IS 'Sum of refunds made in a month.';
COMMENT ON COLUMN limit_policy.timezone IS 'IANA zone of days, months and years.';
COMMENT ON COLUMN limit_policy.cutoff_hour IS 'Hour at which the business day begins.';
COMMENT ON COLUMN limit_policy.allowed_channels IS 'Channels that may be charged.';
COMMENT ON COLUMN limit_policy.allowed_currencies IS 'Currencies that may be charged.';
COMMENT ON COLUMN limit_policy.breach IS 'What happens past a limit: reject, or throttle at the pace of the throttle columns.';
COMMENT ON COLUMN limit_policy.throttle_per_minute IS 'Payments a minute past the limit.';
COMMENT ON COLUMN limit_policy.throttle_burst IS 'Payments that may come at once.';
COMMENT ON COLUMN limit_policy.throttle_delay_ms_max IS 'How long the proxy may hold a payment back.';
COMMENT ON COLUMN limit_policy.throttle_ceiling_percent IS 'Percent of every limit that is never exceeded.';
COMMENT ON COLUMN limit_policy.hold_lifetime_secs IS 'How long a hold may stay open.';
COMMENT ON COLUMN limit_policy.hold_on_expiry IS 'What becomes of a hold that ran out: void or settle.';
COMMENT ON COLUMN limit_policy.over_capture_percent IS 'By how many percent captures may exceed their hold.';
COMMENT ON COLUMN limit_policy.effective_date IS 'From when on it holds; null for since ever.';
COMMENT ON COLUMN limit_policy.expiry_date IS 'The first moment at which it holds no more; null for never.';
COMMENT ON COLUMN limit_policy.priority IS 'Among active policies for the same scope, channel and currency the highest wins.';
COMMENT ON COLUMN limit_policy.state IS 'draft, approved by another person, active (enforced), inactive (over).';
COMMENT ON COLUMN limit_policy.status IS 'The state in the words of the merchant-quota API: pending, active or inactive.';
COMMENT ON COLUMN limit_policy.created_by IS 'Who made this version.';
COMMENT ON COLUMN limit_policy.created_at IS 'When this version was made.';
COMMENT ON COLUMN limit_policy.edited_by IS 'Everybody who changed this version: none of them may approve it.';
COMMENT ON COLUMN limit_policy.updated_at IS 'When this version last changed.';
COMMENT ON COLUMN limit_policy.approved_by IS 'Who approved it; never one of those who wrote it.';
COMMENT ON COLUMN limit_policy.approved_at IS 'When it was approved.';
COMMENT ON COLUMN limit_policy.metadata IS 'What callers keep with it.';
COMMENT ON COLUMN limit_policy.remarks IS 'Words for people.';
COMMENT ON COLUMN limit_policy.revision IS 'Number of changes of this version, so that of two writers the second notices.';

CREATE TABLE merchant_tier (
    binding_id     uuid        PRIMARY KEY DEFAULT gen_random_uuid(),
    merchant_id    text        NOT NULL CHECK (merchant_id ~ '^[!-9;-~]{1,64}$'),
    tier_id        uuid        NOT NULL REFERENCES tier,
    effective_date timestamptz NOT NULL DEFAULT now(),
    expiry_date    timestamptz,
    changed_by     text        NOT NULL,
    change_reason  text        NOT NULL CHECK (length(change_reason) BETWEEN 1 AND 2000),
    created_at     timestamptz NOT NULL DEFAULT now(),
    ended_by       text,
    ended_at       timestamptz,
    CONSTRAINT merchant_tier_dates CHECK (effective_date < expiry_date)
);

CREATE INDEX merchant_tier_merchant ON merchant_tier (merchant_id, effective_date);
CREATE INDEX merchant_tier_tier ON merchant_tier (tier_id);

COMMENT ON TABLE merchant_tier IS 'Which merchant is of which tier, and since when. Of several bindings that hold, the one that began last counts.';
COMMENT ON COLUMN merchant_tier.binding_id IS 'Names the binding.';
COMMENT ON COLUMN merchant_tier.merchant_id IS 'The merchant.';
COMMENT ON COLUMN merchant_tier.tier_id IS 'Its tier.';
COMMENT ON COLUMN merchant_tier.effective_date IS 'From when on.';
COMMENT ON COLUMN merchant_tier.expiry_date IS 'The first moment at which it is so no more; null for never.';
COMMENT ON COLUMN merchant_tier.changed_by IS 'Who bound it.';
COMMENT ON COLUMN merchant_tier.change_reason IS 'Why.';
COMMENT ON COLUMN merchant_tier.created_at IS 'When it was written.';
COMMENT ON COLUMN merchant_tier.ended_by IS 'Who ended it before its time.';
COMMENT ON COLUMN merchant_tier.ended_at IS 'When it was ended before its time; it counts no more then.';

CREATE TABLE policy_override (
    override_id              uuid         PRIMARY KEY DEFAULT gen_random_uuid(),
    merchant_id              text         NOT NULL CHECK (merchant_id ~ '^[!-9;-~]{1,64}$'),
    channel                  text         NOT NULL DEFAULT 'all' CHECK (channel ~ '^[!-~]{1,32}$'),
    currency                 char(3)      CHECK (currency ~ '^[A-Z]{3}$'),
    single_trans_min         minor_amount,
    single_trans_max         minor_amount,
    daily_limit              minor_amount,
    monthly_limit            minor_amount,
    yearly_limit             minor_amount,
    max_transactions_daily   minor_amount,
    max_transactions_monthly minor_amount,
    max_transactions_yearly  minor_amount,
    max_pending_amount       minor_amount,
    max_refund_daily         minor_amount,
    max_refund_monthly       minor_amount,
    effective_date           timestamptz  NOT NULL,
    expiry_date              timestamptz  NOT NULL,
    reason                   text         NOT NULL CHECK (length(reason) BETWEEN 1 AND 2000),
    created_by               text         NOT NULL,
    created_at               timestamptz  NOT NULL DEFAULT now(),
    approved_by              text,
    approved_at              timestamptz,
    revoked_by               text,
    revoked_at               timestamptz,
    CONSTRAINT policy_override_dates CHECK (effective_date < expiry_date),
    CONSTRAINT policy_override_four_eyes CHECK (approved_by <> created_by)
);

CREATE INDEX policy_override_merchant ON policy_override (merchant_id, effective_date);
CREATE INDEX policy_override_listed ON policy_override (created_at, override_id);

COMMENT ON TABLE policy_override IS 'Other limits for a merchant for a time, over whatever else holds. One that nobody approved holds nothing.';
COMMENT ON COLUMN policy_override.override_id IS 'Names the override in decisions.';
COMMENT ON COLUMN policy_override.merchant_id IS 'Whose limits.';
COMMENT ON COLUMN policy_override.channel IS 'The channel it is for; all for every one.';
COMMENT ON COLUMN policy_override.currency IS 'ISO 4217 code it is for; null for every currency.';
COMMENT ON COLUMN policy_override.single_trans_min IS 'Smallest amount of one payment.';
COMMENT ON COLUMN policy_override.single_trans_max IS 'Largest amount of one payment.';
COMMENT ON COLUMN policy_override.daily_limit IS 'Sum of a day''s payments.';
COMMENT ON COLUMN policy_override.monthly_limit IS 'Sum of a month''s payments.';
COMMENT ON COLUMN policy_override.yearly_limit IS 'Sum of a year''s payments.';
COMMENT ON COLUMN policy_override.max_transactions_daily IS 'Number of a day''s payments.';
COMMENT ON COLUMN policy_override.max_transactions_monthly IS 'Number of a month''s payments.';
COMMENT ON COLUMN policy_override.max_transactions_yearly IS 'Number of a year''s payments.';
COMMENT ON COLUMN policy_override.max_pending_amount IS 'Sum of open holds.';
COMMENT ON COLUMN policy_override.max_refund_daily IS 'Sum of refunds made in a day.';
COMMENT ON COLUMN policy_override.max_refund_monthly IS 'Sum of refunds made in a month.';
COMMENT ON COLUMN policy_override.effective_date IS 'From when on it holds.';
COMMENT ON COLUMN policy_override.expiry_date IS 'The first moment at which it holds no more.';
COMMENT ON COLUMN policy_override.reason IS 'Why.';
COMMENT ON COLUMN policy_override.created_by IS 'Who asked for it.';
COMMENT ON COLUMN policy_override.created_at IS 'When it was asked for.';
COMMENT ON COLUMN policy_override.approved_by IS 'Who approved it; never who asked for it.';
COMMENT ON COLUMN policy_override.approved_at IS 'Since when it is approved.';
COMMENT ON COLUMN policy_override.revoked_by IS 'Who ended it before its time.';
COMMENT ON COLUMN policy_override.revoked_at IS 'When it was ended before its time.';

CREATE TABLE limit_policy_history (
    history_id bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    object     text        NOT NULL CHECK (object IN ('limit_policy', 'tier', 'merchant_tier', 'policy_override')),
    object_id  uuid        NOT NULL,
    action     text        NOT NULL,
    actor      text        NOT NULL,
    reason     text,
    at         timestamptz NOT NULL DEFAULT now(),
    old        jsonb,
    new        jsonb
);

CREATE INDEX limit_policy_history_object ON limit_policy_history (object_id, history_id);

COMMENT ON TABLE limit_policy_history IS 'Every change of a policy, tier, binding or override, written by the database itself and never changed.';
COMMENT ON COLUMN limit_policy_history.history_id IS 'Order of the changes.';
COMMENT ON COLUMN limit_policy_history.object IS 'The table that changed.';
COMMENT ON COLUMN limit_policy_history.object_id IS 'The row''s id: policy_id, tier_id, binding_id or override_id.';
COMMENT ON COLUMN limit_policy_history.action IS 'What was done, as in create, update, approve, activate, deactivate, revoke.';
COMMENT ON COLUMN limit_policy_history.actor IS 'Who did it, from the caller''s identity; the database''s user for a change made by hand.';
COMMENT ON COLUMN limit_policy_history.reason IS 'Why, in the words of who did it.';
COMMENT ON COLUMN limit_policy_history.at IS 'When.';
COMMENT ON COLUMN limit_policy_history.old IS 'The row before; null where it is new.';
COMMENT ON COLUMN limit_policy_history.new IS 'The row after; null where it was removed.';

-- Records a change. The argument is the column that names the row.
CREATE FUNCTION limit_policy_record() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    before jsonb := CASE WHEN TG_OP = 'INSERT' THEN NULL ELSE to_jsonb(OLD) END;
    after  jsonb := CASE WHEN TG_OP = 'DELETE' THEN NULL ELSE to_jsonb(NEW) END;
BEGIN
    INSERT INTO limit_policy_history (object, object_id, action, actor, reason, old, new)
    VALUES (
        TG_TABLE_NAME,
        (coalesce(after, before) ->> TG_ARGV[0])::uuid,
        coalesce(nullif(current_setting('sluice.action', true), ''), lower(TG_OP)),
        coalesce(nullif(current_setting('sluice.actor', true), ''), 'database:' || session_user),
        nullif(current_setting('sluice.reason', true), ''),
        before,
        after
    );
    RETURN NULL;
END
$$;

-- Tells every server, once for a transaction, when it commits.
CREATE FUNCTION limit_policy_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('sluice_policy', '');
    RETURN NULL;
END
$$;

CREATE FUNCTION limit_policy_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % is not allowed: it is kept for the record', TG_OP, TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END
$$;

-- What somebody approved does not change: another version does, or the approval is void.
CREATE FUNCTION limit_policy_keep() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    may_change text[] := ARRAY['state', 'status', 'edited_by', 'updated_at', 'approved_by', 'approved_at', 'revision'];
BEGIN
    IF OLD.state <> 'draft' AND NEW.state <> 'draft' AND to_jsonb(OLD) - may_change IS DISTINCT FROM to_jsonb(NEW) - may_change THEN
        RAISE EXCEPTION 'a policy that is % cannot be changed, only replaced by another version', OLD.state USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.state IN ('active', 'inactive') AND NEW.state IN ('draft', 'approved') THEN
        RAISE EXCEPTION 'a policy that was % cannot be % again', OLD.state, NEW.state USING ERRCODE = 'restrict_violation';
    END IF;
    IF NEW.state = 'active' AND OLD.state NOT IN ('approved', 'active') THEN
        RAISE EXCEPTION 'only an approved policy can be active' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;

CREATE TRIGGER keep BEFORE UPDATE ON limit_policy FOR EACH ROW EXECUTE FUNCTION limit_policy_keep();
CREATE TRIGGER refuse BEFORE DELETE ON limit_policy FOR EACH ROW EXECUTE FUNCTION limit_policy_refuse();
CREATE TRIGGER refuse BEFORE DELETE ON tier FOR EACH ROW EXECUTE FUNCTION limit_policy_refuse();
CREATE TRIGGER refuse BEFORE DELETE ON merchant_tier FOR EACH ROW EXECUTE FUNCTION limit_policy_refuse();
CREATE TRIGGER refuse BEFORE DELETE ON policy_override FOR EACH ROW EXECUTE FUNCTION limit_policy_refuse();
CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON limit_policy_history FOR EACH ROW EXECUTE FUNCTION limit_policy_refuse();
CREATE TRIGGER refuse_all BEFORE TRUNCATE ON limit_policy_history FOR EACH STATEMENT EXECUTE FUNCTION limit_policy_refuse();

CREATE TRIGGER record AFTER INSERT OR UPDATE ON limit_policy FOR EACH ROW EXECUTE FUNCTION limit_policy_record('policy_id');
CREATE TRIGGER record AFTER INSERT OR UPDATE ON tier FOR EACH ROW EXECUTE FUNCTION limit_policy_record('tier_id');
CREATE TRIGGER record AFTER INSERT OR UPDATE ON merchant_tier FOR EACH ROW EXECUTE FUNCTION limit_policy_record('binding_id');
CREATE TRIGGER record AFTER INSERT OR UPDATE ON policy_override FOR EACH ROW EXECUTE FUNCTION limit_policy_record('override_id');

CREATE TRIGGER notify AFTER INSERT OR UPDATE ON limit_policy FOR EACH STATEMENT EXECUTE FUNCTION limit_policy_notify();
CREATE TRIGGER notify AFTER INSERT OR UPDATE ON tier FOR EACH STATEMENT EXECUTE FUNCTION limit_policy_notify();
CREATE TRIGGER notify AFTER INSERT OR UPDATE ON merchant_tier FOR EACH STATEMENT EXECUTE FUNCTION limit_policy_notify();
CREATE TRIGGER notify AFTER INSERT OR UPDATE ON policy_override FOR EACH STATEMENT EXECUTE FUNCTION limit_policy_notify();
