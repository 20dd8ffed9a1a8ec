-- What the live stream reads: the order in which rows became visible. Neither a row's time nor its number tells it:
-- transactions end in another order than they begin, and Redis may give numbers anew. A transaction's id together with the
-- snapshots before and after does.

ALTER TABLE usage_log ADD COLUMN stored_txid bigint;
-- A default of its own, so that adding the column rewrites nothing; rows of before are in no stream.
ALTER TABLE usage_log ALTER COLUMN stored_txid SET DEFAULT txid_current();

COMMENT ON COLUMN usage_log.stored_txid IS 'The transaction that stored the row, by which the live stream goes on where a client left it.';

CREATE TABLE alert_change (
    change_no   bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stored_txid bigint      NOT NULL DEFAULT txid_current(),
    alert_id    uuid        NOT NULL REFERENCES quota_alert ON DELETE CASCADE,
    change      text        NOT NULL CHECK (change IN ('raised', 'acknowledged', 'resolved')),
    changed_at  timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX alert_change_stored ON alert_change (stored_txid, change_no);
CREATE INDEX alert_change_alert ON alert_change (alert_id);

COMMENT ON TABLE alert_change IS 'What became of alerts, change by change, for the live stream. Triggers write it.';
COMMENT ON COLUMN alert_change.change_no IS 'Orders the changes of one transaction.';
COMMENT ON COLUMN alert_change.stored_txid IS 'The transaction that made the change, as in usage_log.';
COMMENT ON COLUMN alert_change.alert_id IS 'The alert.';
COMMENT ON COLUMN alert_change.change IS 'raised, acknowledged or resolved.';
COMMENT ON COLUMN alert_change.changed_at IS 'When it was written down.';

CREATE FUNCTION alert_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO alert_change (alert_id, change) VALUES (NEW.alert_id, TG_ARGV[0]);
    RETURN NULL;
END
$$;

-- Triggers of one event run in the order of their names.
CREATE TRIGGER alert_change_1_raised AFTER INSERT ON quota_alert
    FOR EACH ROW EXECUTE FUNCTION alert_changed('raised');
CREATE TRIGGER alert_change_2_resolved_at_once AFTER INSERT ON quota_alert
    FOR EACH ROW WHEN (NEW.resolved_at IS NOT NULL) EXECUTE FUNCTION alert_changed('resolved');
CREATE TRIGGER alert_change_3_acknowledged AFTER UPDATE ON quota_alert
    FOR EACH ROW WHEN (OLD.acknowledged_at IS NULL AND NEW.acknowledged_at IS NOT NULL)
    EXECUTE FUNCTION alert_changed('acknowledged');
CREATE TRIGGER alert_change_4_resolved AFTER UPDATE ON quota_alert
    FOR EACH ROW WHEN (OLD.resolved_at IS NULL AND NEW.resolved_at IS NOT NULL)
    EXECUTE FUNCTION alert_changed('resolved');
