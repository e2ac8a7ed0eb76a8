#!/bin/sh
# The part of the official image's contract that a deployment relies on: a first start makes the
# cluster from POSTGRES_USER, POSTGRES_DB and POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE and runs
# /docker-entrypoint-initdb.d; the server runs as postgres and listens on 5432.
set -eu

case "${1:-postgres}" in
-*) set -- postgres "$@" ;;
esac
[ "${1:-postgres}" = postgres ] || exec "$@"

if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /run/postgresql
    chown -R postgres:postgres "$PGDATA" /run/postgresql
    chmod 700 "$PGDATA"
    if [ -r "${POSTGRES_PASSWORD_FILE:-}" ]; then # often readable by root alone
        POSTGRES_PASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")
        export POSTGRES_PASSWORD
    fi
    exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$0" "$@"
fi

user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    if [ -z "${POSTGRES_PASSWORD:-}" ]; then
        echo "POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE must be set for the first start" >&2
        exit 1
    fi
    password=$(mktemp)
    printf '%s\n' "$POSTGRES_PASSWORD" >"$password"
    initdb --username="$user" --pwfile="$password" --encoding=UTF8 --auth-local=trust \
        --auth-host=scram-sha-256 >/dev/null
    rm -f "$password"
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    pg_ctl --silent --wait --options="-c listen_addresses=''" start
    if [ "$database" != postgres ]; then createdb --username="$user" "$database"; fi
    for script in /docker-entrypoint-initdb.d/*; do
        case "$script" in
        *.sh) sh -eu "$script" ;;
        *.sql) psql --no-psqlrc -v ON_ERROR_STOP=1 --username="$user" --dbname="$database" -f "$script" ;;
        esac
    done
    pg_ctl --silent --wait --mode=fast stop
fi
unset POSTGRES_PASSWORD

# SIGTERM alone would wait for every client to leave.
[ "$#" -gt 0 ] || set -- postgres
"$@" -c listen_addresses='*' &
server=$!
trap 'kill -INT "$server" 2>/dev/null || :' TERM INT
trap 'kill -HUP "$server" 2>/dev/null || :' HUP
status=0
while :; do # a trapped signal ends the wait, not the server
    wait "$server" && status=0 || status=$?
    kill -0 "$server" 2>/dev/null || exit "$status"
done
