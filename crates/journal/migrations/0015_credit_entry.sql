-- The entries of the books of credit lines.

CREATE TABLE credit_entry (
    entry_id    bigint      GENERATED ALWAYS AS IDENTITY,
    event_id    uuid        NOT NULL,
    kind        text        NOT NULL CHECK (kind IN ('cycle_closed', 'repayment', 'repayment_reversal', 'write_off', 'transfer_in', 'transfer_out', 'credit')),
    merchant_id text        NOT NULL,
    currency    char(3)     NOT NULL,
    shard       integer     NOT NULL,
    seq         bigint      NOT NULL,
    at          timestamptz NOT NULL,
    business_day integer    NOT NULL,
    cycle       integer     NOT NULL,
    amount      bigint      NOT NULL CHECK (amount >= 0),
    posting_no  text,
    PRIMARY KEY (event_id, kind)
);
CREATE INDEX credit_entry_line ON credit_entry (merchant_id, currency, entry_id);

COMMENT ON TABLE credit_entry IS 'The entries of the books of credit lines, written in the transaction of their events and never changed. Statements and allocations follow from them.';
COMMENT ON COLUMN credit_entry.entry_id IS 'The order of the entries of a line.';
COMMENT ON COLUMN credit_entry.event_id IS 'The event that it comes from.';
COMMENT ON COLUMN credit_entry.kind IS 'What it is: a cycle that closed, a posting, or a credit for a void or refund of what is billed.';
COMMENT ON COLUMN credit_entry.merchant_id IS 'The merchant.';
COMMENT ON COLUMN credit_entry.currency IS 'ISO 4217.';
COMMENT ON COLUMN credit_entry.shard IS 'The shard of the event.';
COMMENT ON COLUMN credit_entry.seq IS 'The number of the event in its shard.';
COMMENT ON COLUMN credit_entry.at IS 'When the event happened.';
COMMENT ON COLUMN credit_entry.amount IS 'In minor units.';
COMMENT ON COLUMN credit_entry.posting_no IS 'The number of a posting, among those of its kind.';
COMMENT ON COLUMN credit_entry.business_day IS 'The merchant''s business day, YYYYMMDD.';
COMMENT ON COLUMN credit_entry.cycle IS 'The billing cycle that closed, or whose charge is given back after its close: its first day, YYYYMMDD; 0 for postings.';
