-- Scorecards, their runs, and disputes. A run is a row of `credit_grade`: it names the decision that it follows, so that of two servers
-- that run one, one does. Whoever writes a scorecard sets `sluice.actor`, `sluice.action` and `sluice.reason`, as for credit lines.

CREATE TABLE credit_scorecard (
    version      text        PRIMARY KEY CHECK (version ~ '^[!-~]{1,64}$'),
    scorecard_id uuid        NOT NULL DEFAULT gen_random_uuid(),
    card         jsonb       NOT NULL,
    state        text        NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'champion', 'challenger', 'retired')),
    created_by   text        NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    edited_by    text[]      NOT NULL,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    activated_by text,
    activated_at timestamptz,
    revision     bigint      NOT NULL DEFAULT 1,
    CONSTRAINT credit_scorecard_named CHECK (card ->> 'version' = version),
    CONSTRAINT credit_scorecard_activated CHECK (state = 'draft' OR (activated_by IS NOT NULL AND activated_at IS NOT NULL)),
    CONSTRAINT credit_scorecard_four_eyes CHECK (activated_by IS NULL OR NOT (activated_by = created_by OR activated_by = ANY (edited_by)))
);
CREATE UNIQUE INDEX credit_scorecard_one_in_force ON credit_scorecard (state) WHERE state IN ('champion', 'challenger');
CREATE INDEX credit_scorecard_listed ON credit_scorecard (created_at, scorecard_id);

COMMENT ON TABLE credit_scorecard IS 'Scorecards in all their versions. While none was put in force, the standard one of the release is.';
COMMENT ON COLUMN credit_scorecard.version IS 'Names the scorecard in every run.';
COMMENT ON COLUMN credit_scorecard.scorecard_id IS 'Names it in the history of changes.';
COMMENT ON COLUMN credit_scorecard.card IS 'Points by feature, bands of grades, and how a grade moves.';
COMMENT ON COLUMN credit_scorecard.state IS 'draft; champion, which decides grades; challenger, which is evaluated beside it without effect; retired.';
COMMENT ON COLUMN credit_scorecard.created_by IS 'Who drafted it.';
COMMENT ON COLUMN credit_scorecard.created_at IS 'When it was drafted.';
COMMENT ON COLUMN credit_scorecard.edited_by IS 'Everybody who changed the draft: none of them may activate it.';
COMMENT ON COLUMN credit_scorecard.updated_at IS 'When it last changed.';
COMMENT ON COLUMN credit_scorecard.activated_by IS 'Who activated it last; never one of those who wrote it.';
COMMENT ON COLUMN credit_scorecard.activated_at IS 'When it was activated last.';
COMMENT ON COLUMN credit_scorecard.revision IS 'Number of changes, so that of two writers the second notices.';

-- A card that was once evaluated does not change: its points explain grades.
CREATE FUNCTION credit_scorecard_keep() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    may_change text[] := ARRAY['state', 'updated_at', 'activated_by', 'activated_at', 'revision'];
BEGIN
    IF OLD.state <> 'draft' AND (NEW.state = 'draft' OR to_jsonb(OLD) - may_change IS DISTINCT FROM to_jsonb(NEW) - may_change) THEN
        RAISE EXCEPTION 'a scorecard that was in force does not change: draft another version' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;

-- Every server reads the scorecards in force again. An account's notification has a colon, this one has none.
CREATE FUNCTION credit_scorecard_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('sluice_credit', 'scorecard');
    RETURN NULL;
END
$$;

ALTER TABLE limit_policy_history DROP CONSTRAINT limit_policy_history_object_check;
ALTER TABLE limit_policy_history ADD CONSTRAINT limit_policy_history_object_check CHECK (
    object IN ('limit_policy', 'tier', 'merchant_tier', 'policy_override', 'credit_line', 'credit_scorecard')
);
COMMENT ON COLUMN limit_policy_history.object_id IS 'The row''s id: policy_id, tier_id, binding_id, override_id, line_id or scorecard_id.';
COMMENT ON TABLE limit_policy_history IS 'Every change of a policy, tier, binding, override, credit line or scorecard, written by the database itself and never changed.';

CREATE TRIGGER keep BEFORE UPDATE ON credit_scorecard FOR EACH ROW EXECUTE FUNCTION credit_scorecard_keep();
CREATE TRIGGER refuse BEFORE DELETE ON credit_scorecard FOR EACH ROW EXECUTE FUNCTION limit_policy_refuse();
CREATE TRIGGER record AFTER INSERT OR UPDATE ON credit_scorecard FOR EACH ROW EXECUTE FUNCTION limit_policy_record('scorecard_id');
CREATE TRIGGER notify AFTER INSERT OR UPDATE ON credit_scorecard FOR EACH STATEMENT EXECUTE FUNCTION credit_scorecard_notify();

