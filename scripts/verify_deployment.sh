#!/bin/sh
# Verify a deployment: check that the expected release is live and works.
#   scripts/verify_deployment.sh [ENV] [--url=URL] [--version=VERSION] [--junit=FILE] [--json]
# ENV defaults to AMANI_ENV, or production. Equivalent to `invoke smoke`.
set -eu
root=$(dirname -- "$(readlink -f -- "$0")")/..
env=""
case "${1:-}" in
-* | "") ;;
*)
    env=$1
    shift
    ;;
esac
exec "$root/inv" smoke ${env:+"--env=$env"} "$@"
