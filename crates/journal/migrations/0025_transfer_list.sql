-- The list of all transfers, the newest first.

CREATE INDEX credit_transfer_at ON credit_transfer (requested_at, transfer_no);
