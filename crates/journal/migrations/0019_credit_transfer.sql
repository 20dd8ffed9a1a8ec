-- Transfers of credit between two accounts: each step is a posting with an event of its own, and the row says which come next.

CREATE TABLE credit_transfer (
    transfer_no       text         PRIMARY KEY CHECK (length(transfer_no) BETWEEN 1 AND 128),
    from_merchant_id  text         NOT NULL,
    to_merchant_id    text         NOT NULL CHECK (to_merchant_id <> from_merchant_id),
    currency          char(3)      NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    amount            minor_amount NOT NULL CHECK (amount > 0),
    state             text         NOT NULL DEFAULT 'requested'
        CHECK (state IN ('requested', 'reserved', 'returning', 'completed', 'refused', 'returned')),
    code              text,
    reason            text,
    requested_by      text         NOT NULL,
    operator_type     text         NOT NULL,
    reserve_decision  uuid,
    credit_decision   uuid,
    return_decision   uuid,
    requested_at      timestamptz  NOT NULL DEFAULT now(),
    updated_at        timestamptz  NOT NULL DEFAULT now(),
    CONSTRAINT credit_transfer_code CHECK ((code IS NOT NULL) = (state IN ('returning', 'refused', 'returned')))
);
CREATE INDEX credit_transfer_open ON credit_transfer (requested_at) WHERE state IN ('requested', 'reserved', 'returning');
CREATE INDEX credit_transfer_from ON credit_transfer (from_merchant_id, requested_at);
CREATE INDEX credit_transfer_to ON credit_transfer (to_merchant_id, requested_at);

COMMENT ON TABLE credit_transfer IS 'Transfers of credit between two accounts of one currency. The usage log has an event on either side.';
COMMENT ON COLUMN credit_transfer.transfer_no IS 'The idempotency key.';
COMMENT ON COLUMN credit_transfer.from_merchant_id IS 'Whose exposure rises.';
COMMENT ON COLUMN credit_transfer.to_merchant_id IS 'Whose exposure falls.';
COMMENT ON COLUMN credit_transfer.currency IS 'ISO 4217.';
COMMENT ON COLUMN credit_transfer.amount IS 'Minor units.';
COMMENT ON COLUMN credit_transfer.state IS 'requested; reserved: taken from the sender; completed; refused: nothing was taken; returning: the receiver could not take it, returned: given back to the sender.';
COMMENT ON COLUMN credit_transfer.code IS 'Why it was refused or returned.';
COMMENT ON COLUMN credit_transfer.reason IS 'Why it was requested.';
COMMENT ON COLUMN credit_transfer.requested_by IS 'Who requested it.';
COMMENT ON COLUMN credit_transfer.operator_type IS 'Whether that is a person (admin) or a program (api).';
COMMENT ON COLUMN credit_transfer.reserve_decision IS 'The decision that took it from the sender, or refused to.';
COMMENT ON COLUMN credit_transfer.credit_decision IS 'The decision that gave it to the receiver, or could not.';
COMMENT ON COLUMN credit_transfer.return_decision IS 'The decision that gave it back to the sender.';
COMMENT ON COLUMN credit_transfer.requested_at IS 'When it was requested.';
COMMENT ON COLUMN credit_transfer.updated_at IS 'When its last step was done.';
