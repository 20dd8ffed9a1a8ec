-- Terms of a statement that a grade decides in place of the line's own. They are copied from the scorecard's band into each decision
-- about a grade, so that what a statement was made by does not change with a later scorecard.

ALTER TABLE credit_grade
    ADD COLUMN approved_on date,
    ADD COLUMN due_days    integer CHECK (due_days BETWEEN 0 AND 3650),
    ADD COLUMN minimum_bp  integer CHECK (minimum_bp BETWEEN 1 AND 10000);

COMMENT ON COLUMN credit_grade.approved_on IS 'Of an override: the business day of its approval, since which it is in force; null of those approved before this column, which count since `on_day`.';
COMMENT ON COLUMN credit_grade.due_days IS 'Days from the close of a cycle to the due date while this decision is in force; null where the line''s terms hold.';
COMMENT ON COLUMN credit_grade.minimum_bp IS 'The part of a statement that must be paid by its due date while this decision is in force; null where the line''s terms hold.';

-- An override is approved once, and gets its terms then; nothing else of a grade changes.
CREATE OR REPLACE FUNCTION credit_grade_keep() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    of_approval text[] := ARRAY['approved_by', 'approved_at', 'approved_on', 'due_days', 'minimum_bp'];
BEGIN
    IF OLD.kind <> 'override' OR OLD.approved_by IS NOT NULL OR NEW.approved_by IS NULL
        OR to_jsonb(OLD) - of_approval IS DISTINCT FROM to_jsonb(NEW) - of_approval THEN
        RAISE EXCEPTION 'a grade is not changed: it is kept for the record' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END
$$;
