#!/bin/sh
# Verify a deployment: is what runs what should run, and does it do its work?
#   scripts/verify_deployment.sh [ENV] [--url=URL] [--version=VERSION] [--junit=FILE] [--json]
# ENV is production (or what AMANI_ENV says) by default. The same as `invoke smoke`.
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
