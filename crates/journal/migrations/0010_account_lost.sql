-- An account that Redis has lost begins anew, and with it its limits: the number of its changes shows it.

ALTER TABLE journal_anomaly DROP CONSTRAINT journal_anomaly_kind_check;
ALTER TABLE journal_anomaly ADD CONSTRAINT journal_anomaly_kind_check CHECK (kind IN ('missing', 'rewound', 'account_lost'));
ALTER TABLE journal_anomaly ADD COLUMN merchant_id text;
ALTER TABLE journal_anomaly ADD COLUMN currency text;
ALTER TABLE journal_anomaly ADD COLUMN expected_version bigint;
ALTER TABLE journal_anomaly ADD COLUMN found_version bigint;

COMMENT ON TABLE journal_anomaly IS 'Where the journal is not whole: events that never came, or that came twice with different content, and accounts that Redis lost.';
COMMENT ON COLUMN journal_anomaly.kind IS 'missing: the numbers never reached Postgres. rewound: Redis lost acknowledged writes and gave the numbers again. account_lost: an account''s changes do not follow its last ones, its counters began anew.';
COMMENT ON COLUMN journal_anomaly.merchant_id IS 'The merchant of an account that was lost; null for other kinds.';
COMMENT ON COLUMN journal_anomaly.currency IS 'Its currency.';
COMMENT ON COLUMN journal_anomaly.expected_version IS 'The version that the account''s next change had to have.';
COMMENT ON COLUMN journal_anomaly.found_version IS 'The version that it had.';
COMMENT ON COLUMN journal_anomaly.resolved_at IS 'Set by the check when missing events arrive after all, or by whoever repaired the counters; ends the alarm.';
