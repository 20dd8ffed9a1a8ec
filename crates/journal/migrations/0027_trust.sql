ALTER TABLE limit_policy ADD COLUMN trust text CHECK (trust IN ('off', 'on'));
ALTER TABLE limit_policy ADD COLUMN trust_above_percent integer CHECK (trust_above_percent BETWEEN 0 AND 99);
ALTER TABLE limit_policy ADD COLUMN trust_share_percent integer CHECK (trust_share_percent BETWEEN 1 AND 50);
ALTER TABLE limit_policy ADD COLUMN trust_ttl_ms integer CHECK (trust_ttl_ms BETWEEN 100 AND 60000);
ALTER TABLE limit_policy ADD CONSTRAINT limit_policy_trust CHECK (
    (trust IS NOT DISTINCT FROM 'on') = (num_nulls(trust_above_percent, trust_share_percent, trust_ttl_ms) = 0)
    AND num_nulls(trust_above_percent, trust_share_percent, trust_ttl_ms) IN (0, 3)
);
ALTER TABLE limit_policy ADD CONSTRAINT limit_policy_channel_trust CHECK (channel = 'all' OR trust IS NULL);
COMMENT ON COLUMN limit_policy.trust IS 'Whether holders get rights of the account: off, or on by the terms of the trust columns.';
COMMENT ON COLUMN limit_policy.trust_above_percent IS 'Percent of each limit that must be left for a right.';
COMMENT ON COLUMN limit_policy.trust_share_percent IS 'Percent of what is left of a limit that one right may take.';
COMMENT ON COLUMN limit_policy.trust_ttl_ms IS 'Milliseconds after which nothing is admitted from a right any more.';
