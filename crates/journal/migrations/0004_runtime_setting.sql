-- Settings that are changed while the servers run, and the record of who changed what.

CREATE TABLE runtime_setting (
    key        text        NOT NULL PRIMARY KEY CHECK (key ~ '^[a-z][a-z0-9_]{0,62}$'),
    value      text        NOT NULL CHECK (octet_length(value) <= 4096),
    version    bigint      NOT NULL,
    changed_by text        NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
);

COMMENT ON TABLE runtime_setting IS 'Values that lie over those of file and environment, read by servers with ENABLE_CONFIG_CLIENT.';
COMMENT ON COLUMN runtime_setting.key IS 'The setting, by its key in the configuration file.';
COMMENT ON COLUMN runtime_setting.value IS 'Its value as a file would have it; checked before it is written, and again by each server.';
COMMENT ON COLUMN runtime_setting.version IS 'The change that wrote it, to find its rows in the audit.';
COMMENT ON COLUMN runtime_setting.changed_by IS 'Who wrote it, from the caller''s identity.';
COMMENT ON COLUMN runtime_setting.changed_at IS 'When it was written.';

CREATE TABLE runtime_setting_audit (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version    bigint      NOT NULL,
    key        text        NOT NULL,
    old_value  text,
    new_value  text,
    removed    boolean     NOT NULL,
    actor      text        NOT NULL,
    reason     text        NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX runtime_setting_audit_key ON runtime_setting_audit (key, id DESC);
CREATE INDEX runtime_setting_audit_version ON runtime_setting_audit (version);

COMMENT ON TABLE runtime_setting_audit IS 'Every change of a setting at run time, one row for each setting, never changed.';
COMMENT ON COLUMN runtime_setting_audit.id IS 'Order of the rows, and the place where a page of the list ends.';
COMMENT ON COLUMN runtime_setting_audit.version IS 'Number of the change: settings changed together share it, and a change may name the one it builds on.';
COMMENT ON COLUMN runtime_setting_audit.key IS 'The setting, by its key in the configuration file.';
COMMENT ON COLUMN runtime_setting_audit.old_value IS 'The value in force before, on the server that took the change.';
COMMENT ON COLUMN runtime_setting_audit.new_value IS 'The value in force after, on the same server.';
COMMENT ON COLUMN runtime_setting_audit.removed IS 'The value of file or environment counts again.';
COMMENT ON COLUMN runtime_setting_audit.actor IS 'Who made the change, from the caller''s identity; config_service where a configuration service gave it.';
COMMENT ON COLUMN runtime_setting_audit.reason IS 'Why, in the words of who made it.';
COMMENT ON COLUMN runtime_setting_audit.changed_at IS 'When it was made.';

-- Servers listen, so that a change is in force everywhere at once; also one that is made by hand.
CREATE FUNCTION runtime_setting_tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('sluice_runtime_setting', '');
    RETURN NULL;
END
$$;

CREATE TRIGGER runtime_setting_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON runtime_setting
    FOR EACH STATEMENT EXECUTE FUNCTION runtime_setting_tell();

-- The record of changes is only ever added to.
CREATE FUNCTION runtime_setting_audit_keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'runtime_setting_audit is only added to';
END
$$;

CREATE TRIGGER runtime_setting_audit_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON runtime_setting_audit
    FOR EACH STATEMENT EXECUTE FUNCTION runtime_setting_audit_keep();
