"""SQL queries about a server's archiving."""

from __future__ import annotations

VISIBLE = """
SELECT json_build_object(
  'now', extract(epoch FROM clock_timestamp()),
  'recovery', pg_is_in_recovery(),
  'settings', (
    SELECT json_object_agg(name, json_build_object(
      'value', setting, 'file', sourcefile))
    FROM pg_settings
    WHERE name IN ('archive_mode', 'archive_command', 'archive_library', 'archive_timeout',
                   'wal_level')),
  'archiver', (
    SELECT json_build_object(
      'archived', archived_count, 'last', last_archived_wal,
      'last_at', extract(epoch FROM last_archived_time),
      'failed', failed_count, 'failed_last', last_failed_wal,
      'failed_at', extract(epoch FROM last_failed_time))
    FROM pg_stat_archiver))
"""
"""Settings and statistics that any user can read."""

# The last write to the newest archived segment was when the next one began: all transactions that
# were committed before are in the archive. The file exists until PostgreSQL recycles it.
_PRIVILEGED = """
jsonb_build_object(
  'waiting', (
    SELECT jsonb_build_object(
      'count', count(*),
      'seconds', coalesce(extract(epoch FROM clock_timestamp() - min(modification)), 0))
    FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'),
  'written', (
    SELECT extract(epoch FROM (pg_stat_file('pg_wal/' || max(left(name, 24)), true)).modification)
    FROM pg_ls_archive_statusdir() WHERE name ~ '^[0-9A-F]{24}[.]done$'),
  'databases', (
    SELECT jsonb_agg(datname ORDER BY datname) FROM pg_database
    WHERE NOT datistemplate AND datname <> 'postgres'))
"""
ARCHIVING = " ".join(("SELECT (", VISIBLE, ")::jsonb ||", _PRIVILEGED))
"""The same, with the values that only a superuser can read."""

# Recovery to a time ends at the first commit after it, so there must be one: this transaction
# changes nothing, but it has an id, so its commit is in the log.
COMMIT = "SELECT to_json(pg_current_xact_id()::text)"
SWITCH = "SELECT to_json(pg_walfile_name(pg_switch_wal()))"
"""Ends the current segment and returns its name."""

RECOVERED = """
SELECT json_build_object(
  'recovery', pg_is_in_recovery(), 'until', extract(epoch FROM pg_last_xact_replay_timestamp()))
"""
