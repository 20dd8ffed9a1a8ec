-- Credit lines: their terms, pauses and grades, and the statements of their cycles. `0015_credit_entry.sql` has the entries of
-- their books. Whoever writes a line sets `sluice.actor`, `sluice.action` and `sluice.reason`, as for limit policies.

ALTER TABLE credit_entry DROP CONSTRAINT credit_entry_kind_check;
ALTER TABLE credit_entry ADD CONSTRAINT credit_entry_kind_check CHECK (
    kind IN ('cycle_closed', 'repayment', 'repayment_reversal', 'write_off', 'recovery', 'transfer_in', 'transfer_out', 'credit')
);
ALTER TABLE credit_entry ADD COLUMN value_day integer;
COMMENT ON COLUMN credit_entry.value_day IS 'The day on which money was received, YYYYMMDD, where it is not the business day.';
CREATE INDEX credit_entry_posting ON credit_entry (merchant_id, kind, posting_no) WHERE posting_no IS NOT NULL;

ALTER TABLE limit_policy ADD COLUMN on_unknown_credit text CHECK (on_unknown_credit IN ('deny', 'allow'));
COMMENT ON COLUMN limit_policy.on_unknown_credit IS 'What happens to a charge on a credit line that the server has never read: deny or allow.';
ALTER TABLE limit_policy ADD CONSTRAINT limit_policy_channel_credit CHECK (channel = 'all' OR on_unknown_credit IS NULL);

CREATE TABLE credit_line (
    line_id        uuid         NOT NULL DEFAULT gen_random_uuid(),
    version        integer      NOT NULL DEFAULT 1 CHECK (version >= 1),
    merchant_id    text         NOT NULL CHECK (merchant_id ~ '^[!-9;-~]{1,64}$'),
    currency       char(3)      NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    limit_base     minor_amount NOT NULL,
    grade          text         NOT NULL DEFAULT 'B' CHECK (grade IN ('A', 'B', 'C', 'D', 'E')),
    terms          jsonb        NOT NULL,
    override_limit minor_amount,
    override_until date,
    expires_on     date,
    state          text         NOT NULL DEFAULT 'draft' CHECK (state IN ('draft', 'approved', 'active', 'replaced', 'closed')),
    opened_on      date,
    activated_on   date,
    closed_on      date,
    created_by     text         NOT NULL,
    created_at     timestamptz  NOT NULL DEFAULT now(),
    edited_by      text[]       NOT NULL,
    updated_at     timestamptz  NOT NULL DEFAULT now(),
    approved_by    text,
    approved_at    timestamptz,
    metadata       jsonb,
    remarks        text         CHECK (length(remarks) <= 2000),
    revision       bigint       NOT NULL DEFAULT 1,
    PRIMARY KEY (line_id, version),
    CONSTRAINT credit_line_override CHECK (num_nulls(override_limit, override_until) IN (0, 2)),
    CONSTRAINT credit_line_approved CHECK (state NOT IN ('approved', 'active', 'replaced') OR (approved_by IS NOT NULL AND approved_at IS NOT NULL)),
    CONSTRAINT credit_line_activated CHECK (state NOT IN ('active', 'replaced') OR (opened_on IS NOT NULL AND activated_on IS NOT NULL)),
    CONSTRAINT credit_line_four_eyes CHECK (approved_by IS NULL OR NOT (approved_by = created_by OR approved_by = ANY (edited_by)))
);

CREATE UNIQUE INDEX credit_line_one_active ON credit_line (merchant_id, currency) WHERE state = 'active';
CREATE UNIQUE INDEX credit_line_one_pending ON credit_line (merchant_id, currency) WHERE state IN ('draft', 'approved');
CREATE INDEX credit_line_account ON credit_line (merchant_id, currency, created_at);

