-- Finds the rows of transactions. They lie in the order of their transactions: ranges of pages are enough, and cost a row next to
-- nothing. What the table has before has no transaction, and is not read for the index: only partitions get one that the live
-- stream looks at, which goes back ten days. A migration of its own, so that no lock of the last one is held meanwhile.

CREATE INDEX usage_log_stored ON ONLY usage_log USING brin (stored_txid) WITH (autosummarize = on, pages_per_range = 512);

DO $$
DECLARE
    part name;
BEGIN
    FOR part IN
        SELECT relname FROM pg_inherits JOIN pg_class ON oid = inhrelid
        WHERE inhparent = 'usage_log'::regclass
            AND relname >= to_char(now() AT TIME ZONE 'UTC' - interval '10 days', '"usage_log_"YYYY_MM') COLLATE "C"
    LOOP
        EXECUTE format(
            'CREATE INDEX %I ON %I USING brin (stored_txid) WITH (autosummarize = on, pages_per_range = 512)',
            part || '_stored_txid_idx', part
        );
        EXECUTE format('ALTER INDEX usage_log_stored ATTACH PARTITION %I', part || '_stored_txid_idx');
    END LOOP;
END
$$;
