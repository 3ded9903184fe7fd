-- The tables that Telegraf fills (telegraf.conf beside this file) and the views that Grafana reads (grafana/sql.json).
-- PostgreSQL 13 or later; with the extension timescaledb in this database the tables become hypertables. May be run again.
--   createdb roentgen && psql -d roentgen -f schema.sql
-- Who writes and who reads: GRANT INSERT, SELECT ON ALL TABLES IN SCHEMA public TO telegraf; GRANT SELECT … TO grafana.
-- Times are UTC. No column holds a patient's name or number. It screens; it does not diagnose.

CREATE TABLE IF NOT EXISTS roentgen_report (
    time timestamp NOT NULL, device text NOT NULL,
    report_id text, sequence bigint, clock text, model text, model_version text, backend text, kind text,
    decision text, label text, reason text, message text,
    p_covid double precision, p_lung_opacity double precision, p_normal double precision, p_viral_pneumonia double precision,
    infer_ms double precision, took_ms double precision
);
CREATE TABLE IF NOT EXISTS roentgen_telemetry (
    time timestamp NOT NULL, device text NOT NULL,
    healthy boolean, problem text, unsent bigint, incoming bigint, free_bytes bigint, celsius double precision,
    resident_bytes bigint, abstained bigint, published bigint, dropped bigint, clock text, model text, model_version text,
    uptime_s bigint
);
CREATE TABLE IF NOT EXISTS roentgen_status (
    time timestamp NOT NULL, device text NOT NULL,
    status text, reason text, version text
);
CREATE INDEX IF NOT EXISTS roentgen_report_device ON roentgen_report (device, time DESC);
CREATE INDEX IF NOT EXISTS roentgen_telemetry_device ON roentgen_telemetry (device, time DESC);
CREATE INDEX IF NOT EXISTS roentgen_status_device ON roentgen_status (device, time DESC);

DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        PERFORM create_hypertable(name::regclass, 'time', if_not_exists => true, migrate_data => true)
        FROM unnest(ARRAY['roentgen_report', 'roentgen_telemetry', 'roentgen_status']) AS name;
    END IF;
END
$$;

-- Each report once: after a lost connection a box sends some again, with the same id and the same time.
CREATE OR REPLACE VIEW roentgen_reports AS
SELECT DISTINCT ON (time, device, report_id)
    time, device, report_id, sequence, decision, label, reason, message,
    CASE label
        WHEN 'covid' THEN p_covid WHEN 'lung_opacity' THEN p_lung_opacity
        WHEN 'normal' THEN p_normal WHEN 'viral_pneumonia' THEN p_viral_pneumonia
    END AS probability,
    p_covid, p_lung_opacity, p_normal, p_viral_pneumonia,
    model || ' ' || model_version AS model, backend, kind, clock, infer_ms, took_ms
FROM roentgen_report
ORDER BY time, device, report_id;

-- Each box as it was heard of last.
CREATE OR REPLACE VIEW roentgen_now AS
SELECT box.device, status.status = 'online' AS online, status.reason AS offline_reason, telemetry.healthy, telemetry.problem,
    telemetry.unsent, telemetry.free_bytes, telemetry.celsius, telemetry.model || ' ' || telemetry.model_version AS model,
    telemetry.time AS telemetry_time
FROM (SELECT DISTINCT device FROM roentgen_status) AS box
LEFT JOIN LATERAL
    (SELECT * FROM roentgen_status WHERE device = box.device ORDER BY time DESC LIMIT 1) AS status ON true
LEFT JOIN LATERAL
    (SELECT * FROM roentgen_telemetry WHERE device = box.device ORDER BY time DESC LIMIT 1) AS telemetry ON true;