COMMENT ON TABLE credit_line IS 'Credit lines in all their versions: a limit that is used and repaid, with its own copy of its terms.';
COMMENT ON COLUMN credit_line.line_id IS 'Names the line in all its versions.';
COMMENT ON COLUMN credit_line.version IS 'A change of an active line is another version.';
COMMENT ON COLUMN credit_line.merchant_id IS 'The merchant.';
COMMENT ON COLUMN credit_line.currency IS 'ISO 4217.';
COMMENT ON COLUMN credit_line.limit_base IS 'The limit before the grade''s multiplier and the stage''s cap, minor units; 0 for a prepaid account.';
COMMENT ON COLUMN credit_line.grade IS 'The grade that the line is opened with; `credit_grade` has those after it.';
COMMENT ON COLUMN credit_line.terms IS 'Cycle, due date, minimum, materiality, stages, dunning.';
COMMENT ON COLUMN credit_line.override_limit IS 'A limit that a person has set, in place of the one that is computed.';
COMMENT ON COLUMN credit_line.override_until IS 'The last day on which it is in force.';
COMMENT ON COLUMN credit_line.expires_on IS 'The last day on which the line takes new charges; null for no end.';
COMMENT ON COLUMN credit_line.state IS 'draft, approved by another person, active, replaced by a later version, closed.';
COMMENT ON COLUMN credit_line.opened_on IS 'The business day on which the first version was activated: the first cycle begins there.';
COMMENT ON COLUMN credit_line.activated_on IS 'The business day on which this version was activated.';
COMMENT ON COLUMN credit_line.closed_on IS 'The business day since which the line takes no new charges.';
COMMENT ON COLUMN credit_line.created_by IS 'Who made this version.';
COMMENT ON COLUMN credit_line.created_at IS 'When this version was made.';
COMMENT ON COLUMN credit_line.edited_by IS 'Everybody who changed this version: none of them may approve it.';
COMMENT ON COLUMN credit_line.updated_at IS 'When this version last changed.';
COMMENT ON COLUMN credit_line.approved_by IS 'Who approved it; never one of those who wrote it.';
COMMENT ON COLUMN credit_line.approved_at IS 'When it was approved.';
COMMENT ON COLUMN credit_line.metadata IS 'Data of callers.';
COMMENT ON COLUMN credit_line.remarks IS 'A note.';
COMMENT ON COLUMN credit_line.revision IS 'Number of changes of this version, so that of two writers the second notices.';

CREATE TABLE credit_statement (
    merchant_id text    NOT NULL,
    currency    char(3) NOT NULL,
    number      integer NOT NULL CHECK (number >= 1),
    cycle       integer NOT NULL,
    first_day   date    NOT NULL,
    closed_on   date    NOT NULL,
    due_on      date    NOT NULL,
    amount      bigint  NOT NULL CHECK (amount >= 0),
    minimum     bigint  NOT NULL CHECK (minimum BETWEEN 0 AND amount),
    event_id    uuid    NOT NULL,
    PRIMARY KEY (merchant_id, currency, cycle),
    UNIQUE (merchant_id, currency, number)
);

COMMENT ON TABLE credit_statement IS 'One row for each cycle that closed, written in the transaction of its event and never changed. What is paid of it follows from `credit_entry`.';
COMMENT ON COLUMN credit_statement.merchant_id IS 'The merchant.';
COMMENT ON COLUMN credit_statement.currency IS 'ISO 4217.';
COMMENT ON COLUMN credit_statement.number IS '1 for the first statement of the account.';
COMMENT ON COLUMN credit_statement.cycle IS 'The cycle: its first day, YYYYMMDD.';
COMMENT ON COLUMN credit_statement.first_day IS 'The first day of the cycle.';
COMMENT ON COLUMN credit_statement.closed_on IS 'The last day of the cycle, the date of the statement.';
COMMENT ON COLUMN credit_statement.due_on IS 'The day until which the minimum must be paid.';
COMMENT ON COLUMN credit_statement.amount IS 'What was unbilled when the cycle closed, minor units.';
COMMENT ON COLUMN credit_statement.minimum IS 'What must be paid by the due date, minor units.';
COMMENT ON COLUMN credit_statement.event_id IS 'The event that closed the cycle.';