ALTER TABLE credit_grade
    ADD COLUMN follows          bigint,
    ADD COLUMN cycle            integer,
    ADD COLUMN stage            text CHECK (stage IN ('current', 'grace', 'watch', 'restricted', 'frozen', 'defaulted')),
    ADD COLUMN days_past_due    integer,
    ADD COLUMN scored           text CHECK (scored IN ('A', 'B', 'C', 'D', 'E')),
    ADD COLUMN challenger       text,
    ADD COLUMN challenger_score integer,
    ADD COLUMN challenger_grade text CHECK (challenger_grade IN ('A', 'B', 'C', 'D', 'E')),
    ADD CONSTRAINT credit_grade_run CHECK (
        kind <> 'scorecard' OR num_nulls(follows, stage, days_past_due, scored) = 0 AND is_close = (cycle IS NOT NULL)
    ),
    ADD CONSTRAINT credit_grade_challenger CHECK (num_nulls(challenger, challenger_score, challenger_grade) IN (0, 3));
CREATE UNIQUE INDEX credit_grade_follows ON credit_grade (merchant_id, currency, follows) WHERE follows IS NOT NULL;
CREATE UNIQUE INDEX credit_grade_cycle ON credit_grade (merchant_id, currency, cycle) WHERE cycle IS NOT NULL;
CREATE INDEX credit_grade_challenged ON credit_grade (challenger, grade_id) WHERE challenger IS NOT NULL;

COMMENT ON COLUMN credit_grade.follows IS 'Of a run: the decision before it, an opening or a run. One run follows each, whatever servers do at once.';
COMMENT ON COLUMN credit_grade.cycle IS 'Of the run of a cycle''s close: the cycle, its first day as YYYYMMDD.';
COMMENT ON COLUMN credit_grade.stage IS 'Of a run: the line''s stage.';
COMMENT ON COLUMN credit_grade.days_past_due IS 'Of a run: the line''s days past due.';
COMMENT ON COLUMN credit_grade.scored IS 'Of a run: the grade of the score''s band, before the rule of movement.';
COMMENT ON COLUMN credit_grade.challenger IS 'Of a run: the version of the challenger, where there was one.';
COMMENT ON COLUMN credit_grade.challenger_score IS 'Of a run: the challenger''s sum of points.';
COMMENT ON COLUMN credit_grade.challenger_grade IS 'Of a run: the grade of the challenger''s band.';
COMMENT ON COLUMN credit_grade.run IS 'Of a run: inputs, and of champion and challenger the points and what cost most.';

CREATE TABLE credit_dispute (
    dispute_id  bigint       GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    merchant_id text         NOT NULL,
    currency    char(3)      NOT NULL,
    dispute_no  text         NOT NULL,
    opened_on   date         NOT NULL,
    amount      minor_amount NOT NULL,
    remarks     text,
    recorded_by text         NOT NULL,
    recorded_at timestamptz  NOT NULL DEFAULT now(),
    CONSTRAINT credit_dispute_dispute_no_key UNIQUE (merchant_id, currency, dispute_no)
);

COMMENT ON TABLE credit_dispute IS 'Disputes of payers against a merchant''s charges, as they are reported: an input of scorecards. Rows are only added.';
COMMENT ON COLUMN credit_dispute.dispute_id IS 'The order of the rows.';
COMMENT ON COLUMN credit_dispute.merchant_id IS 'The merchant.';
COMMENT ON COLUMN credit_dispute.currency IS 'ISO 4217.';
COMMENT ON COLUMN credit_dispute.dispute_no IS 'The caller''s number: the same one is recorded once.';
COMMENT ON COLUMN credit_dispute.opened_on IS 'The business day on which the payer opened it.';
COMMENT ON COLUMN credit_dispute.amount IS 'What is disputed, minor units.';
COMMENT ON COLUMN credit_dispute.remarks IS 'A note.';
COMMENT ON COLUMN credit_dispute.recorded_by IS 'Who reported it.';
COMMENT ON COLUMN credit_dispute.recorded_at IS 'When.';

CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON credit_dispute FOR EACH ROW EXECUTE FUNCTION limit_policy_refuse();
