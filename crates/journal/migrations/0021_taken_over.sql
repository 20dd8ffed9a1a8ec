-- Credit lines that are taken over from another system, with the statements that were open there.

ALTER TABLE credit_line ADD COLUMN taken_over_from date;
COMMENT ON COLUMN credit_line.taken_over_from IS 'The day on which the line was opened in the system that it is taken over from; null for one that is opened here.';
COMMENT ON COLUMN credit_line.opened_on IS 'The first day of the first cycle: that of the first activation, or `taken_over_from`.';

ALTER TABLE credit_entry DROP CONSTRAINT credit_entry_kind_check;
ALTER TABLE credit_entry ADD CONSTRAINT credit_entry_kind_check CHECK (
    kind IN ('cycle_closed', 'repayment', 'repayment_reversal', 'write_off', 'recovery', 'transfer_in', 'transfer_out', 'opening', 'credit')
);