CREATE TABLE credit_pause (
    pause_id    bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    merchant_id text        NOT NULL,
    currency    char(3)     NOT NULL,
    from_day    date        NOT NULL,
    to_day      date        NOT NULL,
    reason      text        NOT NULL,
    approved_by text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    CHECK (from_day <= to_day)
);
CREATE INDEX credit_pause_line ON credit_pause (merchant_id, currency, pause_id);

COMMENT ON TABLE credit_pause IS 'Promises to pay that were accepted: days on which days past due are not counted. Rows are only added.';
COMMENT ON COLUMN credit_pause.pause_id IS 'The order of the pauses.';
COMMENT ON COLUMN credit_pause.merchant_id IS 'The merchant.';
COMMENT ON COLUMN credit_pause.currency IS 'ISO 4217.';
COMMENT ON COLUMN credit_pause.from_day IS 'The first day that is not counted.';
COMMENT ON COLUMN credit_pause.to_day IS 'The last day that is not counted.';
COMMENT ON COLUMN credit_pause.reason IS 'What was promised.';
COMMENT ON COLUMN credit_pause.approved_by IS 'Who accepted it.';
COMMENT ON COLUMN credit_pause.created_at IS 'When.';

CREATE TABLE credit_grade (
    grade_id     bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    merchant_id  text        NOT NULL,
    currency     char(3)     NOT NULL,
    kind         text        NOT NULL CHECK (kind IN ('opening', 'scorecard', 'override')),
    grade        text        NOT NULL CHECK (grade IN ('A', 'B', 'C', 'D', 'E')),
    on_day       date        NOT NULL,
    changed_on   date        NOT NULL,
    reason       text,
    expires_on   date,
    requested_by text        NOT NULL,
    approved_by  text,
    approved_at  timestamptz,
    is_close     boolean     NOT NULL DEFAULT false,
    scorecard    text,
    score        integer,
    run          jsonb,
    created_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT credit_grade_override CHECK (kind <> 'override' OR (reason IS NOT NULL AND expires_on IS NOT NULL)),
    CONSTRAINT credit_grade_scorecard CHECK (kind <> 'scorecard' OR (scorecard IS NOT NULL AND score IS NOT NULL AND run IS NOT NULL)),
    CONSTRAINT credit_grade_four_eyes CHECK (kind <> 'override' OR approved_by IS DISTINCT FROM requested_by)
);
CREATE INDEX credit_grade_line ON credit_grade (merchant_id, currency, grade_id);

COMMENT ON TABLE credit_grade IS 'How each grade came about: with the line, by a run of the scorecard, or by persons. Rows are only added, and an override is approved once.';
COMMENT ON COLUMN credit_grade.grade_id IS 'The order of the decisions.';
COMMENT ON COLUMN credit_grade.merchant_id IS 'The merchant.';
COMMENT ON COLUMN credit_grade.currency IS 'ISO 4217.';
COMMENT ON COLUMN credit_grade.kind IS 'opening, scorecard or override.';
COMMENT ON COLUMN credit_grade.grade IS 'The grade, A to E.';
COMMENT ON COLUMN credit_grade.on_day IS 'The business day of the decision.';
COMMENT ON COLUMN credit_grade.changed_on IS 'Since when the grade is this one; for an override the day of its request.';
COMMENT ON COLUMN credit_grade.reason IS 'Of an override: why.';
COMMENT ON COLUMN credit_grade.expires_on IS 'Of an override: the last day on which it is in force.';
COMMENT ON COLUMN credit_grade.requested_by IS 'Who asked for it; system:scorecard for a run.';
COMMENT ON COLUMN credit_grade.approved_by IS 'Of an override: the second person. Without one it is not in force.';
COMMENT ON COLUMN credit_grade.approved_at IS 'When it was approved.';
COMMENT ON COLUMN credit_grade.is_close IS 'Of a run: it is that of a cycle''s close, and not of a change of stage.';
COMMENT ON COLUMN credit_grade.scorecard IS 'Of a run: the version of the scorecard.';
COMMENT ON COLUMN credit_grade.score IS 'Of a run: the sum of points.';
COMMENT ON COLUMN credit_grade.run IS 'Of a run: inputs, points, what cost most, and the challenger''s result.';
COMMENT ON COLUMN credit_grade.created_at IS 'When.';

