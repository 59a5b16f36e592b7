#!/usr/bin/env bash
# Runs LNbits on 127.0.0.1 with play money: its fake funding source, whose invoices only this one server can pay.
#
# usage: lnbits.sh FOLDER PORT DATA [until-eof]
#
# FOLDER as `setup_lnbits.sh` prints it; DATA is made, and holds everything it writes. Runs in the foreground: one process
# to kill. With `until-eof` it runs until its standard input ends, and so never longer than whoever started it, and takes
# DATA away with it.
#
# It is up when the port answers; until PUT /api/v1/auth/first_install {username, password, password_repeat} was called
# once, every other path answers 307.
set -euo pipefail
folder=$1 port=$2 data=$3
mkdir -p "$data/ext" "$data/data"
data=$(cd "$data" && pwd)
# It opens lnbits/static relative to where it runs.
cd "$("$folder/python/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')"

export HOST=127.0.0.1 PORT="$port"
export LNBITS_DATA_FOLDER=$data/data LNBITS_EXTENSIONS_PATH=$data/ext
export LNBITS_BACKEND_WALLET_CLASS=FakeWallet FAKE_WALLET_SECRET=${FAKE_WALLET_SECRET:-play-money}
export LNBITS_ADMIN_UI=true LNBITS_ALLOW_NEW_ACCOUNTS=true
export AUTH_ALLOWED_METHODS='["user-id-only","username-password"]'
# Nothing is fetched from anywhere: no lists of extensions, no prices.
export LNBITS_EXTENSIONS_MANIFESTS='[]' LNBITS_WASM_EXTENSIONS_MANIFESTS='[]'
export LNBITS_EXCHANGE_RATE_PROVIDERS='[]' LNBITS_PRICE_AGGREGATOR_ENABLED=false LNBITS_EXCHANGE_HISTORY_SIZE=0
# Webhooks go nowhere but to this machine.
export LNBITS_CALLBACK_URL_RULES='["http://127\\.0\\.0\\.1:\\d+"]' LNBITS_CALLBACK_ALLOW_PRIVATE_IPS=true
export LNBITS_RATE_LIMIT_NO=1000000 LNBITS_RATE_LIMIT_UNIT=second
export LOG_LEVEL=${LOG_LEVEL:-WARNING} ENABLE_LOG_TO_FILE=false
# `lnbits` itself starts a second process that would outlive it when it is killed.
server=("$folder/python/bin/python" -m uvicorn lnbits.__main__:app --host 127.0.0.1 --port "$port" --log-level warning)
[ "${4:-}" = until-eof ] || exec "${server[@]}"

"${server[@]}" </dev/null &
trap 'kill -9 $! 2>/dev/null; rm -rf "$data"' EXIT
cat >/dev/null
