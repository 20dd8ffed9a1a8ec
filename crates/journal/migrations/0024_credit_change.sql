-- What became of credit lines, change by change, for the live stream: read in the order in which it became visible, as changes of alerts.
-- The rows that a change comes from are written once whatever servers do at once, and so is the change.

CREATE TABLE credit_change (
    change_no   bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stored_txid bigint      NOT NULL DEFAULT txid_current(),
    merchant_id text        NOT NULL,
    currency    char(3)     NOT NULL,
    change      text        NOT NULL CHECK (
        change IN ('line_activated', 'line_changed', 'line_closed', 'statement_closed', 'stage_changed', 'grade_changed')
    ),
    changed_at  timestamptz NOT NULL DEFAULT now(),
    body        jsonb       NOT NULL
);

CREATE INDEX credit_change_stored ON credit_change (stored_txid, change_no);

COMMENT ON TABLE credit_change IS 'What became of credit lines, change by change, for the live stream. Triggers write it, in the transaction of the cause. Rows are not changed, and removed 45 days after: no position in a stream reaches back so far.';
COMMENT ON COLUMN credit_change.change_no IS 'Orders the changes of one transaction.';
COMMENT ON COLUMN credit_change.stored_txid IS 'The transaction that made the change, as in usage_log.';
COMMENT ON COLUMN credit_change.merchant_id IS 'The merchant.';
COMMENT ON COLUMN credit_change.currency IS 'ISO 4217.';
COMMENT ON COLUMN credit_change.change IS 'line_activated, line_changed (another version is in force), line_closed, statement_closed, stage_changed or grade_changed.';
COMMENT ON COLUMN credit_change.changed_at IS 'When it was written down.';
COMMENT ON COLUMN credit_change.body IS 'What changed, as it was then: line, statement, stage or grade, by this name.';

CREATE FUNCTION credit_line_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO credit_change (merchant_id, currency, change, body) VALUES (
        NEW.merchant_id, NEW.currency,
        CASE WHEN NEW.state = 'closed' THEN 'line_closed' WHEN NEW.version = 1 THEN 'line_activated' ELSE 'line_changed' END,
        jsonb_build_object('line', to_jsonb(NEW))
    );
    RETURN NULL;
END
$$;

CREATE FUNCTION credit_statement_closed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO credit_change (merchant_id, currency, change, body)
        SELECT merchant_id, currency, 'statement_closed',
            jsonb_build_object('statement', to_jsonb(added) - ARRAY['merchant_id', 'currency', 'event_id'])
        FROM added ORDER BY merchant_id, currency, number;
    RETURN NULL;
END
$$;

-- A run names the decision that it follows: what differs from that has changed.
CREATE FUNCTION credit_grade_run() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    last credit_grade;
    stage_before text;
BEGIN
    SELECT * INTO last FROM credit_grade WHERE grade_id = NEW.follows;
    -- The stage is that of the account: a line that was opened after another one goes on with what that one left.
    SELECT stage INTO stage_before FROM credit_grade
        WHERE merchant_id = NEW.merchant_id AND currency = NEW.currency AND grade_id < NEW.grade_id AND stage IS NOT NULL
        ORDER BY grade_id DESC LIMIT 1;
    stage_before := coalesce(stage_before, 'current');
    IF NEW.stage <> stage_before THEN
        INSERT INTO credit_change (merchant_id, currency, change, body) VALUES (
            NEW.merchant_id, NEW.currency, 'stage_changed',
            jsonb_build_object('stage', jsonb_build_object(
                'stage', NEW.stage, 'stage_before', stage_before, 'days_past_due', NEW.days_past_due, 'on_day', NEW.on_day
            ))
        );
    END IF;
    IF NEW.grade <> last.grade THEN
        INSERT INTO credit_change (merchant_id, currency, change, body) VALUES (
            NEW.merchant_id, NEW.currency, 'grade_changed',
            jsonb_build_object('grade', jsonb_build_object(
                'grade', NEW.grade, 'grade_before', last.grade, 'kind', NEW.kind, 'on_day', NEW.on_day, 'expires_on', NULL,
                'due_days', NEW.due_days, 'minimum_bp', NEW.minimum_bp
            ))
        );
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION credit_grade_overridden() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    -- A server of an earlier release approves without the day.
    begins date := coalesce(NEW.approved_on, NEW.on_day);
    before text;
BEGIN
    -- In force is the one that was requested last.
    IF EXISTS (SELECT FROM credit_grade WHERE merchant_id = NEW.merchant_id AND currency = NEW.currency AND kind = 'override'
            AND grade_id > NEW.grade_id AND approved_by IS NOT NULL AND expires_on >= begins) THEN
        RETURN NULL;
    END IF;
    SELECT grade INTO before FROM credit_grade
        WHERE merchant_id = NEW.merchant_id AND currency = NEW.currency AND grade_id <> NEW.grade_id
            AND (kind <> 'override' OR (approved_by IS NOT NULL AND expires_on >= begins))
        ORDER BY kind = 'override' DESC, grade_id DESC LIMIT 1;
    IF NEW.grade IS DISTINCT FROM before THEN
        INSERT INTO credit_change (merchant_id, currency, change, body) VALUES (
            NEW.merchant_id, NEW.currency, 'grade_changed',
            jsonb_build_object('grade', jsonb_build_object(
                'grade', NEW.grade, 'grade_before', before, 'kind', NEW.kind, 'on_day', begins, 'expires_on', NEW.expires_on,
                'due_days', NEW.due_days, 'minimum_bp', NEW.minimum_bp
            ))
        );
    END IF;
    RETURN NULL;
END
$$;

CREATE TRIGGER credit_change AFTER UPDATE ON credit_line
    FOR EACH ROW WHEN ((OLD.state <> 'active' AND NEW.state = 'active') OR (OLD.state = 'active' AND NEW.state = 'closed'))
    EXECUTE FUNCTION credit_line_changed();
CREATE TRIGGER credit_change AFTER INSERT ON credit_statement REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION credit_statement_closed();
CREATE TRIGGER credit_change_1_run AFTER INSERT ON credit_grade
    FOR EACH ROW WHEN (NEW.kind = 'scorecard') EXECUTE FUNCTION credit_grade_run();
CREATE TRIGGER credit_change_2_overridden AFTER UPDATE ON credit_grade
    FOR EACH ROW WHEN (OLD.approved_by IS NULL AND NEW.approved_by IS NOT NULL) EXECUTE FUNCTION credit_grade_overridden();
CREATE TRIGGER refuse BEFORE UPDATE ON credit_change FOR EACH ROW EXECUTE FUNCTION limit_policy_refuse();