-- Tells every server which line has changed, once for a transaction, when it commits.
CREATE FUNCTION credit_notify() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('sluice_credit', NEW.merchant_id || ':' || NEW.currency);
    RETURN NULL;
END
$$;

-- What somebody approved does not change: another version does, or the approval is void.
CREATE FUNCTION credit_line_keep() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    may_change text[] := ARRAY['state', 'edited_by', 'updated_at', 'approved_by', 'approved_at', 'opened_on', 'activated_on', 'closed_on', 'revision'];
BEGIN
    IF OLD.state <> 'draft' AND NEW.state <> 'draft' AND to_jsonb(OLD) - may_change IS DISTINCT FROM to_jsonb(NEW) - may_change THEN
        RAISE EXCEPTION 'a credit line that is % cannot be changed, only replaced by another version', OLD.state USING ERRCODE = 'restrict_violation';
    END IF;
    IF OLD.state IN ('active', 'replaced', 'closed') AND NEW.state IN ('draft', 'approved') THEN
        RAISE EXCEPTION 'a credit line that was % cannot be % again', OLD.state, NEW.state USING ERRCODE = 'restrict_violation';
    END IF;
    IF NEW.state = 'active' AND OLD.state NOT IN ('approved', 'active') THEN
        RAISE EXCEPTION 'only an approved credit line can be active' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;

-- An override is approved once; nothing else of a grade changes.
CREATE FUNCTION credit_grade_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.approved_by IS NOT NULL OR to_jsonb(OLD) - ARRAY['approved_by', 'approved_at'] IS DISTINCT FROM to_jsonb(NEW) - ARRAY['approved_by', 'approved_at'] THEN
        RAISE EXCEPTION 'a grade is not changed: it is kept for the record' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;

ALTER TABLE limit_policy_history DROP CONSTRAINT limit_policy_history_object_check;
ALTER TABLE limit_policy_history ADD CONSTRAINT limit_policy_history_object_check CHECK (
    object IN ('limit_policy', 'tier', 'merchant_tier', 'policy_override', 'credit_line')
);
COMMENT ON COLUMN limit_policy_history.object_id IS 'The row''s id: policy_id, tier_id, binding_id, override_id or line_id.';
COMMENT ON TABLE limit_policy_history IS 'Every change of a policy, tier, binding, override or credit line, written by the database itself and never changed.';

CREATE TRIGGER keep BEFORE UPDATE ON credit_line FOR EACH ROW EXECUTE FUNCTION credit_line_keep();
CREATE TRIGGER keep BEFORE UPDATE ON credit_grade FOR EACH ROW EXECUTE FUNCTION credit_grade_keep();
CREATE TRIGGER refuse BEFORE DELETE ON credit_line FOR EACH ROW EXECUTE FUNCTION limit_policy_refuse();
CREATE TRIGGER refuse BEFORE DELETE ON credit_grade FOR EACH ROW EXECUTE FUNCTION limit_policy_refuse();
CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON credit_pause FOR EACH ROW EXECUTE FUNCTION limit_policy_refuse();
CREATE TRIGGER refuse BEFORE UPDATE OR DELETE ON credit_statement FOR EACH ROW EXECUTE FUNCTION limit_policy_refuse();
CREATE TRIGGER record AFTER INSERT OR UPDATE ON credit_line FOR EACH ROW EXECUTE FUNCTION limit_policy_record('line_id');
CREATE TRIGGER notify AFTER INSERT OR UPDATE ON credit_line FOR EACH ROW EXECUTE FUNCTION credit_notify();
CREATE TRIGGER notify AFTER INSERT OR UPDATE ON credit_grade FOR EACH ROW EXECUTE FUNCTION credit_notify();
CREATE TRIGGER notify AFTER INSERT ON credit_pause FOR EACH ROW EXECUTE FUNCTION credit_notify();
CREATE TRIGGER notify AFTER INSERT ON credit_entry FOR EACH ROW EXECUTE FUNCTION credit_notify();
